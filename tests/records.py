"""Records for tests of decoding."""

from __future__ import annotations

from typing import Any

import orjson

from connectors.decode import Decoded, Unreadable, decode
from connectors.source import RawRecord
from statemachines.definition import Topic

STRUCTURED = (("content-type", b"application/cloudevents+json"),)


def record(
    value: bytes | None,
    *headers: tuple[str, bytes | None],
    key: bytes | None = b"order-1",
    timestamp: int = 1_714_567_890_123,
) -> RawRecord:
    return RawRecord("orders", 3, 42, timestamp, key, value, headers)


def cloudevent(**changes: Any) -> dict[str, Any]:
    """A sound event, with attributes changed; None takes one out."""
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "order.placed",
        "data": {"amount": 5},
        **changes,
    }
    return {name: value for name, value in event.items() if value is not None}


def binary_headers(**changes: bytes | None) -> tuple[tuple[str, bytes | None], ...]:
    """The headers of a sound event in binary mode, changed; None takes one out."""
    attributes = {"specversion": b"1.0", "id": b"e-1", "source": b"/shop", "type": b"order.placed", **changes}
    return tuple((f"ce_{name}", value) for name, value in attributes.items() if value is not None)


def read(
    value: bytes | dict[str, Any] | None,
    *headers: tuple[str, bytes | None],
    topic: Topic | None = None,
    key: bytes | None = b"order-1",
    timestamp: int = 1_714_567_890_123,
) -> Decoded | Unreadable:
    as_bytes = orjson.dumps(value) if isinstance(value, dict) else value
    return decode(record(as_bytes, *headers, key=key, timestamp=timestamp), topic or Topic("orders"), "c1")


def event(*arguments: Any, **settings: Any) -> Decoded:
    """The event in a record, which must be one."""
    found = read(*arguments, **settings)
    assert isinstance(found, Decoded), found
    return found


def refusal(*arguments: Any, **settings: Any) -> Unreadable:
    """Why a record is no event, which it must not be."""
    found = read(*arguments, **settings)
    assert isinstance(found, Unreadable), found
    assert found.error
    assert found.error.isprintable()
    return found
