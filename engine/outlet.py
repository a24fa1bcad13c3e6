"""How large a record may be on the topics that are published to, so that what is too large is refused in its move.

A record that Kafka does not take would be found out by the relay, after the commit. So Kafka is asked about each topic
when a batch publishes to it for the first time, between the stepping of the batch and its commit; where an answer
changes what was decided, the batch is computed again. Where Kafka does not answer, the relay finds out.

What is known changes in ``learn`` alone, never while a batch is stepped. A topic that refused something is asked about
anew before that becomes durable: its limit may have been raised since.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_batches import size_alone
from connectors.kafka.sink_limits import SinkLimits
from connectors.source import NoSuchTopicError, SourceError, SourceUnreachableError
from engine.outbox import OutRecord
from engine.publications import instant_of, publish
from engine.store.values import Commit
from statemachines.effects import Publication
from statemachines.events import Event

log = logging.getLogger("pointsman.engine")

KNOWN_SECONDS = 300.0
"""How long an answer is believed."""
UNKNOWN_SECONDS = 30.0
"""How long Kafka is not asked again about a topic of which it told nothing."""
ASK_SECONDS = 5.0
"""For all answers that a batch needs; meanwhile it is not committed."""
TOPICS_MAX = 10_000
"""With more, all are forgotten, and asked about again."""
BYTES_DEFAULT = 1_048_588
"""Kafka's own default of ``max.message.bytes``."""
SENT_BYTES_MAX = SinkLimits().request_bytes_max
ENVELOPE_BYTES_MAX = 32_000
"""More than a record has beside data and key, whatever ids, keys and names it has."""


class Room(NamedTuple):
    """How large a record may be on a topic."""

    bytes_max: int
    """Of a batch with this record alone, as Kafka counts."""
    why: str


Rooms = Mapping[str, Room | None]
"""By topic; None where there is no such topic, nothing of those that could not be asked about."""


class _Known(NamedTuple):
    room: Room | None
    until: float
    surely_taken: int
    """So many bytes of data and key fit, whatever else the record has."""


async def _ask_nobody(topics: Collection[str]) -> Rooms:
    del topics
    return {}


class Outlet:
    """What an engine knows of the topics that its pipelines publish to."""

    def __init__(
        self,
        ask: Callable[[Collection[str]], Awaitable[Rooms]] = _ask_nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._refusing: set[str] = set()

    def refusal(self, publication: Publication, event: Event) -> str:
        """Why what is to be published on this event is too large for its topic; a ``statemachines.effects.Outlet``."""
        topic, _, key, data = publication
        known = self._known.get(topic)
        if known is None or len(data) + 4 * len(key) <= known.surely_taken or known.room is None:
            return ""
        bytes_max, why = known.room
        meta = event.meta
        _, [record] = publish([publication], meta.address, meta.envelope, instant_of(meta.now))
        size = size_alone(record)
        if size <= bytes_max:
            return ""
        self._refusing.add(topic)
        return (
            f"publishes {size:,} bytes to {topic!r}, which takes {bytes_max:,} ({why}). Publish less, or let the "
            "topic take more, and redrive"
        )

    async def learn(self, commit: Commit) -> bool:
        """Find out what is not known yet of the topics of a batch that was stepped and is not committed.

        True where that changes what was decided: the batch must be computed again.
        """
        if not commit.out and not self._refusing:
            return False
        now = self._clock()
        refusing, self._refusing = self._refusing, set()
        published = {record.topic for record in commit.out}
        topics = {topic for topic in published if not self._is_known(topic, now)} | refusing
        if not topics:
            return False
        before = {topic: known.room for topic in topics if (known := self._known.get(topic)) is not None}
        answers = await self._ask(topics)
        if len(self._known) + len(topics) > TOPICS_MAX:
            self._known.clear()
        for topic in topics:
            # Without an answer the one before is believed for a while.
            room = answers.get(topic, before.get(topic))
            seconds = KNOWN_SECONDS if answers.get(topic) is not None else UNKNOWN_SECONDS
            surely_taken = 0 if room is None else room.bytes_max - ENVELOPE_BYTES_MAX
            self._known[topic] = _Known(room, now + seconds, surely_taken)
        return any(self._is_wider(topic, before.get(topic)) for topic in refusing) or any(
            record.topic in topics and self._is_too_large(record) for record in commit.out
        )

    def _is_known(self, topic: str, now: float) -> bool:
        known = self._known.get(topic)
        return known is not None and known.until > now

    def _is_wider(self, topic: str, before: Room | None) -> bool:
        known = self._known.get(topic)
        if before is None or known is None:
            return False
        return known.room is None or known.room.bytes_max > before.bytes_max

    def _is_too_large(self, record: OutRecord) -> bool:
        known = self._known.get(record.topic)
        # What a person had put back is no move's any more: the relay judges it.
        if known is None or known.room is None or record.dead_letter is not None:
            return False
        bytes_max = known.room.bytes_max
        surely_taken = len(record.value or b"") + len(record.key or b"") <= known.surely_taken
        return not surely_taken and size_alone(record) > bytes_max


def ask_kafka(settings: KafkaSettings) -> Callable[[Collection[str]], Awaitable[Rooms]]:
    """Asks the cluster; where it does not answer in time, there are no answers."""

    async def ask(topics: Collection[str]) -> Rooms:
        wanted = sorted(topics)
        try:
            async with asyncio.timeout(ASK_SECONDS), KafkaAdmin(settings) as admin:
                return dict(zip(wanted, await _rooms(admin, wanted), strict=True))
        except (SourceError, TimeoutError) as error:
            log.warning("how large published records may be cannot be asked just now: %s", error)
            return {}

    return ask


async def _rooms(admin: KafkaAdmin, topics: Sequence[str]) -> list[Room | None]:
    return await asyncio.gather(*(room_of(admin, topic) for topic in topics))


async def room_of(admin: KafkaAdmin, topic: str) -> Room | None:
    """How large a record may be on a topic; None where there is no such topic. Raises SourceUnreachableError."""
    try:
        told = (await admin.topic_config(topic)).get("max.message.bytes", "")
    except SourceUnreachableError:
        raise
    except NoSuchTopicError:
        log.warning("the topic %s, which is published to, does not exist", topic)
        return None
    except SourceError:
        told = ""  # one may write to topics whose settings one may not see
    if not told.isdecimal():
        return Room(BYTES_DEFAULT, "Kafka's default, for the topic's own max.message.bytes may not be seen")
    if int(told) > SENT_BYTES_MAX:
        return Room(SENT_BYTES_MAX, "which is the most that is sent at once")
    return Room(int(told), "its max.message.bytes")
