"""Membership of a Kafka consumer group, which tells us our partitions and nothing else.

aiokafka's consumer is built for reading, and it ties two things to it that we need without: it gives the
membership up when nobody reads for `max_poll_interval_ms`, and it reports errors of the group only to whoever
reads. So a task of ours keeps asking it for records, with every partition paused. Nothing is ever read here:
paused partitions are not fetched, and the one fetch that may leave before they are paused starts at the end
of the log and is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from connectors.kafka.addresses import answering
from connectors.kafka.allowing import FORBIDDEN, may_not_join, may_not_see
from connectors.kafka.queries import Queries, connect
from connectors.kafka.reaching import why_not
from connectors.kafka.settings import CredentialsError, KafkaSettings
from connectors.source import (
    Changed,
    NoSuchTopicError,
    NotAllowedError,
    Partition,
    SourceError,
    SourceUnreachableError,
    Trouble,
)
from connectors.turns import Turns

log = logging.getLogger(__name__)

SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 1.0
"""Also how long a member may need to hear that another one joins."""
REBALANCE_SECONDS = 60.0
REVOKE_MARGIN_SECONDS = 10.0
"""`on_revoked` must end this long before the group gives us up."""
REQUEST_MARGIN_SECONDS = 10.0
"""Joining waits at the broker until all members have; a request must outlive that, or we join twice."""
METADATA_SECONDS = 30.0
"""New partitions are noticed within this time."""
STOP_SECONDS = 4.0
RETRY_SECONDS = 1.0
KEEP_MILLISECONDS = 1000
NEVER_MILLISECONDS = 2**31 - 1
DISPLACED_TIMES_MAX = 3
DISPLACED_WITHIN_SECONDS = 60.0
"""A static member whose place is taken so often in so short a time is not the only one of its name."""
DISPLACED = (
    "Another engine keeps joining the group under the same instance name. "
    "Stop it, or give each engine a name of its own."
)


class KafkaMembership:
    """A member of a consumer group; with `instance` a static one, which finds its partitions again."""

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        *,
        instance: str | None = None,
        session_seconds: float = SESSION_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        rebalance_seconds: float = REBALANCE_SECONDS,
        metadata_seconds: float = METADATA_SECONDS,
    ) -> None:
        self._settings = settings
        self._group = group
        self._instance = instance
        self._session_seconds = session_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._rebalance_seconds = rebalance_seconds
        self._metadata_seconds = metadata_seconds
        self._topics: frozenset[str] = frozenset()
        self._consumer: Any = None
        self._assignor = _CountingAssignor(frozenset())
        self._listener: _Listener | None = None
        self._turns: Turns | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._trouble: Trouble | None = None
        self._displaced: list[float] = []
        self._kept_at = time.monotonic()

    async def start(self, topics: Iterable[str], on_assigned: Changed, on_revoked: Changed) -> None:
        assert self._turns is None, "a membership is started once"
        self._topics = frozenset(topics)
        revoke_seconds = max(1.0, self._rebalance_seconds - REVOKE_MARGIN_SECONDS)
        self._turns = Turns(on_assigned, on_revoked, revoke_seconds)
        await self._look_for_topics()
        try:
            await self._join(self._turns)
        except BaseException:
            await self._turns.revoke()
            raise
        self._keeper = asyncio.create_task(self._keep(self._turns), name="kafka membership")
        self._keeper.add_done_callback(self._note_end)

    async def watch(self) -> None:
        assert self._turns is not None, "the membership was not started"
        await asyncio.shield(self._turns.failed)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        if self._turns is not None:
            await self._give_up(self._turns)
            if not self._turns.failed.done():
                self._turns.failed.set_result(None)

    def trouble(self) -> Trouble | None:
        return self._trouble

    def _note_end(self, keeper: asyncio.Task[None]) -> None:
        """Nobody would hear any more what the group says: then this is no membership."""
        error = None if keeper.cancelled() else keeper.exception()
        if isinstance(error, Exception) and self._turns is not None:
            self._turns.fail(error)

    async def _keep(self, turns: Turns) -> None:
        while True:
            try:
                await self._consumer.getmany(timeout_ms=KEEP_MILLISECONDS)
                self._note_standstill()
                self._look_for_partitions()
            except KafkaError as error:
                why = self._may_not(error) if isinstance(error, FORBIDDEN) else f"{error}"
                self._note(f"The consumer group {self._group} gave us up: {why}")
                await self._give_up(turns)
                await self._join_again(turns)

    def _was_displaced(self) -> bool:
        """Note that our place in the group is not ours any more; whether another one took it again and again."""
        now = time.monotonic()
        self._displaced = [*(at for at in self._displaced if at > now - DISPLACED_WITHIN_SECONDS), now]
        return self._instance is not None and len(self._displaced) >= DISPLACED_TIMES_MAX

    def _note_standstill(self) -> None:
        """Whoever stood still for as long as a session was dropped for that, and displaced by nobody."""
        now = time.monotonic()
        if now - self._kept_at > self._session_seconds / 2 + KEEP_MILLISECONDS / 1000:
            self._displaced.clear()
        self._kept_at = now

    def _look_for_partitions(self) -> None:
        """Join anew where a static member sees other counts of partitions than it has told.

        Only the leader of a group looks for new partitions, and a static leader that restarted does not know
        that it leads (KAFKA-13435). Joining with what was told before would change nothing.
        """
        if self._instance is None:
            return
        counts = self._assignor.count_partitions()
        if counts is not None and counts != self._assignor.told:
            log.info("The topics of the consumer group %s have other partitions now", self._group)
            self._consumer.subscribe(sorted(self._topics), listener=self._listener)

    async def _join_again(self, turns: Turns) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._join(turns)
            except SourceError as error:
                self._note(str(error))
            else:
                return

    def _note(self, reason: str) -> None:
        since = time.monotonic() if self._trouble is None else self._trouble.since
        if self._trouble is None or self._trouble.reason != reason:
            log.warning("%s", reason)
        self._trouble = Trouble(since, reason)

    def _may_not(self, error: KafkaError) -> str:
        bootstrap = self._settings.bootstrap
        if isinstance(error, TopicAuthorizationFailedError):
            return " ".join(may_not_see(bootstrap, topic, "READ") for topic in sorted(*error.args))
        return may_not_join(bootstrap, self._group)

    async def _look_for_topics(self) -> None:
        """Say at once what aiokafka would say when its patience is at its end."""
        client = await connect(self._settings)
        try:
            queries = Queries(client, self._settings)
            for topic in sorted(self._topics):
                if not await queries.leaders_of(topic):
                    raise NoSuchTopicError(
                        f"The topic {topic} does not exist on {self._settings.bootstrap}, or this user may "
                        "not see it. Create it, or correct its name."
                    )
        finally:
            await client.close()

    async def _join(self, turns: Turns) -> None:
        self._assignor = _CountingAssignor(self._topics)
        try:
            consumer: Any = self._new_consumer(await answering(self._settings))
        except CredentialsError as error:
            raise SourceUnreachableError(await why_not(self._settings, error)) from error
        self._consumer = self._assignor.consumer = consumer
        self._listener = _Listener(consumer, turns, self._was_displaced)
        consumer.subscribe(sorted(self._topics), listener=self._listener)
        try:
            await consumer.start()
        except KafkaError as error:
            await self._close()
            if isinstance(error, FORBIDDEN):
                raise NotAllowedError(self._may_not(error)) from error
            raise SourceUnreachableError(
                f"The consumer group {self._group} at {self._settings.bootstrap} cannot be joined: {error}. "
                "Look whether Kafka runs there and lets this user read the group."
            ) from error
        except BaseException:
            await self._close()
            raise
        self._trouble = None

    def _new_consumer(self, settings: KafkaSettings) -> Any:
        return AIOKafkaConsumer(  # type: ignore[no-untyped-call]  # aiokafka is untyped
            **settings.client_options(),
            group_id=self._group,
            group_instance_id=self._instance,
            partition_assignment_strategy=(self._assignor,),
            session_timeout_ms=round(self._session_seconds * 1000),
            heartbeat_interval_ms=round(self._heartbeat_seconds * 1000),
            rebalance_timeout_ms=round(self._rebalance_seconds * 1000),
            request_timeout_ms=round((self._rebalance_seconds + REQUEST_MARGIN_SECONDS) * 1000),
            metadata_max_age_ms=round(self._metadata_seconds * 1000),
            max_poll_interval_ms=NEVER_MILLISECONDS,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            max_partition_fetch_bytes=1,
            fetch_max_bytes=1,
        )

    async def _give_up(self, turns: Turns) -> None:
        if self._listener is not None:
            self._listener.is_heard = False
        await turns.revoke()
        await self._close()

    async def _close(self) -> None:
        """Leave the group in order where it answers, else let it find out."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        stopping = asyncio.ensure_future(consumer.stop())
        done, _ = await asyncio.wait([stopping], timeout=STOP_SECONDS)
        if not done:
            # Without its connections aiokafka stops waiting for answers.
            await consumer._client.close()  # noqa: SLF001 - it offers no deadline of its own
        with contextlib.suppress(KafkaError):
            await stopping


