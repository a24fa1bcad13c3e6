"""How long a broker may wait for records of some partitions while there are plenty of others at hand.

One request at a time is on its way to a broker, which answers as soon as there is a record; while it waits in vain, it
cannot be asked for the others. Where it waits for too short a time, a partition without new records is asked for again
and again, which costs both sides more than the others' records do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

IDLE_WAIT_MILLISECONDS = 100
"""So long a broker without new records waits for some before it answers, at most."""
BUSY_WAIT_MILLISECONDS = 10
"""The same at first where there are plenty of others, and at least."""
GROWS_BY = 2
"""It waits for so many times as long as it really did, at most: what was taken meanwhile says no more than that."""
KEPT_OF = 2
"""Of what is at hand of others, this part may be gone by the time of the answer."""


def next_wait(last: int, left: Iterable[tuple[int, int]], seconds: float) -> int:
    """How long a broker may wait the next time, in milliseconds, by how it was when it waited for ``last`` at most.

    Args:
        last: in milliseconds.
        left: of each of the others, how many bytes were at hand when the broker was asked, and when it answered.
        seconds: how much later that was.
    """
    lasts = math.inf
    for before, after in left:
        if before > after or not after:
            lasts = min(lasts, after * seconds / max(1, before - after))
    known = min(GROWS_BY * last, max(last, GROWS_BY * 1_000 * seconds), IDLE_WAIT_MILLISECONDS)
    return max(BUSY_WAIT_MILLISECONDS, math.floor(min(known, 1_000 * lasts / KEPT_OF)))
