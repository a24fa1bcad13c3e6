"""One run's rows in order: hashes, numbers, that what it did by itself was to come, and their fold. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from engine.log import CONSUMED, HOLDS, Kind, LogRow, fold, seal
from engine.reading.asked import Deferrals, deferral_in
from engine.reading.catalog import Catalog
from engine.reading.rows import kind_word
from engine.reading.values import shown_time
from engine.reading.verify.coming import Coming
from engine.reading.verify.report import Finding
from statemachines.memory import read_memory, time_of
from statemachines.run import Run, Status

_BEGINS = frozenset({Kind.STARTED})
_BEFORE = frozenset(
    {Kind.DEFERRED, Kind.LEFT_DEFERRED, Kind.PASSED, Kind.PAUSED, Kind.RELEASED, Kind.DRAINING}
    | {Kind.WAITED, Kind.LEFT_WAITING}
)
"""What a run may have that no event has started yet."""
_LEAVES = frozenset({Kind.MOVED_AFTER_WAIT, Kind.HELD_AFTER_WAIT, Kind.LEFT_WAITING})
_NAMES = tuple(name for name in Run._fields if name != "deferred")
"""What is deferred is in the rows themselves."""
_SHOWN_CHARACTERS_MAX = 80


class Chain:
    """The check of one run; ``take`` each row in order, then ``end``."""

    def __init__(self, pipeline: int, stored: Run, catalog: Catalog) -> None:
        self._pipeline = pipeline
        self._stored = stored
        self._catalog = catalog
        self._name = catalog.pipelines.get(pipeline, str(pipeline))
        self._folded: Run | None = None
        self._last: LogRow | None = None
        self._lost = False
        """Whether the rows cannot be folded; that is said once."""
        self._waiting: deque[int] = deque()
        """The rows of events that wait, oldest first."""
        self._deferred = Deferrals()
        self._coming = Coming(catalog.namespace, self._name, stored)
        self._holding_kind: int | None = None

    def take(self, row: LogRow) -> Iterator[Finding]:
        """What is wrong with the next row."""
        expected = 1 if self._last is None else self._last.sequence + 1
        previous = b"" if self._last is None else self._last.hash
        if row.sequence != expected:
            yield self._found(f"row {expected} is missing: {row.sequence} comes next", row.sequence)
        elif seal(previous, row[:-1]) != row.hash:
            yield self._found(
                f"its hash does not fit: row {row.sequence}, or the hash before it, was changed", row.sequence
            )
        yield from self._check(row)
        self._last = row
        if not self._lost:
            try:
                self._fold(row)
            except (ValueError, IndexError, OverflowError) as error:
                self._lost = True
                yield self._found(f"row {row.sequence} cannot be folded: {error}", row.sequence)
        for wrong in self._coming.take(row):
            yield self._found(wrong, row.sequence)

    def _check(self, row: LogRow) -> Iterator[Finding]:
        definition = self._catalog.definitions.get(row.definition)
        if definition is None or definition.pipeline != self._pipeline:
            yield self._found(
                f"row {row.sequence} names definition {row.definition}, which is none of {self._name}",
                row.sequence,
            )
        begun = self._folded is not None and self._folded.status != Status.EXPECTED
        before_it = row.kind in _BEFORE and row.status == Status.EXPECTED
        if begun == (row.kind in _BEGINS) and not before_it:
            yield self._found(f"row {row.sequence} is of the kind {kind_word(row.kind)!r}", row.sequence)
        if (row.digest is not None) != (row.kind in CONSUMED):
            has = "has" if row.digest is not None else "has no"
            kind = kind_word(row.kind)
            yield self._found(f"row {row.sequence} ({kind}) {has} digest of its event", row.sequence)
        if self._last is not None and row.at < self._last.at:
            before, now = shown_time(self._last.at), shown_time(row.at)
            told = f"time goes backwards in row {row.sequence}: from {before} to {now}"
            yield self._found(told, row.sequence)
        if row.position:
            yield from self._check_position(row, row.position)

    def _check_position(self, row: LogRow, position: int) -> Iterator[Finding]:
        place = self._catalog.positions.get(position)
        if place is None or row.offset is None:
            yield self._found(
                f"row {row.sequence} names position {position}, which is none of the namespace", row.sequence
            )
            return
        # A person may have set it back; what was applied before stays applied.
        reached = max(place.position, place.set_back_from or 0)
        where = f"{place.topic}/{place.partition}"
        if row.offset >= reached:
            yield self._found(
                f"row {row.sequence} applied offset {row.offset} of {where}, which has come to {reached}",
                row.sequence,
            )

    def _fold(self, row: LogRow) -> None:
        if row.kind in (Kind.RELEASED, Kind.CANCELLED):
            self._holding_kind = None
        elif row.kind in HOLDS:
            self._holding_kind = row.kind
        if row.kind == Kind.WAITED:
            self._waiting.append(row.sequence)
        elif row.kind in _LEAVES:
            self._waiting.popleft()
        self._deferred.take(row)
        self._folded = fold(self._folded, row, key=self._stored.key, generation=self._stored.generation)

    def end(
        self,
        waiting: Mapping[int, datetime | None],
        holders: Mapping[int, int],
        wake_at: datetime | None = None,
    ) -> Iterator[Finding]:
        """What is wrong with the run as a whole.

        ``waiting`` are the rows of events that wait by their table, each with until when; ``holders`` how many open
        dead letters say of each row that it holds the run; ``wake_at`` is when something falls due for it next.
        """
        if self._last is None:
            yield self._found("the run has no rows in the log", None)
            return
        if self._lost or self._folded is None:
            return
        folded = self._folded
        for name in _NAMES:
            recorded, computed = getattr(self._stored, name), getattr(folded, name)
            if recorded != computed:
                told = f"is {short(name, recorded)} in the run's row, and {short(name, computed)} by its log"
                yield self._found(f"{name} {told}", self._stored.sequence)
        yield from self._check_waiting(waiting)
        yield from self._check_wake(folded, wake_at)
        held = self._folded.held
        if self._holding_kind is not None and holders.get(held, 0) != 1:
            count = holders.get(held, 0)
            yield self._found(
                f"row {held} holds the run, and {count or 'no'} open dead letters say so; it should be one",
                held,
            )

    def _check_waiting(self, waiting: Mapping[int, datetime | None]) -> Iterator[Finding]:
        logged: dict[int, datetime | None] = dict.fromkeys(self._waiting)
        for row in self._deferred:
            deferral = deferral_in(row)
            if deferral is None:
                yield self._found(f"row {row.sequence} does not say until when its event waits", row.sequence)
            logged[row.sequence] = None if deferral is None else deferral.until
        if waiting.keys() != logged.keys():
            told = f"{_listed(sorted(waiting))} by their table, and {_listed(sorted(logged))} by its log"
            yield self._found(f"the events that wait are those of the rows {told}", self._stored.sequence)
        for sequence in sorted(waiting.keys() & logged.keys()):
            found, meant = waiting[sequence], logged[sequence]
            if found != meant:
                told = f"{_until(found)} by its table, and {_until(meant)} by its row"
                yield self._found(f"the event of row {sequence} waits {told}", sequence)

    def _check_wake(self, folded: Run, wake_at: datetime | None) -> Iterator[Finding]:
        try:
            due = read_memory(folded.memory).due
        except (ValueError, TypeError, AttributeError) as error:
            yield self._found(f"its memory cannot be read: {error}", self._stored.sequence)
            return
        times = [one.until for row in self._deferred if (one := deferral_in(row)) is not None]
        meant = min([*times, *([] if due is None else [time_of(due)])], default=None)
        if wake_at != meant:
            told = f"{_time(wake_at)} by the run's row, and {_time(meant)} by what it remembers and what waits for it"
            yield self._found(f"the next that falls due is due at {told}", self._stored.sequence)

    def _found(self, sentence: str, sequence: int | None) -> Finding:
        stored = self._stored
        told = f"In {named(self._name, stored)}, {sentence}."
        return Finding(told, self._name, stored.key, stored.generation, sequence)


def named(pipeline: str, run: Run) -> str:
    """A run as sentences name it."""
    generation = f", generation {run.generation}" if run.generation else ""
    return f"the run {run.key!r} of {pipeline}{generation}"


def short(name: str, value: object) -> str:
    """What a column of this name has, as far as it fits a sentence."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace") if name in {"context", "memory"} else value.hex()
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[: _SHOWN_CHARACTERS_MAX - 3]}..."


def _until(at: datetime | None) -> str:
    return "behind what holds the run" if at is None else f"until {_time(at)}"


def _time(at: datetime | None) -> str:
    return shown_time(at) or "no time"


def _listed(numbers: Collection[int]) -> str:
    shown = [str(number) for number, _ in zip(numbers, range(10), strict=False)]
    if not shown:
        return "none"
    return ", ".join(shown) + (", ..." if len(numbers) > len(shown) else "")
