"""A store in memory, for unit speed. It passes the same suite as Postgres (``tests/contract/test_store.py``)."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from connectors.source import Partition
from engine.homes import home_of
from engine.limits import SILENT_SECONDS
from engine.log import PIPELINE_PAUSED, Kind, LogRow, unpack
from engine.store.contract import TOKENS_KEPT, LostPositionsError, LostRunsError, RefusedByStoreError
from engine.store.limited import LimitedRoom
from engine.store.values import (
    Applied,
    BegunExecution,
    Command,
    Commit,
    DeadLetter,
    DeferredRow,
    DueRun,
    Hold,
    Noted,
    Operation,
    Origin,
    Pause,
    Position,
    Progress,
    Release,
    StoredDeadLetter,
    Token,
    WaitingEvent,
)
from engine.store.writing import RELEASED_AT_ONCE_MAX
from statemachines.following import wakes_at
from statemachines.memory import time_of
from statemachines.run import Run, Status
from statemachines.search import Attributes
from tests.fakes.executions import Executions, Waiting, as_begun

CLUSTER = "c"
"""The cluster of all positions here."""


@dataclass(slots=True)
class Place:
    """A row of positions."""

    id: int
    position: int
    epoch: int = 0
    record_time: int = 0


@dataclass(slots=True)
class Tables:
    """What all stores on one database share."""

    pipelines: dict[str, int] = field(default_factory=dict)
    definitions: dict[tuple[int, int, bytes, bytes], int] = field(default_factory=dict)
    places: dict[Partition, Place] = field(default_factory=dict)
    runs: dict[int, tuple[int, Run]] = field(default_factory=dict)
    rows: dict[tuple[int, int], LogRow] = field(default_factory=dict)
    taken_ids: set[tuple[int, int]] = field(default_factory=set)
    waiting: dict[tuple[int, int], tuple[int, datetime | None]] = field(default_factory=dict)
    waiting_ids: dict[tuple[int, int], int] = field(default_factory=dict)
    """Digests of source and id of those that wait and are known by business keys."""
    letters: dict[int, tuple[DeadLetter, str]] = field(default_factory=dict)
    noted: list[Noted] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    inbox: dict[int, Command] = field(default_factory=dict)
    commands: int = 0
    """The number of the last command that was put into the inbox."""
    attributes: dict[int, Attributes] = field(default_factory=dict)
    """Empty ones, too."""
    executions: Executions = field(default_factory=Executions)
    pauses: dict[int, Pause] = field(default_factory=dict)
    """By pipeline."""
    next_run: int = 1
    ticket: int = 0

    def copied(self) -> Tables:
        """As they are now, whatever is written to them from then on."""
        copied = copy.copy(self)
        for name in Tables.__slots__:
            setattr(copied, name, copy.copy(getattr(self, name)))
        copied.places = {partition: copy.copy(one) for partition, one in self.places.items()}
        copied.executions = self.executions.copied()
        return copied


class FakeStore:
    """One engine's view of ``tables``; locks are not needed, since nothing here awaits."""

    def __init__(self, tables: Tables, clock: Callable[[], float] = time.monotonic) -> None:
        self.tables = tables
        self._clock = clock
        """The database's, in seconds."""

    async def register_pipeline(self, name: str) -> int:
        return self.tables.pipelines.setdefault(name, len(self.tables.pipelines) + 1)

    async def register_definition(
        self, pipeline: int, version: int, hash: bytes, code: bytes, structure: bytes
    ) -> int:
        del structure
        known = self.tables.definitions
        return known.setdefault((pipeline, version, hash, code), len(known) + 1)

    async def known_positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: self.tables.places[p].position for p in partitions if p in self.tables.places}

    async def add_positions(self, positions: Mapping[Partition, int]) -> None:
        for partition, position in positions.items():
            places = self.tables.places
            places.setdefault(partition, Place(len(places) + 1, position))

    async def take_positions(self, partitions: Iterable[Partition]) -> list[Position]:
        taken = []
        for partition in sorted(partitions):
            place = self.tables.places.get(partition)
            if place is not None:
                place.epoch += 1
                taken.append(Position(place.id, partition, place.position, place.epoch))
        return taken

    async def run_ids(self) -> range:
        first = self.tables.next_run
        self.tables.next_run += 4096
        return range(first, self.tables.next_run)

    async def load_runs(self, pipeline: int, keys: Sequence[str]) -> list[Run]:
        latest: dict[str, Run] = {}
        for owner, run in self.tables.runs.values():
            if owner == pipeline and run.key in keys:
                known = latest.get(run.key)
                if known is None or known.generation < run.generation:
                    latest[run.key] = run
        return list(latest.values())

    async def seen(
        self, asked: Sequence[tuple[int, int]], ids: Sequence[tuple[int, int]] = ()
    ) -> set[tuple[int, int]]:
        consumed = {(row.run, row.digest) for row in self.tables.rows.values()}
        return {pair for pair in asked if pair in consumed} | self.tables.taken_ids.intersection(ids)

    async def waiting_digests(self, runs: Sequence[int]) -> set[tuple[int, int]]:
        by_digest = {(run, digest) for (run, _), (digest, _) in self.tables.waiting.items() if run in runs}
        return by_digest | {(run, own) for (run, _), own in self.tables.waiting_ids.items() if run in runs}

    async def seen_by_generations(
        self, asked: Sequence[tuple[int, str, int]], ids: Sequence[tuple[int, str, int]] = ()
    ) -> set[tuple[int, str, int]]:
        consumed = {(row.run, row.digest) for row in self.tables.rows.values()}
        return self._by_generations(asked, consumed) | self._by_generations(ids, self.tables.taken_ids)

    def _by_generations(
        self, asked: Sequence[tuple[int, str, int]], known: Collection[tuple[int, int | None]]
    ) -> set[tuple[int, str, int]]:
        found = set()
        for owner, key, digest in asked:
            runs = [
                each
                for each, (pipeline, one) in self.tables.runs.items()
                if (pipeline, one.key) == (owner, key)
            ]
            if any((run, digest) in known for run in runs):
                found.add((owner, key, digest))
        return found

    async def deferred_events(self, runs: Sequence[int]) -> list[DeferredRow]:
        found = []
        for (run, sequence), (digest, until) in sorted(self.tables.waiting.items()):
            if run in runs and until is not None:
                row = self.tables.rows[run, sequence]
                found.append(DeferredRow(run, _waiting_event(row, digest), row.effects))
        return found

    async def due_runs(
        self,
        homes: Sequence[int],
        until: Mapping[int, datetime],
        definitions: Sequence[int],
        limit: int,
        but: Collection[int] = (),
        each: int | None = None,
    ) -> list[DueRun]:
        due: dict[tuple[int, int], list[DueRun]] = {}
        for pipeline, run in self.tables.runs.values():
            wake = wakes_at(run)
            home = home_of(run.key)
            loaded = run.definition in definitions or run.status != Status.RUNNING
            asked = home in homes and pipeline in until and run.id not in but
            if wake is not None and not run.held and asked and loaded and time_of(wake) <= until[pipeline]:
                due.setdefault((pipeline, home), []).append(
                    DueRun(pipeline, run.key, run.id, time_of(wake), run.generation, run.sequence, run)
                )
        looked_at = [sorted(one, key=lambda run: run.wake_at)[: each or limit] for one in due.values()]
        ends = [one[-1].wake_at for one in looked_at if len(one) == (each or limit)]
        told = sorted(itertools.chain(*looked_at), key=lambda one: one.wake_at)
        return [one for one in told if not ends or one.wake_at <= min(ends)][:limit]

    async def begin_executions(
        self,
        rooms: Mapping[tuple[int, str], int],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        begun = self.tables.executions.begin(rooms, until, homes, but, holder, self._are_loaded(definitions))
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in begun]

    def _are_loaded(self, definitions: Sequence[int]) -> Callable[[int], bool]:
        def is_loaded(run: int) -> bool:
            found = self.tables.runs[run][1]
            return found.definition in definitions and not found.held

        return is_loaded

    async def begin_limited(
        self,
        rooms: Sequence[LimitedRoom],
        until: datetime,
        homes: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        holder: int,
    ) -> list[BegunExecution]:
        since = self._clock() - SILENT_SECONDS
        asked = rooms, until, homes, but, holder, since, self._are_loaded(definitions), self._counts
        begun = self.tables.executions.begin_limited(*asked)
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in begun]

    def _counts(self, one: Waiting) -> bool:
        held = self.tables.runs[one.asked.run][1].held
        return not held or self.tables.executions.is_there(one.holder, self._clock() - SILENT_SECONDS)

    async def limit_waiting(self, steps: Sequence[tuple[int, str]]) -> None:
        self.tables.executions.limit_waiting(steps)

    async def keep_places(self, holder: int, going: Collection[int]) -> None:
        self.tables.executions.keep_places(holder, going)

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
        completed = {
            (one.pipeline, orjson.loads(one.body).get("token"))
            for one in self.tables.inbox.values()
            if one.command in ("complete", "fail")
        }
        asked = overdue, until, homes, but, holder, limit, self._are_loaded(definitions), completed
        return [self._begun(one, b"") for one in self.tables.executions.begin_untried(*asked)]

    async def note_progress(self, holder: int, notes: Sequence[Progress]) -> None:
        self.tables.executions.note_progress(holder, notes)

    async def put_back(self, holder: int, but: Sequence[int]) -> None:
        for one in self.tables.executions.rows.values():
            if one.holder == holder and one.id not in but:
                has_begun = one.asked.attempt > 1 or one.asked.token
                one.holder, one.began = None, one.began if has_begun else None

    async def put_held_back(self, holder: int, but: Sequence[int]) -> None:
        for one in self.tables.executions.rows.values():
            if one.holder == holder and one.id not in but and self.tables.runs[one.asked.run][1].held:
                one.holder = None

    async def begun_by_others(
        self,
        homes: Sequence[int],
        pipelines: Sequence[int],
        definitions: Sequence[int],
        but: Sequence[int],
        silent_seconds: float,
        limit: int,
    ) -> list[BegunExecution]:
        found = self.tables.executions.lost(homes, pipelines, but, self._clock() - silent_seconds)
        lost = [self._begun(one, b"") for one in found if not self.tables.runs[one.asked.run][1].held]
        return [one for one in lost if one.definition in definitions][:limit]

    async def take_executions(
        self, numbers: Sequence[int], holder: int, silent_seconds: float
    ) -> list[BegunExecution]:
        taken = self.tables.executions.take(numbers, holder, self._clock() - silent_seconds)
        return [self._begun(one, self._input_of(one), self._made_of(one)) for one in taken]

    def _begun(self, one: Waiting, input: bytes, made: bytes | None = None) -> BegunExecution:
        return as_begun(one, self.tables.runs[one.asked.run][1], input, made)

    def _made_of(self, one: Waiting) -> bytes | None:
        return self.tables.rows[one.asked.run, one.asked.made].payload if one.asked.made else None

    def _input_of(self, one: Waiting) -> bytes:
        asked, rows = one.asked, self.tables.rows
        contexts = (rows[asked.run, number].context for number in range(asked.sequence, 0, -1))
        return next(context for context in contexts if context)

    async def hold(self, holder: int, instance: str | None, breakers: bytes = b"") -> None:
        del breakers
        self.tables.executions.hold(holder, instance, self._clock())

    async def let_go(self, holder: int) -> None:
        self.tables.executions.let_go(holder)

    async def told_results(self, asked: Sequence[tuple[int, int, str]]) -> set[int]:
        told = {(run, row.event_id) for (run, _), row in self.tables.rows.items()}
        elsewhere = {one.event_id for one in self.tables.noted}
        elsewhere |= {letter.event_id for letter, _ in self.tables.letters.values() if letter.event_id}
        return {number for number, run, event_id in asked if (run, event_id) in told or event_id in elsewhere}

    async def executions_there(self, numbers: Sequence[int]) -> dict[int, bool]:
        rows = self.tables.executions.rows.values()
        return {one.id: one.asked.stopping for one in rows if one.id in numbers}

    async def said_last(self, asked: Sequence[tuple[int, str]]) -> list[str]:
        rows = sorted(self.tables.rows.items())
        return [
            next(
                (
                    row.type
                    for (number, _), row in reversed(rows)
                    if number == run and row.event_id.startswith(f"{key}/")
                ),
                "",
            )
            for run, key in asked
        ]

    async def has_executions(self, pipelines: Sequence[int], definitions: Sequence[int]) -> bool:
        waiting = [one.asked for one in self.tables.executions.rows.values() if not one.asked.token]
        runs = [self.tables.runs[one.run][1] for one in waiting if one.pipeline in pipelines]
        return any(not run.held and run.definition in definitions for run in runs)

    async def find_tokens(self, tokens: Sequence[str]) -> dict[str, Token]:
        known = self.tables.executions.tokens
        return {token: known[token] for token in tokens if token in known}

    async def applied(self, topics: Iterable[str]) -> dict[Partition, Applied]:
        wanted = set(topics)
        places = self.tables.places
        return {p: Applied(at.position, at.record_time) for p, at in places.items() if p.topic in wanted}

    async def waiting_events(self, run: int, limit: int, bytes_max: int) -> list[WaitingEvent]:
        found = sorted(
            (sequence, digest)
            for (of, sequence), (digest, until) in self.tables.waiting.items()
            if of == run and until is None
        )
        events: list[WaitingEvent] = []
        size = 0
        for sequence, digest in found[:limit]:
            row = self.tables.rows[run, sequence]
            size += len(row.payload or b"") + len(row.envelope)
            if events and size > bytes_max:
                break
            events.append(_waiting_event(row, digest))
        return events

    async def strikes(self, positions: Sequence[int]) -> dict[tuple[int, int], tuple[int, str]]:
        del positions
        return {}

    async def read_inbox(
        self, pipelines: Sequence[int], limit: int, homes: Sequence[int] = ()
    ) -> list[Command]:
        del homes
        mine = [c for c in self.tables.inbox.values() if c.pipeline is None or c.pipeline in pipelines]
        may = [
            c
            for c in mine
            if c.command in ("pause_pipeline", "resume_pipeline") or c.pipeline not in self.tables.pauses
        ]
        return sorted(may)[:limit]

    async def pauses(self, pipelines: Sequence[int]) -> list[Pause]:
        return [self.tables.pauses[one] for one in pipelines if one in self.tables.pauses]

    async def hold_of(self, run: int, sequence: int) -> Hold | None:
        row = self.tables.rows.get((run, sequence))
        if row is None:
            return None
        letters = self.tables.letters.items()
        held = [
            (number, one.reason)
            for number, (one, status) in letters
            if (one.run, one.sequence, status) == (run, sequence, "open")
        ]
        letter, reason = held[0] if held else (None, None)
        return Hold(row.kind, row.at, row.payload, letter, reason, row.type, not row.position)

    async def cancellation_of(self, run: int) -> Hold | None:
        rows = [row for row in self.tables.rows.values() if (row.run, row.kind) == (run, Kind.CANCELLED)]
        found = max(rows, key=lambda row: row.sequence, default=None)
        return None if found is None else Hold(found.kind, found.at, found.payload, None, None)

    async def completion_of(self, run: int, begins: str) -> Operation | None:
        for one in reversed(self.tables.operations):
            completes = one.what in ("complete", "fail") and one.done
            if completes and one.run == run and (one.event_id or "").startswith(begins):
                return one
        return None

    async def load_dead_letter(self, number: int) -> StoredDeadLetter | None:
        found = self.tables.letters.get(number)
        if found is None:
            return None
        letter, status = found
        return StoredDeadLetter(
            number,
            letter.pipeline,
            letter.run,
            letter.sequence,
            letter.key,
            letter.event_id,
            letter.type,
            letter.position,
            letter.offset,
            letter.record_time,
            letter.record_key,
            letter.record_value,
            letter.record_headers,
            status,
            letter.reason,
            letter.topic,
            letter.details,
        )

    async def has_command(self, number: int) -> bool:
        return number in self.tables.inbox

    async def run_by_id(self, number: int) -> Run | None:
        found = self.tables.runs.get(number)
        return None if found is None else found[1]

    async def origin_of(self, position: int | None) -> Origin:
        for partition, place in self.tables.places.items():
            if place.id == position:
                return Origin(CLUSTER, partition.topic, partition.number)
        return Origin("", "", 0)

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        del channel, heard

    async def lock(self, positions: Sequence[int], runs: Sequence[int]) -> None:
        del positions, runs

    async def unlock(self) -> None:
        pass

    async def keep_up(self, now: datetime) -> None:
        self.tables.executions.forget_tokens(now - TOKENS_KEPT)

    async def close(self) -> None:
        pass

    async def commit(self, commit: Commit) -> int | None:
        before = self.tables.copied()
        try:
            return self._write(commit)
        except BaseException:
            for name in Tables.__slots__:
                setattr(self.tables, name, getattr(before, name))
            raise

    def _write(self, commit: Commit) -> int | None:
        tables = self.tables
        self._move(commit)
        for number in commit.commands:
            if tables.inbox.pop(number, None) is None:
                raise LostRunsError("another engine consumed a command first")
        self._fill_inbox(commit)
        self._change_runs(commit)
        tables.attributes.update(commit.attributes)
        tables.executions.write(commit)
        tables.executions.write_tokens(commit)
        rows = [unpack(packed) for packed in commit.rows]
        for row in rows:
            self._add_row(row)
        tables.executions.begin_promised(commit, lambda run, made: tables.rows[run, made].payload)
        tables.taken_ids.update(commit.taken_ids)
        for run, sequence, digest, until, own in commit.waiting_added:
            tables.waiting[run, sequence] = (digest, until)
            if own is not None:
                tables.waiting_ids[run, sequence] = own
        for gone in commit.waiting_removed:
            tables.waiting.pop(gone, None)
            tables.waiting_ids.pop(gone, None)
        published = bool(commit.out)
        for letter in commit.dead_letters:
            if any("\0" in (text or "") for text in (letter.key, letter.event_id, letter.error)):
                raise RefusedByStoreError("text has no NUL")
            tables.letters[len(tables.letters) + 1] = (letter, letter.status)
            published = published or letter.out is not None
        for ended in commit.ended:
            letter, status = tables.letters[ended.id]
            tables.letters[ended.id] = (letter, ended.status if status == "open" else status)
        tables.noted.extend(commit.noted)
        tables.operations.extend(commit.operations)
        self._pause(commit)
        if not published:
            return None
        tables.ticket += 1
        return tables.ticket

    def _fill_inbox(self, commit: Commit) -> None:
        tables = self.tables
        if commit.follow_up is not None:
            tables.commands += 1
            commit.followed_by = Command(tables.commands, *commit.follow_up, commit.at)
            tables.inbox[tables.commands] = commit.followed_by
        for one in commit.going_on:
            tables.commands += 1
            tables.inbox[tables.commands] = Command(tables.commands, *one, commit.at)
        for sent in commit.sent:
            tables.commands += 1
            pipeline = tables.pipelines.setdefault(sent.pipeline, len(tables.pipelines) + 1)
            tables.inbox[tables.commands] = Command(
                tables.commands, pipeline, "event", sent.body, "engine", "sent by a run", commit.at
            )

        for said in commit.completed:
            tables.commands += 1
            tables.inbox[tables.commands] = Command(
                tables.commands, tables.pipelines[said.pipeline], *said[1:5], commit.at
            )

    def _pause(self, commit: Commit) -> None:
        pauses = self.tables.pauses
        for pause in commit.paused:
            if pauses.setdefault(pause.pipeline, pause) != pause:
                raise LostRunsError("another engine paused a pipeline first")
        for pause in commit.resumed:
            if pauses.pop(pause.pipeline, None) != pause:
                raise LostRunsError("another engine resumed a pipeline first")
        for one in commit.released:
            self._release(one, commit.at)
        if commit.under_pauses - {pause.command for pause in pauses.values()}:
            raise LostRunsError("a pipeline was resumed first")

    def _release(self, one: Release, at: datetime) -> None:
        tables = self.tables
        held = [
            run
            for pipeline, run in tables.runs.values()
            if pipeline == one.pipeline
            and run.held
            and run.id > one.after
            and tables.rows[run.id, run.held].type == PIPELINE_PAUSED
        ]
        found = sorted(held, key=lambda run: run.id)[:RELEASED_AT_ONCE_MAX]
        asked = [("release", {"run": run.id, "held": run.held}) for run in found]
        if len(found) == RELEASED_AT_ONCE_MAX:
            asked.append(("release_pipeline", {"after": found[-1].id}))
        for what, body in asked:
            tables.commands += 1
            tables.inbox[tables.commands] = Command(
                tables.commands, one.pipeline, what, orjson.dumps(body), one.who, one.why, at
            )

    def _move(self, commit: Commit) -> None:
        by_id = {place.id: place for place in self.tables.places.values()}
        lost = [
            move.id
            for move in commit.positions
            if (by_id[move.id].epoch, by_id[move.id].position) != (move.epoch, move.old)
        ]
        if lost:
            raise LostPositionsError(lost)
        for move in commit.positions:
            by_id[move.id].position = move.new
            if move.record_time is not None:
                by_id[move.id].record_time = move.record_time

    def _change_runs(self, commit: Commit) -> None:
        runs = self.tables.runs
        expected = [(old, run.id) for old, run in commit.changed]
        expected += [(at, run) for run, at in (*commit.judged, *commit.retired)]
        for old, number in expected:
            if number not in runs or runs[number][1].sequence != old:
                raise LostRunsError("another engine moved a run first")
        for _, run in commit.changed:
            # What is deferred is in the rows, and read from there.
            runs[run.id] = (runs[run.id][0], run)
        taken = {(owner, run.key, run.generation) for owner, run in runs.values()}
        if any((owner, key, generation + 1) in taken for owner, key, generation in commit.last):
            raise LostRunsError("another engine began the next run of a key first")
        for pipeline, run in commit.created:
            if (pipeline, run.key, run.generation) in taken or run.id in runs:
                raise LostRunsError("another engine started the run first")
            runs[run.id] = (pipeline, run)

    def _add_row(self, row: LogRow) -> None:
        rows = self.tables.rows
        if any("\0" in text for text in (row.type, row.event_id, row.configuration)):
            raise RefusedByStoreError("text has no NUL")
        twice = row.digest is not None and any(
            other.run == row.run and other.digest == row.digest for other in rows.values()
        )
        if twice or (row.run, row.sequence) in rows:
            raise LostRunsError("the row is there already")
        rows[row.run, row.sequence] = row


def _waiting_event(row: LogRow, digest: int) -> WaitingEvent:
    return WaitingEvent(
        row.sequence, row.type, row.event_id, row.position, row.offset, row.payload, row.envelope, digest
    )
