"""The transactions of one producer, step by step: each step is one request, and its answer is looked at.

aiokafka's own producer sends from a task of its own, keeps trying for ever where a topic vanished, and
commits after a batch that failed. What is needed here is less: when anything goes wrong, stop at once and say
so. Only what Kafka says it has not done, and what carries a number that keeps it from being done twice, is
sent once more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import (
    BrokerResponseError,
    IncompatibleBrokerVersion,
    KafkaError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from connectors.kafka.addresses import answering
from connectors.kafka.allowing import may_not_transact
from connectors.kafka.queries import expect_brokers
from connectors.kafka.reaching import why_not
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_batches import Batch
from connectors.kafka.sink_codes import (
    ASK_AGAIN,
    COORDINATOR_MOVED,
    FENCED,
    MOVED,
    SEND_AGAIN,
    WRITTEN,
    Code,
    words,
)
from connectors.kafka.sink_limits import SinkLimits
from connectors.sink import FencedError, SinkMisconfiguredError, SinkUnavailableError
from connectors.source import Partition

Leaders = Mapping[str, Sequence[int]]
"""The leader of each partition, by topic."""
Waiting = dict[Partition, deque[tuple[Batch, bytes]]]
Refresh = Callable[[Collection[str]], Awaitable[Leaders]]

_ACKS_ALL = -1
_SEQUENCES = 2**31


class BatchesRefusedError(Exception):
    """Batches that were not written, each with Kafka's code; the transaction can only be given up."""

    def __init__(self, refused: Sequence[tuple[Batch, int]]) -> None:
        self.refused = refused
        super().__init__(f"{len(refused)} batches refused: {words(refused[0][1])}")


class PartitionsRefusedError(Exception):
    """Partitions that cannot be part of a transaction, each with Kafka's code; ``admitted``: topics that could."""

    def __init__(self, refused: Mapping[Partition, int], admitted: Collection[str]) -> None:
        self.refused = refused
        self.admitted = admitted
        super().__init__(f"{len(refused)} partitions refused")