class _CountingAssignor(RangePartitionAssignor):
    """Shares out by range; tells the group how many partitions this member sees, so that a change is news."""

    def __init__(self, topics: frozenset[str]) -> None:
        self._topics = sorted(topics)
        self.consumer: Any = None
        self.told: str | None = None

    def count_partitions(self) -> str | None:
        """As text; None where that is not known of every topic."""
        found = [self.consumer.partitions_for_topic(topic) for topic in self._topics]
        return None if None in found else ",".join(str(len(partitions)) for partitions in found)

    def metadata(  # type: ignore[override]  # aiokafka calls it on what it was given, which is not the class
        self, topics: Iterable[str]
    ) -> ConsumerProtocolMemberMetadata:
        """What the group is told of this member."""
        self.told = self.count_partitions()
        return ConsumerProtocolMemberMetadata(self.version, list(topics), (self.told or "").encode())


class _Listener(ConsumerRebalanceListener):
    def __init__(self, consumer: Any, turns: Turns, was_displaced: Callable[[], bool]) -> None:
        self._consumer = consumer
        self._turns = turns
        self._was_displaced = was_displaced
        self.is_heard = True

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._consumer.pause(*assigned)
        if self.is_heard:
            self._turns.assign(frozenset(Partition(*partition) for partition in assigned))

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:  # noqa: ARG002 - we know what we have
        had_something = self._turns.has_something
        await self._turns.revoke()
        forgotten = self._consumer._coordinator.member_id == ""  # noqa: SLF001 - nothing else tells it
        if self.is_heard and had_something and forgotten and self._was_displaced():
            self._turns.fail(SourceError(DISPLACED))
            # This is what keeps aiokafka from joining again, and taking the place from the other one in turn.
            raise asyncio.CancelledError
