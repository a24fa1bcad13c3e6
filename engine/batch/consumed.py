"""What runs have consumed that they need not remember themselves, as far as a batch knows it."""

from __future__ import annotations

from collections.abc import Iterable

from engine.log import digest_number
from statemachines.run import DIGEST_BYTES, Run


class Consumed:
    """Digests by run: as the log was asked, or of this batch and the one before, which it cannot tell yet.

    Runs of a key that follow one another within a batch share one set. So what one of them has consumed counts for the
    next, and so does what the log answers of one that has ended meanwhile.
    """

    __slots__ = ("_by_run", "_inherited")

    def __init__(self) -> None:
        self._by_run: dict[int, set[int]] = {}
        self._inherited: dict[int, set[int]] = {}

    def __len__(self) -> int:
        found = {id(one): len(one) for one in (*self._by_run.values(), *self._inherited.values())}
        return sum(found.values())

    def has(self, run: int, digest: int) -> bool:
        """Whether it is known that the run, or one before it, has consumed this."""
        return digest in self._by_run.get(run, ()) or digest in self._inherited.get(run, ())

    def add(self, run: int, digest: int) -> None:
        """Know that a run has consumed this."""
        try:
            self._by_run[run].add(digest)
        except KeyError:
            self._by_run[run] = {digest}

    def update(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Know it of each (run, digest)."""
        for run, digest in pairs:
            self.add(run, digest)

    def hand_on(self, run: Run, successor: int) -> None:
        """Have all that a run has consumed count for its successor, too, and what is heard of it later."""
        shared, recent = self._by_run.setdefault(run.id, set()), run.recent
        shared.update(
            digest_number(recent[at : at + DIGEST_BYTES]) for at in range(0, len(recent), DIGEST_BYTES)
        )
        self._by_run[successor] = shared
        if run.id in self._inherited:
            self._inherited[successor] = self._inherited[run.id]

    def inherit(self, previous: Consumed) -> None:
        """Know what the batch before has come to know; what that one inherited the log can tell by now."""
        self._inherited = previous._by_run.copy()
