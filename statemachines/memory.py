"""What a run keeps beside configuration and context: what falls due later, the steps that it has asked for, and how far
its ordered events have come.

It is JSON, in the run's row and in each log row that changes it. Empty bytes stand for nothing at all; ``{}`` says in a
log row that nothing is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from statemachines.compact import dumps_compact
from statemachines.limits import MEMORY_BYTES_MAX

NOTHING_LEFT: Final = b"{}"
REREAD_MAX: Final = 2_000
"""How many memories are kept as they were read or written; a run's is read several times for each of its moves."""
REREAD_BYTES_MAX: Final = 2_000
"""How large each of them is at most; a larger one is read anew each time."""
STREAMS, BUSINESS_KEYS, OUTPUT = "its streams", "its business keys", "its output"
"""What these parts are called."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_new: Final = tuple.__new__
_kept: Final[dict[bytes, Memory]] = {}
"""By what is stored of them."""
_STEPS_ONLY: Final = {"executions", "owed"}
"""What of a memory is numbers and text, of which nobody can change anything, and comes back equal."""


class Delayed(NamedTuple):
    """What a run has asked for that comes later: a timer of a state, an event to itself or another run, a publication.

    Tuples are in the order in which they fall due, then of creation.
    """

    due: int
    """Microseconds since 1970."""
    sequence: int
    """The number of the log row that asked for it."""
    number: int
    """Which one of that row; its id comes from both."""
    type: str
    data: Any
    """The event's data as JSON has it; None for a timer."""
    state: str = ""
    """Of a timer: the state that it ends with."""
    name: str = ""
    """What ``Cancel`` calls it by; empty: nothing does."""
    pipeline: str = ""
    """Of an event to a run of another pipeline."""
    key: str = ""
    """Of another run, or of the record that is published."""
    topic: str = ""
    """Of a publication."""
    at_once: bool = False
    """Whether it waits for nothing but its turn."""

    @property
    def is_own(self) -> bool:
        """Whether it is for the run itself."""
        return not self.key and not self.topic


