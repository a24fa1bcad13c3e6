"""The topics that pipelines read, and how their records are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Policy = Literal["dead_letter", "ignore"]
TypeBy = str | tuple[str, ...] | Callable[[dict[str, Any]], str | int | None]
"""What names the type of an event: a header or a field, several of them, or a function of the data."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that a pipeline reads, and how type, id, key and time are found in its plain JSON records.

    Of the versions of a pipeline that are loaded the newest decides, for the runs of all of them.

    CloudEvents carry their own and need no settings. ``type``, ``id``, ``key`` and ``time`` each name a
    header or a field of the record (``a.b`` for a field within a field); a header is preferred. Where a record holds
    several events, they name a field of the element or a header, and the field is preferred.

    ``type`` may also be several of those in a tuple, whose texts are joined by ``.``; or a pure function of the data,
    of the element's where there are several, that returns the type, or None where there is none.
    """

    name: str
    type: TypeBy = "type"
    type_default: str | None = None
    """The type of records that carry none."""
    id: str | None = None
    """None: cluster, topic, partition and offset are the id, and the number of the element where there are several."""
    key: str | None = None
    """None: the Kafka key is the run's key, then CloudEvents ``subject``."""
    time: str | None = None
    """None: Kafka's time."""
    unknown: Policy = "dead_letter"
    """What becomes of a record whose type no pipeline that reads the topic knows."""
    tombstones: Policy = "dead_letter"
    """What becomes of a record that has no value, and is no CloudEvent in binary mode. An empty value is one."""
    dead_letters: str | None = None
    """The topic for dead letters; None: ``<name>.dead-letters``."""
    each: str | None = None
    """The field with a list, each element of which is an event; None: a record is one event."""
    each_missing: Policy = "dead_letter"
    """What becomes of a record without that field, such as a service's test message."""

    @property
    def dead_letter_topic(self) -> str:
        """Where dead letters of this topic are published."""
        return self.dead_letters or f"{self.name}.dead-letters"

    def knowing(self, event_type: str) -> Self:
        """The same for an event whose type is known, so that no function is asked for it."""
        return replace(self, type="", type_default=event_type) if callable(self.type) else self


NO_TOPIC = Topic("")
"""Of events without a record."""
