"""An event as a structured CloudEvent, the form in which everything is published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import orjson

from statemachines.compact import dumps_compact

STRUCTURED_HEADERS: Final = (("content-type", b"application/cloudevents+json"),)
"""The headers of every record whose value ``encode_structured`` made."""
_Fragment = orjson.Fragment


def encode_structured(
    *,
    id: str,
    source: str,
    type: str,
    data: bytes | None,
    subject: str | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
    causation_id: str | None = None,
    said_by: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A CloudEvent in JSON; what is None is left out.

    ``data`` is JSON, taken as it is, without looking at it. ``time`` is written in the zone that it has.
    ``causation_id`` is the id of the event that this one comes of, and becomes the extension ``causationid``.
    ``said_by`` are further attributes.

    Raises:
        TypeError: a text has a lone surrogate.
    """
    event: dict[str, Any] = {"specversion": "1.0", "id": id, "source": source, "type": type}
    if subject is not None:
        event["subject"] = subject
    if time is not None:
        event["time"] = time
    if traceparent is not None:
        event["traceparent"] = traceparent
    if causation_id is not None:
        event["causationid"] = causation_id
    if said_by:
        event |= said_by
    if data is not None:
        event["data"] = _Fragment(data)
    return dumps_compact(event, orjson.OPT_UTC_Z)
