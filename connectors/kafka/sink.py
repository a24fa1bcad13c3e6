"""A transactional sink on Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from connectors.identity import shown
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_batches import Batch, pack
from connectors.kafka.sink_codes import NEVER, TOO_LARGE, words
from connectors.kafka.sink_limits import SinkLimits
from connectors.kafka.sink_place import ensure_topic
from connectors.kafka.sink_progress import encode_progress, progress_topic, read_progress
from connectors.kafka.sink_topics import Topics, TopicsRefusedError, told
from connectors.kafka.sink_transactions import (
    BatchesRefusedError,
    Leaders,
    PartitionsRefusedError,
    Transactions,
)
from connectors.sink import (
    Outgoing,
    Progress,
    RecordsRefusedError,
    SinkUnavailableError,
    StartAgainError,
)
from connectors.source import Partition
from statemachines.checks.names import wrong_with_topic


class KafkaSink:
    """The sink of one shard of a namespace: see ``connectors.sink.Sink``.

    May be started again after ``close``; what it learnt of topics it then knows still.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        namespace: str,
        shard: int,
        store: str,
        limits: SinkLimits | None = None,
    ) -> None:
        self._settings = settings
        self._limits = limits or SinkLimits()
        self._transactional_id = f"pointsman.{namespace}.{shard}.{store}"
        self._place = Partition(progress_topic(namespace), shard)
        self._topics = Topics(self._limits)
        self._place_is_ready = False
        self._transactions: Transactions | None = None

    async def start(self) -> None:
        """See Sink."""
        assert self._transactions is None, "close it first"
        self._topics.forget_leaders()
        try:
            async with asyncio.timeout(self._limits.start_seconds):
                self._transactions = Transactions(self._settings, self._transactional_id, self._limits)
                await self._transactions.connect()
                if not self._place_is_ready:
                    await ensure_topic(self._place, self._transactions.ask, self._transactions.ask_controller)
                    self._place_is_ready = True
                await self._transactions.start(self._place.topic)
        except TimeoutError as error:
            raise SinkUnavailableError(
                f"Kafka at {self._settings.bootstrap} did not let the relay start within "
                f"{self._limits.start_seconds:.0f} s"
            ) from error

    async def progress(self) -> Progress | None:
        """See Sink."""
        assert self._transactions is not None, "start it first"
        return await read_progress(self._settings, self._place, self._limits, to_the_end=True)

    async def look(self) -> Progress | None:
        """See Sink."""
        return await read_progress(self._settings, self._place, self._limits, to_the_end=False)

    async def publish(self, records: Sequence[Outgoing], progress: Progress) -> None:
        """See Sink."""
        assert self._transactions is not None, "start it first"
        _refuse_wrong_names(records)
        note = encode_progress(self._place, progress, int(time.time() * 1000))
        everything = [*records, note]
        try:
            await self._write(self._transactions, everything)
        except TopicsRefusedError as error:
            raise self._leave_out(everything, error.refused) from error
        except TimeoutError as error:
            raise SinkUnavailableError(
                f"Kafka at {self._settings.bootstrap} did not finish a transaction within "
                f"{self._limits.publish_seconds:.0f} s"
            ) from error

    async def close(self) -> None:
        """See Sink."""
        transactions, self._transactions = self._transactions, None
        if transactions is not None:
            await transactions.close()

    async def _write(self, transactions: Transactions, everything: Sequence[Outgoing]) -> None:
        topics = {record.topic for record in everything}
        leaders = await self._topics.leaders(topics, transactions.ask)
        counts = {topic: len(leaders[topic]) for topic in topics}
        batches = pack(everything[:-1], counts, self._topics.bytes_max)
        batches.append(self._note_batch(everything))
        self._refuse_giants(batches)

        async def refresh(moved: Collection[str]) -> Leaders:
            self._topics.forget_leaders(moved)
            return await self._topics.leaders(moved, transactions.ask)

        async with asyncio.timeout(self._limits.publish_seconds):
            try:
                await transactions.add({batch.partition for batch in batches})
                self._topics.admitted(topics)
                await transactions.produce(batches, leaders, refresh)
            except PartitionsRefusedError as error:
                self._topics.admitted(error.admitted)
                self._judge_topics({partition.topic: code for partition, code in error.refused.items()})
            except BatchesRefusedError as error:
                self._judge_batches(error.refused)
            await transactions.end(commit=True)

    def _note_batch(self, everything: Sequence[Outgoing]) -> Batch:
        batch = Batch(self._place, self._limits.batch_bytes_max)
        batch.fill(everything, [len(everything) - 1])
        return batch

    def _refuse_giants(self, batches: Sequence[Batch]) -> None:
        limit = self._limits.request_bytes_max
        refused = {
            batch.indexes[0]: f"{batch.size} bytes are more than {limit}"
            for batch in batches
            if batch.size > limit
        }
        if refused:
            raise RecordsRefusedError(refused)

    def _leave_out(self, everything: Sequence[Outgoing], refused: Mapping[str, str]) -> Exception:
        """The error that says which records belong to topics that refuse."""
        ours = refused.get(self._place.topic)
        if ours is not None:
            self._place_is_ready = False
            return SinkUnavailableError(f"the relay's own {ours}")
        return RecordsRefusedError(
            {
                index: refused[record.topic]
                for index, record in enumerate(everything)
                if record.topic in refused
            }
        )

    def _judge_topics(self, codes: Mapping[str, int]) -> NoReturn:
        """Raise what these answers mean: refused for good, or for now."""
        self._topics.refuse(codes)
        raise SinkUnavailableError(f"Kafka does not take records for {told(codes)}")

    def _judge_batches(self, answers: Sequence[tuple[Batch, int]]) -> NoReturn:
        """Raise what these answers mean: records to leave out, smaller batches to try, or to wait."""
        refused: dict[int, str] = {}
        for batch, code in answers:
            topic = batch.partition.topic
            if code not in NEVER or topic == self._place.topic:
                self._judge_topics({topic: code})
            if len(batch.indexes) > 1:
                # One of them is at fault, or together they are too large: halves will tell.
                self._topics.limit_bytes(topic, min(self._topics.bytes_max(topic), batch.size) // 2)
                continue
            refused[batch.indexes[0]] = f"{batch.partition} answered {words(code)}"
            if code not in TOO_LARGE:
                self._topics.limit_bytes(topic, None)
        if refused:
            raise RecordsRefusedError(refused)
        raise StartAgainError(f"smaller batches will be tried after {words(answers[0][1])}")


def _refuse_wrong_names(records: Sequence[Outgoing]) -> None:
    """What no topic can be called cannot even be asked about: such a request may have no bytes."""
    wrong = {topic: why for topic in {record.topic for record in records} if (why := wrong_with_topic(topic))}
    if wrong:
        raise RecordsRefusedError(
            {
                index: f"topic {shown(record.topic)} {wrong[record.topic]}"
                for index, record in enumerate(records)
                if record.topic in wrong
            }
        )
