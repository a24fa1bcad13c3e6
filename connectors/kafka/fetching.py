"""The loop that keeps the lanes filled: at any time one request to each broker that leads some of them.

aiokafka's own consumer is not used for it. Of several partitions that it has gathered it loses what it had
taken from the others when one of them raises; a header that is not UTF-8, or a batch with a wrong checksum,
stops it for ever together with the good records before it; it steps over a record that is larger than the
fetch; and it asks a broker for a deleted topic as fast as the broker says no. Its client, which knows
connections, security, versions and leaders, is what this stands on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from connectors.kafka.lane import Lane
from connectors.kafka.patience import BUSY_WAIT_MILLISECONDS, IDLE_WAIT_MILLISECONDS, next_wait
from connectors.kafka.queries import EARLIEST, LATEST, READ_COMMITTED, Queries
from connectors.source import OutOfRange, Partition, SourceError

log = logging.getLogger(__name__)

FETCH_BYTES_MAX = 16 * 1024 * 1024
"""Of one answer, all partitions together."""
FLOW_BYTES_MIN = 4 * 1024
FLOW_BYTES = 64 * 1024
FLOW_WAIT_MILLISECONDS = 2
"""Where an answer brings less than FLOW_BYTES, and more than FLOW_BYTES_MIN, the next one is to bring as much, or what
comes in this time: answers with a few records each cost both sides more than the records do."""
SILENCE_SECONDS = 3.0
"""A broker that has not answered by then, whose answers come at once otherwise, may have been followed by others."""
ASK_WHY_SECONDS = 0.5
"""So often it is found out what keeps us out, where something does."""
LOOK_SECONDS = 1.0
"""So often lanes are looked at even if nothing happens."""
SURE_SECONDS = 1.0
"""A partition that nothing was asked of for so long may be of another topic of that name by now."""
SURE_MARGIN_SECONDS = IDLE_WAIT_MILLISECONDS / 1_000
"""So long after a look it may be that nobody looks again."""
IDENTIFY_SECONDS = 60.0
"""So often it is asked whether it is, beside all else."""
LOOKS_UNTIL_AGREED = 10
LOOK_AGAIN_SECONDS = 0.1
"""So often, and so far apart, brokers are asked that do not agree which topic has a name."""
TIMER_GRAIN_SECONDS = 0.001
ABORTED_AT_FROM_END = {4: -2, 5: -2, 6: -2, 7: -2, 8: -2, 9: -2, 10: -2, 11: -3}
"""Where the aborted transactions stand in a partition's part of an answer, by its version."""


