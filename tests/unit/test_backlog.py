"""How far a pipeline's topics were applied, as timers ask; and when they no longer wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.source import Partition, SourceUnreachableError
from engine.limits import EngineLimits
from engine.routing import Loaded, Route, make_routes
from engine.session import backlog as module
from engine.session.backlog import Backlog
from engine.store.values import Applied
from statemachines.machine import compile_pipeline
from tests.fakes.source import FakeReader, FakeSource
from tests.fakes.store import FakeStore
from tests.fakes.tables import Place, Tables
from tests.journey import TOPIC, journey_pipeline
from tests.riding import rides

DUE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)
WAIT_SECONDS = 60.0


class MoodyReader(FakeReader):
    """Of a source that may be away, or take its time."""

    is_away = False
    slow: asyncio.Event | None = None
    asked = 0
    while_it_answers: Callable[[], None] = staticmethod(lambda: None)
    """Happens between question and answer."""

    async def partitions_of(self, topic: str) -> set[Partition]:
        if self.is_away:
            raise SourceUnreachableError("the source at nowhere does not answer")
        return await super().partitions_of(topic)

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        self.asked += 1
        if self.is_away:
            raise SourceUnreachableError("the source at nowhere does not answer")
        # As they are when they are asked for; the answer may come later.
        found = await super().ends(partitions)
        if self.slow is not None:
            await self.slow.wait()
        self.while_it_answers()
        return found


@dataclass(slots=True)
class Scene:
    """A topic with two partitions, who applied how much of them, and two clocks."""

    source: FakeSource
    reader: MoodyReader
    tables: Tables
    store: FakeStore
    backlog: Backlog
    route: Route
    now: datetime = DUE
    passed_seconds: float = 1_000.0

    async def append(self, partition: Partition, *, at: datetime = DUE, applied: bool = False) -> None:
        milliseconds = round(at.timestamp() * 1_000)
        offset = self.source.append(partition, b"", timestamp=milliseconds)
        if applied:
            self.applied(partition, offset + 1, at)

    def applied(self, partition: Partition, position: int, at: datetime | None = None) -> None:
        place = self.tables.places[partition]
        place.position = position
        place.record_time = 0 if at is None else round(at.timestamp() * 1_000)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.passed_seconds += seconds

    async def may_fire(self, due: datetime = DUE) -> bool:
        return (await self.backlog.passed({self.route: due}))[self.route] >= due


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    source = FakeSource()
    source.create_topic(TOPIC, 2)
    topics = make_routes([Loaded(compile_pipeline(journey_pipeline()), 1, 1)], {})
    [route] = topics[TOPIC].routes
    tables = Tables(places={FIRST: Place(1, 0), SECOND: Place(2, 0)})
    reader = MoodyReader(source)
    limits = EngineLimits(backlog_seconds_max=WAIT_SECONDS, complain_seconds=3_600)
    made: list[Scene] = []
    store = FakeStore(tables)
    backlog = Backlog(reader, store, topics, limits, lambda: made[0].now)
    made.append(Scene(source, reader, tables, store, backlog, route))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made[0].passed_seconds))
    return made[0]


async def test_nothing_is_waited_for_where_all_was_applied_to_the_ends_seen_since_it_fell_due(
    scene: Scene,
) -> None:
    assert await scene.may_fire()
    await scene.append(FIRST)
    scene.later(1)
    # The end that was seen when the timer fell due counts, and not what has come since.
    assert await scene.may_fire()
    assert not await scene.may_fire(scene.now), "for a later timer it is asked again"


async def test_ends_tell_of_the_time_at_which_they_are_asked_for_and_of_none_after_it(scene: Scene) -> None:
    scene.reader.while_it_answers = lambda: scene.later(10)
    passed = await scene.backlog.passed({scene.route: DUE + timedelta(seconds=5)})
    assert passed[scene.route] == DUE, "what has come since, and was not seen, is before that"


async def test_a_timer_of_a_pipeline_that_reads_no_topic_waits_for_nothing(scene: Scene) -> None:
    scene.reader.is_away = True
    [scene.route] = make_routes([Loaded(compile_pipeline(rides()), 2, 2)], {}).pipelines
    assert await scene.may_fire()
    assert scene.reader.asked == 0


async def test_a_record_that_waits_comes_first_whoever_has_its_partition(scene: Scene) -> None:
    await scene.append(SECOND, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    scene.applied(SECOND, 1)
    assert await scene.may_fire()


async def test_a_younger_record_that_was_applied_says_that_all_before_it_was(scene: Scene) -> None:
    for partition in (FIRST, SECOND):
        await scene.append(partition, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    asked = scene.reader.asked
    for partition in (FIRST, SECOND):
        await scene.append(partition, at=DUE + timedelta(milliseconds=1), applied=True)
        await scene.append(partition)
    scene.later(1)
    assert await scene.may_fire()
    assert scene.reader.asked == asked, "without a question to Kafka"


async def test_a_record_from_the_future_tells_no_more_than_one_of_now(scene: Scene) -> None:
    scene.reader.is_away = True
    assert not await scene.may_fire()
    scene.reader.is_away = False
    for partition in (FIRST, SECOND):
        await scene.append(partition, at=DUE + timedelta(days=400), applied=True)
    passed = await scene.backlog.passed({scene.route: DUE})
    assert passed[scene.route] == scene.now


async def test_times_that_are_none_do_no_harm(scene: Scene) -> None:
    scene.tables.places[FIRST].record_time = scene.tables.places[SECOND].record_time = 2**62
    passed = await scene.backlog.passed({scene.route: DUE - timedelta(seconds=1)})
    assert passed[scene.route] <= scene.now


async def test_ends_that_run_ahead_are_not_asked_for_again_until_they_are_reached(scene: Scene) -> None:
    await scene.append(FIRST, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    await scene.append(FIRST, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    scene.applied(FIRST, 1)
    assert await scene.may_fire(), "what came after the timer had fallen due need not be waited for"


async def test_an_answer_that_is_late_is_waited_for_without_holding_up_anything(scene: Scene) -> None:
    scene.reader.slow = asyncio.Event()
    assert not await scene.may_fire()
    assert not await scene.may_fire()
    assert scene.reader.asked == 1, "one question at a time"
    scene.reader.slow.set()
    assert await scene.may_fire()


async def test_a_partition_that_does_not_get_on_delays_timers_for_a_while_and_then_that_is_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.append(SECOND, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    scene.later(WAIT_SECONDS - 1)
    assert not await scene.may_fire()
    with caplog.at_level(logging.WARNING, "pointsman.engine"):
        scene.later(1)
        assert await scene.may_fire()
        assert await scene.may_fire()
    [said] = caplog.messages
    assert said == (
        f"{SECOND} does not get on for 60 seconds, and is behind 2026-03-01T12:00:00Z: timers no longer wait for "
        "it (backlog_seconds_max)"
    )
    # It is known to stand still, also for timers that fall due later.
    scene.backlog.nothing_waits()
    scene.later(600)
    assert await scene.may_fire(scene.now)
    scene.applied(SECOND, 1)
    await scene.append(SECOND, at=scene.now)
    scene.later(1)
    assert await scene.may_fire(), "it gets on"
    assert not await scene.may_fire(scene.now), "so it is waited for again"


async def test_a_partition_that_gets_on_is_waited_for_as_long_as_that_takes(scene: Scene) -> None:
    for _ in range(5):
        await scene.append(FIRST, at=DUE - timedelta(hours=1))
    assert not await scene.may_fire()
    for position in range(1, 5):
        scene.later(WAIT_SECONDS - 1)
        scene.applied(FIRST, position, DUE - timedelta(hours=1))
        assert not await scene.may_fire()
    scene.applied(FIRST, 5, DUE - timedelta(hours=1))
    assert await scene.may_fire()


async def test_a_partition_to_which_nothing_comes_does_not_stand_still(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    assert await scene.may_fire()
    scene.backlog.nothing_waits()
    scene.later(10 * WAIT_SECONDS)
    # What has come meanwhile, and nobody has read yet, comes first.
    await scene.append(FIRST, at=scene.now)
    assert not await scene.may_fire(scene.now)
    assert not caplog.messages


async def test_timers_that_fell_due_long_ago_do_not_count_for_those_of_now(scene: Scene) -> None:
    scene.reader.slow = asyncio.Event()
    assert not await scene.may_fire()
    scene.backlog.nothing_waits()
    scene.later(10 * WAIT_SECONDS)
    assert not await scene.may_fire(scene.now)
    scene.reader.slow.set()


async def test_while_kafka_is_away_timers_wait_no_longer_than_for_a_partition(scene: Scene) -> None:
    scene.reader.is_away = True
    assert not await scene.may_fire(), "nobody knows which partitions there are"
    scene.later(WAIT_SECONDS - 1)
    assert not await scene.may_fire()
    scene.later(1)
    assert await scene.may_fire()


async def test_what_waits_in_kafka_comes_first_when_kafka_is_back(scene: Scene) -> None:
    scene.reader.is_away = True
    await scene.append(SECOND, at=DUE - timedelta(seconds=1))
    assert not await scene.may_fire()
    scene.reader.is_away = False
    scene.later(1)
    assert not await scene.may_fire()
    scene.applied(SECOND, 1)
    assert await scene.may_fire()


async def test_a_partition_that_nobody_has_had_yet_is_waited_for_too(scene: Scene) -> None:
    del scene.tables.places[SECOND]
    assert not await scene.may_fire()
    scene.later(WAIT_SECONDS)
    assert await scene.may_fire()


async def test_partitions_that_are_added_are_known_after_a_while(scene: Scene) -> None:
    assert await scene.may_fire()
    scene.source.topics[TOPIC].append(type(scene.source.topics[TOPIC][0])())
    await scene.append(Partition(TOPIC, 2))
    scene.later(module.PARTITIONS_SECONDS)
    await scene.may_fire(scene.now)
    assert not await scene.may_fire(scene.now)


async def test_a_question_that_is_under_way_is_given_up_with_the_session(scene: Scene) -> None:
    scene.reader.slow = asyncio.Event()
    assert not await scene.may_fire()
    scene.backlog.close()
    waiting = [one for one in asyncio.all_tasks() if one.get_name() == "ends of partitions"]
    assert waiting
    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)


async def test_what_was_foreseen_is_heard_before_it_is_asked_what_was_applied(scene: Scene) -> None:
    assert await scene.may_fire(), "and from now on it is foreseen what timers wait for"
    scene.later(0.1)
    await scene.append(FIRST)
    asked: list[int] = []
    applied = scene.store.applied

    async def counted(topics: Iterable[str]) -> dict[Partition, Applied]:
        asked.append(scene.reader.asked)
        scene.applied(FIRST, 1)
        return await applied(topics)

    scene.store.applied = counted  # type: ignore[method-assign]
    scene.backlog.foresee()
    assert await scene.may_fire(scene.now)
    assert asked == [2], "once, with the ends that were foreseen"


async def test_a_foreseen_answer_that_is_late_is_waited_for_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = asyncio.wait

    async def noted(tasks: Iterable[asyncio.Task[None]], **limits: float) -> Any:
        waits.append(limits["timeout"])
        scene.passed_seconds += limits["timeout"]
        return await wait(tasks, timeout=0)

    assert await scene.may_fire()
    scene.reader.slow = asyncio.Event()
    monkeypatch.setattr(asyncio, "wait", noted)
    scene.later(0.1)
    scene.backlog.foresee()
    assert not await scene.may_fire(scene.now)
    assert sum(waits) == module.SURVEY_SECONDS, "though it is behind, and asks again"
    assert not await scene.may_fire(scene.now)
    assert sum(waits) == module.SURVEY_SECONDS, "nor does the next look wait for it"
    scene.reader.slow.set()
    monkeypatch.undo()
    scene.backlog.close()
