"""What one commit writes, statement by statement, in the order in which locks are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson

from engine import outbox
from engine.dead_letters import numbered
from engine.homes import home_of
from engine.log import COLUMNS, PIPELINE_PAUSED, Kind
from engine.store.attributes import write_attributes
from engine.store.connecting import CopyingConnection
from engine.store.contract import LostPositionsError, LostRunsError, TokenTakenError
from engine.store.copying import (
    CHANGE_COLUMNS,
    RUN_COLUMNS,
    pack_changes,
    pack_runs,
)
from engine.store.literals import numbers, numbers_or_null, texts
from engine.store.queries import columns_of, load
from engine.store.script import Script
from engine.store.values import AskedExecution, Command, Commit, FollowUp, Operation, Release
from statemachines.run import Run

_SQL = load("store")
RELEASED_AT_ONCE_MAX = 2_000
"""So many runs are asked to go on in one transaction once their pipeline is resumed."""
NUMBERED_AT_ONCE = 1_000
"""So many executions are numbered ahead, so that no commit waits to hear the numbers of those that begin with it."""
LOST_POSITIONS, LOST_RUNS = "PM001", "PM002"
"""What ``pointsman.expect`` says where another engine was first."""


class Writing:
    """Writes commits on one connection."""

    def __init__(self, writer: CopyingConnection, namespace: str, lane: int) -> None:
        self._writer = writer
        self._namespace = namespace
        self._lane = lane
        self._ids: deque[int] = deque()
        """For executions that begin with the commit that asks for them."""

    async def commit(self, commit: Commit, *, begun: bool) -> int | None:
        """Write all of it, in the transaction that has ``begun`` or a new one, and commit that; returns its ticket, if
        it publishes.

        Raises:
            LostPositionsError, LostRunsError: nothing of it is committed.
        """
        try:
            return await self._commit(commit, begun=begun)
        except asyncpg.PostgresError as error:
            if error.sqlstate == LOST_POSITIONS:
                raise LostPositionsError(await self._which_are_lost(commit)) from None
            if error.sqlstate == LOST_RUNS:
                raise LostRunsError("another engine moved a run first") from None
            raise

    async def _commit(self, commit: Commit, *, begun: bool) -> int | None:
        await self._have_ids(len(commit.promised))
        undone = [one.asked for one in commit.promised if one.asked.made]
        made = await self._returned(undone)
        # What a step has returned is mostly in a row of before; else it is found once that is written.
        not_yet = [one for one in undone if one.returned_by not in made]
        script = Script(self._writer)
        if not begun:
            script.say("begin")
        if commit.positions:
            ids, *columns = columns_of(commit.positions)
            script.execute("move_positions", numbers(ids), *map(numbers_or_null, columns))
        if (
            commit.commands
            or commit.follow_up is not None
            or commit.going_on
            or commit.sent
            or commit.completed
        ):
            await script.hear()
            await self._consume_commands(commit)
        self._change_runs(script, commit)
        if commit.last:
            await script.hear()
            if await self._writer.fetchval(_SQL["count_succeeded"], *columns_of(commit.last)):
                raise LostRunsError("another engine began the next run of a key first")
        self._create_runs(script, commit)
        self._remove_executions(script, commit)
        first = [one for one in commit.executions_asked if one.is_first]
        again = [one[:-1] for one in commit.executions_asked if not one.is_first]
        if first:
            script.execute("add_first", commit.steps_at.isoformat(), None, None, *_arrays_of_first(first))
        ids = self._begin_promised(script, commit)
        if commit.attributes or commit.tokens or commit.tokens_over or commit.judged or commit.retired:
            await script.hear()
            await self._write_of_runs(commit)
        if commit.rows:
            script.copy("pointsman.events", commit.rows, COLUMNS)
        ticket = None
        if again or not_yet or _has_extras(commit):
            await script.hear()
            made |= await self._returned(not_yet)
            ticket = await self._write_rest(commit, again)
        if commit.tells_others and (commit.executions_over or commit.executions_asked):
            # Whoever serves the homes of executions need not be who commits this.
            script.say("notify pointsman_steps")
        script.say("commit")
        await script.hear()
        for one, number in zip(commit.promised, ids, strict=True):
            undo = made.get(one.asked.returned_by)
            commit.begun.append(one.begun(number, home_of(one.asked.key), undo, commit.promised_at))
        return ticket

    async def _write_of_runs(self, commit: Commit) -> None:
        """What else there is of runs that are changed, and of those that are not and must still be as they were."""
        if commit.attributes:
            await write_attributes(self._writer, commit.attributes)
        if commit.tokens or commit.tokens_over:
            await self._write_tokens(commit)
        if commit.judged:
            unmoved = await self._writer.fetchval(_SQL["count_unmoved"], *columns_of(commit.judged))
            if unmoved != len(commit.judged):
                raise LostRunsError("another engine moved a run that was found not to take an event")
        if commit.retired:
            unmoved = await self._writer.fetchval(_SQL["lock_unmoved"], *columns_of(sorted(commit.retired)))
            if unmoved != len(commit.retired):
                raise LostRunsError("another engine moved a run that had ended first")

    async def _write_rest(self, commit: Commit, again: Sequence[tuple[Any, ...]]) -> int | None:
        """What is written behind the log, such as executions asked for ``again``; returns the ticket of what is
        published, which comes last of all.
        """
        if again:
            await self._writer.execute(_SQL["add_executions"], *columns_of(again))
        if not _has_extras(commit):
            return None
        out = list(commit.out)
        await self._write_waiting(commit)
        for letter in commit.dead_letters:
            number = await self._writer.fetchval(_SQL["add_dead_letter"], self._namespace, *letter.columns)
            if letter.out is not None:
                out.append(numbered(letter.out, number))
        await self._write_notes(commit)
        await self._write_pauses(commit)
        return await outbox.put(self._writer, self._lane, outbox.encode(out)) if out else None

    async def _which_are_lost(self, commit: Commit) -> set[int]:
        # The transaction is broken, so it is asked behind it.
        ids, epochs, olds, _, _ = columns_of(commit.positions)
        await self._writer.execute("rollback")
        rows = await self._writer.fetch(
            "select id, epoch, position from pointsman.positions where id = any ($1::int[])", ids
        )
        now = {number: (epoch, position) for number, epoch, position in rows}
        held = zip(ids, epochs, olds, strict=True)
        lost = {number for number, epoch, old in held if now.get(number) != (epoch, old)}
        return lost or set(ids)

    async def _consume_commands(self, commit: Commit) -> None:
        if commit.commands:
            status = await self._writer.execute(_SQL["take_inbox"], commit.commands)
            if status != f"DELETE {len(commit.commands)}":
                raise LostRunsError("another engine consumed a command first")
        if commit.follow_up is not None:
            row = await self._writer.fetchrow(_SQL["add_follow_up"], self._namespace, *commit.follow_up)
            assert row is not None, "an insert returns its row"
            commit.followed_by = Command(*row)
        for one in commit.going_on:
            await self._writer.execute(_SQL["add_follow_up"], self._namespace, *one)
        if commit.sent:
            status = await self._writer.execute(_SQL["add_sent"], self._namespace, *columns_of(commit.sent))
            if status != f"INSERT 0 {len(commit.sent)}":
                raise LostRunsError("another engine made the pipeline that an event is sent to")
        if commit.completed:
            completed = columns_of(commit.completed)
            await self._writer.execute(_SQL["add_completed"], self._namespace, *completed)
        if commit.going_on or commit.sent or commit.completed:
            await self._writer.execute("notify pointsman_inbox")

    def _change_runs(self, script: Script, commit: Commit) -> None:
        if commit.changed:
            changed = sorted(commit.changed, key=_by_run_id)
            script.copy("pg_temp.run_changes", pack_changes(changed), CHANGE_COLUMNS)
            script.execute("change_runs", str(len(changed)))

    def _create_runs(self, script: Script, commit: Commit) -> None:
        if commit.created:
            created = sorted(commit.created, key=_by_run_id)
            script.copy("pointsman.runs", pack_runs(created), RUN_COLUMNS)
        if commit.taken_ids:
            script.execute("add_taken_ids", *map(numbers, columns_of(commit.taken_ids)))

    def _remove_executions(self, script: Script, commit: Commit) -> None:
        # The rows of their runs are locked already, by the statements that moved them.
        if commit.limited_left:
            script.execute("keep_places", *map(numbers, columns_of(commit.limited_left)))
        if commit.executions_over:
            script.execute("remove_executions", *map(numbers, columns_of(commit.executions_over)))

    async def _have_ids(self, needed: int) -> None:
        while len(self._ids) < needed:
            rows = await self._writer.fetch(_SQL["number_executions"], NUMBERED_AT_ONCE)
            self._ids.extend(number for (number,) in rows)

    def _begin_promised(self, script: Script, commit: Commit) -> list[int]:
        """Have those begin that are promised; returns the store's numbers of them."""
        ids = [self._ids.popleft() for _ in commit.promised]
        if ids:
            at = commit.steps_at.isoformat(), str(commit.promised_to), commit.promised_at.isoformat()
            script.execute("add_first", *at, *_arrays_of_first([one.asked for one in commit.promised], ids))
        return ids

    async def _returned(self, undone: Sequence[AskedExecution]) -> dict[tuple[int, int], bytes]:
        """What the steps have returned that these undo, by run and row of the log, as far as these are written."""
        if not undone:
            return {}
        runs, rows = zip(*(one.returned_by for one in undone), strict=True)
        found = await self._writer.fetch(_SQL["returned"], numbers(runs), numbers(rows))
        return {(run, sequence): payload for run, sequence, payload in found}

    async def _write_tokens(self, commit: Commit) -> None:
        if commit.tokens_over:
            over = sorted(commit.tokens_over)
            await self._writer.execute(_SQL["close_tokens"], self._namespace, *columns_of(over), commit.at)
        waiting = [one for one in commit.tokens if one.waits]
        if len({one.token for one in waiting}) < len(waiting):
            raise TokenTakenError
        if waiting:
            status = await self._writer.execute(
                _SQL["open_tokens"], self._namespace, *columns_of(waiting), commit.at
            )
            if status != f"INSERT 0 {len(waiting)}":
                raise TokenTakenError
        told = {one.token: one for one in commit.tokens if not one.waits}
        if told:
            await self._writer.execute(
                _SQL["open_tokens"], self._namespace, *columns_of([*told.values()]), commit.at
            )

    async def _write_waiting(self, commit: Commit) -> None:
        # What came and went in this one commit never waits; and an event may wait anew for another reason.
        come = {one[:2] for one in commit.waiting_added}
        gone = set(commit.waiting_removed)
        removed = [one for one in commit.waiting_removed if one not in come]
        added = [one for one in commit.waiting_added if one[:2] not in gone]
        if removed:
            await self._writer.execute(_SQL["remove_waiting"], *columns_of(removed))
        if added:
            await self._writer.execute(_SQL["add_waiting"], *columns_of(added))

    async def _write_notes(self, commit: Commit) -> None:
        for ended in commit.ended:
            status = await self._writer.execute(_SQL["end_dead_letter"], *ended, commit.at)
            if status != "UPDATE 1":
                raise LostRunsError("another engine ended a dead letter first")
        if commit.operations:
            await self._writer.copy_rows("operations", commit.operations, Operation._fields)
        if commit.noted:
            await self._writer.copy_rows("dispositions", commit.noted, type(commit.noted[0])._fields)
        if commit.ranges:
            await self._writer.execute(_SQL["add_ignored_range"], *columns_of(commit.ranges), commit.at)
        if commit.strikes_forgotten:
            await self._writer.execute(_SQL["forget_strikes"], *columns_of(commit.strikes_forgotten))

    async def _write_pauses(self, commit: Commit) -> None:
        for pause in commit.paused:
            if await self._writer.execute(_SQL["add_pause"], *pause) != "INSERT 0 1":
                raise LostRunsError("another engine paused a pipeline first")
        for pause in commit.resumed:
            status = await self._writer.execute(_SQL["end_pause"], pause.pipeline, pause.command)
            if status != "DELETE 1":
                raise LostRunsError("another engine resumed a pipeline first")
        for one in commit.released:
            await self._release(one)
        if commit.paused or commit.resumed or commit.released:
            await self._writer.execute("notify pointsman_inbox")
        if commit.under_pauses:
            held = await self._writer.fetch(_SQL["lock_pauses"], sorted(commit.under_pauses))
            if len(held) != len(commit.under_pauses):
                raise LostRunsError("a pipeline was resumed first")

    async def _release(self, one: Release) -> None:
        """Put a command into the inbox for each of the next runs, and one for those behind them."""
        limit, said = RELEASED_AT_ONCE_MAX, (one.who, one.why)
        asked = one.pipeline, one.after, int(Kind.PAUSED), PIPELINE_PAUSED, limit
        last = await self._writer.fetchval(_SQL["release_paused"], self._namespace, *asked, *said)
        if last is not None:
            body = orjson.dumps({"after": last})
            rest = FollowUp(one.pipeline, "release_pipeline", body, *said)
            await self._writer.execute(_SQL["add_follow_up"], self._namespace, *rest)