class Execution(NamedTuple):
    """A step that a state has asked for, or a compensation, whose outcome has not come yet."""

    sequence: int
    """The number of the log row that asked for it."""
    number: int
    """Which one of what that row asked for; its id comes from both."""
    step: str
    state: str
    """The state that it ends with."""
    attempt: int = 1
    """The one that goes on or is to begin; the first is 1."""
    again: int = 0
    """When it may begin, in microseconds since 1970; 0: at once; below: never, it has failed for good. Of one with a
    token: until when it is waited for; 0: for as long as it takes."""
    error: str = ""
    """How the one before it failed, as in ``Class: message``."""
    of: str = ""
    """Of a compensation: the id of the execution that it undoes; empty: it is of a step."""
    made: int = 0
    """Of a compensation: the number of the log row whose event holds what that has returned; 0: that is not known."""
    stopping: int = 0
    """1: its state was left, and the run waits to hear what became of it; 2: to undo it then, with what is around."""
    unknown: int = 0
    """1: it is not known what an attempt before this one did."""
    since: int = 0
    """How many of the attempts before do not count against its limit: those before it began anew, and those that were
    cut short as their engine was stopped."""
    scope: str = ""
    """Of one that is stopping, and of a compensation: the state that it belongs to; empty: the run."""
    token: str = ""
    """What the attempt is completed by, which goes on outside; empty: it does not."""
    progress: str = ""
    """Of one that has failed for good: how far it had come, as JSON; empty: it has said nothing of that."""

    @property
    def id(self) -> str:
        """What tells it from all others of its run."""
        return f"{self.sequence}.{self.number}"

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed for good, and nothing has taken that."""
        return self.again < 0

    def anew(self, error: str) -> Execution:
        """The same once it begins anew; ``error`` is that of its last attempt."""
        return self._replace(attempt=self.attempt + 1, again=0, error=error, since=self.attempt, progress="")


class Owed(NamedTuple):
    """An execution of a step that is to be undone if the run is."""

    sequence: int
    number: int
    """Those of the execution."""
    step: str
    made: int = 0
    """The number of the log row whose event holds what it returned; 0: it is not known what it did."""
    scope: str = ""
    """The innermost active state that it belongs to, so that it is undone with it; empty: the run."""
    undoing: int = 0
    """1: it is undone now, in ``$compensating`` of that state."""

    @property
    def id(self) -> str:
        """That of the execution."""
        return f"{self.sequence}.{self.number}"


class Memory(NamedTuple):
    """All of it."""

    delayed: tuple[Delayed, ...] = ()
    """As they fall due."""
    marks: Mapping[str, int | str] = {}
    """By stream: how far its events were applied (``statemachines.ordering``)."""
    seen: Mapping[str, int] = {}
    """Business keys that count for a time only, and until when, in microseconds since 1970."""
    output: Any = None
    """What the final state that completed the run has said."""
    executions: tuple[Execution, ...] = ()
    """In the order in which they were asked for."""
    owed: tuple[Owed, ...] = ()
    """What is to be undone if the run is, in the order in which it was done."""
    undoing: int = -1
    """While the run is undone, which of the pipeline's lines says where it goes then; -1: it is not."""
    scopes: Mapping[str, int] = {}
    """While states of the run are undone, each with the line that says where the run goes from there then; under the
    empty name, what states owed that were left for it."""

    @property
    def due(self) -> int | None:
        """When the next of what is delayed falls due, in microseconds since 1970."""
        return self.delayed[0].due if self.delayed else None

    def without(self, gone: Delayed | Execution) -> Memory:
        """The memory once this has fallen due, or the outcome of this step has come.

        Where nothing is left as something falls due, it is ``EMPTY`` itself.
        """
        # Each event to itself, each timer and each step asks for this, and ``_replace`` takes its time.
        if isinstance(gone, Execution):
            return self.with_executions(self.executions_but(gone), self.owed)
        delayed, marks, seen, output, executions, owed, undoing, scopes = self
        left = tuple([one for one in delayed if one is not gone and one != gone])
        if not (left or marks or seen or executions or owed or scopes) and output is None and undoing < 0:
            return EMPTY
        return _new(Memory, (left, marks, seen, output, executions, owed, undoing, scopes))

    def executions_but(self, gone: Execution) -> tuple[Execution, ...]:
        """All but the one with these numbers."""
        sequence, number = gone[:2]
        return tuple([one for one in self.executions if one[1] != number or one[0] != sequence])

    def with_executions(self, executions: tuple[Execution, ...], owed: tuple[Owed, ...]) -> Memory:
        """The same with others of these."""
        delayed, marks, seen, output, _, _, undoing, scopes = self
        return _new(Memory, (delayed, marks, seen, output, executions, owed, undoing, scopes))

    def execution(self, id: str) -> Execution | None:
        """The execution of a step by its id; None where there is none, or no more."""
        for one in self.executions:
            if one.id == id:
                return one
        return None

    @property
    def given_up(self) -> tuple[Execution, ...]:
        """Those that have failed for good, and nothing has taken that."""
        return tuple(one for one in self.executions if one.is_given_up)

    def instead(self, execution: Execution) -> Memory:
        """The memory with this in the place of what has its id."""
        return self._replace(
            executions=tuple(execution if one.id == execution.id else one for one in self.executions)
        )


EMPTY: Final = Memory()


def read_memory(written: bytes) -> Memory:
    """The memory as it was stored."""
    if not written or written == NOTHING_LEFT:
        return EMPTY
    kept = _kept.get(written)
    if kept is None:
        kept = _read(written)
        _keep(written, kept)
    return kept


def _keep(written: bytes, memory: Memory) -> None:
    if len(written) <= REREAD_BYTES_MAX:
        if len(_kept) >= REREAD_MAX:
            _kept.clear()
        _kept[written] = memory


