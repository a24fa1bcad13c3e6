"""A clock that does not jump, for all that is to take so long.

A machine's clock is set now and then: by an operator, or by a time server that was away. Events are stamped by it as it
is. Steps go by another one: when the next attempt begins, how long all of them may take together, and until when it is
waited for what goes on outside are durations, and they hold whatever happens to that clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta


class Steady:
    """What a clock said when this was made, and the time that has passed since."""

    __slots__ = ("_began", "_began_at")

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._began, self._began_at = clock(), time.monotonic()

    def __call__(self) -> datetime:
        """What time it is."""
        return self._began + timedelta(seconds=time.monotonic() - self._began_at)