def _has_extras(commit: Commit) -> bool:
    return bool(
        commit.out or commit.dead_letters or commit.noted or commit.waiting_added or commit.waiting_removed
        or commit.ended or commit.ranges or commit.strikes_forgotten or commit.operations
        or commit.paused or commit.resumed or commit.released or commit.under_pauses
    )  # fmt: skip


def _by_run_id(item: tuple[int, Run]) -> int:
    return item[1].id


def _arrays_of_first(asked: Sequence[AskedExecution], ids: Sequence[int] = ()) -> list[str | None]:
    """As little as says it all; ``ids`` are their numbers, where they have any yet."""
    places = list(dict.fromkeys((one.pipeline, one.step) for one in asked))
    number_of = {place: number for number, place in enumerate(places, start=1)}
    undoes = any(one.of for one in asked)
    return [
        numbers([pipeline for pipeline, _ in places]),
        texts([step for _, step in places]),
        numbers([number_of[one.pipeline, one.step] for one in asked]),
        numbers([home_of(one.key) for one in asked]),
        numbers([one.run for one in asked]),
        numbers([one.sequence for one in asked]),
        numbers([one.number for one in asked]),
        texts([one.of for one in asked]) if undoes else None,
        numbers([one.made for one in asked]) if undoes else None,
        numbers(ids) if ids else None,
    ]
