"""A test kit for topics: when a record comes, then it is these events, and its runs do this.

    def test_an_object_is_followed() -> None:
        s3 = reading(flow, "s3")
        s3.record({"Records": [...]}, key="photos/a.jpg")
        assert [one.type for one in s3.read] == ["ObjectCreated"]
        s3.run("photos/a.jpg").then(state="there")

Records are read by the decoder that the engine uses, with the topic's settings, and each event is offered to its run by
``statemachines.testkit``. There is no Kafka, no Postgres and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

import orjson

from connectors.content import written
from connectors.decode import Decoded, Unreadable, decode_each
from connectors.identity import key_flaw
from connectors.source import RawRecord
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.handlers import HandlerError
from statemachines.keys import key_of, why_no_key
from statemachines.machine import compile_pipeline
from statemachines.misuse import called, taken
from statemachines.outcome import Reason
from statemachines.suggest import did_you_mean, listed
from statemachines.testkit import BEGINNING, Case, ask_twice

C = TypeVar("C", bound=Context)
CLUSTER = "test"


@dataclass(frozen=True, slots=True)
class Read:
    """What a record is, or one of the elements in it."""

    becomes: Literal["event", "ignored", "dead letter"]
    """``event`` where a run was offered it, whatever that made of it."""
    id: str | None = None
    type: str | None = None
    key: str | None = None
    """Of its run."""
    time: datetime | None = None
    data: Any = None
    reason: Reason | None = None
    """Why it is no event that a run was offered."""
    error: str = ""
    """The same of a dead letter, in a sentence."""


def reading(pipeline: Pipeline[C], topic: str | None = None, *, now: datetime = BEGINNING) -> TopicCase[C]:
    """A topic that the pipeline reads, without a record yet.

    Args:
        pipeline: what is tested; DefinitionError if it has mistakes.
        topic: the name of the topic; None where the pipeline reads one only.
        now: the time of all records.
    """
    return TopicCase(pipeline, topic, now)


class TopicCase(Generic[C]):
    """A topic, and what became of the last record."""

    def __init__(self, pipeline: Pipeline[C], topic: str | None, now: datetime) -> None:
        self._pipeline = pipeline
        self._machine = compile_pipeline(taken(pipeline, Pipeline, "what is tested"), namespace="test")
        topics = {one.name: one for one in pipeline.read_topics}
        name = next(iter(topics), "") if topic is None and len(topics) == 1 else topic
        assert name is not None, f"{pipeline.name} reads {listed(topics)}: say which of them"
        taken(name, str, "a topic's name")
        assert name in topics, f"{pipeline.name} reads no topic {name!r}. {did_you_mean(name, topics)}"
        self.topic = topics[name]
        self.now = taken(now, datetime, "now=")
        self.read: list[Read] = []
        """What the last record was: one, or each of the elements in it; one that is ignored where it has none."""
        self.runs: dict[str, Case[C]] = {}
        """By their keys, each as ``given`` has it, and with what became of the last event that was for it."""
        self._offset = -1

    def record(
        self,
        value: Any,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | None = None,
        time: datetime | None = None,
    ) -> TopicCase[C]:
        """A record comes, behind all before it.

        ``value``, ``key`` and what is in ``headers`` are bytes or text as they are, None where there is none, or else
        written as JSON. ``time`` is Kafka's; None: now.
        """
        self._offset += 1
        taken(headers or {}, Mapping, "headers=", 'headers={"ce_type": "order.paid"}')
        at = round(taken(time or self.now, datetime, "time=").astimezone(UTC).timestamp() * 1_000)
        pairs = tuple((name, _written(one)) for name, one in (headers or {}).items())
        record = RawRecord(self.topic.name, 0, self._offset, at, _written(key), _written(value), pairs)
        found = ask_twice(
            f"the type of a record of {self.topic.name}",
            lambda: [one for _, one in decode_each(record, self.topic, CLUSTER)],
            lambda found: [one.envelope.type if isinstance(one, Decoded) else one.error for one in found],
        )
        self.read = [self._settle(one) for one in found] or [Read("ignored", reason=Reason.NO_EVENTS)]
        return self

    def run(self, key: str) -> Case[C]:
        """The run with this key; AssertionError where no event was for it."""
        taken(key, str, "the key of a run")
        assert key in self.runs, f"no event was for the run {key!r}. {did_you_mean(key, self.runs)}"
        return self.runs[key]

    def _settle(self, found: Decoded | Unreadable) -> Read:
        if isinstance(found, Unreadable):
            if found.ignored:
                return Read("ignored", reason=Reason.NO_EVENTS)
            return Read(
                "dead letter", found.event_id, found.type, reason=Reason.UNREADABLE, error=found.error
            )
        envelope, data, _ = found
        known = envelope.id, envelope.type
        if envelope.type not in self._machine.events:
            if self.topic.unknown == "ignore":
                return Read("ignored", *known, reason=Reason.UNKNOWN_TYPE)
            error = f"{self._pipeline.name} knows no type {envelope.type!r}"
            return Read("dead letter", *known, reason=Reason.UNKNOWN_TYPE, error=error)
        key, error = self._key(found)
        if key is None:
            return Read("dead letter", *known, data=data, reason=Reason.NO_KEY, error=error)
        if key not in self.runs:
            self.runs[key] = Case(self._pipeline, key, self.now)
        self.runs[key].when_read(envelope._replace(key=key), data)
        return Read("event", *known, key, envelope.time, data)

    def _key(self, found: Decoded) -> tuple[str | None, str]:
        """The key of the run that an event is for; or None, and why there is none."""
        how, event_type = self._machine.keys.get(found.envelope.type), found.envelope.type
        if how is None:
            return found.envelope.key, found.key_error or ""
        try:
            data = orjson.dumps(found.data)
            key = ask_twice(f"the key of {event_type}", lambda: key_of(how, orjson.loads(data), None))
        except HandlerError as error:
            return None, str(error)
        if key is None:
            return None, why_no_key(how, self._machine.events[event_type].__name__)
        flaw = key_flaw(key)
        return (key, "") if flaw is None else (None, flaw)


def _written(given: Any) -> bytes | None:
    try:
        return written(given)
    except TypeError as error:
        message = f"what is in a record is bytes, text, or as JSON has it, and not {called(given)}: {error}"
        raise AssertionError(message) from None
