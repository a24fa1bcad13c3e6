"""A store in memory, for unit speed. It passes the same suite as Postgres (``tests/contract/test_store.py``)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import orjson

from connectors.source import Partition
from engine.homes import home_of
from engine.log import PIPELINE_PAUSED, Kind, LogRow, unpack
from engine.store.contract import (
    TOKENS_KEPT,
    LostPositionsError,
    LostRunsError,
    RefusedByStoreError,
    TakenTwiceError,
)
from engine.store.values import (
    Applied,
    Command,
    Commit,
    DeferredRow,
    DueRun,
    Hold,
    Operation,
    Origin,
    Pause,
    Position,
    Release,
    StoredDeadLetter,
    WaitingEvent,
)
from engine.store.writing import RELEASED_AT_ONCE_MAX
from statemachines.following import wakes_at
from statemachines.memory import time_of
from statemachines.run import Run, Status
from tests.fakes.executing import FakeExecuting
from tests.fakes.tables import CLUSTER, Place, Tables


class FakeStore(FakeExecuting):
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
                taken.append(Position(place.id, partition, place.position, place.epoch, place.topic_id))
        return taken

    async def note_topic_ids(self, noted: Iterable[tuple[int, int, str]]) -> set[int]:
        of = {place.id: place for place in self.tables.places.values()}
        ours = [one for one in noted if of[one[0]].epoch == one[1]]
        for number, _, topic_id in ours:
            of[number].topic_id = topic_id
        return {number for number, *_ in ours}

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
                    DueRun(pipeline, time_of(wake), run.id, run.key, run.generation, run.sequence, run)
                )
        looked_at = [sorted(one, key=lambda run: run.wake_at)[: each or limit] for one in due.values()]
        ends = [one[-1].wake_at for one in looked_at if len(one) == (each or limit)]
        told = sorted(itertools.chain(*looked_at), key=lambda one: one.wake_at)
        return [one for one in told if not ends or one.wake_at <= min(ends)][:limit]

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
        self, pipelines: Sequence[int], limit: int, homes: Sequence[int] = (), unheard_of: Sequence[int] = ()
    ) -> list[Command]:
        loaded = [c for c in self.tables.inbox.values() if c.pipeline is None or c.pipeline in pipelines]
        mine = [c for c in loaded if c.command != "event" or _home_of_event(c) in homes]
        may = [
            c
            for c in mine
            if c.command in ("pause_pipeline", "resume_pipeline") or c.pipeline not in self.tables.pauses
        ]
        found = [c._replace(awaits_token=self._awaits_token(c)) for c in sorted(may)]
        return [c for c in found if not c.awaits_token or c.id not in unheard_of][:limit]

    def _awaits_token(self, command: Command) -> bool:
        completes = command.command in ("complete", "fail")
        return completes and orjson.loads(command.body)["token"] not in self.tables.executions.tokens

    async def pauses(self, pipelines: Sequence[int]) -> list[Pause]:
        return [self.tables.pauses[one] for one in pipelines if one in self.tables.pauses]

    async def holds_of(self, held: Sequence[tuple[int, int]]) -> dict[int, Hold]:
        found = {run: self._hold_of(run, sequence) for run, sequence in held}
        return {run: hold for run, hold in found.items() if hold is not None}

    def _hold_of(self, run: int, sequence: int) -> Hold | None:
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

    async def commands_left(self, numbers: Sequence[int]) -> set[int]:
        return {number for number in numbers if number in self.tables.inbox}

    async def runs_by_id(self, numbers: Sequence[int]) -> list[Run]:
        return [self.tables.runs[number][1] for number in numbers if number in self.tables.runs]

    async def run_by_id(self, number: int) -> Run | None:
        return next(iter(await self.runs_by_id([number])), None)

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

    async def keep_up(self, now: datetime) -> bool:
        self.tables.executions.forget_tokens(now - TOKENS_KEPT)
        return False

    async def close(self) -> None:
        pass

    async def commit(self, commit: Commit) -> int | None:
        before = self.tables.copied()
        try:
            return self._write(commit)
        except BaseException:
            for name in Tables.__slots__:
                setattr(self.tables, name, getattr(before, name))
            commit.begun.clear()
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
        numbers = tables.executions.number(len(commit.promised))
        tables.executions.write(commit)
        tables.executions.write_tokens(commit)
        rows = [unpack(packed) for packed in commit.rows]
        for row in rows:
            self._add_row(row)
        tables.executions.begin_promised(commit, numbers, lambda run, made: tables.rows[run, made].payload)
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
            tables.letters[len(tables.letters) + 1] = (letter, "open")
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
        if twice:
            raise TakenTwiceError
        if (row.run, row.sequence) in rows:
            raise LostRunsError("the row is there already")
        rows[row.run, row.sequence] = row


def _home_of_event(command: Command) -> int:
    key, _, _ = command.body.partition(b"\0")
    return home_of(key.decode())


def _waiting_event(row: LogRow, digest: int) -> WaitingEvent:
    return WaitingEvent(
        row.sequence, row.type, row.event_id, row.position, row.offset, row.payload, row.envelope, digest
    )
