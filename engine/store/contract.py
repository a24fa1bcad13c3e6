"""The store as the engine sees it: what commits together, and what a commit may answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from connectors.source import Partition
from engine.outbox import OutRecord
from statemachines.run import Run
from statemachines.search import Attributes


class StoreError(Exception):
    """Base class of what a store may answer instead of a commit."""


class StoreUnavailableError(StoreError):
    """The store is away, or the connection broke. Whether a commit in flight succeeded is not known."""


class LostPositionsError(StoreError):
    """Positions are not where the engine thought; nothing was committed."""

    def __init__(self, lost: Iterable[int]) -> None:
        self.lost = frozenset(lost)
        super().__init__(f"positions {sorted(self.lost)} were moved or taken by another engine")


class LostRunsError(StoreError):
    """Another engine moved a run meanwhile, or consumed a command first; nothing was committed."""


class RefusedByStoreError(StoreError):
    """The store cannot take the data; nothing was committed."""


class StoreFaultError(StoreError):
    """The store refuses what is written, and not for a record's data: something is wrong with it, or with us.

    Nothing was committed. The message has nothing of the data.
    """


class StoreFullError(StoreFaultError):
    """The store has no room left."""


class Position(NamedTuple):
    """A partition's position as it was taken: whoever holds the epoch may move it."""

    id: int
    partition: Partition
    position: int
    epoch: int


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
    key: str
    id: int
    wake_at: datetime
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
    """Offsets of records whose type nobody knows, on a topic that says to ignore them."""

    position: int
    first: int
    last: int
    records: int


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

    @property
    def address(self) -> tuple[int, int, int]:
        """What the row is known by that holds it: (run, sequence, number)."""
        return self.run, self.sequence, self.number


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

    @property
    def address(self) -> tuple[int, int, int]:
        """What the row is known by that holds it: (run, sequence, number)."""
        return self.run, self.sequence, self.number


class EndedDeadLetter(NamedTuple):
    """A dead letter that a command redrove or dropped."""

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
    waiting_added: list[tuple[int, int, int, datetime | None]] = field(default_factory=list)
    """(run, sequence, digest, until when; None: behind what holds the run)"""
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
    attributes: list[tuple[int, Attributes]] = field(default_factory=list)
    """(run, search attributes) of runs whose attributes this changes."""
    operations: list[Operation] = field(default_factory=list)
    executions_asked: list[AskedExecution] = field(default_factory=list)
    """New ones, and those that are to be tried again."""
    executions_over: list[tuple[int, int, int]] = field(default_factory=list)
    """(run, sequence, number) of those that their runs wait for no more."""
    strikes_forgotten: list[tuple[int, int]] = field(default_factory=list)
    """(position, offset)"""
    out: list[OutRecord] = field(default_factory=list)


