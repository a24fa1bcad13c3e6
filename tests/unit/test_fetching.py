"""A broker that is silent while others lead what it led is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from connectors.kafka import fetching
from connectors.kafka.fetching import Fetching
from connectors.kafka.lane import Lane
from connectors.source import Partition, SourceUnreachableError

PLACE = Partition("orders", 0)
SILENT, NEXT = 1, 2


class Cluster:
    """A client and its questions: the first broker takes a fetch and is heard of no more."""

    def __init__(self) -> None:
        self.cluster: Any = self
        self.leader = self.told = SILENT
        self.is_away = False
        self.asked: list[int] = []
        self.looks = asyncio.Semaphore(0)
        self.reached = asyncio.Event()
        self.ended = asyncio.Event()

    def leader_for_partition(self, _: Any) -> int:
        return self.leader

    def set_topics(self, _: Any) -> asyncio.Future[bool]:
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        known.set_result(True)
        return known

    def force_metadata_update(self) -> None:
        pass

    async def topic_id(self, topic: str) -> str:
        assert topic == PLACE.topic
        return ""

    async def send(self, node: int, _: Any) -> Any:
        self.asked.append(node)
        if node == NEXT:
            self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def learn_leaders(self, topics: Iterable[str]) -> None:
        assert list(topics) == [PLACE.topic]
        self.looks.release()
        if self.is_away:
            raise SourceUnreachableError("nobody answers")
        self.leader = self.told


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(fetching, "SILENCE_SECONDS", 0)
    monkeypatch.setattr(fetching, "LOOK_SECONDS", 0.001)
    client: Any = Cluster()
    reading = Fetching(client, client, lambda _: None)
    reading.start()
    reading.replace({PLACE: Lane(PLACE, 7, 1000, check_crcs=True)})
    yield client
    await reading.close()


async def several_looks(cluster: Cluster) -> None:
    async with asyncio.timeout(10):
        for _ in range(3):
            await cluster.looks.acquire()


async def test_it_is_waited_for_as_long_as_it_leads(cluster: Cluster) -> None:
    await several_looks(cluster)
    assert cluster.asked == [SILENT]
    cluster.is_away = True
    await several_looks(cluster)
    assert cluster.asked == [SILENT]


async def test_the_next_leader_is_asked_once_others_name_it(cluster: Cluster) -> None:
    await several_looks(cluster)
    cluster.told = NEXT
    async with asyncio.timeout(10):
        await cluster.reached.wait()
    assert cluster.asked == [SILENT, NEXT]
    assert cluster.ended.is_set(), "the request to the silent one goes on"
