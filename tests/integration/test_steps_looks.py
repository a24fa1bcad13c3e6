"""What a look of an engine begins, takes for lost and lets be, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from connectors.source import Partition, RawRecord
from engine import channels
from engine.limits import SILENT_SECONDS, EngineLimits
from engine.steps import steps
from engine.store.connecting import Connection, connect
from engine.store.contract import StoreUnavailableError
from engine.store.values import BegunExecution, Commit
from statemachines import Breaker, Limit
from tests.charging import TOPIC, AwayError, World, charging_pipeline, clear
from tests.feeding import Feeding, event, feed
from tests.services import Database, execute

LIMITS = EngineLimits(step_poll_seconds=0.01)
QUIET = EngineLimits(step_poll_seconds=60.0)
"""So that it is looked only where there is a reason."""
FELL_SILENT = "update pointsman.holders set seen = now() - interval '1 hour'"
HOLDERS = "select holder, attempt from pointsman.executions order by id"


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is one that looks for lost attempts, too."""
    monkeypatch.setattr(steps, "SPEAK_SECONDS", 0.0)


def placed(order: str) -> RawRecord:
    return event("order.placed", {"order": order}, topic=TOPIC)


async def turn(feeding: Feeding) -> None:
    """Wait until it was looked once more."""
    feeding.steps.turned.clear()
    await asyncio.wait_for(feeding.steps.turned.wait(), 60)


class Slow:
    """A question of the store whose answer does not come before ``go`` is set, where it has one, or ``always``."""

    def __init__(self, ask: Callable[..., Awaitable[list[BegunExecution]]], *, always: bool = False) -> None:
        self._ask = ask
        self._always = always
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, *given: Any) -> list[BegunExecution]:
        found = await self._ask(*given)
        if found or self._always:
            self.asked.set()
            await self.go.wait()
        return found

    async def stop(self, feeding: Feeding) -> None:
        """Have the engine stop meanwhile."""
        await asyncio.wait_for(self.asked.wait(), 60)
        stopping = asyncio.create_task(feeding.steps.stop())
        assert not (await asyncio.wait({stopping}, timeout=0.1))[0], (
            "somebody may be given an attempt to begin yet"
        )
        self.go.set()
        await stopping
        await feeding.steps.let_go()


