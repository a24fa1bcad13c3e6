"""Whether an engine would hear of others, which those may be taken for gone by of whom it does not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.limits import SILENT_SECONDS, EngineLimits
from engine.steady import Steady
from engine.steps import hearing, steps
from engine.steps.hearing import KEPT_SECONDS, SPEAK_SECONDS
from engine.steps.steps import FOR_EVER_SECONDS, Steps
from engine.store.limited import LimitedRoom
from engine.store.values import BegunExecution
from statemachines import Limit
from tests.charging import charging_pipeline

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Store:
    """A store whose engines speak, with its own clock beside that of an engine."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.set_by = 0.0
        """By how much its clock was set."""
        self.stands_still = 0.0
        """For how long the next answer is waited for."""
        self.asked: list[float] = []
        self.limited: list[str] = []
        """Steps that were asked for within their limits."""

    def monotonic(self) -> float:
        return self.now

    async def hold(self, *_engine: Any) -> datetime:
        self.now += self.stands_still
        self.stands_still = 0.0
        return NOW + timedelta(seconds=self.now + self.set_by)

    async def begin_limited(self, rooms: Sequence[LimitedRoom], *_asked: Any) -> list[BegunExecution]:
        self.limited += [one.step for one in rooms]
        return []

    async def begun_by_others(self, *asked: Any) -> list[BegunExecution]:
        self.asked.append(asked[4])
        return []


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    for module in (hearing, steps):
        monkeypatch.setattr(module, "time", made)
    return made


async def looks(steps: Steps, world: Store, seconds: float = SPEAK_SECONDS) -> float:
    """Speak after so long, and look for what others have begun; for how long they must have been silent."""
    world.now += seconds
    store: Any = world
    await steps._speak(store)
    await steps._take_over_lost(store, [1])
    return world.asked[-1]


async def listening(world: Store) -> Steps:
    """An engine that has been there for long."""
    steps = Steps(EngineLimits(), Steady(lambda: NOW))
    steps._hearing.begin()
    found = [await looks(steps, world) for _ in range(round(SILENT_SECONDS / SPEAK_SECONDS) + 2)]
    assert (found[0], found[-1]) == (FOR_EVER_SECONDS, SILENT_SECONDS)
    return steps


async def hears_again(steps: Steps, world: Store) -> None:
    """Nobody is taken for gone before he could have been heard of again, and then he is."""
    found = [await looks(steps, world) for _ in range(round(SILENT_SECONDS / SPEAK_SECONDS))]
    assert found == [*[FOR_EVER_SECONDS] * (len(found) - 1), SILENT_SECONDS]


async def test_nobody_is_taken_for_gone_where_the_store_stood_still_for_all(world: Store) -> None:
    steps = await listening(world)
    world.stands_still = SILENT_SECONDS + 2
    assert await looks(steps, world) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def test_nobody_is_taken_for_gone_where_this_engine_stood_still(world: Store) -> None:
    steps = await listening(world)
    assert await looks(steps, world, SILENT_SECONDS + 2) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def test_nobody_is_taken_for_gone_where_the_store_stood_still_between_speaking_and_looking(
    world: Store,
) -> None:
    steps, store = await listening(world), world
    asked: Any = store
    await steps._speak(asked)
    world.now += KEPT_SECONDS + 1
    await steps._take_over_lost(asked, [1])
    assert world.asked[-1] == FOR_EVER_SECONDS


@pytest.mark.parametrize("seconds", [60.0, -60.0])
async def test_nobody_is_taken_for_gone_by_a_clock_that_was_set(world: Store, seconds: float) -> None:
    steps = await listening(world)
    world.set_by = seconds
    assert await looks(steps, world) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def begins(steps: Steps, world: Store) -> list[str]:
    """What is asked for now within its limit."""
    world.limited.clear()
    store: Any = world
    await steps._begin_next(store, [1], [1])
    return world.limited


async def test_nothing_begins_within_a_limit_until_those_have_spoken_who_may_have_begun_some(
    world: Store,
) -> None:
    steps = await listening(world)
    flow = charging_pipeline(limit=Limit(at_once=2))
    steps._kinds = {(1, one.name): one for one in flow.works if one.name == "charge"}
    steps._rooms.load(steps._kinds)
    assert await begins(steps, world) == ["charge"]
    world.stands_still = SILENT_SECONDS + 2
    await looks(steps, world)
    assert await begins(steps, world) == []
    await looks(steps, world)
    assert await begins(steps, world) == []
    await looks(steps, world)
    assert await begins(steps, world) == ["charge"]


async def test_a_short_delay_changes_nothing(world: Store) -> None:
    steps = await listening(world)
    world.stands_still = KEPT_SECONDS - SPEAK_SECONDS - 0.5
    assert await looks(steps, world) == SILENT_SECONDS