class Fetching:
    """Fetches for the lanes that it is given, until it is closed."""

    def __init__(self, client: Any, queries: Queries, on_arrival: Callable[[Lane], None]) -> None:
        """`on_arrival` is called when a lane has something to tell."""
        self._client = client
        self._queries = queries
        self._on_arrival = on_arrival
        self._lanes: Mapping[Partition, Lane] = {}
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[float, list[Lane]]] = {}
        """When a broker was asked, and for what."""
        self._doubted: set[int] = set()
        self._checks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.out_of_range: list[OutOfRange] = []
        self.made_anew: dict[Partition, str] = {}
        self.learned: dict[Partition, str] = {}
        """The ids of topics, of lanes that came without, or of which nothing was read yet."""
        self._sure: dict[str, float] = {}
        """When topics were found to be those which their lanes are of, and not others of the same names."""
        self._identifying: set[str] = set()
        self._identified_at: dict[str, float] = {}
        """When topics were asked for their ids."""
        self._waits: dict[int, int] = {}
        """So many milliseconds brokers may wait for some lanes where others of theirs have plenty."""
        self._flowing: set[int] = set()
        """Brokers from which records come all the time, a few with each answer."""
        self._looks_at = math.inf
        """When it is looked next who wants something, if nothing happens before."""
        self._leaves_some = False
        """Whether the last look left out lanes that are to be looked at as soon as they want something."""
        self._why_away = ""
        """Why we are not let in; empty where we are, or that is not known."""
        self._asked_why_at = -math.inf
        self._asking_why: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="kafka fetching")

    async def close(self) -> None:
        self._lanes = {}
        tasks = [task for task in (self._loop, *self._requests.values(), *self._checks) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._loop = None

    def replace(self, lanes: Mapping[Partition, Lane]) -> None:
        """Fetch for these lanes and no others; an answer to an earlier request for others is dropped."""
        self._lanes = lanes
        self.out_of_range.clear()
        self.made_anew.clear()
        self.learned.clear()
        self._sure.clear()
        if lanes:
            known = self._client.set_topics(sorted({partition.topic for partition in lanes}))
            known.add_done_callback(lambda _: self._wake.set())
        self._wake.set()

    def check(self) -> None:
        """Raises what ended the loop, which nothing should."""
        if self._loop is not None and self._loop.done():
            self._loop.result()

    def doubt(self, topics: Iterable[str]) -> None:
        """Fetch nothing more of these before it is known that they are still the same, which is found out at once."""
        for topic in topics:
            self._sure.pop(topic, None)
        self._wake.set()

    def wake(self) -> None:
        """Look again who wants something, unless that comes by itself: behind the answers that are waited for."""
        if self._leaves_some:
            self._wake.set()

    def _look_in_time(self) -> None:
        """Have it looked again no later than lanes are to be asked for again of which that was in vain."""
        if time.monotonic() + self._seconds_until_retry() < self._looks_at:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._doubt_who_is_silent()
            self._ask()
            seconds = self._seconds_until_retry()
            self._looks_at = time.monotonic() + seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _ask(self) -> None:
        """Send a request to each broker from which something is wanted, and nothing is on its way."""
        for node, lanes in self._wanting().items():
            request = asyncio.create_task(self._request(node, lanes), name=f"kafka fetch from {node}")
            self._requests[node] = request

    def _doubt_who_is_silent(self) -> None:
        long_ago = time.monotonic() - SILENCE_SECONDS
        for node, (since, lanes) in self._asked.items():
            if since < long_ago and node not in self._doubted:
                self._doubted.add(node)
                look = self._look_who_leads(node, lanes, self._requests[node])
                self._check(look, f"kafka silence of {node}")

    async def _look_who_leads(self, silent: int, lanes: list[Lane], request: asyncio.Task[None]) -> None:
        """Ask the others, and wait no longer for a broker that leads something no more of what it was asked for."""
        leader = self._client.cluster.leader_for_partition
        try:
            with contextlib.suppress(SourceError):
                await self._queries.learn_leaders(sorted({partition.topic for partition in self._lanes}))
                if any(leader(lane.topic_partition) != silent for lane in lanes):
                    request.cancel()
                    return
            # Not as fast as they answer, who may be in trouble, too.
            await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._doubted.discard(silent)

    def _check(self, check: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(check, name=name)
        self._checks.add(task)
        task.add_done_callback(self._checked)

    def _checked(self, task: asyncio.Task[None]) -> None:
        self._checks.discard(task)
        self._wake.set()

    def _seconds_until_retry(self) -> float:
        """Not by a timer for each: one that fires a little early would find nothing to do, and be gone."""
        now = time.monotonic()
        waiting: list[float] = [lane.retry_at - now for lane in self._lanes.values() if lane.retry_at > now]
        return min([LOOK_SECONDS, *waiting]) + TIMER_GRAIN_SECONDS

    def _wanting(self) -> Mapping[int, list[Lane]]:
        now = time.monotonic()
        by_node: dict[int, list[Lane]] = defaultdict(list)
        doubtful: dict[str, Lane] = {}
        left: list[Lane] = []
        for lane in self._lanes.values():
            if not lane.wants(now):
                if not (lane.in_flight or lane.paused or lane.stopped):
                    left.append(lane)
                continue
            topic = lane.partition.topic
            is_sure = self._is_sure(lane, now)
            if not is_sure or now - self._identified_at[topic] >= IDENTIFY_SECONDS:
                doubtful.setdefault(topic, lane)
            if not is_sure:
                continue
            node = self._client.cluster.leader_for_partition(lane.topic_partition)
            if node is None or node < 0:
                if node is None:
                    self.doubt([topic])
                self._client.force_metadata_update()
                lane.fail(f"No broker leads {lane.partition}, or it does not exist (any more).")
            elif node not in self._requests:
                by_node[node].append(lane)
        self._identify(doubtful, now)
        asked = self._requests.keys() | by_node.keys()
        leader = self._client.cluster.leader_for_partition
        # Which topic one is of is found out while its broker is waited for.
        self._leaves_some = any(
            leader(lane.topic_partition) not in asked or not self._is_sure(lane, now + SURE_MARGIN_SECONDS)
            for lane in left
        )
        return by_node

    def _is_sure(self, lane: Lane, now: float) -> bool:
        found_at = self._sure.get(lane.partition.topic)
        return found_at is not None and now - max(found_at, lane.answered_at) < SURE_SECONDS

    def _identify(self, doubtful: Mapping[str, Lane], now: float) -> None:
        """Find out beside all else whether topics are those that their lanes are of.

        Their leaders are asked, who are the first to know, and without whom nothing is read anyway.
        """
        by_node: dict[int | None, set[str]] = defaultdict(set)
        for topic in doubtful.keys() - self._identifying:
            node = self._client.cluster.leader_for_partition(doubtful[topic].topic_partition)
            by_node[None if node is None or node < 0 else node].add(topic)
            self._identified_at[topic] = now
        for leader, topics in by_node.items():
            self._identifying |= topics
            self._check(self._find_identities(leader, topics), f"kafka identity of topics at {leader}")

    async def _find_identities(self, leader: int | None, topics: set[str]) -> None:
        lanes = self._lanes
        try:
            found = await self._agreed_ids(leader, sorted(topics))
            if lanes is self._lanes:
                self._compare(found)
        except SourceError as error:
            self._fail_doubtful(topics, str(error))
            with contextlib.suppress(SourceError):
                await self._queries.learn_leaders(sorted({partition.topic for partition in self._lanes}))
        except Exception as error:
            log.exception("An answer about topics cannot be understood")
            self._fail_doubtful(topics, f"An answer about topics cannot be understood: {error!r}")
        finally:
            self._identifying -= topics

    async def _agreed_ids(self, leader: int | None, topics: list[str]) -> Mapping[str, str | SourceError]:
        """The ids as the leader knows them; before a lane is stopped for one, another broker is to say the same."""
        found = await self._queries.topic_ids(topics, leader)
        for _ in range(LOOKS_UNTIL_AGREED):
            stopping = [topic for topic, topic_id in found.items() if self._would_stop(topic, topic_id)]
            if not stopping:
                return found
            others = await self._queries.topic_ids(stopping, beside=leader)
            disputed = [topic for topic in stopping if others[topic] != found[topic]]
            if not disputed:
                return found
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            found = await self._queries.topic_ids(topics, leader)
        log.warning("Brokers do not agree which topics have these names: %s", ", ".join(disputed))
        return {topic: "" if self._would_stop(topic, one) else one for topic, one in found.items()}

    def _would_stop(self, topic: str, topic_id: str | SourceError) -> bool:
        return any(
            lane.partition.topic == topic and _is_of_another(lane, topic_id) for lane in self._lanes.values()
        )

    def _compare(self, found: Mapping[str, str | SourceError]) -> None:
        """Go on with what is of these topics, and stop what is of others of their names."""
        now = time.monotonic()
        for topic, topic_id in found.items():
            if isinstance(topic_id, SourceError):
                self._fail_doubtful({topic}, str(topic_id))
            else:
                self._sure[topic] = now
        for lane in self._lanes.values():
            topic_id = found.get(lane.partition.topic, "")
            if isinstance(topic_id, SourceError) or topic_id in ("", lane.topic_id):
                continue
            if _is_of_another(lane, topic_id):
                lane.stop()
                self.made_anew[lane.partition] = topic_id
            elif not lane.stopped:
                # Of which nothing was handed out, the one is as good as the other.
                if lane.topic_id:
                    lane.begin_again()
                lane.topic_id = self.learned[lane.partition] = topic_id

    def _fail_doubtful(self, topics: Collection[str], reason: str) -> None:
        now = time.monotonic()
        self._fail_all(
            [
                lane
                for lane in self._lanes.values()
                if lane.partition.topic in topics and not self._is_sure(lane, now)
            ],
            reason,
        )

    async def _request(self, node: int, lanes: list[Lane]) -> None:
        # Who has waited longest comes first: only the first partition of an answer that is not empty may
        # exceed the limit.
        lanes.sort(key=lambda lane: lane.fetched_at)
        asked = {lane.topic_partition: (lane, lane.fetch_from, lane.topic_id) for lane in lanes}
        began = time.monotonic()
        self._asked[node] = (began, lanes)
        try:
            others = [] if node in self._flowing else self._others(node, lanes, began)
            before = [lane.bytes_left for lane in others]
            for lane in lanes:
                lane.in_flight = True
            wait = self._wait_of(node) if others else IDLE_WAIT_MILLISECONDS
            answer = await self._client.send(node, self._fetch_request(node, lanes, wait))
            self._learn_wait(node, others, before, time.monotonic() - began)
            self._why_away = ""
            self._receive(answer, asked)
            self._note_flow(node, answer)
        except asyncio.CancelledError:
            self._wake.set()
            raise
        except KafkaError as error:
            self._ask_why(error)
            self.doubt(lane.partition.topic for lane in lanes)
            self._fail_all(lanes, self._why_away or f"Broker {node} does not answer: {error}")
        except Exception as error:
            log.exception("An answer of broker %s cannot be understood", node)
            self._fail_all(lanes, f"An answer of broker {node} cannot be understood: {error!r}")
        finally:
            for lane in lanes:
                lane.in_flight = False
            self._requests.pop(node, None)
            self._asked.pop(node, None)
        # At once, since a busy loop comes to whom it has woken only turns later.
        self._ask()
        self._look_in_time()

    def _ask_why(self, error: KafkaError) -> None:
        """Find out beside all else what is in the way; whoever fails next says so."""
        now = time.monotonic()
        if self._asking_why is not None or now - self._asked_why_at < ASK_WHY_SECONDS:
            return
        self._asked_why_at = now
        self._asking_why = asyncio.create_task(self._find_why(error), name="kafka asking why")
        self._checks.add(self._asking_why)
        self._asking_why.add_done_callback(self._found_why)

    async def _find_why(self, error: KafkaError) -> None:
        self._why_away = await self._queries.why_not_let_in(error)

    def _found_why(self, task: asyncio.Task[None]) -> None:
        self._checks.discard(task)
        self._asking_why = None

    def _others(self, node: int, lanes: Iterable[Lane], now: float) -> list[Lane]:
        """Those of this broker that are not asked for now, mostly since they have plenty, and will be again."""
        leader = self._client.cluster.leader_for_partition
        chosen = {lane.partition for lane in lanes}
        return [
            lane
            for partition, lane in self._lanes.items()
            if partition not in chosen
            and not (lane.paused or lane.stopped or lane.retry_at > now)
            and partition.topic in self._sure
            and leader(lane.topic_partition) == node
        ]

    def _learn_wait(self, node: int, others: Sequence[Lane], before: Sequence[int], seconds: float) -> None:
        """Know how long the broker may wait the next time; anew where there were no others, as where all are new."""
        if others:
            left = zip(before, (lane.bytes_left for lane in others), strict=True)
            self._waits[node] = next_wait(self._wait_of(node), left, seconds)
        else:
            self._waits.pop(node, None)

    def _wait_of(self, node: int) -> int:
        return self._waits.get(node, BUSY_WAIT_MILLISECONDS)

    def _fetch_request(self, node: int, lanes: Iterable[Lane], wait: int) -> FetchRequest:
        by_topic: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for lane in lanes:
            by_topic[lane.partition.topic].append((lane.partition.number, lane.fetch_from, lane.bytes_max))
        bytes_min = 1
        if node in self._flowing:
            wait, bytes_min = FLOW_WAIT_MILLISECONDS, FLOW_BYTES
        return FetchRequest(wait, bytes_min, FETCH_BYTES_MAX, READ_COMMITTED, list(by_topic.items()))

    def _receive(self, answer: Any, asked: Mapping[Any, tuple[Lane, int, str]]) -> None:
        aborted_at = ABORTED_AT_FROM_END[answer.API_VERSION]
        now = time.monotonic()
        for topic, partitions in answer.topics:
            for number, code, _, *rest in partitions:
                lane, *was = asked[topic, number]
                if self._lanes.get(lane.partition) is not lane or [lane.fetch_from, lane.topic_id] != was:
                    continue
                if code:
                    self._refused(lane, for_code(code))
                    continue
                lane.answered_at = now
                lane.put(rest[-1] or b"", rest[aborted_at] or ())
                if lane.is_ready():
                    self._on_arrival(lane)

    def _note_flow(self, node: int, answer: Any) -> None:
        brought = sum(len(rest[-1] or b"") for _, partitions in answer.topics for rest in partitions)
        if FLOW_BYTES_MIN <= brought < FLOW_BYTES:
            self._flowing.add(node)
        else:
            self._flowing.discard(node)

    def _refused(self, lane: Lane, error: type[KafkaError]) -> None:
        if error is OffsetOutOfRangeError:
            lane.stopped = True
            self._check(self._check_range(lane), f"kafka range of {lane.partition}")
            return
        self._client.force_metadata_update()
        if error is TopicAuthorizationFailedError:
            topic = lane.partition.topic
            lane.fail(f"This user may not read the topic {topic}. Allow READ on the topic {topic}.")
            return
        # What was made anew may be led by another broker, and have as many records.
        self.doubt([lane.partition.topic])
        if error is UnknownTopicOrPartitionError:
            lane.fail(f"{lane.partition} does not exist (any more).")
        else:
            lane.fail(f"{lane.partition} cannot be read just now: {error()}")

    async def _check_range(self, lane: Lane) -> None:
        """Report a lane only where its offset is really not there; a new leader may not have it as yet."""
        try:
            earliest = (await self._queries.offsets({lane.partition: EARLIEST}))[lane.partition]
            end = (await self._queries.offsets({lane.partition: LATEST}))[lane.partition]
        except SourceError as error:
            lane.stopped = False
            self.doubt([lane.partition.topic])
            lane.fail(str(error))
            return
        if earliest <= lane.position <= end:
            lane.stopped = False
            self.doubt([lane.partition.topic])
            lane.fail(f"The leader of {lane.partition} does not have offset {lane.position} as yet.")
        elif self._lanes.get(lane.partition) is lane:
            lane.stop()
            self.out_of_range.append(OutOfRange(lane.partition, lane.position, earliest, end))

    def _fail_all(self, lanes: Iterable[Lane], reason: str) -> None:
        self._client.force_metadata_update()
        for lane in lanes:
            if self._lanes.get(lane.partition) is lane:
                lane.fail(reason)


def _is_of_another(lane: Lane, topic_id: str | SourceError) -> bool:
    """Whether something was handed out that is of a topic with another id than this."""
    if isinstance(topic_id, SourceError) or not topic_id or lane.stopped:
        return False
    return bool(lane.position and lane.topic_id) and lane.topic_id != topic_id
