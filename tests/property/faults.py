"""In which ways an engine is cut short, and how a test says what it has lived, so that it can be lived again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.simulated import Fate

WAYS = [
    pytest.param(Fate.CRASH, None, 0, id="crash, missed once it is silent"),
    pytest.param(Fate.CRASH, "one", 1, id="crash, and started anew under its name"),
    pytest.param(Fate.BREAK, None, 2, id="break"),
    pytest.param(Fate.STOP, None, 3, id="stopped in order"),
]
"""What happens, how the engine is called, and which share it is."""


@contextlib.contextmanager
def told_as(how: str) -> Iterator[None]:
    """Whatever goes wrong meanwhile is told with the call that lives it again."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{how}: {error}") from error
