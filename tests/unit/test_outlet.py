"""What an engine knows of topics: what it refuses by that, when it asks, and when it computes again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from connectors.kafka.sink_batches import size_alone
from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.outlet import BYTES_DEFAULT, KNOWN_SECONDS, UNKNOWN_SECONDS, Outlet, Room, Rooms
from engine.routing import Loaded, make_routes
from engine.store.values import Commit
from statemachines.machine import compile_pipeline
from statemachines.outcome import Reason
from tests.feeding import CLUSTER, TOPIC
from tests.teller import begun, teller, told

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(slots=True)
class World:
    """Topics with their limits, and who asked for them at what time."""

    limits: dict[str, int | None] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    now: float = 0.0
    away: bool = False

    async def ask(self, topics: Collection[str]) -> Rooms:
        self.asked.append(sorted(topics))
        if self.away:
            return {}
        found = {topic: self.limits.get(topic) for topic in topics}
        return {topic: None if size is None else Room(size, "so it is") for topic, size in found.items()}

    def outlet(self) -> Outlet:
        return Outlet(self.ask, lambda: self.now)


def stepped(outlet: Outlet, *records: RawRecord) -> Commit:
    """What a batch comes to, of a run that begins with it."""
    machine = replace(compile_pipeline(teller()), outlet=outlet.refusal)
    routes = make_routes([Loaded(machine, 1, 1)], {})
    batch = Batch(AT, iter(range(1, 100)), CLUSTER, [0, 0, 0, 0])
    placed = [record._replace(offset=at) for at, record in enumerate([begun("r1"), *records])]
    batch.read(placed, 1, routes[TOPIC])
    batch.meet(batch.arrivals)
    return batch.finish()


def reasons(commit: Commit) -> list[str]:
    return [letter.reason for letter in commit.dead_letters]


async def test_a_topic_is_asked_about_once_and_what_is_too_large_is_refused_from_then_on() -> None:
    world = World({"out": 2_000})
    outlet = world.outlet()
    large = told("r1", "out", "x" * 3_000)
    first = stepped(outlet, large)
    assert (reasons(first), len(first.out)) == ([], 1)
    assert await outlet.learn(first)
    again = stepped(outlet, large)
    assert (reasons(again), again.out) == ([Reason.TOO_LARGE], [])
    assert again.dead_letters[0].sequence == 2
    size = size_alone(first.out[0])
    assert again.dead_letters[0].error == (
        f"say publishes {size:,} bytes to 'out', which takes 2,000 (so it is). Publish less, or let the topic take "
        "more, and redrive"
    )


async def test_a_topic_that_is_known_is_not_asked_about_while_it_refuses_nothing() -> None:
    world = World({"out": 2_000, "other": 2_000})
    outlet = world.outlet()
    for to in ("out", "out", "other", "out"):
        assert not await outlet.learn(stepped(outlet, told("r1", to, "small")))
    assert world.asked == [["out"], ["other"]]


@pytest.mark.parametrize("filling", ["x", "ü", '"'])
async def test_the_size_is_that_of_the_record_to_the_byte(filling: str) -> None:
    world = World({"out": BYTES_DEFAULT})
    record = told("r1", "out", filling * 500)
    size = size_alone(stepped(world.outlet(), record).out[0])
    for limit, taken in ((size, True), (size - 1, False)):
        outlet = World({"out": limit}).outlet()
        assert await outlet.learn(stepped(outlet, record)) is not taken
        assert reasons(stepped(outlet, record)) == ([] if taken else [Reason.TOO_LARGE])


async def test_before_a_refusal_is_durable_its_topic_is_asked_about_again() -> None:
    world = World({"out": 2_000, "other": 2_000})
    outlet = world.outlet()
    large = told("r1", "out", "x" * 3_000)
    await outlet.learn(stepped(outlet, large, told("r1", "other", "small")))
    assert not await outlet.learn(stepped(outlet, large)), "nothing has changed"
    world.limits["out"] = 9_000
    assert await outlet.learn(stepped(outlet, large))
    assert reasons(stepped(outlet, large)) == []
    assert world.asked == [["other", "out"], ["out"], ["out"]]


async def test_where_nothing_is_told_nothing_is_refused_and_later_asked_again() -> None:
    world = World()
    outlet = world.outlet()
    large = told("r1", "out", "x" * 3_000)
    for _ in range(2):
        assert not await outlet.learn(stepped(outlet, large))
    assert world.asked == [["out"]]
    world.now += UNKNOWN_SECONDS
    world.limits["out"] = 2_000
    assert await outlet.learn(stepped(outlet, large))
    assert reasons(stepped(outlet, large)) == [Reason.TOO_LARGE]


async def test_a_limit_that_was_lowered_is_learnt_in_time() -> None:
    world = World({"out": 9_000})
    outlet = world.outlet()
    large = told("r1", "out", "x" * 3_000)
    assert not await outlet.learn(stepped(outlet, large))
    world.limits["out"] = 2_000
    assert not await outlet.learn(stepped(outlet, large))
    world.now += KNOWN_SECONDS
    assert await outlet.learn(stepped(outlet, large))


async def test_where_kafka_is_away_what_was_known_is_believed_for_a_while() -> None:
    world = World({"out": 2_000})
    outlet = world.outlet()
    large = told("r1", "out", "x" * 3_000)
    await outlet.learn(stepped(outlet, large))
    world.away = True
    world.now += KNOWN_SECONDS
    assert not await outlet.learn(stepped(outlet, large))
    assert reasons(stepped(outlet, large)) == [Reason.TOO_LARGE]


async def test_nobody_is_asked_where_nothing_is_published() -> None:
    world = World()
    assert not await world.outlet().learn(stepped(world.outlet()))
    assert world.asked == []
