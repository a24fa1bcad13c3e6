"""Whether an engine would hear of others, which those may be taken for gone by of whom it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.limits import SILENT_SECONDS, EngineLimits
from engine.steady import Steady
from engine.steps import steps as module
from engine.steps.steps import FOR_EVER_SECONDS, KEPT_SECONDS, SPEAK_SECONDS, Steps
from engine.store.values import BegunExecution

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class World:
    """A store whose engines speak, with its own clock beside that of an engine."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.set_by = 0.0
        """By how much its clock was set."""
        self.stands_still = 0.0
        """For how long the next answer is waited for."""
        self.asked: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def hold(self, *_engine: Any) -> datetime:
        self.now += self.stands_still
        self.stands_still = 0.0
        return NOW + timedelta(seconds=self.now + self.set_by)

    async def begun_by_others(self, *asked: Any) -> list[BegunExecution]:
        self.asked.append(asked[4])
        return []


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(module, "time", made)
    return made


async def looks(steps: Steps, world: World, seconds: float = SPEAK_SECONDS) -> float:
    """Speak after so long, and look for what others have begun; for how long they must have been silent."""
    world.now += seconds
    store: Any = world
    await steps._speak(store)
    await steps._take_over_lost(store, [1])
    return world.asked[-1]


async def listening(world: World) -> Steps:
    """An engine that has been there for long."""
    steps = Steps(EngineLimits(), Steady(lambda: NOW))
    found = [await looks(steps, world) for _ in range(round(SILENT_SECONDS / SPEAK_SECONDS) + 2)]
    assert (found[0], found[-1]) == (FOR_EVER_SECONDS, SILENT_SECONDS)
    return steps


async def hears_again(steps: Steps, world: World) -> None:
    """Nobody is taken for gone before he could have been heard of again, and then he is."""
    found = [await looks(steps, world) for _ in range(round(SILENT_SECONDS / SPEAK_SECONDS))]
    assert found == [*[FOR_EVER_SECONDS] * (len(found) - 1), SILENT_SECONDS]


async def test_nobody_is_taken_for_gone_where_the_store_stood_still_for_all(world: World) -> None:
    steps = await listening(world)
    world.stands_still = SILENT_SECONDS + 2
    assert await looks(steps, world) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def test_nobody_is_taken_for_gone_where_this_engine_stood_still(world: World) -> None:
    steps = await listening(world)
    assert await looks(steps, world, SILENT_SECONDS + 2) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def test_nobody_is_taken_for_gone_where_the_store_stood_still_between_speaking_and_looking(
    world: World,
) -> None:
    steps, store = await listening(world), world
    asked: Any = store
    await steps._speak(asked)
    world.now += KEPT_SECONDS + 1
    await steps._take_over_lost(asked, [1])
    assert world.asked[-1] == FOR_EVER_SECONDS


@pytest.mark.parametrize("seconds", [60.0, -60.0])
async def test_nobody_is_taken_for_gone_by_a_clock_that_was_set(world: World, seconds: float) -> None:
    steps = await listening(world)
    world.set_by = seconds
    assert await looks(steps, world) == FOR_EVER_SECONDS
    await hears_again(steps, world)


async def test_a_short_delay_changes_nothing(world: World) -> None:
    steps = await listening(world)
    world.stands_still = KEPT_SECONDS - SPEAK_SECONDS - 0.5
    assert await looks(steps, world) == SILENT_SECONDS
