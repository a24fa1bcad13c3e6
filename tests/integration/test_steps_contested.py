"""A run that another engine goes on moving: it keeps nothing of what is in one commit with it from being durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.homes import HOMES
from engine.reading import list_runs, replay, verify
from engine.session.claims import Slice
from engine.session.recovering import LOSSES_BEFORE_LOCK
from engine.session.timers import Due
from engine.store.connecting import Connection
from engine.store.contract import LostRunsError
from engine.store.values import Commit
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests import journey
from tests.charging import TOPIC, AwayError, charging_pipeline, clear
from tests.feeding import BEGINS, Feeding, event, feed
from tests.services import Database


class Contested:
    """The commits of one engine, before each of which another one moves the run ``hot``, until that is locked."""

    def __init__(self, feeding: Feeding, move: Callable[[], Awaitable[object]]) -> None:
        self._commit, self._lock = feeding.store.commit, feeding.store.lock
        self._move = move
        self.lost = 0
        self.locked: list[int] = []
        self.commits: list[Commit] = []
        feeding.store.commit, feeding.store.lock = self.commit, self.lock  # type: ignore[method-assign]

    async def commit(self, commit: Commit) -> int | None:
        if not self.locked and any(run.key == "hot" for _, run in commit.changed):
            await self._move()
        try:
            ticket = await self._commit(commit)
        except LostRunsError:
            self.lost += 1
            raise
        self.commits.append(commit)
        return ticket

    async def lock(self, positions: Sequence[int], runs: Sequence[int]) -> None:
        await self._lock(positions, runs)
        self.locked += runs


async def turn(feeding: Feeding) -> None:
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


def ordered(kind: str, order: str) -> RawRecord:
    return event(f"order.{kind}", {"order": order}, topic=TOPIC)


def booked(kind: str, name: str) -> RawRecord:
    return event(f"journey.{kind}", {"journey": name}, topic=journey.TOPIC)


async def check_the_log(reader: Connection, flow: Pipeline[Any]) -> list[int]:
    """Nothing is wrong with what is stored; returns the numbers of all runs."""
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(flow)])
    assert replayed.is_equal, replayed
    return [row["id"] for row in await reader.fetch("select id from pointsman.runs order by id")]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_hot_run_keeps_no_result_of_a_step_from_being_durable(
    database: Database, reader: Connection, *, fails: bool
) -> None:
    world = clear()
    world.script["charge"] = [AwayError("no")] * 2 if fails else []
    flow = charging_pipeline()
    async with feed(database, flow) as feeding, feed(database, flow) as other:
        await feeding.records(ordered("placed", "hot"), ordered("placed", "cold"))
        contested = Contested(feeding, lambda: other.records(ordered("noted", "hot")))
        await feeding.begin_steps()
        while len(world.calls) < 2:
            await turn(feeding)
        # Both end at once, and so before a look is through.
        await turn(feeding)
        await feeding.steps.close()
        await feeding.take_results()
        assert not feeding.steps.has_results
        assert not feeding.steps.are_going, "the commit is durable, and nothing of it comes again"
    [commit] = contested.commits
    assert {run.key for _, run in commit.changed} == {"hot", "cold"}
    assert contested.lost == LOSSES_BEFORE_LOCK
    assert sorted(contested.locked) == await check_the_log(reader, flow)


async def test_what_goes_on_ends_by_what_is_durable_and_not_by_what_was_lost(
    database: Database, reader: Connection
) -> None:
    world = clear()
    world.script["charge"] = [asyncio.Event().wait]
    flow = charging_pipeline()
    async with feed(database, flow) as feeding, feed(database, flow) as other:
        await feeding.records(ordered("placed", "hot"))
        await feeding.begin_steps()
        while not world.calls:
            await turn(feeding)
        [(_, claim)] = feeding.claims.items()
        record = ordered("cancelled", "hot")._replace(offset=claim.read_to)
        slices = [Slice(claim, [record], claim.read_to, claim.read_to + 1)]
        batch = await feeding.committer.prepare(slices, None)
        assert batch.commit.executions_over, "the run is cancelled"
        # But another engine is there first, with an event that fails, and so holds it.
        await other.records(event("order.noted", {"order": "hot", "word": 7}, topic=TOPIC, partition=1))
        pending = feeding.committer.begin(slices, batch)
        assert not await feeding.committer.settle(pending)
        assert not pending.came_to_nothing
        assert not pending.batch.commit.executions_over, "that it is cancelled waits"
        feeding.steps.settle(pending.results, pending.batch.commit)
        await turn(feeding)
        assert feeding.steps.are_going, "its run waits for it"
        await feeding.steps.close()
    await check_the_log(reader, flow)


async def test_a_hot_run_keeps_nothing_that_has_fallen_due_from_happening(
    database: Database, reader: Connection
) -> None:
    flow = journey.journey_pipeline()
    async with feed(database, flow) as feeding, feed(database, flow) as other:
        await feeding.records(booked("booked", "hot"), booked("booked", "cold"))
        contested = Contested(feeding, lambda: other.records(booked("arrived", "hot")))
        feeding.clock.now = BEGINS + journey.REMIND_AFTER + timedelta(seconds=30)
        [route] = {id(route): route for topic in feeding.topics.values() for route in topic.routes}.values()
        now = feeding.clock.now
        due = [
            Due(route, one.key, one.generation, one.sequence, now, one.run)
            for one in await feeding.store.due_runs(
                range(HOMES), {route.pipeline: now}, [*route.machines], 100
            )
        ]
        assert sorted(one.key for one in due) == ["cold", "hot"]
        batch = await feeding.committer.prepare([], None, due)
        assert not await feeding.committer.settle(feeding.committer.begin([], batch, due))
    [commit] = contested.commits
    assert {run.key for _, run in commit.changed} == {"hot", "cold"}
    assert contested.lost == LOSSES_BEFORE_LOCK
    assert sorted(contested.locked) == await check_the_log(reader, flow)
    notes = {run.key: run.context["notes"] for run in await list_runs(reader, "default")}
    assert notes == {"hot": ["reminded"], "cold": ["reminded"]}
