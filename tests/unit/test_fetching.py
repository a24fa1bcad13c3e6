"""A broker that is silent while others lead what it led is not waited for; and a topic is one that is known."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from connectors.kafka import fetching, lane
from connectors.kafka.fetching import Fetching
from connectors.kafka.lane import RETRY_SECONDS_MIN, Lane
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition, SourceError, SourceUnreachableError
from tests.simulated import in_virtual_time

PLACE = Partition("orders", 0)
SILENT, NEXT = 1, 2


class Client:
    """A client and its questions, of a topic with one partition."""

    def __init__(self) -> None:
        self.cluster: Any = self
        self.leader = SILENT

    def leader_for_partition(self, _: Any) -> int:
        return self.leader

    def set_topics(self, _: Any) -> asyncio.Future[bool]:
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        known.set_result(True)
        return known

    def force_metadata_update(self) -> None:
        pass


class Cluster(Client):
    """The first broker takes a fetch and is heard of no more."""

    def __init__(self) -> None:
        super().__init__()
        self.told = SILENT
        self.is_away = False
        self.asked: list[int] = []
        self.looks = asyncio.Semaphore(0)
        self.reached = asyncio.Event()
        self.ended = asyncio.Event()

    async def topic_ids(self, topics: Iterable[str], *_: Any, **__: Any) -> dict[str, str]:
        return dict.fromkeys(topics, "")

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


FIRST, SECOND = "one topic", "another one of its name"


class Names(Client):
    """Each broker knows by itself which topic has a name."""

    def __init__(self, refusal: int = 0) -> None:
        super().__init__()
        self.refusal = refusal
        self.known: dict[int | None, str | SourceError | None] = {SILENT: FIRST, NEXT: FIRST}
        self.looked: list[tuple[list[str], int | None]] = []
        self.looks = asyncio.Semaphore(0)
        self.fetched: list[int] = []
        self.fetches = asyncio.Semaphore(0)

    async def learn_leaders(self, _: Iterable[str]) -> None:
        pass

    async def offsets(self, wanted: dict[Partition, int]) -> dict[Partition, int]:
        return {one: 0 if time < -1 else 20 for one, time in wanted.items()}

    async def topic_ids(
        self, topics: Iterable[str], broker: int | None = None, *, beside: int | None = None
    ) -> dict[str, str | SourceError]:
        node = broker if beside is None else SILENT + NEXT - beside
        self.looked.append((list(topics), node))
        self.looks.release()
        topic_id = self.known[node]
        if topic_id is None:
            raise KeyError(PLACE.topic)
        return dict.fromkeys(topics, topic_id)

    async def send(self, node: int, _: Any) -> Any:
        self.fetched.append(node)
        self.fetches.release()
        if len(self.fetched) > 1 or not self.refusal:
            await asyncio.Event().wait()
        # The topic was deleted and made anew, and another broker leads that.
        self.leader = NEXT
        self.known = {SILENT: SECOND, NEXT: SECOND}
        answer: Any = (0, self.refusal, -1, -1, -1, [], -1, b"")
        return SimpleNamespace(API_VERSION=11, topics=[(PLACE.topic, [answer])])


@contextlib.asynccontextmanager
async def fetching_from(client: Any, *lanes: Lane) -> AsyncIterator[Fetching]:
    reading = Fetching(client, client, lambda _: None)
    reading.start()
    reading.replace({lane.partition: lane for lane in lanes})
    try:
        async with asyncio.timeout(10):
            yield reading
    finally:
        await reading.close()


def lane_at(position: int, topic_id: str = FIRST, partition: Partition = PLACE) -> Lane:
    return Lane(partition, position, 1000, check_crcs=True, topic_id=topic_id)


@pytest.mark.parametrize("refusal", [1, 3, 5, 6, 74, 76])
async def test_whatever_a_broker_refuses_a_fetch_for_the_topic_may_have_been_made_anew(refusal: int) -> None:
    names = Names(refusal)
    async with fetching_from(names, lane_at(7)) as reading:
        while not reading.made_anew and len(names.fetched) < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    assert reading.made_anew == {PLACE: SECOND}
    assert names.fetched == [SILENT]


async def test_the_leader_is_asked_which_topic_it_is_and_all_topics_at_once() -> None:
    names = Names()
    others = [lane_at(7, partition=Partition(topic, 0)) for topic in ("parcels", "payments")]
    async with fetching_from(names, lane_at(7), *others):
        await names.fetches.acquire()
    assert names.looked == [(["orders", "parcels", "payments"], SILENT)]


async def test_a_topic_is_another_one_only_where_another_broker_says_so_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "LOOK_AGAIN_SECONDS", 0)
    names = Names()
    names.known[SILENT] = SECOND
    async with fetching_from(names, lane_at(7)) as reading:
        await names.fetches.acquire()
    assert reading.made_anew == {}
    assert {node for _, node in names.looked} == {SILENT, NEXT}


async def test_which_topic_it_is_is_not_asked_as_fast_as_it_is_answered() -> None:
    names = Names()
    names.known[SILENT] = SourceError("orders does not exist")
    lane = lane_at(7)
    async with fetching_from(names, lane):
        for _ in range(4):
            await names.looks.acquire()
    assert lane.trouble is not None
    assert lane.retry_at - lane.trouble.since > 0.05 + 0.1 + 0.2


async def test_an_answer_without_the_topic_is_a_trouble_that_is_told_of() -> None:
    names = Names()
    names.known[SILENT] = None
    lane = lane_at(7)
    async with fetching_from(names, lane):
        for _ in range(3):
            await names.looks.acquire()
    assert lane.trouble is not None


async def test_what_is_buffered_of_a_topic_is_let_go_where_another_one_is_read_from_its_beginning() -> None:
    names = Names(refusal=3)
    lane = lane_at(0)
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
    builder.append(0, 0, None, b"of the one before", [])
    lane.put(bytes(builder.build()), ())
    assert (lane.fetch_from, lane.is_ready()) == (1, True)
    async with fetching_from(names, lane) as reading:
        await names.fetches.acquire()
        await names.fetches.acquire()
    assert (lane.fetch_from, lane.is_ready()) == (0, False)
    assert reading.learned == {PLACE: SECOND}


async def test_what_is_at_hand_of_a_topic_is_given_before_it_is_said_that_another_one_has_its_name() -> None:
    names: Any = Names(refusal=3)
    reader: Any = KafkaReader(KafkaSettings("nobody"))
    reader._fetching = Fetching(names, names, reader._on_arrival)
    reader.assign({PLACE: 7}, {PLACE: FIRST})
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
    builder.append(0, 0, None, b"of the one before", [])
    lane = reader._lanes[PLACE]
    lane.put(struct.pack(">q", 7) + bytes(builder.build())[8:], ())
    reader._on_arrival(lane)
    reader._fetching.start()
    try:
        async with asyncio.timeout(10):
            while not lane.stopped:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        assert reader.made_anew() == {}
        chunk = await reader.fetch(records_max=10, wait_seconds=0)
        assert [record.value for record in chunk.records[PLACE]] == [b"of the one before"]
        assert reader.made_anew() == {PLACE: SECOND}
    finally:
        await reader._fetching.close()


class Quiet(Client):
    """A broker that gives what it is given once, and then waits for as long as it may, in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int] = []
        """For how long it might wait for the quiet topic alone, in milliseconds."""
        self.records = {"busy": batches(20)}
        self.fetches = asyncio.Semaphore(0)
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens once, while it waits."""
        self.has_news = False
        """Whether it answers at once, for all that."""

    async def topic_ids(self, topics: Iterable[str], *_: Any, **__: Any) -> dict[str, str]:
        return dict.fromkeys(topics, FIRST)

    async def send(self, _: int, request: Any) -> Any:
        topics = sorted(topic for topic, _ in request._topics)
        told: list[Any] = [
            (topic, [(0, 0, -1, -1, -1, [], -1, self.records.pop(topic, b""))]) for topic in topics
        ]
        if topics == ["quiet"]:
            self.waits.append(request._max_wait_ms)
            self.meanwhile()
            self.meanwhile = lambda: None
            await asyncio.sleep(0 if self.has_news else request._max_wait_ms / 1_000)
            self.fetches.release()
        return SimpleNamespace(API_VERSION=11, topics=told)

    async def next(self, number: int) -> list[int]:
        """For how long it may wait with the next requests."""
        known = len(self.waits)
        while len(self.waits) < known + number:
            await self.fetches.acquire()
        return self.waits[known : known + number]


def batches(number: int) -> bytes:
    """Batches of one record each, of more than 4,000 bytes."""
    made = []
    for offset in range(number):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
        builder.append(0, 0, None, b"-" * 4_000, [])
        made.append(struct.pack(">q", offset) + bytes(builder.build())[8:])
    return b"".join(made)


@contextlib.asynccontextmanager
async def in_the_loops_time(client: Any, *lanes: Lane) -> AsyncIterator[Fetching]:
    clock = SimpleNamespace(monotonic=asyncio.get_running_loop().time)
    with mock.patch.object(fetching, "time", clock), mock.patch.object(lane, "time", clock):
        async with fetching_from(client, *lanes) as reading:
            yield reading


def busy_and_quiet() -> tuple[Lane, Lane]:
    return lane_at(0, partition=Partition("busy", 0)), lane_at(0, partition=Partition("quiet", 0))


def test_a_broker_waits_longer_for_a_quiet_topic_while_another_one_has_plenty_at_hand() -> None:
    async def live() -> None:
        broker, (busy, quiet) = Quiet(), busy_and_quiet()
        async with in_the_loops_time(broker, busy, quiet) as reading:
            waits = await broker.next(7)
            assert waits == sorted(waits)
            assert (waits[0], waits[-3:]) == (10, [100, 100, 100])
            at_hand = busy.bytes_left
            # More than half of it in a tenth of a second: what is left lasts for less than that.
            broker.meanwhile = lambda: busy.take(12)
            before, after = await broker.next(2)
            assert (before, 10 < after < 50) == (100, True)
            assert busy.bytes_left < at_hand / 2
            assert max(await broker.next(9)) > 10
            broker.records = {"busy": batches(20)}
            reading.replace({lane.partition: lane for lane in busy_and_quiet()})
            # The first of them was on its way.
            assert (await broker.next(2))[-1] == 10, "what was known was of other lanes"

    in_virtual_time(live)


def test_what_a_broker_answers_at_once_says_nothing_of_how_long_the_rest_lasts() -> None:
    async def live() -> None:
        broker, lanes = Quiet(), busy_and_quiet()
        broker.has_news = True
        async with in_the_loops_time(broker, *lanes):
            assert await broker.next(5) == [10] * 5

    in_virtual_time(live)


class Asked(Quiet):
    """It knows when it was asked for which topics."""

    def __init__(self) -> None:
        super().__init__()
        self.began = asyncio.get_running_loop().time()
        self.asked: list[tuple[float, list[str]]] = []
        """When, since it began."""
        self.fails: set[str] = set()
        """Topics for which it fails, once each."""
        self.leaders: dict[str, int | None] = {}
        """Where it is not the one broker."""

    def leader_for_partition(self, partition: Any) -> Any:
        return self.leaders.get(partition.topic, SILENT)

    async def send(self, node: int, request: Any) -> Any:
        topics = sorted(topic for topic, _ in request._topics)
        self.asked.append((asyncio.get_running_loop().time() - self.began, topics))
        if self.fails & set(topics):
            self.fails -= set(topics)
            raise KafkaConnectionError
        if topics != ["quiet"] and not self.records:
            await asyncio.sleep(request._max_wait_ms / 1_000)
        return await super().send(node, request)

    async def why_not_let_in(self, _: object) -> str:
        return ""

    def times_of(self, topic: str) -> list[float]:
        """When it was asked for this."""
        return [round(at, 3) for at, topics in self.asked if topic in topics]


def test_what_was_left_out_is_asked_for_as_soon_as_what_is_at_hand_of_it_was_taken() -> None:
    async def live() -> None:
        broker, (busy, _) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, busy) as reading:
            await asyncio.sleep(0.3)
            begun = broker.times_of("busy")
            assert len(begun) == 1, "it has plenty at hand"
            busy.take(20)
            reading.wake()
            await asyncio.sleep(0.01)
            assert broker.times_of("busy") == [*begun, 0.3]

    in_virtual_time(live)


def test_nothing_is_looked_at_for_what_is_taken_while_the_broker_is_waited_for() -> None:
    async def live() -> None:
        broker, (_, quiet) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet) as reading:
            await asyncio.sleep(0.05)
            asked = len(broker.asked)
            with mock.patch.object(reading, "_ask", side_effect=reading._ask) as looked:
                for _ in range(100):
                    reading.wake()
                    await asyncio.sleep(0)
                assert not looked.mock_calls
                # Once the broker has answered it is asked again.
                await asyncio.sleep(0.1)
                assert len(broker.asked) == asked + 1

    in_virtual_time(live)


def test_what_was_asked_for_in_vain_is_asked_for_again_when_it_is_time() -> None:
    async def live() -> None:
        broker, (_, quiet) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet):
            await asyncio.sleep(0.05)
            broker.fails = {"quiet"}
            await asyncio.sleep(0.2)
            [*_, failed, again] = broker.times_of("quiet")
            assert RETRY_SECONDS_MIN <= again - failed < 2 * RETRY_SECONDS_MIN

    in_virtual_time(live)


def test_whose_leader_is_not_known_is_looked_up_again_when_it_is_time() -> None:
    async def live() -> None:
        broker, (_, quiet) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet):
            await asyncio.sleep(0.05)
            before = len(broker.asked)
            broker.leaders = {"quiet": None}
            # The broker answers, and there is none to be asked next.
            await asyncio.sleep(0.06)
            broker.leaders = {}
            await asyncio.sleep(2 * RETRY_SECONDS_MIN)
            assert len(broker.asked) == before + 1

    in_virtual_time(live)


@pytest.mark.parametrize("is_asked_meanwhile", [True, False])
def test_what_cannot_be_decoded_is_asked_for_again_when_it_is_time(is_asked_meanwhile: bool) -> None:
    async def live() -> None:
        broker, (busy, quiet) = Asked(), busy_and_quiet()
        # The checksum of the second one is not that of its bytes, which shows once it is handed out.
        broker.records = {"busy": batches(2)[:-1] + b"+"}
        async with in_the_loops_time(broker, busy, quiet) as reading:
            await asyncio.sleep(0.003)

            def take() -> None:
                busy.take(2)
                reading.wake()

            # Behind the next answer there is nothing to be asked for.
            broker.records = {"quiet": batches(20)}
            if is_asked_meanwhile:
                broker.meanwhile = take
            await asyncio.sleep(0.047)
            if not is_asked_meanwhile:
                take()
            begun = len(broker.times_of("busy"))
            await asyncio.sleep(2 * RETRY_SECONDS_MIN)
            assert len(broker.times_of("busy")) > begun

    in_virtual_time(live)


def test_which_topic_it_is_is_found_out_while_its_broker_is_waited_for() -> None:
    async def live() -> None:
        broker, (busy, quiet) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, busy, quiet) as reading:
            # Long enough for it not to be sure any more.
            await asyncio.sleep(5.003)
            identified = mock.Mock(side_effect=broker.topic_ids)
            with mock.patch.object(broker, "topic_ids", identified):
                busy.take(20)
                reading.wake()
                await asyncio.sleep(0.001)
            assert identified.mock_calls

    in_virtual_time(live)


def test_what_is_doubted_as_where_it_was_paused_is_looked_at_at_once() -> None:
    async def live() -> None:
        broker, (_, quiet) = Asked(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet) as reading:
            await asyncio.sleep(0.05)
            with mock.patch.object(reading, "_ask", side_effect=reading._ask) as looked:
                reading.doubt({"quiet"})
                await asyncio.sleep(0.001)
            assert looked.mock_calls

    in_virtual_time(live)


class Hanging(Asked):
    """The first broker never answers, and who gives up waiting for it needs a few turns; the others say who leads."""

    async def send(self, node: int, request: Any) -> Any:
        self.asked.append((asyncio.get_running_loop().time() - self.began, [str(node)]))
        await asyncio.wait_for(asyncio.Event().wait(), 1_000)

    async def learn_leaders(self, topics: Iterable[str]) -> None:
        await asyncio.sleep(0.4)
        self.leaders = dict.fromkeys(topics, NEXT)


def test_the_next_leader_is_asked_as_soon_as_the_request_to_the_silent_one_has_ended() -> None:
    async def live() -> None:
        broker, (_, quiet) = Hanging(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet):
            await asyncio.sleep(fetching.SILENCE_SECONDS + 2.0)
            [silent_at] = broker.times_of(str(SILENT))
            next_at = broker.times_of(str(NEXT))[0]
        # It is looked a little later whether it is silent, and then asked once who leads.
        assert 0 < next_at - (silent_at + fetching.SILENCE_SECONDS + 0.4) < 0.1

    in_virtual_time(live)


class Staying(Hanging):
    """The first broker never answers, and the others say as often as they are asked that it still leads."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[float] = []

    async def learn_leaders(self, topics: Iterable[str]) -> None:
        del topics
        self.looks.append(asyncio.get_running_loop().time() - self.began)
        await asyncio.sleep(0.002)


def test_who_leads_is_not_asked_as_fast_as_it_is_answered_where_a_broker_is_silent() -> None:
    async def live() -> None:
        broker, (_, quiet) = Staying(), busy_and_quiet()
        async with in_the_loops_time(broker, quiet):
            await asyncio.sleep(fetching.SILENCE_SECONDS + 5.5)
        # Once it is silent, every second.
        assert 4 <= len(broker.looks) <= 7

    in_virtual_time(live)
