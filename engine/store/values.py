"""What the store is given and gives back: the values of its contract (``engine.store.contract``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from connectors.source import Partition
from engine.outbox import OutRecord
from statemachines.places import Raised
from statemachines.run import Run
from statemachines.search import Attributes

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_new = tuple.__new__


class Position(NamedTuple):
    """A partition's position as it was taken: whoever holds the epoch may move it."""

    id: int
    partition: Partition
    position: int
    epoch: int
    topic_id: str = ""
    """What tells the topic that the position is of from another one of its name; empty where that is not known."""


class Origin(NamedTuple):
    """Where a record came from; all of it may be part of its event's id."""

    cluster: str
    topic: str
    partition: int


class PositionMove(NamedTuple):
    """From where to where; only if nothing else moved it or took it."""

    id: int
    epoch: int
    old: int
    new: int
    record_time: int | None = None
    """Kafka's time of the last record, in milliseconds since 1970; None: there was no record."""


class Applied(NamedTuple):
    """How far a partition was applied, by whoever holds it."""

    position: int
    record_time: int
    """Kafka's time of the last record that was applied, in milliseconds since 1970; 0: there was none."""


class DueRun(NamedTuple):
    """A run for which something has fallen due."""

    pipeline: int
    wake_at: datetime
    id: int
    key: str
    generation: int
    sequence: int
    """With the generation: which version of the run was found."""
    run: Run | None = None
    """The run itself, without what is deferred for it; None where it is large."""


class SentEvent(NamedTuple):
    """An event from a run to another one."""

    pipeline: str
    key: str
    body: bytes
    """The key, a NUL, and a structured CloudEvent."""


class SentCompletion(NamedTuple):
    """What a run says of how a step of its own ended that goes on outside."""

    pipeline: str
    command: str
    """``complete`` or ``fail``"""
    body: bytes
    who: str
    why: str
    token: str


class DeadLetter(NamedTuple):
    """A dead letter to be written, with its record as it came."""

    pipeline: int | None
    """None: it concerns all pipelines that read the topic."""
    run: int | None
    sequence: int | None
    """The log row that holds the run because of it."""
    key: str | None
    event_id: str | None
    type: str | None
    disposition: int
    reason: str
    error: str
    details: bytes
    position: int | None
    offset: int | None
    record_time: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: bytes
    topic: str | None
    """The topic it is published to."""
    at: datetime
    out: OutRecord | None
    """How it is published; the store adds its number."""
    raised: Raised | None = None
    """What user code has raised, for the log of this engine; it is not stored."""

    @property
    def columns(self) -> tuple[object, ...]:
        """Of its row."""
        return self[:-2]


class StoredDeadLetter(NamedTuple):
    """A dead letter as a command finds it."""

    id: int
    pipeline: int | None
    run: int | None
    sequence: int | None
    key: str | None
    event_id: str | None
    type: str | None
    position: int | None
    offset: int | None
    record_time: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: bytes
    status: str
    reason: str
    topic: str | None
    details: bytes


class Noted(NamedTuple):
    """A disposition that neither the log nor the dead letters show."""

    position: int | None
    offset: int | None
    pipeline: int
    run: int | None
    key: str | None
    event_id: str
    type: str
    disposition: int
    reason: str
    details: bytes
    at: datetime


class IgnoredRange(NamedTuple):
    """Offsets of records that a topic says to ignore, all for one reason."""

    position: int
    first: int
    last: int
    records: int
    reason: str


class WaitingEvent(NamedTuple):
    """An event that waits behind a hold, as its log row has it."""

    sequence: int
    type: str
    event_id: str
    position: int | None
    offset: int | None
    payload: bytes | None
    envelope: bytes
    digest: int


class DeferredRow(NamedTuple):
    """A deferred event, as its log row has it, and the run that it waits for."""

    run: int
    event: WaitingEvent
    effects: bytes
    """Why, until when, and what becomes of it then."""


class Command(NamedTuple):
    """A row of the inbox."""

    id: int
    pipeline: int | None
    command: str
    body: bytes
    who: str
    why: str
    at: datetime
    awaits_token: bool = False
    """It completes a step by a token that is not known."""


class FollowUp(NamedTuple):
    """A command that goes on with what the one before it has begun."""

    pipeline: int
    command: str
    body: bytes
    who: str
    why: str