class Transactions:
    """One producer with a fixed transactional id; not to be used again after an exception."""

    def __init__(self, settings: KafkaSettings, transactional_id: str, limits: SinkLimits) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._limits = limits
        self._bootstrap = settings.bootstrap
        self._client: Any = None
        self._coordinator: int | None = None
        self._producer_id = -1
        self._epoch = -1
        self._sequences: dict[Partition, int] = {}
        self._open = False

    async def connect(self) -> None:
        """Connect to the cluster."""
        limits = self._limits
        try:
            self._client = AIOKafkaClient(  # type: ignore[no-untyped-call]  # aiokafka is untyped
                **(await answering(self._settings)).client_options(),
                request_timeout_ms=int(limits.publish_seconds * 1000),
                metadata_max_age_ms=int(limits.metadata_age_seconds * 1000),
            )
            await self._client.bootstrap()
        except KafkaError as error:
            raise SinkUnavailableError(await why_not(self._settings, error)) from error

    async def start(self, topic: str) -> None:
        """End the predecessor's transaction, and fence it. ``topic``: whose brokers to follow."""
        self._client.set_topics([topic])
        timeout = int(self._limits.transaction_timeout_seconds * 1000)
        answer = await self._coordinate(InitProducerIdRequest(self._transactional_id, timeout), _own_code)
        if answer.error_code == Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise SinkMisconfiguredError(may_not_transact(self._bootstrap, self._transactional_id))
        if answer.error_code == Code.INVALID_TRANSACTION_TIMEOUT:
            raise SinkMisconfiguredError(
                f"Kafka at {self._bootstrap} does not let the relay use transactions: "
                f"{words(answer.error_code)} Set the broker's transaction.max.timeout.ms to {timeout} or more."
            )
        _check(answer.error_code, "starting the producer")
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    async def ask(self, request: Any) -> Any:
        """The answer of any broker."""
        with _kafka_errors():
            return await self._client.send(self._client.get_random_node(), request)

    async def ask_controller(self, request: Any) -> Any:
        """The answer of the controller, or where none is named, of any broker."""
        controller = self._client.cluster.controller
        node = self._client.get_random_node() if controller is None else controller.nodeId
        with _kafka_errors():
            return await self._client.send(node, request)

    async def add(self, partitions: Iterable[Partition]) -> None:
        """Open a transaction over these partitions.

        Raises:
            PartitionsRefusedError, SinkError: no transaction is open.
        """
        by_topic: dict[str, list[int]] = {}
        for topic, number in partitions:
            by_topic.setdefault(topic, []).append(number)
        request = AddPartitionsToTxnRequest(
            self._transactional_id, self._producer_id, self._epoch, list(by_topic.items())
        )
        self._open = True
        answer = await self._coordinate(request, _partition_codes)
        codes = {
            Partition(topic, number): code
            for topic, numbers in answer.errors
            for number, code in numbers
            if code
        }
        refused = {tp: code for tp, code in codes.items() if code != Code.OPERATION_NOT_ATTEMPTED}
        for code in refused.values():
            if code in FENCED:
                _check(code, "opening a transaction")
        if codes:
            admitted = {tp.topic for tp, code in codes.items() if code == Code.OPERATION_NOT_ATTEMPTED}
            raise PartitionsRefusedError(refused or codes, admitted if refused else set())

    async def produce(self, batches: Iterable[Batch], leaders: Leaders, refresh: Refresh) -> None:
        """Write all batches, those of one partition one after the other.

        ``refresh`` finds out who leads the partitions of these topics now.

        Raises:
            BatchesRefusedError, SinkError: the transaction cannot be committed any more.
        """
        waiting: Waiting = {}
        for batch in batches:
            waiting.setdefault(batch.partition, deque()).append((batch, self._seal(batch)))
        while waiting:
            requests = _requests(waiting, leaders, self._limits.request_bytes_max)
            # All to their ends, also where one fails: what is written behind the abort nobody would abort any more.
            sending = [self._send(node, content) for node, content in requests]
            answers = _unless_failed(await asyncio.gather(*sending, return_exceptions=True))
            unwritten = _take_written(waiting, answers)
            if unwritten:
                await asyncio.sleep(self._limits.backoff_seconds_max)
            if moved := {partition.topic for partition, code in unwritten.items() if code in MOVED}:
                leaders = await refresh(moved)

    async def end(self, *, commit: bool) -> None:
        """Commit or abort; when it returns, that is decided for good."""
        request = EndTxnRequest(self._transactional_id, self._producer_id, self._epoch, commit)
        answer = await self._coordinate(request, _own_code)
        _check(answer.error_code, "committing a transaction" if commit else "aborting a transaction")
        self._open = False

    async def close(self) -> None:
        """Give up what is open, so that readers need not wait for it, and disconnect."""
        if self._client is None:
            return
        with contextlib.suppress(Exception):
            if self._open:
                async with asyncio.timeout(self._limits.close_seconds / 2):
                    await self.end(commit=False)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._limits.close_seconds / 2):
                await self._client.close()

    def _seal(self, batch: Batch) -> bytes:
        first = self._sequences.get(batch.partition, 0)
        self._sequences[batch.partition] = (first + len(batch.indexes)) % _SEQUENCES
        return batch.seal(self._producer_id, self._epoch, first)

    async def _send(self, node: int, content: Mapping[Partition, bytes]) -> dict[Partition, int]:
        by_topic: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, number), data in content.items():
            by_topic.setdefault(topic, []).append((number, data))
        request = ProduceRequest(
            self._transactional_id,
            _ACKS_ALL,
            int(self._limits.publish_seconds * 1000),
            list(by_topic.items()),
        )
        with _kafka_errors():
            await self._know(node)
            answer = await self._client.send(node, request)
        codes = {Partition(topic, part[0]): part[1] for topic, parts in answer.topics for part in parts}
        if codes.keys() != content.keys():
            raise SinkUnavailableError("Kafka's answer is not about the partitions that were written to")
        return codes

    async def _coordinate(self, request: Any, codes_of: Any) -> Any:
        """The coordinator's answer, once it is one: until the transaction before has ended it is not."""
        wait = self._limits.backoff_seconds_min
        while True:
            with _kafka_errors():
                node = await self._find_coordinator()
                await self._know(node)
                answer = await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
            codes = set(codes_of(answer))
            if not codes & ASK_AGAIN:
                return answer
            if codes & COORDINATOR_MOVED:
                self._coordinator = None
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, self._limits.backoff_seconds_max)

    async def _know(self, node: int) -> None:
        """Ask who there is, where this broker has come, or come back, since that was asked last."""
        if self._client.cluster.broker_metadata(node) is None:
            await self._client.force_metadata_update()

    async def _find_coordinator(self) -> int:
        while self._coordinator is None:
            try:
                expect_brokers(self._client)
                self._coordinator = await self._client.coordinator_lookup(
                    CoordinationType.TRANSACTION, self._transactional_id
                )
            except TransactionalIdAuthorizationFailed as error:
                why = may_not_transact(self._bootstrap, self._transactional_id)
                raise SinkMisconfiguredError(why) from error
            except BrokerResponseError as error:
                if error.errno not in ASK_AGAIN:
                    raise
                await asyncio.sleep(self._limits.backoff_seconds_max)
        return self._coordinator


