"""What a run remembers beside its context, as people see it: what falls due later, and how far its order has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.reading.values import shown_time
from statemachines.events import Address
from statemachines.memory import Delayed, Memory, read_memory, time_of
from statemachines.run import Run


@dataclass(frozen=True, slots=True)
class DueView:
    """Something that a run has asked for, and that has not come yet."""

    id: str
    what: str
    """timer, send or publish."""
    type: str
    due: datetime
    at_once: bool
    """Whether it waits for nothing but its turn."""
    sequence: int
    """The row that asked for it."""
    state: str | None
    """Of a timer: the state that it ends with; None of the run's own."""
    name: str | None
    """What it can be called off by."""
    pipeline: str | None
    """Of an event to a run of another pipeline."""
    key: str | None
    """Of the other run, or of the record; None: it is for the run itself."""
    topic: str | None
    data: Any

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "id": self.id,
            "what": self.what,
            "type": self.type,
            "due": shown_time(self.due),
            "sequence": self.sequence,
            "state": self.state,
            "name": self.name,
            "pipeline": self.pipeline,
            "key": self.key,
            "topic": self.topic,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class MemoryView:
    """All that a run remembers."""

    due: list[DueView]
    """In the order in which it falls due."""
    marks: Mapping[str, int | str]
    """By stream, what was applied of it last."""
    seen: Mapping[str, str | None]
    """Business keys that count for a time only, and until when."""
    output: Any
    """Of the final state that the run has reached."""


def memory_view(namespace: str, pipeline: str, run: Run) -> MemoryView:
    """The memory of a run, with the ids under which what is to come will come."""
    memory = memory_of(run.memory)
    return MemoryView(
        [due_view(namespace, pipeline, run, one) for one in memory.delayed],
        memory.marks,
        {name: shown_time(time_of(until)) for name, until in memory.seen.items()},
        memory.output,
    )


def due_view(namespace: str, pipeline: str, run: Run, delayed: Delayed) -> DueView:
    """One thing of it."""
    return DueView(
        id=delayed_id(namespace, pipeline, run, delayed),
        what=what_of(delayed),
        type=delayed.type,
        due=time_of(delayed.due),
        at_once=delayed.at_once,
        sequence=delayed.sequence,
        state=delayed.state or None,
        name=delayed.name or None,
        pipeline=delayed.pipeline or None,
        key=delayed.key or None,
        topic=delayed.topic or None,
        data=delayed.data,
    )


def delayed_id(namespace: str, pipeline: str, run: Run, delayed: Delayed) -> str:
    """The id that something to come has: the same in the log, once it has come."""
    address = Address(namespace, pipeline, run.key, run.generation, delayed.sequence)
    return address.id_of_asked(delayed.number)


def what_of(delayed: Delayed) -> str:
    """timer, send or publish."""
    if delayed.topic:
        return "publish"
    # Data of its own tell an event from a timer, which has none.
    return "timer" if delayed.data is None else "send"


def memory_of(written: bytes) -> Memory:
    """The memory as it was stored; one that was tampered with, which is what verify finds, is shown as nothing."""
    try:
        return read_memory(written)
    except (ValueError, TypeError, AttributeError):
        return Memory()
