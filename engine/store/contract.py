"""The store as the engine sees it: what commits together, and what a commit may answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from connectors.source import Partition
from engine.store.limited import LimitedRoom
from engine.store.values import (
    Applied,
    BegunExecution,
    Command,
    Commit,
    DeferredRow,
    DueRun,
    Hold,
    Operation,
    Origin,
    Pause,
    Position,
    Progress,
    StoredDeadLetter,
    Token,
    WaitingEvent,
)
from statemachines.run import Run

TOKENS_KEPT = timedelta(days=30)
"""So long it is known of a token that is waited for no more what it was for; after that nobody knows it."""
TOKENS_FORGOTTEN_MAX = 50_000
"""So many are forgotten at a time."""


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


class TakenTwiceError(LostRunsError):
    """The log has it that a run has consumed an event, or waits for it, already; nothing was committed."""

    def __init__(self) -> None:
        super().__init__("the log has it that the run of an event has taken it already")


class RefusedByStoreError(StoreError):
    """The store cannot take the data; nothing was committed."""


class TokenTakenError(RefusedByStoreError):
    """Another execution waits to be completed by the same token."""

    def __init__(self) -> None:
        super().__init__("another execution waits to be completed by this token")


class StoreFaultError(StoreError):
    """The store refuses what is written, and not for a record's data: something is wrong with it, or with us.

    Nothing was committed. The message has nothing of the data.
    """


class StoreFullError(StoreFaultError):
    """The store has no room left."""


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

    async def note_topic_ids(self, noted: Iterable[tuple[int, int, str]]) -> set[int]:
        """Note which topics positions are of: number, epoch and id of the topic.

        Returns the numbers of those that were noted; whose epoch is another one by now, or who is locked, was not.
        """
        ...

    async def run_ids(self) -> range:
        """A block of new run ids."""
        ...

    async def load_runs(self, pipeline: int, keys: Sequence[str]) -> list[Run]:
        """The latest generation of each key that has a run."""
        ...

    async def seen(
        self, asked: Sequence[tuple[int, int]], ids: Sequence[tuple[int, int]] = ()
    ) -> set[tuple[int, int]]:
        """Which of these (run, digest) were consumed.

        ``ids`` are such of source and id, which are asked for among those of events with business keys.
        """
        ...

    async def seen_by_generations(
        self, asked: Sequence[tuple[int, str, int]], ids: Sequence[tuple[int, str, int]] = ()
    ) -> set[tuple[int, str, int]]:
        """Which of these (pipeline, key, digest) were consumed by any run of the key; ``ids`` as for ``seen``."""
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
        each: int | None = None,
    ) -> list[DueRun]:
        """Runs of these homes that are not held and for which something has fallen due, the longest due first.

        ``until`` says by pipeline until when; runs that go on follow one of these ``definitions``. Those with the ids
        ``but`` are left out. No more than ``each`` of a pipeline and a home are looked at (None: ``limit``), and where
        there are so many, only those that fell due no later than the last of them are told. This and ``applied`` may be
        asked while anything else is; not both at once.
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

        Those that go on outside, too, as soon as they have taken too long.

        ``rooms`` says how many by (pipeline, step); ``until`` which time has come; ``but`` which are left alone. May be
        asked while anything else is. However many wait, it takes no longer, but for those of runs that are held or
        follow other definitions than these.
        """
        ...

    async def begin_limited(
        self,
        rooms: Sequence[LimitedRoom],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        """Begin attempts of steps with a limit for all engines, as ``begin_executions`` does of others.

        Of each value that they are limited by, the next in order; whose limit is reached keeps nobody waiting but his
        own. ``until`` is the time now, too. None may begin because another engine asks at this moment.
        Attempts of held runs count as long as their holders were heard of lately, and so do those that go on though
        no row says so any more (``Commit.limited_left``).
        """
        ...

    async def limit_waiting(self, steps: Sequence[tuple[int, str]]) -> None:
        """Have what waits of these (pipeline, step) without knowing of their limits be limited, all of it as one."""
        ...

    async def give_up_places(self, holder: int, going: Collection[int]) -> None:
        """Of the attempts by this holder that no row tells of, have only those of these executions count for limits."""
        ...

    async def begin_untried(
        self,
        overdue: Mapping[tuple[int, str], datetime],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
        limit: int,
    ) -> list[BegunExecution]:
        """Begin those of which there is nothing to be done, but something to be told, whether there is room or not.

        They are those of (pipeline, step) whose states were left, and those whose first attempts began by the time that
        ``overdue`` says, if no attempt goes on; and those that go on outside, and were not completed ``until`` then,
        but for those that a command in the inbox completes.
        Their input is empty. All else is as of ``begin_executions``.
        """
        ...

    async def note_progress(self, holder: int, notes: Sequence[Progress]) -> Collection[int]:
        """Remember how far attempts have come, for those behind them; not of one that this ``holder`` does not make.

        Returns the executions of those that are passed over, since a commit works on them.
        """
        ...

    async def put_back(self, holder: int, but: Sequence[tuple[int, int]]) -> bool:
        """Have what is marked as begun by this holder, and was not, wait again; ``but`` these, which were.

        They are (execution, attempt): one that goes on does not say that the next one at its execution has begun.
        Returns whether all of it does: what a commit works on is passed over.
        """
        ...

    async def put_held_back(self, holder: int, but: Sequence[tuple[int, int]]) -> None:
        """Have what this holder began for runs that are held by now take up no place; ``but`` these, which go on.

        What became of it waits behind the holds: none of it begins before the runs have heard that.
        """
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

    async def take_executions(
        self, numbers: Sequence[int], holder: int, silent_seconds: float
    ) -> list[BegunExecution]:
        """Have this holder go on with these attempts, where theirs have been silent for so long.

        Those that it has already are among what this returns, for it may not have heard so.
        What somebody else has taken meanwhile is not. All else is as of ``begin_executions``.
        """
        ...

    async def hold(self, holder: int, instance: str | None, breakers: bytes = b"") -> datetime:
        """Say that this holder of attempts is there, and how its breakers are, as JSON; empty where it has none.

        One of the same instance that was there before is not there any more. Returns what time it is by the store's
        clock.
        """
        ...

    async def let_go(self, holder: int) -> None:
        """Say that it is not there any more: its attempts are lost."""
        ...

    async def told_results(self, asked: Sequence[tuple[int, int, str]]) -> set[int]:
        """Those of these executions, by their numbers with their runs, whose results have been told by these events."""
        ...

    async def executions_there(self, numbers: Sequence[int]) -> dict[int, bool]:
        """Those of these executions that runs still wait for, and whether they are to be stopped."""
        ...

    async def struck_attempts(self) -> dict[int, int]:
        """By the number of an execution, which attempt at it has ended an engine, since it kept its loop busy."""
        ...

    async def said_last(self, asked: Sequence[tuple[int, str]]) -> list[str]:
        """Of each (run, idempotency key) of an execution the type of the last event that the log has of its attempts.

        Empty where it has none.
        """
        ...

    async def has_executions(self, pipelines: Sequence[int], definitions: Sequence[int]) -> bool:
        """Whether a run of these pipelines and definitions that is not held waits for a step that is done here."""
        ...

    async def find_tokens(self, tokens: Sequence[str]) -> dict[str, Token]:
        """What these tokens complete, or have; without those that no execution has had."""
        ...

    async def applied(self, topics: Iterable[str]) -> dict[Partition, Applied]:
        """How far the partitions of these topics were applied by the engines of the group."""
        ...

    async def waiting_digests(self, runs: Sequence[int]) -> set[tuple[int, int]]:
        """(run, digest) of all events that wait in these runs; of those with business keys also of source and id."""
        ...

    async def waiting_events(self, run: int, limit: int, bytes_max: int) -> list[WaitingEvent]:
        """The oldest events that wait in a run: so many, with so many bytes in all, but one at least."""
        ...

    async def strikes(self, positions: Sequence[int]) -> dict[tuple[int, int], tuple[int, str]]:
        """(position, offset) -> how often an engine was ended there, and in which handler."""
        ...

    async def read_inbox(
        self, pipelines: Sequence[int], limit: int, homes: Sequence[int] = (), unheard_of: Sequence[int] = ()
    ) -> list[Command]:
        """The oldest commands for these pipelines; events of runs only for those of these homes.

        Of what is for a pipeline that is paused only what pauses and resumes it is there; of those that are
        ``unheard_of``, only what completes a step by a token that is known by now.
        """
        ...

    async def pauses(self, pipelines: Sequence[int]) -> list[Pause]:
        """Which of these pipelines are paused."""
        ...

    async def holds_of(self, held: Sequence[tuple[int, int]]) -> dict[int, Hold]:
        """By run, what the row of this number says, which holds it: each as (run, number)."""
        ...

    async def cancellation_of(self, run: int) -> Hold | None:
        """The row that cancelled a run last; None where none did."""
        ...

    async def completion_of(self, run: int, begins: str) -> Operation | None:
        """What completed a step of this run last that went on outside, by how the id of its event begins."""
        ...

    async def load_dead_letter(self, number: int) -> StoredDeadLetter | None:
        """A dead letter by its id."""
        ...

    async def commands_left(self, numbers: Sequence[int]) -> set[int]:
        """Which of these commands are still in the inbox."""
        ...

    async def runs_by_id(self, numbers: Sequence[int]) -> list[Run]:
        """Runs by their numbers."""
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

    async def keep_up(self, now: datetime) -> bool:
        """Make room ahead, as is needed now and then by an engine that runs for months.

        And forget tokens that have been waited for no more for ``TOKENS_KEPT``, so many at a time; returns whether
        there may be more of them.
        """
        ...

    async def close(self) -> None:
        """Give up the connections."""
        ...