class AskedExecution(NamedTuple):
    """An execution that waits for its next attempt."""

    pipeline: int
    key: str
    run: int
    sequence: int
    number: int
    step: str
    attempt: int
    again: datetime
    """From when on."""
    error: str
    """Of the attempt before."""
    of: str = ""
    """Of a compensation: the execution that it undoes."""
    made: int = 0
    """The number of the row that has what that returned; 0: it is not known."""
    stopping: bool = False
    """Whether its state was left, and the run waits to hear what became of it."""
    since: int = 0
    """How many of the attempts before do not count."""
    token: str = ""
    """What it is completed by, where it goes on outside; then ``again`` is until when."""
    limited_by: str | None = None
    """Which limit of its step counts for it, where there is one."""
    progress: bytes | None = None
    """Of one that begins anew: how far it had come, as JSON. Empty: it has a row, which begins anew as it is."""
    is_first: bool = False
    """Whether it was asked for just now, and its first attempt may begin at once, within no limit for all engines."""

    @property
    def address(self) -> tuple[int, int, int]:
        """What the row is known by that holds it: (run, sequence, number)."""
        return self.run, self.sequence, self.number

    @property
    def returned_by(self) -> tuple[int, int]:
        """Of a compensation: the run, and the number of the row that has what it is to undo."""
        return self.run, self.made


class BegunExecution(NamedTuple):
    """An attempt that somebody has begun."""

    id: int
    """The store's number of the execution."""
    pipeline: int
    key: str
    generation: int
    run: int
    definition: int
    home: int
    sequence: int
    number: int
    step: str
    attempt: int
    error: str
    """Of the attempt before."""
    input: bytes
    """The context after the row that asked for it; empty where it is not needed."""
    of: str = ""
    """Of a compensation: the execution that it undoes."""
    stopping: bool = False
    """Whether its state was left before it began, and it is only to be said that it has not."""
    made: bytes | None = None
    """The event that has what the undone execution returned; None: it is not known, or none."""
    since: int = 0
    """How many of the attempts before do not count."""
    token: str = ""
    """What it was to be completed by; then it is not begun, but has taken too long."""
    progress: bytes | None = None
    """How far an attempt had come, as it said last; None: it said nothing."""
    began: datetime | None = None
    """When the first attempt began."""

    @property
    def address(self) -> tuple[int, int, int]:
        """What the row is known by that holds it: (run, sequence, number)."""
        return self.run, self.sequence, self.number

    @property
    def numbers(self) -> tuple[int, int]:
        """What tells the attempt from all others: the store's number of the execution, and its own."""
        return self.id, self.attempt

    @property
    def undone(self) -> tuple[int, int, int] | None:
        """The same of the execution that it undoes; None: it is of a step."""
        sequence, _, number = self.of.partition(".")
        return (self.run, int(sequence), int(number)) if self.of else None


class Promised(NamedTuple):
    """An attempt that begins as soon as what asks for it is durable, with whoever commits that."""

    asked: AskedExecution
    run: Run
    """As its last row left it, which is the one that asks."""

    def begun(self, number: int, home: int, made: bytes | None, at: datetime) -> BegunExecution:
        """What its maker is given, once the store knows it by ``number``."""
        one, run = self.asked, self.run
        return _new(BegunExecution, (
            number, one.pipeline, one.key, run.generation, run.id, run.definition, home, one.sequence, one.number,
            one.step, one.attempt, one.error, run.context, one.of, False, made, one.since, "", None, at,
        ))  # fmt: skip


class Token(NamedTuple):
    """What an attempt is completed by that goes on outside."""

    token: str
    pipeline: int
    key: str
    run: int
    sequence: int
    number: int
    """The execution's, with that of its row."""
    step: str
    attempt: int
    waits: bool
    """Whether the run still waits for it."""


class Progress(NamedTuple):
    """How far an attempt has come, as it says itself."""

    id: int
    """The store's number of the execution."""
    attempt: int
    progress: bytes
    """As JSON."""


class EndedDeadLetter(NamedTuple):
    """A dead letter that a command redrove, dropped or resolved."""

    id: int
    status: str
    who: str
    why: str
    publishing: str | None = None
    """Whether it is published, from now on; None: as before."""
    edited: bytes | None = None
    """The value that its record was offered with instead of its own."""


class Hold(NamedTuple):
    """A row that holds a run, or lifted a hold."""

    kind: int
    """Of the row (``engine.log.Kind``)."""
    at: datetime
    payload: bytes | None
    """Of what an operator did: who, and why."""
    letter: int | None = None
    """The open dead letter that holds it."""
    reason: str | None = None
    """Of that."""
    type: str = ""
    """Of the event that holds it."""
    is_inner: bool = False
    """Whether that came from inside, and not with a record."""


