"""How stored values are shown: times, JSON, and bytes that may be no text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.dead_letters import fit_text
from statemachines.run import active_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecordView:
    """A Kafka record as it came."""

    topic: str
    partition: int | None
    offset: int | None
    time: int
    """Milliseconds since 1970; -1 where the broker had none."""
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes | None

    def as_json(self) -> dict[str, Any]:
        """Key, value and header values as text, or under ``..._base64`` where they are none."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "time": from_milliseconds(self.time),
            **text_or_base64("key", self.key),
            "headers": [
                {"name": printable(name), **text_or_base64("value", value)} for name, value in self.headers
            ],
            **text_or_base64("value", self.value),
        }


def text_or_base64(name: str, value: bytes | None) -> dict[str, str | None]:
    """``{name: text, name_base64: None}``, or the other way round for what is not UTF-8."""
    if value is None:
        return {name: None, f"{name}_base64": None}
    try:
        return {name: value.decode(), f"{name}_base64": None}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(value).decode()}


def printable(text: str) -> str:
    """Text with escapes where it is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def askable(text: str | None) -> str | None:
    """Text as the store was given it: what is not Unicode or has a NUL in it was stored with escapes."""
    return None if text is None else fit_text(text)


def shown_time(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, with ``Z``."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_milliseconds(time: int) -> str | None:
    """A record's time; None where it has none, or none that a calendar has."""
    if time < 0:
        return None
    try:
        return shown_time(_EPOCH + timedelta(milliseconds=time))
    except OverflowError:
        return None


def json_of(stored: bytes) -> Any:
    """JSON as values, whole numbers of any length included; what is none is given as text."""
    text = stored.decode("utf-8", "backslashreplace")
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def states_of(configuration: str) -> list[str]:
    """The active states, outermost first."""
    return list(active_in(configuration))


def effects_of(effects: bytes) -> list[Mapping[str, Any]]:
    """The effects that a row asked for, in order."""
    found = json_of(effects) if effects else []
    return found if isinstance(found, list) else []
