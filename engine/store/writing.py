"""What one commit writes, statement by statement, in the order in which locks are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from engine import outbox
from engine.dead_letters import numbered
from engine.homes import home_of
from engine.log import COLUMNS, PIPELINE_PAUSED, Kind
from engine.store.attributes import write_attributes
from engine.store.connecting import Connection
from engine.store.contract import LostPositionsError, LostRunsError, TokenTakenError
from engine.store.copying import (
    CHANGE_COLUMNS,
    RUN_COLUMNS,
    change_columns,
    copy,
    pack_changes,
    pack_runs,
)
from engine.store.queries import columns_of, load
from engine.store.values import AskedExecution, Command, Commit, FollowUp, Operation, Release
from statemachines.run import Run

_SQL = load("store")
RELEASED_AT_ONCE_MAX = 2_000
"""So many runs are asked to go on in one transaction once their pipeline is resumed."""
FEW_CHANGES_MAX = 500
"""So many runs are changed by a statement with arrays; more by COPY and a statement: less work, but one more answer."""


class Writing:
    """Writes commits on one connection."""

    def __init__(self, writer: Connection, namespace: str, lane: int) -> None:
        self._writer = writer
        self._namespace = namespace
        self._lane = lane

    async def write(self, commit: Commit, *, begun: bool) -> int | None:
        """Write all of it, in the transaction that has ``begun`` or a new one; returns its ticket, if it publishes.

        Raises:
            LostPositionsError, LostRunsError: nothing of it may be committed.
        """
        await self._move_positions(commit, "" if begun else "begin;")
        await self._consume_commands(commit)
        await self._change_runs(commit)
        if commit.last and await self._writer.fetchval(_SQL["count_succeeded"], *columns_of(commit.last)):
            raise LostRunsError("another engine began the next run of a key first")
        await self._create_runs(commit)
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
        if commit.rows:
            await copy(self._writer, "pointsman.events", commit.rows, COLUMNS)
        await self._write_executions(commit)
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

    async def _move_positions(self, commit: Commit, begin: str) -> None:
        moves = commit.positions
        if not moves:
            if begin:
                await self._writer.execute(begin)
            return
        columns = columns_of(moves)
        numbers = tuple(",".join(map(_written, column)) for column in columns)
        status = await self._writer.execute(begin + _SQL["move_positions"] % numbers)
        if status != f"UPDATE {len(moves)}":
            ids, epochs, olds, _, _ = columns
            raise LostPositionsError(await self._which_are_lost(ids, epochs, olds))

    async def _which_are_lost(self, ids: list[int], epochs: list[int], olds: list[int]) -> set[int]:
        # The transaction has moved those that are ours, so it is asked about after it is gone.
        await self._writer.execute("rollback")
        rows = await self._writer.fetch(
            "select id, epoch, position from pointsman.positions where id = any ($1::int[])", ids
        )
        await self._writer.execute("begin")
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
        if commit.going_on or commit.sent:
            await self._writer.execute("notify pointsman_inbox")

    async def _change_runs(self, commit: Commit) -> None:
        if not commit.changed:
            return
        changed = sorted(commit.changed, key=_by_run_id)
        if len(changed) <= FEW_CHANGES_MAX:
            status = await self._writer.execute(_SQL["change_few_runs"], *change_columns(changed))
        else:
            await copy(self._writer, "run_changes", pack_changes(changed), CHANGE_COLUMNS)
            status = await self._writer.execute(_SQL["change_runs"])
        if status != f"UPDATE {len(changed)}":
            raise LostRunsError("another engine moved a run first")

    async def _create_runs(self, commit: Commit) -> None:
        if commit.created:
            created = sorted(commit.created, key=_by_run_id)
            await copy(self._writer, "pointsman.runs", pack_runs(created), RUN_COLUMNS)

    async def _write_executions(self, commit: Commit) -> None:
        # The rows of their runs are locked already, by the statements that moved them.
        if commit.executions_over:
            await self._writer.execute(_SQL["remove_executions"], *columns_of(commit.executions_over))
        if commit.executions_asked:
            await self._ask(commit)
        if commit.promised:
            await self._begin_promised(commit)
        if commit.tells_others and (commit.executions_over or commit.executions_asked):
            # Whoever serves their homes need not be who commits this.
            await self._writer.execute("notify pointsman_steps")

    async def _ask(self, commit: Commit) -> None:
        first = [one for one in commit.executions_asked if one.is_first]
        rest = [one[:-1] for one in commit.executions_asked if not one.is_first]
        if first:
            await self._writer.execute(_SQL["add_first"], commit.at, None, None, *_columns_of_first(first))
        if rest:
            await self._writer.execute(_SQL["add_executions"], *columns_of(rest))

    async def _begin_promised(self, commit: Commit) -> None:
        who = commit.promised_to, commit.promised_at
        columns = _columns_of_first([one.asked for one in commit.promised])
        found = await self._writer.fetch(_SQL["begin_first"], commit.at, *who, *columns)
        rows = {row[:3]: row for row in map(tuple, found)}
        for one in commit.promised:
            _, _, _, number, home, made = rows[one.asked.address]
            commit.begun.append(one.begun(number, home, made, commit.promised_at))

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
        come = {(run, sequence) for run, sequence, _, _ in commit.waiting_added}
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
            await self._copy("operations", commit.operations, Operation._fields)
        if commit.noted:
            await self._copy("dispositions", commit.noted, type(commit.noted[0])._fields)
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

    async def _copy(self, table: str, records: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> None:
        await self._writer.copy_records_to_table(
            table, schema_name="pointsman", records=records, columns=list(columns)
        )


def _has_extras(commit: Commit) -> bool:
    return bool(
        commit.out or commit.dead_letters or commit.noted or commit.waiting_added or commit.waiting_removed
        or commit.ended or commit.ranges or commit.strikes_forgotten or commit.operations
        or commit.paused or commit.resumed or commit.released or commit.under_pauses
    )  # fmt: skip


def _written(number: int | None) -> str:
    return "null" if number is None else str(int(number))


def _by_run_id(item: tuple[int, Run]) -> int:
    return item[1].id


def _columns_of_first(asked: Sequence[AskedExecution]) -> list[list[Any] | None]:
    """As little as says it all: to look at each value of an array takes longer than Postgres has with it."""
    places = list(dict.fromkeys((one.pipeline, one.step) for one in asked))
    number_of = {place: number for number, place in enumerate(places, start=1)}
    undoes = any(one.of for one in asked)
    return [
        *columns_of(places),
        [number_of[one.pipeline, one.step] for one in asked],
        [home_of(one.key) for one in asked],
        [one.run for one in asked],
        [one.sequence for one in asked],
        [one.number for one in asked],
        [one.of for one in asked] if undoes else None,
        [one.made for one in asked] if undoes else None,
    ]