class Store(Protocol):
    """The event log and all that commits with it."""

    async def register_pipeline(self, name: str) -> int:
        """The store's number of a pipeline of the namespace."""
        ...

    async def register_definition(
        self, pipeline: int, version: int, hash: bytes, code: bytes, structure: bytes
    ) -> int:
        """The store's number of a definition."""
        ...

    async def known_positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The positions of those that have one."""
        ...

    async def add_positions(self, positions: Mapping[Partition, int]) -> None:
        """Set first positions; those that exist stay as they are."""
        ...

    async def take_positions(self, partitions: Iterable[Partition]) -> list[Position]:
        """Raise the epochs; waits for commits in flight, and fences whoever held them before."""
        ...

    async def run_ids(self) -> range:
        """A block of new run ids."""
        ...

    async def load_runs(self, pipeline: int, keys: Sequence[str]) -> list[Run]:
        """The latest generation of each key that has a run."""
        ...

    async def seen(self, asked: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Which of these (run, digest) were consumed."""
        ...

    async def seen_by_generations(self, asked: Sequence[tuple[int, str, int]]) -> set[tuple[int, str, int]]:
        """Which of these (pipeline, key, digest) were consumed by any run of the key."""
        ...

    async def deferred_events(self, runs: Sequence[int]) -> list[DeferredRow]:
        """The deferred events of these runs, the oldest of each first."""
        ...

    async def due_runs(
        self,
        homes: Sequence[int],
        until: Mapping[int, datetime],
        definitions: Sequence[int],
        limit: int,
        but: Collection[int] = (),
    ) -> list[DueRun]:
        """Runs of these homes that are not held and for which something has fallen due, the longest due first.

        ``until`` says by pipeline until when; runs that go on follow one of these ``definitions``. Those with the ids
        ``but`` are left out. This and ``applied`` may be asked while anything else is; not both at once.
        """
        ...

    async def begin_executions(
        self,
        rooms: Mapping[tuple[int, str], int],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        """Begin the next attempts, of runs of these homes, and remember that this ``holder`` has.

        ``rooms`` says how many by (pipeline, step); ``until`` which time has come; ``but`` which are left alone. May be
        asked while anything else is.
        """
        ...

    async def put_back(self, holder: int, but: Sequence[int]) -> None:
        """Have what is marked as begun by this holder, and was not, wait again; ``but`` these, which were."""
        ...

    async def begun_by_others(
        self,
        homes: Sequence[int],
        pipelines: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        silent_seconds: float,
        limit: int,
    ) -> list[BegunExecution]:
        """Attempts for runs of these homes whose holders have been silent for so long, but for some."""
        ...

    async def hold(self, holder: int, instance: str | None) -> None:
        """Say that this holder of attempts is there; one of the same instance that was there before is not."""
        ...

    async def let_go(self, holder: int) -> None:
        """Say that it is not there any more: its attempts are lost."""
        ...

    async def executions_there(self, numbers: Sequence[int]) -> dict[int, bool]:
        """Those of these executions that runs still wait for, and whether they are to be stopped."""
        ...

    async def has_executions(self, pipelines: Sequence[int], definitions: Sequence[int]) -> bool:
        """Whether a run of these pipelines and definitions that is not held waits for a step."""
        ...

    async def applied(self, topics: Iterable[str]) -> dict[Partition, Applied]:
        """How far the partitions of these topics were applied by the engines of the group."""
        ...

    async def waiting_digests(self, runs: Sequence[int]) -> set[tuple[int, int]]:
        """(run, digest) of all events that wait in these runs."""
        ...

    async def waiting_events(self, run: int, limit: int, bytes_max: int) -> list[WaitingEvent]:
        """The oldest events that wait in a run: so many, with so many bytes in all, but one at least."""
        ...

    async def strikes(self, positions: Sequence[int]) -> dict[tuple[int, int], tuple[int, str]]:
        """(position, offset) -> how often an engine was ended there, and in which handler."""
        ...

    async def read_inbox(
        self, pipelines: Sequence[int], limit: int, homes: Sequence[int] = ()
    ) -> list[Command]:
        """The oldest commands for these pipelines; events of runs only for those of these homes."""
        ...

    async def hold_of(self, run: int, sequence: int) -> Hold | None:
        """What the row of this number says, which holds the run."""
        ...

    async def cancellation_of(self, run: int) -> Hold | None:
        """The row that cancelled a run last; None where none did."""
        ...

    async def load_dead_letter(self, number: int) -> StoredDeadLetter | None:
        """A dead letter by its id."""
        ...

    async def has_command(self, number: int) -> bool:
        """Whether a command is still in the inbox."""
        ...

    async def run_by_id(self, number: int) -> Run | None:
        """A run by its number."""
        ...

    async def origin_of(self, position: int | None) -> Origin:
        """What a position is of, which never changes; all empty where there is no position."""
        ...

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call ``heard`` whenever the store notifies on a channel; calls may be lost, and come for nothing."""
        ...

    async def lock(self, positions: Sequence[int], runs: Sequence[int]) -> None:
        """Hold these rows until the next ``commit`` (or ``unlock``), so that it cannot lose them to another one."""
        ...

    async def unlock(self) -> None:
        """Give up what ``lock`` holds."""
        ...

    async def commit(self, commit: Commit) -> int | None:
        """Make it durable; returns the ticket of what it publishes, if it publishes.

        Raises:
            LostPositionsError, LostRunsError, RefusedByStoreError: nothing was committed.
            StoreUnavailableError: it is not known.
        """
        ...

    async def keep_up(self) -> None:
        """Make room ahead, as is needed now and then by an engine that runs for months."""
        ...

    async def close(self) -> None:
        """Give up the connections."""
        ...
