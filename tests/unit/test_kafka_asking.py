"""Questions to a cluster of which a broker is silent, and which of its addresses a client begins with."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError, NotLeaderForPartitionError
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from connectors.kafka import addresses, group_offsets, queries, sink_transactions
from connectors.kafka.addresses import answering
from connectors.kafka.group_offsets import GroupOffsets
from connectors.kafka.queries import LATEST, Queries
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_batches import Batch
from connectors.kafka.sink_codes import Code
from connectors.kafka.sink_limits import SinkLimits
from connectors.kafka.sink_place import ensure_topic
from connectors.kafka.sink_transactions import Transactions
from connectors.sink import SinkMisconfiguredError, SinkUnavailableError
from connectors.source import Partition, SourceUnreachableError

SETTINGS = KafkaSettings("k1:9092,k2:9092,k3:9092")
FOR_EVER = asyncio.Event
PATIENCE_SECONDS = 10.0
"""Whoever waits so long for somebody who is silent would wait for ever."""


class Found(NamedTuple):
    """Who has a group."""

    coordinator_id: int
    error_code: int = 0


class Client:
    """A client of three brokers; those in `silent` take requests and never answer, those in `gone` take none."""

    def __init__(self, *, silent: tuple[int, ...] = (), gone: tuple[int, ...] = ()) -> None:
        self.cluster = SimpleNamespace(
            brokers=lambda: [SimpleNamespace(nodeId=number) for number in (1, 2, 3)]
        )
        self.silent, self.gone = silent, gone
        self.asked: list[int] = []

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        self.asked.append(node)
        if node in self.gone:
            raise NodeNotReadyError
        if node in self.silent:
            await asyncio.sleep(PATIENCE_SECONDS)
            pytest.fail("a broker that is silent is waited for without a bound")
        return SimpleNamespace(cluster_id="c")

    def force_metadata_update(self) -> None:
        pass

    def queries(self, patience_seconds: float = 20.0) -> Queries:
        return Queries(self, SETTINGS, patience_seconds=patience_seconds, answer_seconds=0.01)


@pytest.mark.parametrize("away", [{"silent": (1, 2)}, {"gone": (1, 2)}])
async def test_where_a_broker_does_not_answer_another_one_is_asked_and_from_then_on_before_it(
    monkeypatch: pytest.MonkeyPatch, away: Any
) -> None:
    monkeypatch.setattr(queries, "RETRY_SECONDS", 0)
    monkeypatch.setattr("random.choice", min)
    client = Client(**away)
    asking = client.queries()
    for _ in range(3):
        assert await asking.cluster_id() == "c"
    assert client.asked == [1, 2, 3, 3, 3]


async def test_where_all_were_silent_all_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.choice", min)
    client = Client(silent=(1, 2, 3))
    asking = client.queries(patience_seconds=0.0)
    for _ in range(3):
        with pytest.raises(SourceUnreachableError, match=r"broker \d did not answer within 0 s"):
            await asking.cluster_id()
    client.silent = ()
    assert await asking.cluster_id() == "c"
    assert client.asked == [1, 2, 3, 1]


class WithoutBrokers(AIOKafkaClient):
    """A client of a cluster whose brokers were all started a moment ago, so that it tells of none."""

    async def bootstrap(self) -> None:
        """Reach it."""


async def without_brokers(*_: object) -> Any:
    return WithoutBrokers()  # type: ignore[no-untyped-call]  # aiokafka is untyped


async def test_as_long_as_a_cluster_tells_of_no_broker_offsets_of_a_group_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_offsets, "connect", without_brokers)
    offsets = GroupOffsets(SETTINGS, "pointsman.default.lag")
    await offsets.start()
    with pytest.raises(SourceUnreachableError, match="none of its brokers is in the cluster"):
        await offsets.commit({Partition("orders", 0): 7})
    await offsets.stop()


async def test_as_long_as_a_cluster_tells_of_no_broker_the_relay_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def first(settings: KafkaSettings) -> KafkaSettings:
        return settings

    monkeypatch.setattr(sink_transactions, "answering", first)
    monkeypatch.setattr(sink_transactions, "AIOKafkaClient", lambda **_: WithoutBrokers())  # type: ignore[no-untyped-call]
    transactions = Transactions(SETTINGS, "pointsman.default.0", SinkLimits())
    await transactions.connect()
    with pytest.raises(SinkUnavailableError, match="none of its brokers is in the cluster"):
        await transactions.start("pointsman.default.relay")
    await transactions.close()


async def test_what_is_sent_beside_what_fails_has_ended_before_it_is_said_that_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transactions, ended = Transactions(SETTINGS, "pointsman.default.0", SinkLimits()), list[int]()

    async def send(node: int, content: dict[Partition, bytes]) -> dict[Partition, int]:
        if not node:
            raise SinkUnavailableError("gone")
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(node)
        return dict.fromkeys(content, 0)

    monkeypatch.setattr(transactions, "_send", send)
    monkeypatch.setattr(transactions, "_seal", lambda _: b"sealed")
    batches = [Batch(Partition("orders", number), 1_000) for number in range(3)]
    with pytest.raises(SinkUnavailableError, match="gone"):
        await transactions.produce(batches, {"orders": [0, 1, 2]}, mock.AsyncMock())
    assert sorted(ended) == [1, 2]


GROUP_BITS = 1 << 3


async def test_a_group_is_asked_about_where_it_is_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "RETRY_SECONDS", 0)
    named = iter((Found(3), Found(3), Found(0, error_code=Code.COORDINATOR_NOT_AVAILABLE), Found(1)))

    class Moving(Client):
        async def send(self, node: int, request: Any, **more: Any) -> Any:
            await super().send(node, request, **more)
            if isinstance(request, FindCoordinatorRequest):
                return next(named)
            assert node == 1
            return SimpleNamespace(groups=[(0, "group", GROUP_BITS)])

    assert await Moving(gone=(3,)).queries().group_rights("group") == GROUP_BITS
    assert next(named, None) is None


async def addressed(
    monkeypatch: pytest.MonkeyPatch, *answers: str, seconds: float = 5.0
) -> tuple[str, list[str]]:
    """The address that is begun with where these answer and the others are silent; and all that were asked."""
    asked: list[str] = []

    async def ask(_: Any, address: str) -> bool:
        asked.append(address)
        if address not in answers:
            await FOR_EVER().wait()
        return True

    monkeypatch.setattr(addresses, "_answers", ask)
    monkeypatch.setattr(addresses, "NEXT_SECONDS", 0.001)
    return (await answering(SETTINGS, seconds)).bootstrap, asked


async def test_a_client_begins_with_an_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        bootstrap, _ = await addressed(monkeypatch, "k2:9092")
        assert bootstrap == "k2:9092"
    assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []


async def test_where_all_answer_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "NEXT_SECONDS", 60)
    bootstrap, asked = await addressed(monkeypatch, "k1:9092", "k2:9092", "k3:9092")
    assert asked == [bootstrap]


async def test_where_none_answers_the_client_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap, asked = await addressed(monkeypatch, seconds=0.05)
    assert bootstrap == SETTINGS.bootstrap
    assert sorted(asked) == ["k1:9092", "k2:9092", "k3:9092"]


async def test_a_single_address_is_not_asked_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_answers", None)
    alone = KafkaSettings("k1:9092")
    assert await answering(alone) is alone


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.INVALID_REPLICATION_FACTOR, SinkUnavailableError),
        (Code.NOT_CONTROLLER, SinkUnavailableError),
        (Code.POLICY_VIOLATION, SinkMisconfiguredError),
    ],
)
async def test_the_relays_topic_has_the_replicas_that_the_brokers_say_or_is_not_made(
    code: Code, error: type[Exception]
) -> None:
    asked: list[Any] = []

    async def ask(_: Any) -> Any:
        return SimpleNamespace(topics=[(Code.UNKNOWN_TOPIC_OR_PARTITION, "t", False, [])])

    async def ask_controller(request: Any) -> Any:
        asked.append(request)
        return SimpleNamespace(topic_errors=[("t", code, "no")])

    with pytest.raises(error, match=rf"topic t .*{code.name}"):
        await ensure_topic(Partition("t", 0), ask, ask_controller)
    [request] = asked
    [(_, _, replicas, _, _)] = request.create_topic_requests
    assert replicas == -1


class Led(Client):
    """A client of brokers of which one leads both partitions of a topic; others say that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.leader = 1
        self.second_has_none = False
        self.said: list[tuple[str, int]] = []

    async def send(self, node: int, request: Any, **_: Any) -> Any:
        self.said.append((type(request).__name__, node))
        if isinstance(request, MetadataRequest):
            of_second = -1 if self.second_has_none else self.leader
            partitions = [
                (0, number, leader, [1], [1]) for number, leader in enumerate((self.leader, of_second))
            ]
            return SimpleNamespace(topics=[(0, "orders", False, partitions)])
        if node in self.gone:
            raise NodeNotReadyError
        code = 0 if node == self.leader else NotLeaderForPartitionError.errno
        [(topic, asked)] = request._topics
        return SimpleNamespace(topics=[(topic, [(number, code, -1, 7 + number) for number, _ in asked])])