class Pause(NamedTuple):
    """A pipeline that is paused."""

    pipeline: int
    command: int
    """The row of the inbox that asked for it."""
    who: str
    why: str
    at: datetime


class Release(NamedTuple):
    """Runs that were held since their pipeline was paused are to go on: those behind one of them, by their numbers."""

    pipeline: int
    after: int
    who: str
    why: str


class Operation(NamedTuple):
    """What became of what an operator asked of a run."""

    command: int
    """The row of the inbox."""
    pipeline: int
    key: str
    what: str
    event_id: str | None
    """Of what was sent."""
    run: int | None
    """That it was done to, or asked of."""
    done: bool
    answer: str
    """A sentence; empty where what became of the event tells."""
    who: str
    why: str
    asked: datetime
    at: datetime


@dataclass(slots=True)
class Commit:
    """Everything that becomes durable together or not at all."""

    at: datetime
    positions: list[PositionMove] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    """Log rows, packed (``engine.log``)."""
    created: list[tuple[int, Run]] = field(default_factory=list)
    """(pipeline, run) of new runs."""
    changed: list[tuple[int, Run]] = field(default_factory=list)
    """(sequence number before, run) of runs that were there."""
    judged: list[tuple[int, int]] = field(default_factory=list)
    """(run, sequence number) of runs that were found not to take an event, and that must still be there."""
    retired: list[tuple[int, int]] = field(default_factory=list)
    """The same of runs that have ended, and whose keys begin their next ones with this."""
    last: list[tuple[int, str, int]] = field(default_factory=list)
    """(pipeline, key, generation) of runs that had ended, and must still be the last of their keys."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    ended: list[EndedDeadLetter] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    ranges: list[IgnoredRange] = field(default_factory=list)
    taken_ids: list[tuple[int, int]] = field(default_factory=list)
    """(run, digest of source and id) of events whose rows have that of a business key."""
    waiting_added: list[tuple[int, int, int, datetime | None, int | None]] = field(default_factory=list)
    """(run, sequence, digest, until when; None: behind what holds the run; the digest of source and id, where that is
    another one)"""
    waiting_removed: list[tuple[int, int]] = field(default_factory=list)
    """(run, sequence)"""
    commands: list[int] = field(default_factory=list)
    """Rows of the inbox that this consumes."""
    follow_up: FollowUp | None = None
    """Put into the inbox."""
    followed_by: Command | None = None
    """The same as the inbox has it, once the store has committed."""
    going_on: list[FollowUp] = field(default_factory=list)
    """Put into the inbox, too; whoever takes them up."""
    sent: list[SentEvent] = field(default_factory=list)
    completed: list[SentCompletion] = field(default_factory=list)
    attributes: list[tuple[int, Attributes]] = field(default_factory=list)
    """(run, search attributes) of runs whose attributes this changes."""
    operations: list[Operation] = field(default_factory=list)
    paused: list[Pause] = field(default_factory=list)
    """Pipelines that are paused by this."""
    resumed: list[Pause] = field(default_factory=list)
    """Pauses that this ends."""
    released: list[Release] = field(default_factory=list)
    under_pauses: set[int] = field(default_factory=set)
    """The commands of pauses that this rests on: they must not have ended."""
    executions_asked: list[AskedExecution] = field(default_factory=list)
    """New ones, and those that are to be tried again."""
    steps_at: datetime = NEVER
    """From when on those may begin that need not wait, by the clock of steps."""
    asking: dict[int, Run] = field(default_factory=dict)
    """The runs of these, as the commit leaves them."""
    promised: list[Promised] = field(default_factory=list)
    """New ones that begin with this, as soon as it is durable."""
    promised_to: int = 0
    """Who begins them."""
    promised_at: datetime = NEVER
    """When they begin."""
    begun: list[BegunExecution] = field(default_factory=list)
    """The same once the store has committed."""
    tells_others: bool = True
    """Whether others may have something to do about what becomes of executions."""
    executions_over: list[tuple[int, int, int]] = field(default_factory=list)
    """(run, sequence, number) of those that their runs wait for no more."""
    limited_left: list[tuple[int, int, int, int]] = field(default_factory=list)
    """The same of those with a limit for all engines, and the attempt, with which no row says any more who goes on."""
    tokens: list[Token] = field(default_factory=list)
    """Of attempts that go on outside from now on; and those that were said to, for which no run waits."""
    tokens_over: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(token, run, sequence, number) of those that are waited for no more."""
    strikes_forgotten: list[tuple[int, int]] = field(default_factory=list)
    """(position, offset)"""
    out: list[OutRecord] = field(default_factory=list)
