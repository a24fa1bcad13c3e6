"""How long a broker may wait for records of some partitions while there are plenty of others at hand.

One request at a time is on its way to a broker, and what it waits in vain nobody can ask it for the others. Where it
waits for too short a time, a partition without new records is asked for again and again, which costs both sides more
than the others' records do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

IDLE_WAIT_MILLISECONDS = 100
"""So long a broker without new records waits for some before it answers, at most."""
BUSY_WAIT_MILLISECONDS = 10
"""The same at first where there are plenty of others, and at least."""
GROWS_BY = 2
"""It waits for so many times as long as the last time, at most: what was taken meanwhile says no more than that."""
KEPT_OF = 2
"""Of what is at hand of others, this part may be gone by the time of the answer."""


def next_wait(last: int, left: Iterable[tuple[int, int]], seconds: float) -> int:
    """How long a broker may wait the next time, in milliseconds, by how it was when it waited for ``last`` at most.

    Args:
        last: in milliseconds.
        left: of each of the others, how many bytes were at hand when the broker was asked, and when it answered.
        seconds: how much later that was.
    """
    lasts = min(
        (after * seconds / (before - after) for before, after in left if before > after), default=math.inf
    )
    longest = min(1_000 * lasts / KEPT_OF, GROWS_BY * last, IDLE_WAIT_MILLISECONDS)
    return max(BUSY_WAIT_MILLISECONDS, math.floor(longest))
