"""Whether all that a run did by itself was asked for, and happened once: told from its log alone. Pure.

What a run has asked for is in its memory until it happens, and the row that asks for it is part of what it is known by.
So each comes at most once if it is in the memory when it happens and not behind that, and if nothing comes into the
memory but what the very row has asked for. What has failed is a dead letter, and may be put back.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from engine.log import Kind, LogRow
from engine.publications import source_of
from engine.reading.due import delayed_id
from engine.reading.rows import kind_word
from statemachines.memory import Delayed, read_memory
from statemachines.run import Run

_BY_ITSELF = frozenset({Kind.FIRED, Kind.HELD_FIRED, Kind.PASSED})


class Coming:
    """What one run has asked for that has not happened yet, as its rows come."""

    def __init__(self, namespace: str, pipeline: str, run: Run) -> None:
        self._namespace = namespace
        self._pipeline = pipeline
        self._run = run
        self._coming: tuple[Delayed, ...] = ()
        self._failed: set[str] = set()

    def take(self, row: LogRow) -> Iterator[str]:
        """What is wrong with the next row, in sentences without their ends."""
        try:
            coming = read_memory(row.memory).delayed if row.memory else self._coming
        except (ValueError, TypeError, AttributeError) as error:
            yield f"what the run remembers after row {row.sequence} cannot be read: {error}"
            return
        if row.kind in _BY_ITSELF and not row.position:
            yield from self._happens(row, coming)
        before = {(one.sequence, one.number) for one in self._coming}
        for one in coming:
            if one.sequence != row.sequence and (one.sequence, one.number) not in before:
                yield (
                    f"row {row.sequence} has {one.type!r} fall due, which it has not asked for itself, and which was "
                    f"not to come before it: it says that row {one.sequence} asked for it"
                )
        self._coming = coming

    def _happens(self, row: LogRow, left: tuple[Delayed, ...]) -> Iterator[str]:
        what = f"row {row.sequence} ({kind_word(row.kind)})"
        meant = next((one for one in self._coming if self._id_of(one) == row.event_id), None)
        put_back = row.event_id in self._failed
        if meant is not None and any(one[1:3] == meant[1:3] for one in left):
            yield f"{what} leaves {row.event_id!r} to come once more, which has happened with it"
        elif meant is None and not put_back and (row.kind != Kind.PASSED or self._is_own(row)):
            yield f"{what} tells of {row.event_id!r}, which was not to come: the run never asked for it, or it had come"
        if row.kind == Kind.HELD_FIRED:
            self._failed.add(row.event_id)
        else:
            self._failed.discard(row.event_id)

    def _id_of(self, one: Delayed) -> str:
        return delayed_id(self._namespace, self._pipeline, self._run, one)

    def _is_own(self, row: LogRow) -> bool:
        """Whether an event that changed nothing came from the run itself, and not from another one."""
        try:
            event = orjson.loads(row.payload or b"")
            said = event.get("source"), event.get("subject")
        except (ValueError, AttributeError):
            return True
        return said == (source_of(self._namespace, self._pipeline), self._run.key)
