"""Homes: which engine of a group serves the timers of which runs.

A run's home is a number made of its key (``home_of`` in the schema). The homes are the partitions of a topic that
nobody writes to: it is in the group only to be assigned, so who holds a partition serves the runs of that home. Homes
are for liveness; what is right is decided by the fences, so that two engines that serve one home for a while do no
harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from connectors.source import Partition

HOMES = 16
"""As many partitions as the topic has, and engines of a group that can share the timers. The schema knows it, too."""
HOMES_KEPT_MAX = 10_000
"""Of so many keys the homes are kept: that of a run is asked for several times where it asks for a step."""


@lru_cache(maxsize=HOMES_KEPT_MAX)
def home_of(key: str) -> int:
    """The home of a run, as the schema has it (``pointsman.home_of``)."""
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[:4], 16) % HOMES


def homes_topic(namespace: str) -> str:
    """The topic of a namespace's homes."""
    return f"pointsman.{namespace}.homes"


def homes_in(partitions: Iterable[Partition], topic: str, count: int) -> list[int]:
    """The homes that are assigned, sorted, where the topic has so many partitions.

    Where it has fewer than there are homes (a broker may make topics as it likes), each stands for several homes; where
    it has more, some stand for none.
    """
    mine = {one.number for one in partitions if one.topic == topic}
    return [home for home in range(HOMES) if home % max(1, min(count, HOMES)) in mine]