@pytest.mark.parametrize("gone", [(), (1,)])
async def test_who_leads_is_asked_once_and_again_when_another_one_does(
    monkeypatch: pytest.MonkeyPatch, gone: tuple[int, ...]
) -> None:
    monkeypatch.setattr(queries, "RETRY_SECONDS", 0)
    monkeypatch.setattr("random.choice", max)
    client = Led()
    asking = client.queries()
    wanted = {Partition("orders", number): LATEST for number in (0, 1)}
    ends = {Partition("orders", 0): 7, Partition("orders", 1): 8}
    for _ in range(3):
        assert await asking.offsets(wanted) == ends
    assert client.said == [("MetadataRequest", 3), *[("OffsetRequest", 1)] * 3]
    client.said.clear()
    client.leader, client.gone = 2, gone
    for _ in range(2):
        assert await asking.offsets(wanted) == ends
    assert client.said[0] == ("OffsetRequest", 1)
    assert [said for said, _ in client.said[1:]] == ["MetadataRequest", "OffsetRequest", "OffsetRequest"]
    assert [node for said, node in client.said if said == "OffsetRequest"] == [1, 2, 2]


async def test_who_leads_is_asked_again_in_time_and_where_nobody_did_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Led()
    asking = client.queries()
    client.second_has_none = True
    assert await asking.offsets({Partition("orders", 0): LATEST}) == {Partition("orders", 0): 7}
    client.second_has_none = False
    monkeypatch.setattr(
        client, "force_metadata_update", lambda: pytest.fail("it was taken for without a leader")
    )
    assert await asking.offsets({Partition("orders", 1): LATEST}) == {Partition("orders", 1): 8}
    once = ["MetadataRequest", "OffsetRequest"]
    assert [said for said, _ in client.said] == [*once, *once]
    client.said.clear()
    monkeypatch.setattr(queries, "LEADERS_SECONDS", -1.0)
    for _ in range(2):
        await asking.offsets({Partition("orders", 1): LATEST})
    assert [said for said, _ in client.said] == [*once, *once]
