"""A pipeline that publishes what it is told to the topic that it is told, and how large a record a topic takes."""

from __future__ import annotations

import json
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.source import RawRecord
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Publish
from statemachines.events import Event
from tests.feeding import TOPIC, event
from tests.outbox import within_deadline
from tests.relays import values
from tests.services import Kafka

# aiokafka is not typed.
_admin_client: Any = AIOKafkaAdminClient
_config_resource: Any = ConfigResource


class Begun(Event, type="test.begun", key="id"):
    id: str


class Told(Event, type="test.told", key="id"):
    id: str
    to: str
    text: str
    times: int = 1


class Ended(Event, type="test.ended", key="id"):
    id: str


class Said(Event, type="test.said"):
    text: str


class Heard(Context):
    times: int = 0


def begin(event: Begun) -> Heard:
    del event
    return Heard()


def say(context: Heard, event: Told) -> Publish:
    context.times += 1
    return Publish(event.to, Said(text=event.text * event.times))


def teller(topic: str = TOPIC) -> Pipeline[Heard]:
    """Publishes each text that it is told to the topic that it is told."""
    flow = Pipeline("teller", Heard, topics=[topic])
    listening = flow.state("listening", initial=True)
    done = flow.state("done", final=True)
    flow.start(Begun, begin)
    listening.on(Told, do=say)
    listening.on(Ended, to=done)
    return flow


def begun(run: str) -> RawRecord:
    """A run begins."""
    return event("test.begun", {"id": run})


def told(run: str, to: str, text: str, times: int = 1) -> RawRecord:
    """A run is told a text for a topic, to be said so many times."""
    return event("test.told", {"id": run, "to": to, "text": text, "times": times})


async def texts(kafka: Kafka, topic: str) -> list[str]:
    """How what was published to a topic begins."""
    return [json.loads(value or b"")["data"]["text"][:5] for value in await values(kafka, topic)]


async def set_bytes_max(kafka: Kafka, topic: str, bytes_max: int) -> None:
    """Change how large a record may be on a topic, and wait until the brokers go by it.

    A broker tells of a change before it goes by it, and makes changes one after the other: once it tells of a second
    one, the first is made.
    """
    wanted = {"max.message.bytes": str(bytes_max)}
    for configs in (wanted, wanted | {"file.delete.delay.ms": "59999"}):
        await _set_configs(kafka, topic, configs)


async def _set_configs(kafka: Kafka, topic: str, configs: dict[str, str]) -> None:
    client = _admin_client(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        await client.alter_configs([_config_resource(ConfigResourceType.TOPIC, topic, configs)])
    finally:
        await client.close()
    async with KafkaAdmin(KafkaSettings(kafka.bootstrap)) as admin:

        async def are_known() -> bool:
            known = await admin.topic_config(topic)
            return all(known.get(name) == value for name, value in configs.items())

        await within_deadline(are_known)
