"""Events that could not be applied, as a person sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.envelope import decode_headers
from engine.errors import UsageError
from engine.reading.catalog import SQL
from engine.reading.errors import NotFoundError
from engine.reading.values import RecordView, askable, json_of, shown_time, text_or_base64
from engine.store.connecting import Connection
from statemachines.outcome import Reason
from statemachines.suggest import did_you_mean

STATUSES = ("open", "redriven", "dropped", "resolved")
REASONS = tuple(reason.value for reason in Reason)
COUNTED_MAX = 10_000
"""So many are looked at to say how many there are of each status."""


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    """A dead letter in a list."""

    id: int
    reason: str
    error: str
    topic: str
    """Where its record came from; of an event that the broker refused, where it should have gone."""
    partition: int | None
    offset: int | None
    pipeline: str | None
    """None: it concerns all pipelines that read the topic."""
    key: str | None
    event_id: str | None
    type: str | None
    status: str
    """open, redriven, dropped or resolved."""
    publishing: str
    """Whether its dead-letter topic has it (of an event that the broker refused, the topic that it is for): pending,
    published or refused."""
    at: datetime

    @property
    def is_of_run(self) -> bool:
        """Whether its key is that of a run; else it is what the record has for one, of which no run is known."""
        return self.pipeline is not None and self.reason != Reason.NO_KEY

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "id": self.id,
            "reason": self.reason,
            "error": self.error,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "pipeline": self.pipeline,
            "key": self.key,
            "event_id": self.event_id,
            "type": self.type,
            "status": self.status,
            "publishing": self.publishing,
            "at": shown_time(self.at),
        }


@dataclass(frozen=True, slots=True)
class DeadLetterDetails:
    """All of a dead letter."""

    letter: DeadLetterView
    generation: int | None
    """Of the run that it is of, where there was one."""
    sequence: int | None
    """The row of the run that it was to hold it by; None where it holds none."""
    holds: bool
    """Whether it holds the run now."""
    waiting: int
    """How many events wait in the run."""
    dead_letter_topic: str | None
    publishing_error: str
    policy: str
    """Which policy decided, in words."""
    details: Any
    """The transitions that were tried and the condition that failed; or where the broker refused it."""
    who: str
    """Who ended it, why and when; empty while it is open."""
    why: str
    ended: datetime | None
    edited: bytes | None
    """The value that its record was offered with instead of its own."""
    record: RecordView

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            **self.letter.as_json(),
            "generation": self.generation,
            "sequence": self.sequence,
            "holds": self.holds,
            "waiting": self.waiting,
            "dead_letter_topic": self.dead_letter_topic,
            "publishing_error": self.publishing_error,
            "policy": self.policy,
            "details": self.details,
            "ended_by": self.who,
            "ended_reason": self.why,
            "ended": shown_time(self.ended),
            **text_or_base64("edited", self.edited),
            "record": self.record.as_json(),
        }


async def list_dead_letters(
    connection: Connection,
    namespace: str,
    *,
    status: str | None = None,
    reason: str | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    topic: str | None = None,
    event_id: str | None = None,
    limit: int = 100,
) -> list[DeadLetterView]:
    """Dead letters, the newest first; ``limit`` 0 gives all of them.

    Raises:
        UsageError: there is no such status or reason.
    """
    filters = await _filters(connection, namespace, status, reason, pipeline, key, topic, event_id)
    rows = await connection.fetch(SQL["list_dead_letters"], *filters, limit, Reason.REFUSED_BY_BROKER.value)
    return [_view(row) for row in rows]


async def count_dead_letters(
    connection: Connection,
    namespace: str,
    *,
    reason: str | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    topic: str | None = None,
    event_id: str | None = None,
) -> dict[str, int]:
    """How many ``list_dead_letters`` would give of the same, by status; of those that there are none of, none.

    Of the newest ``COUNTED_MAX`` alone, however many there are.

    Raises:
        UsageError: there is no such reason.
    """
    filters = await _filters(connection, namespace, None, reason, pipeline, key, topic, event_id)
    listing = SQL["list_dead_letters"]
    counting = f"select status, count(*) from ({listing}) as found group by status"  # noqa: S608 - our own
    rows = await connection.fetch(counting, *filters, COUNTED_MAX, Reason.REFUSED_BY_BROKER.value)
    found = {str(row["status"]): int(row["count"]) for row in rows}
    return {status: found[status] for status in STATUSES if status in found}


async def show_dead_letter(connection: Connection, namespace: str, number: int) -> DeadLetterDetails:
    """One dead letter, with its record as it came.

    Raises:
        NotFoundError: there is no such one.
    """
    row = await connection.fetchrow(SQL["show_dead_letter"], namespace, number)
    if row is None:
        raise NotFoundError(f"There is no dead letter {number} in the namespace {namespace!r}.")
    letter = _view(row)
    return DeadLetterDetails(
        letter=letter,
        generation=row["generation"],
        sequence=row["sequence"],
        holds=row["holds"],
        waiting=row["waiting"],
        dead_letter_topic=row["dead_letter_topic"],
        publishing_error=row["publishing_error"],
        policy=_policy(row["details"]),
        details=_tried(row["details"]),
        who=row["who"],
        why=row["why"],
        ended=row["ended"],
        edited=row["edited"],
        record=RecordView(
            letter.topic,
            letter.partition,
            letter.offset,
            row["record_time"],
            row["record_key"],
            decode_headers(row["record_headers"]),
            row["record_value"],
        ),
    )


async def _filters(
    connection: Connection,
    namespace: str,
    status: str | None,
    reason: str | None,
    pipeline: str | None,
    key: str | None,
    topic: str | None,
    event_id: str | None,
) -> tuple[str | int | None, ...]:
    if status is not None and status not in STATUSES:
        raise UsageError(f"There is no status {status!r}. {did_you_mean(status, STATUSES)}")
    if reason is not None and reason not in REASONS:
        raise UsageError(f"There is no reason {reason!r}. {did_you_mean(reason, REASONS)}")
    number = None if pipeline is None else await _number_of(connection, namespace, pipeline)
    return namespace, status, reason, number, *map(askable, (key, topic, event_id))


async def _number_of(connection: Connection, namespace: str, pipeline: str) -> int:
    """The store's number of a pipeline; 0, which none has, where no such one was ever run."""
    rows = await connection.fetch(SQL["pipelines"], namespace)
    return next((int(row["id"]) for row in rows if row["name"] == pipeline), 0)


def _view(row: Mapping[str, Any]) -> DeadLetterView:
    topic = row["topic"]
    if not topic:
        # It was to be published and has no place of its own.
        details = json_of(row["details"])
        topic = str(details.get("topic", "")) if isinstance(details, dict) else ""
    return DeadLetterView(
        id=row["id"],
        reason=row["reason"],
        error=row["error"],
        topic=topic,
        partition=row["partition"],
        offset=row["offset"],
        pipeline=row["pipeline"],
        key=row["key"],
        event_id=row["event_id"],
        type=row["type"],
        status=row["status"],
        publishing=row["publishing"],
        at=row["at"],
    )


def _policy(details: bytes) -> str:
    found = json_of(details or b"[]")
    return str(found.get("policy", "")) if isinstance(found, dict) else ""


def _tried(details: bytes) -> Any:
    """The transitions that were considered; of a dead letter of what was published, what it was for."""
    found = json_of(details or b"[]")
    return found.get("tried", []) if isinstance(found, dict) and "topic" not in found else found