def _unless_failed(answers: Iterable[dict[Partition, int] | BaseException]) -> list[dict[Partition, int]]:
    """The answers. Raises what the first of them is that is none."""
    found = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return found


def _requests(
    waiting: Waiting,
    leaders: Leaders,
    bytes_max: int,
) -> list[tuple[int, dict[Partition, bytes]]]:
    """The first batch of each partition, by leader; what is too much for a request waits for the next."""
    by_leader: dict[int, dict[Partition, bytes]] = {}
    sizes: dict[int, int] = {}
    for partition, queue in waiting.items():
        leader = leaders[partition.topic][partition.number]
        data = queue[0][1]
        content = by_leader.setdefault(leader, {})
        if not content or sizes[leader] + len(data) <= bytes_max:
            content[partition] = data
            sizes[leader] = sizes.get(leader, 0) + len(data)
    return list(by_leader.items())


def _take_written(waiting: Waiting, answers: Iterable[Mapping[Partition, int]]) -> dict[Partition, int]:
    """Take off what was written; returns what is to be sent again, with the code that says so."""
    unwritten: dict[Partition, int] = {}
    for partition, code in (pair for answer in answers for pair in answer.items()):
        if code in FENCED:
            _check(code, "writing records")
        if code not in WRITTEN:
            unwritten[partition] = code
            continue
        waiting[partition].popleft()
        if not waiting[partition]:
            del waiting[partition]
    refused = [
        (waiting[partition][0][0], code)
        for partition, code in unwritten.items()
        if code not in SEND_AGAIN and code not in MOVED
    ]
    if refused:
        raise BatchesRefusedError(refused)
    return unwritten


def _own_code(answer: Any) -> tuple[int]:
    return (answer.error_code,)


def _partition_codes(answer: Any) -> list[int]:
    return [code for _, numbers in answer.errors for _, code in numbers]


def _check(code: int, doing: str) -> None:
    if code in FENCED:
        raise FencedError(f"another relay has taken over ({words(code)}) while {doing}")
    if code != Code.NONE:
        raise SinkUnavailableError(f"Kafka answered {words(code)} while {doing}")


@contextlib.contextmanager
def _kafka_errors() -> Any:
    try:
        yield
    except IncompatibleBrokerVersion:
        raise
    except (KafkaError, OSError, TimeoutError) as error:
        raise SinkUnavailableError(f"{type(error).__name__}: {error}") from error