async def test_what_is_found_while_the_engine_stops_does_not_begin_and_loses_no_attempt(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        slow = Slow(feeding.store.begin_executions)
        monkeypatch.setattr(feeding.store, "begin_executions", slow)
        await feeding.records(placed("o1"))
        await feeding.begin_steps()
        await slow.stop(feeding)
        assert world.calls == []
    assert [tuple(row) for row in await reader.fetch(HOLDERS)] == [(None, 1)]
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        await feeding.work()
    assert world.attempts("charge") == [("o1", 1)]


async def test_what_never_began_is_not_taken_for_what_may_have_been_done_by_who_stops(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(*_: Any) -> list[BegunExecution]:
        return []

    world.script["charge"] = [AwayError("down")]
    async with feed(database, charging_pipeline(within=timedelta(hours=1)), limits=LIMITS) as feeding:
        slow = Slow(feeding.store.begin_untried)
        monkeypatch.setattr(feeding.store, "begin_untried", slow)
        await feeding.records(placed("o1"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        monkeypatch.setattr(feeding.store, "begin_executions", no_room)
        while not await feeding.take_results():
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        feeding.clock.now += timedelta(hours=1)
        await slow.stop(feeding)
    assert [tuple(row) for row in await reader.fetch(HOLDERS)] == [(None, 2)]


@pytest.mark.usefixtures("speaks")
async def test_who_was_silent_while_nobody_could_listen_is_waited_for(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [asyncio.Event().wait]
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        await feeding.records(placed("o1"))
        await feeding.begin_steps()
        await turn(feeding)
        await feeding.steps.close()
    await execute(database.owner_dsn, FELL_SILENT)
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        feeding.steps._instance = "another"
        await feeding.begin_steps()
        await turn(feeding)
        assert len(feeding.steps._results) == 0, "it could not have been heard of yet"
        feeding.steps._hearing.listens_since -= SILENT_SECONDS
        await turn(feeding)
        assert len(feeding.steps._results) == 1
        await feeding.steps.close()


@pytest.mark.usefixtures("speaks")
async def test_only_so_many_lost_attempts_are_in_memory_at_a_time(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOST_AT_ONCE_MAX", 2)
    world.script["charge"] = [asyncio.Event().wait] * 7
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        await feeding.records(*(placed(f"o{number}") for number in range(7)))
        await feeding.begin_steps()
        await turn(feeding)
        await feeding.steps.close()
        assert len(world.calls) == 7
        await feeding.steps.let_go()
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        await feeding.begin_steps()
        while len(await reader.fetch("select from pointsman.events where sequence = 2")) < 7:
            await turn(feeding)
            assert sum(one.is_elsewhere for one in feeding.steps._results) <= 4
            await feeding.take_results()
        await feeding.steps.close()


async def test_what_ended_and_is_not_durable_keeps_its_place_among_all(
    database: Database, reader: Connection, world: World
) -> None:
    limits = EngineLimits(step_poll_seconds=0.01, steps_at_once_max=2)
    async with feed(database, charging_pipeline(), limits=limits) as feeding:
        await feeding.records(*(placed(f"o{number}") for number in range(3)))
        await feeding.begin_steps()
        while len(feeding.steps._results) < 2:
            await turn(feeding)
        await turn(feeding)
        assert world.attempts("charge") == [("o0", 1), ("o1", 1)]
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o3"))
        assert pending.batch.commit.begun == []
        feeding.steps.settle([], pending.batch.commit)
        await feeding.steps.close()
        await feeding.work()
    assert {key for key, _ in world.attempts("charge")} == {"o0", "o1", "o2", "o3"}


async def all_known(feeding: Feeding) -> None:
    """Wait until it was looked for each step who waits for it, and it is nobody."""
    while not all(feeding.steps._promises.is_settled(place) for place in feeding.steps._kinds):
        await turn(feeding)


async def test_runs_are_gone_on_with_before_others_are_begun_and_yet_these_have_a_part(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = EngineLimits(step_poll_seconds=60.0, steps_at_once_max=8)
    async with feed(database, charging_pipeline(), limits=limits) as feeding:
        await feeding.begin_steps()
        await all_known(feeding)
        promises, promised = feeding.steps._promises, []
        kept = promises.kept

        def keep(commit: Commit) -> None:
            promised.append(Counter(one.asked.step for one in commit.promised))
            kept(commit)

        monkeypatch.setattr(promises, "kept", keep)
        pending = await feeding.promise(Partition(TOPIC, 0), *(placed(f"o{number}") for number in range(30)))
        feeding.steps.settle([], pending.batch.commit)
        async with asyncio.timeout(30):
            while len(feeding.steps._results) < 8:
                await feeding.steps.arrived.wait()
                feeding.steps.arrived.clear()
            await feeding.take_results()
            # One place of the eight is left for what waits; and one for a look, if it was heard that somebody asks:
            # what the first commit told of those that it could not promise is heard here, too.
            assert promised[1]["pack"] in (6, 7)
            while len({key for key, _ in world.attempts("pack")}) < 30:
                await feeding.steps.arrived.wait()
                await feeding.take_results()
        await feeding.steps.close()
    assert sorted(world.attempts("charge")) == sorted(world.attempts("pack"))


async def test_nothing_is_promised_in_the_place_of_what_is_not_durable(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(
        database, charging_pipeline(), limits=EngineLimits(step_poll_seconds=60.0, steps_at_once_max=1)
    ) as feeding:
        await feeding.begin_steps()
        # There is room for one step at a time, and what is left of it is for the others at once.
        await all_known(feeding)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"))
        assert len(pending.batch.commit.begun) == 1
        feeding.steps.turned.clear()
        feeding.steps.settle([], pending.batch.commit)
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o2"))
        assert pending.batch.commit.begun == []
        await feeding.steps.close()


async def test_what_is_asked_for_while_a_look_goes_on_begins_at_once_beside_the_room_of_what_waits(
    database: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = EngineLimits(step_poll_seconds=60.0, steps_at_once_max=3)
    async with feed(database, charging_pipeline(), limits=limits) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        slow = Slow(feeding.store.begin_executions, always=True)
        monkeypatch.setattr(feeding.store, "begin_executions", slow)
        # Somebody has something for the homes here.
        await execute(database.owner_dsn, f"notify {channels.STEPS}")
        await asyncio.wait_for(slow.asked.wait(), 60)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"), placed("o2"))
        assert [one.key for one in pending.batch.commit.begun] == ["o1"], (
            "a place is left for what is looked for"
        )
        feeding.steps.settle([], pending.batch.commit)
        slow.go.set()
        await turn(feeding)
        assert {key for key, _ in world.attempts("charge")} >= {"o1"}
        await feeding.steps.close()
        await feeding.work()
    assert {key for key, _ in world.attempts("charge")} == {"o1", "o2"}


async def test_who_finds_more_than_was_known_of_looks_again_at_once(
    database: Database, reader: Connection, world: World
) -> None:
    world.script["charge"] = [asyncio.Event().wait] * 3
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        # As another engine asks for them: what tells of the commit says neither what nor how many.
        await feeding.records(*(placed(f"o{number}") for number in range(3)))
        async with asyncio.timeout(30):
            while len(world.attempts("charge")) < 3:
                feeding.steps.turned.clear()
                await feeding.steps.turned.wait()
                await asyncio.sleep(0)
        assert len({row["holder"] for row in await reader.fetch(HOLDERS)}) == 1
        await feeding.steps.close()


async def test_what_one_waits_for_is_promised_to_the_next_where_there_is_room_for_both(
    database: Database, world: World
) -> None:
    async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        feeding.steps.paused = {1: "paused"}
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"))
        feeding.steps.turned.clear()
        feeding.steps.settle([], pending.batch.commit)
        await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        # Nobody looks until something else happens.
        feeding.steps.paused = {}
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o2"))
        assert [one.key for one in pending.batch.commit.begun] == ["o2"]
        feeding.steps.settle([], pending.batch.commit)
        await feeding.steps.close()
        await feeding.work()
    assert {key for key, _ in world.attempts("charge")} == {"o1", "o2"}


async def test_only_what_somebody_may_wait_for_is_told(
    database: Database, reader: Connection, world: World
) -> None:
    heard: list[str] = []
    listener = await connect(database.engine_dsn, for_engine=False)
    await listener.add_listener(channels.STEPS, lambda *_: heard.append("told"))

    async def told() -> int:
        # What was told before this question comes before its answer.
        await listener.execute("select 1")
        many = len(heard)
        heard.clear()
        return many

    try:
        async with feed(database, charging_pipeline(), limits=QUIET) as feeding:
            await feeding.begin_steps()
            await turn(feeding)
            pending = await feeding.promise(Partition(TOPIC, 0), placed("o1"))
            assert (len(pending.batch.commit.begun), await told()) == (1, 0)
            feeding.steps.settle([], pending.batch.commit)
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
            # Packing begins with the commit that ends charging.
            await feeding.take_results()
            assert await told() == 0
            feeding.steps.paused = {1: "paused"}
            await feeding.promise(Partition(TOPIC, 0), placed("o2"))
            assert await told() == 1
            await feeding.steps.close()
        limited = charging_pipeline(limit=Limit("amount", at_once=1))
        async with feed(database, limited, namespace="limited", limits=QUIET) as feeding:
            await feeding.begin_steps()
            await feeding.promise(Partition(TOPIC, 0), placed("o1"))
            assert await told() == 1
            await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
            await turn(feeding)
            await feeding.take_results()
            assert await told() == 1, "what is over makes room for others"
            await feeding.steps.close()
    finally:
        await listener.close()


async def test_nothing_is_promised_past_a_breaker_that_tries_one(
    database: Database, reader: Connection, world: World
) -> None:
    breaker = Breaker("payments", failures=1, within=timedelta(hours=1), open_for=timedelta(milliseconds=1))
    world.script["charge"] = [AwayError("down"), asyncio.Event().wait]
    async with feed(database, charging_pipeline(breaker=breaker), limits=QUIET) as feeding:
        await feeding.records(placed("o1"))
        await feeding.begin_steps()
        await asyncio.wait_for(feeding.steps.arrived.wait(), 60)
        await turn(feeding)
        pending = await feeding.promise(Partition(TOPIC, 0), placed("o2"))
        assert pending.batch.commit.begun == []
        feeding.steps.settle([], pending.batch.commit)
        await feeding.steps.close()


@pytest.fixture
async def spoken(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeding]:
    """An engine that says often that it is there, and has looked once."""
    monkeypatch.setattr(steps, "SPEAK_SECONDS", 0.05)
    async with feed(database, charging_pipeline(), limits=LIMITS) as feeding:
        await feeding.begin_steps()
        await turn(feeding)
        yield feeding


async def test_an_engine_is_heard_of_however_long_a_look_takes(
    spoken: Feeding, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, heard = spoken.store.hold, asyncio.Queue[datetime]()

    async def note(*said: Any) -> datetime:
        seen = await hold(*said)
        heard.put_nowait(seen)
        return seen

    async with spoken.store._looking:
        # Whatever is looked for takes as long as this.
        monkeypatch.setattr(spoken.store, "hold", note)
        first, second = [await asyncio.wait_for(heard.get(), 60) for _ in range(2)]
    assert first < second
    await spoken.steps.close()
    await spoken.steps.let_go()
    assert await marks(database) == []


async def test_who_has_let_go_says_no_more_that_he_is_there(spoken: Feeding, database: Database) -> None:
    speaking = spoken.steps._speaking
    assert speaking is not None
    await spoken.steps.let_go()
    assert (speaking.done(), await marks(database)) == (True, [])


async def test_what_keeps_an_engine_from_saying_that_it_is_there_ends_its_session(spoken: Feeding) -> None:
    spoken.store._speaker.terminate()
    speaking = spoken.steps._speaking
    assert speaking is not None
    await asyncio.wait({speaking}, timeout=60)
    with pytest.raises(StoreUnavailableError):
        spoken.steps.check()


async def marks(database: Database) -> list[int]:
    connection = await connect(database.reader_dsn, name="looking on")
    try:
        return [holder for (holder,) in await connection.fetch("select id from pointsman.holders")]
    finally:
        await connection.close()
