"""The topics of an engine: what it reads must be there, and what it needs besides is checked or made at its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pytest

from connectors.kafka.settings import KafkaSettings
from connectors.source import SourceError, SourceUnreachableError
from engine import topics as module
from engine.errors import RefusedError, UsageError
from engine.homes import HOMES, homes_topic
from engine.topics import RECORD_BYTES_DEFAULT, dead_letter_topics, prepare_topics
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from statemachines.topic import Topic
from tests.riding import rides
from tests.shop import shop

HOMES_TOPIC = homes_topic("shop")
LETTERS = "orders.dead-letters"


class Kafka:
    """A cluster with some topics, that may refuse to make others or to tell their settings."""

    def __init__(
        self, *topics: str, configs: Mapping[str, str] | None = None, refusal: SourceError | None = None
    ) -> None:
        self.topics: dict[str, tuple[int, Mapping[str, str]]] = {one: (1, {}) for one in topics}
        self.made: list[str] = []
        self._configs = configs
        self._refusal = refusal

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def topic_exists(self, topic: str) -> bool:
        return topic in self.topics

    async def create_topic(
        self, topic: str, *, partitions: int = -1, configs: Mapping[str, str] | None = None
    ) -> bool:
        if self._refusal is not None:
            raise self._refusal
        self.topics[topic] = partitions, dict(configs or {})
        self.made.append(topic)
        return True

    async def topic_config(self, topic: str) -> Mapping[str, str]:
        if self._configs is None:
            raise SourceError(f"not authorized to see {topic}")
        return self._configs


async def prepare(
    monkeypatch: pytest.MonkeyPatch, kafka: Kafka, *, create_sources: bool = False
) -> dict[str, int]:
    monkeypatch.setattr(module, "KafkaAdmin", lambda _: kafka)
    machines = [compile_pipeline(shop(topic=Topic("orders")), namespace="shop")]
    return await prepare_topics(
        KafkaSettings("broker:9092"), machines, HOMES_TOPIC, create_sources=create_sources
    )


async def test_what_is_read_must_be_there_and_the_rest_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka("orders", configs={"max.message.bytes": "1048588"})
    sizes = await prepare(monkeypatch, kafka)
    assert sizes == {LETTERS: 1_047_588}
    assert kafka.topics[LETTERS] == (-1, {"retention.ms": "-1"}), "a dead letter waits for a person"
    assert kafka.topics[HOMES_TOPIC][0] == HOMES
    with pytest.raises(
        UsageError, match=r"'orders' does not exist on broker:9092.*kafka-topics\.sh --create"
    ):
        await prepare(monkeypatch, Kafka())


async def test_what_is_there_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka("orders", LETTERS, HOMES_TOPIC, configs={"max.message.bytes": "5000"})
    assert await prepare(monkeypatch, kafka) == {LETTERS: 4_000}
    assert kafka.made == []


async def test_topics_that_are_read_are_made_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka(configs={})
    await prepare(monkeypatch, kafka, create_sources=True)
    assert kafka.made == ["orders", HOMES_TOPIC, LETTERS]


def test_pipelines_of_which_no_version_reads_a_topic_have_a_topic_for_dead_letters_in_common() -> None:
    def named(*flows: Pipeline[Any]) -> list[str]:
        return dead_letter_topics([compile_pipeline(flow, namespace="shop") for flow in flows])

    assert named(rides()) == ["pointsman.shop.dead-letters"]
    assert named(rides(), shop()) == [LETTERS, "pointsman.shop.dead-letters"]
    assert named(rides("rides"), rides(version=2)) == ["rides.dead-letters"]


async def test_settings_that_may_not_be_seen_are_taken_for_the_usual_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await prepare(monkeypatch, Kafka("orders", LETTERS, HOMES_TOPIC)) == {
        LETTERS: RECORD_BYTES_DEFAULT
    }


@pytest.mark.parametrize(
    ("there", "what"), [(["orders"], HOMES_TOPIC), (["orders", HOMES_TOPIC], f"dead-letter topic {LETTERS}")]
)
async def test_what_may_not_be_made_is_a_refusal_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, there: list[str], what: str
) -> None:
    kafka = Kafka(*there, configs={}, refusal=SourceError("not authorized."))
    with pytest.raises(RefusedError, match=rf"{what}.*not authorized\. Create it"):
        await prepare(monkeypatch, kafka)
    away = Kafka(*there, configs={}, refusal=SourceUnreachableError("away"))
    with pytest.raises(SourceUnreachableError):
        await prepare(monkeypatch, away)
