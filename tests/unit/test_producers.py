"""Which of aiokafka's producers publishes, and that each is closed in the end; on producers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ProducerClosed, TopicAuthorizationFailedError

from connectors import publishing
from connectors.kafka.settings import KafkaSettings
from connectors.publish_errors import PublishError
from connectors.publishing import ConfirmingProducer, Outgoing, PublishLimits

RECORD = Outgoing("orders", b"k", b"{}", (), "e1")


class Cluster:
    """Where they are made, one after the other."""

    def __init__(self) -> None:
        self.made: list[Producer] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        """What happens while one connects."""


class Producer:
    """Confirms what it is sent, but for the first one of a cluster, which may not write."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._refuses = not cluster.made
        self.is_open = False
        self.client = SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic=lambda _: {0}))
        cluster.made.append(self)

    async def start(self) -> None:
        self.is_open = True
        if self._cluster.meanwhile is not None:
            await self._cluster.meanwhile()

    async def send(self, topic: str, *_what: Any, **_how: Any) -> asyncio.Future[Any]:
        if not self.is_open:
            raise ProducerClosed
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._refuses:
            sent.set_exception(TopicAuthorizationFailedError(topic))
        else:
            sent.set_result(SimpleNamespace(topic=topic, partition=0, offset=0))
        return sent

    async def flush(self) -> None: ...

    async def stop(self) -> None:
        self.is_open = False


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()

    async def answering(settings: KafkaSettings, _seconds: float) -> KafkaSettings:
        return settings

    monkeypatch.setattr(publishing, "answering", answering)
    monkeypatch.setattr(publishing, "AIOKafkaProducer", lambda **_: Producer(made))
    return made


async def broken() -> ConfirmingProducer:
    """One whose producer is to be followed by another one."""
    publishes = ConfirmingProducer(KafkaSettings("kafka:9092"), PublishLimits())
    await publishes.start()
    with pytest.raises(PublishError, match="does not let this user write"):
        await publishes.send(RECORD)
    return publishes


async def test_who_publishes_behind_the_end_is_told_so_also_where_a_producer_was_followed_by_another(
    cluster: Cluster,
) -> None:
    publishes = await broken()
    assert (await publishes.send(RECORD)).topic == "orders"
    await publishes.stop()
    assert [one.is_open for one in cluster.made] == [False, False]
    with pytest.raises(PublishError, match="closed"):
        await publishes.send(RECORD)


async def test_a_producer_that_comes_to_be_behind_the_end_is_closed(cluster: Cluster) -> None:
    publishes = await broken()
    cluster.meanwhile = publishes.stop
    with pytest.raises(PublishError, match="closed"):
        await publishes.send(RECORD)
    assert [one.is_open for one in cluster.made] == [False, False]
