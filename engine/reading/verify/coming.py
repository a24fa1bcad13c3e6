"""Whether all that a run did by itself was asked for, and happened once: told from its log alone. Pure.

What a run has asked for is in its memory until it happens, and the row that asks for it is part of what it is known by.
So each comes at most once if it is in the memory when it happens and not behind that, and if nothing comes into the
memory but what the very row has asked for. What has failed is a dead letter, and may be put back. It is the same with
the executions of steps, and how they ended.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from engine.log import Kind, LogRow
from engine.publications import source_of
from engine.reading.due import delayed_id
from engine.reading.rows import kind_word
from statemachines.events import STEP_DONE, is_result
from statemachines.memory import Delayed, Execution, read_memory
from statemachines.run import Run

_BY_ITSELF = frozenset({Kind.FIRED, Kind.HELD_FIRED, Kind.PASSED})


class Coming:
    """What one run has asked for that has not happened yet, as its rows come."""

    def __init__(self, namespace: str, pipeline: str, run: Run) -> None:
        self._namespace = namespace
        self._pipeline = pipeline
        self._run = run
        self._coming: tuple[Delayed, ...] = ()
        self._executions: tuple[Execution, ...] = ()
        self._failed: set[str] = set()

    def take(self, row: LogRow) -> Iterator[str]:
        """What is wrong with the next row, in sentences without their ends."""
        try:
            memory = read_memory(row.memory)
        except (ValueError, TypeError, AttributeError) as error:
            yield f"what the run remembers after row {row.sequence} cannot be read: {error}"
            return
        coming = memory.delayed if row.memory else self._coming
        executions = memory.executions if row.memory else self._executions
        if row.kind in _BY_ITSELF and not row.position:
            if is_result(row.type):
                yield from self._ends(row, executions)
            else:
                yield from self._happens(row, coming)
        yield from self._strangers(row, executions)
        before = {(one.sequence, one.number) for one in self._coming}
        for one in coming:
            if one.sequence != row.sequence and (one.sequence, one.number) not in before:
                yield (
                    f"row {row.sequence} has {one.type!r} fall due, which it has not asked for itself, and which was "
                    f"not to come before it: it says that row {one.sequence} asked for it"
                )
        self._coming, self._executions = coming, executions

    def _ends(self, row: LogRow, left: tuple[Execution, ...]) -> Iterator[str]:
        """What is wrong with a row that tells how a step ended."""
        what, asked = f"row {row.sequence} ({kind_word(row.kind)})", _execution_of(row)
        if asked not in (one.id for one in self._executions):
            yield f"{what} tells of the execution {asked} of a step, for which the run did not wait"
        elif (
            row.type.startswith(STEP_DONE)
            # Where the run could not take it, it is a dead letter that may be put back.
            and row.kind != Kind.HELD_FIRED
            and asked in (one.id for one in left)
        ):
            yield f"{what} leaves the execution {asked} of a step to end once more, which has ended with it"

    def _strangers(self, row: LogRow, executions: tuple[Execution, ...]) -> Iterator[str]:
        """What is wrong with the executions that a row has the run wait for."""
        before = {one.id for one in self._executions}
        for one in executions:
            if one.sequence != row.sequence and one.id not in before:
                yield (
                    f"row {row.sequence} has the run wait for {one.step!r}, which it has not asked for itself: it says "
                    f"that row {one.sequence} asked for it"
                )

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


def _execution_of(row: LogRow) -> str:
    """The execution that a row tells of; empty where that cannot be read."""
    try:
        return str(orjson.loads(row.payload or b"")["data"]["execution"])
    except (ValueError, TypeError, LookupError):
        return ""
