"""Whether the hot path, which ``pyproject.toml`` names, is compiled, as ``HATCH_BUILD_HOOKS_ENABLE=1`` installs it."""

from __future__ import annotations

from importlib.util import find_spec


def is_compiled() -> bool:
    """Whether it is, of what is installed here."""
    found = find_spec("engine.log")
    return found is not None and found.origin is not None and not found.origin.endswith(".py")
