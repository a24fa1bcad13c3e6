"""How far partitions are applied is told for tools that show lag: what is news, and without harm where it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import SimpleNamespace
from typing import cast

import pytest

from connectors.source import Partition, SourceError, SourceUnreachableError
from engine import telling_lag as module
from engine.engine import Engine
from engine.session.claims import Claim
from engine.store.contract import StoreUnavailableError
from engine.store.values import Applied
from engine.telling_lag import Positions, Telling, applied_here, lag_group
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables

ORDERS, OTHERS = Partition("orders", 0), Partition("orders", 1)


class Offsets:
    """A group whose offsets are kept here."""

    def __init__(self) -> None:
        self.starts = 0
        self.commits: list[dict[Partition, int]] = []
        self.failing: Exception | None = None

    async def start(self) -> None:
        self.starts += 1

    async def commit(self, offsets: Positions) -> None:
        if self.failing is not None:
            raise self.failing
        self.commits.append(dict(offsets))


class Scene:
    """A telling, with the time and the positions that a test gives it."""

    def __init__(self) -> None:
        self.offsets = Offsets()
        self.positions: dict[Partition, int] = {}
        self.now = 0.0
        self.telling = Telling(self.offsets, self._look)

    async def _look(self) -> Positions:
        return dict(self.positions)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(module, "time", scene)
    return scene


async def test_only_news_is_told_and_now_and_then_all_of_it_lest_it_be_forgotten(scene: Scene) -> None:
    await scene.telling.tell()
    assert (scene.offsets.starts, scene.offsets.commits) == (0, [])
    scene.positions = {ORDERS: 5}
    for _ in range(3):
        await scene.telling.tell()
    scene.positions = {ORDERS: 7}
    await scene.telling.tell()
    assert (scene.offsets.starts, scene.offsets.commits) == (1, [{ORDERS: 5}, {ORDERS: 7}])
    # Somebody may have reset the group, or deleted it: tools see it again a minute later.
    for later in (59, 1, 59, 1):
        scene.now += later
        await scene.telling.tell()
    assert scene.offsets.commits[2:] == [{ORDERS: 7}, {ORDERS: 7}]


async def test_what_fails_is_said_once_and_tried_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.positions = {ORDERS: 5}
    scene.offsets.failing = SourceError("Kafka keeps no offsets of the group")
    with caplog.at_level(logging.INFO, "pointsman.engine"):
        for _ in range(3):
            await scene.telling.tell()
        assert [message.partition(":")[0] for message in caplog.messages] == [
            "tools will not see the lag of this engine's partitions; nothing else depends on it"
        ]
        scene.offsets.failing = SourceUnreachableError("away")
        await scene.telling.tell()
        assert len(caplog.messages) == 1
    scene.offsets.failing = None
    await scene.telling.tell()
    assert scene.offsets.commits == [{ORDERS: 5}]


@pytest.fixture
async def engine() -> Engine:
    """It serves one of two partitions that are applied."""
    store = FakeStore(Tables())
    await store.add_positions({ORDERS: 5, OTHERS: 7})
    session = SimpleNamespace(store=store, claims={ORDERS: Claim(1, ORDERS, 1, 9)})
    return cast("Engine", SimpleNamespace(session=session, ready=True))


async def test_only_what_is_served_here_is_told_as_far_as_it_is_durable(engine: Engine) -> None:
    assert await applied_here(engine) == {ORDERS: 5}


async def test_an_engine_that_is_not_ready_tells_nothing(engine: Engine) -> None:
    engine.ready = False
    assert await applied_here(engine) == {}
    engine.ready, engine.session = True, None
    assert await applied_here(engine) == {}


async def test_nothing_is_told_while_postgres_is_away(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: FakeStore, topics: Iterable[str]) -> dict[Partition, Applied]:
        raise StoreUnavailableError("Postgres is away")

    monkeypatch.setattr(FakeStore, "applied", away)
    assert await applied_here(engine) == {}


def test_the_group_is_another_one_than_the_engines_are_in() -> None:
    assert lag_group("pointsman.default") == "pointsman.default.lag"
