"""Whether the hot path, which ``pyproject.toml`` names, is compiled, as ``HATCH_BUILD_HOOKS_ENABLE=1`` installs it."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import chain
from pathlib import Path

INSTALLING_SECONDS = 60.0
"""Source that is newer by less than this than what was compiled of it may have been installed with it."""


def how_compiled() -> str:
    """``compiled``; ``compiled from other source``, where that was changed since; or empty."""
    found = find_spec("engine.log")
    if found is None or found.origin is None or found.origin.endswith(".py"):
        return ""
    engine = Path(found.origin).parent
    for made in chain(engine.rglob("*.so"), (engine.parent / "statemachines").rglob("*.so")):
        source = made.with_name(f"{made.name.partition('.')[0]}.py")
        if source.exists() and source.stat().st_mtime > made.stat().st_mtime + INSTALLING_SECONDS:
            return "compiled from other source"
    return "compiled"