def _read(written: bytes) -> Memory:
    said = orjson.loads(written).get
    return _new(Memory, (
        tuple([Delayed(*one) for one in said("delayed", ())]),
        said("marks", {}),
        said("seen", {}),
        said("output"),
        tuple([Execution(*one) for one in said("executions", ())]),
        tuple([Owed(*one) for one in said("owed", ())]),
        said("undoing", -1),
        said("scopes", {}),
    ))  # fmt: skip


def write_memory(memory: Memory) -> bytes:
    """The memory as it is stored."""
    form: dict[str, Any] = {}
    if memory.delayed:
        form["delayed"] = [_trimmed(one) for one in sorted(memory.delayed, key=_order)]
    if memory.marks:
        form["marks"] = dict(memory.marks)
    if memory.seen:
        form["seen"] = dict(memory.seen)
    if memory.output is not None:
        form["output"] = memory.output
    if memory.executions:
        form["executions"] = [_trimmed(one) for one in memory.executions]
    if memory.owed:
        form["owed"] = [_trimmed(one) for one in memory.owed]
    if memory.undoing >= 0:
        form["undoing"] = memory.undoing
    if memory.scopes:
        form["scopes"] = dict(memory.scopes)
    if not form:
        return NOTHING_LEFT
    written = dumps_compact(form, orjson.OPT_SORT_KEYS)
    if form.keys() <= _STEPS_ONLY:
        # It is read within a moment.
        _keep(written, memory)
    return written


def too_much(before: Memory, after: Memory, size: int, by: Mapping[str, str]) -> str:
    """Which part makes a memory so large, in a sentence; ``by`` has whose doing parts are, where that is known."""
    was, now = _sizes(before), _sizes(after)
    part = max(now, key=lambda one: now[one] - was[one])
    whose = f", by {by[part]}" if part in by else ""
    return (
        f"what the run is to remember takes {size} bytes, of {MEMORY_BYTES_MAX} allowed; "
        f"{part} grew most, from {was[part]} to {now[part]} bytes{whose}"
    )


def to_come(event_type: str) -> str:
    """What the part of a memory is called that comes later as events of a type."""
    return f"what is to come as {event_type!r}"


def _sizes(memory: Memory) -> Counter[str]:
    """How many bytes of JSON each part takes."""
    sizes = Counter[str]()
    for one in memory.delayed:
        sizes[to_come(one.type)] += len(dumps_compact(_trimmed(one)))
    for execution in memory.executions:
        sizes[f"what is known of the step {execution.step!r}"] += len(dumps_compact(_trimmed(execution)))
    for owed in memory.owed:
        sizes[f"what is owed of the step {owed.step!r}"] += len(dumps_compact(_trimmed(owed)))
    for part, kept in ((STREAMS, memory.marks), (BUSINESS_KEYS, memory.seen), (OUTPUT, memory.output)):
        sizes[part] = len(dumps_compact(kept)) if kept else 0
    return sizes


def lasting(written: bytes) -> bytes:
    """What of a memory belongs to the key and outlives the run."""
    memory = read_memory(written)
    kept = Memory(marks=memory.marks, seen=memory.seen)
    return write_memory(kept) if memory.marks or memory.seen else b""


def microseconds_of(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """The same back."""
    return _EPOCH + microseconds * _MICROSECOND


def _order(one: Delayed) -> tuple[int, int, int]:
    return one.due, one.sequence, one.number


def _trimmed(one: Delayed | Execution | Owed) -> tuple[Any, ...]:
    """Without what is as usual at the end, which most have a lot of."""
    end = len(one)
    for usual in _USUAL[type(one)]:
        if one[end - 1] != usual:
            break
        end -= 1
    return one[:end]


_USUAL: Final = {one: tuple(reversed(one._field_defaults.values())) for one in (Delayed, Execution, Owed)}
"""What is usual, from the end on."""
