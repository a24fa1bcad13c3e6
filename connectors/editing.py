"""A record with other data in it: in the place where its event has its data, all else being as it came."""

from __future__ import annotations

import orjson

from connectors.content import read_json
from connectors.elements import elements_of
from connectors.source import RawRecord
from statemachines.topic import Topic

_BINARY = frozenset(("ce_specversion", "ce_id", "ce_source", "ce_type"))
"""A record with one of these headers has its data as its value."""


def with_data(record: RawRecord, topic: Topic, data: bytes) -> RawRecord:
    """The record with this JSON as its event's data: in a structured CloudEvent its ``data``, else the whole value.

    Of a topic whose records hold several events it is the one element of the list. The record is one that can be read.
    """
    event = _structured(record)
    if event is None and topic.each is not None and not _is_binary(record):
        document = read_json(record.value or b"", "the value")
        elements_of(document, topic)[:] = [orjson.Fragment(data)]
        return record._replace(value=orjson.dumps(document))
    if event is None:
        return record._replace(value=data)
    event.pop("data_base64", None)
    event["data"] = orjson.Fragment(data)
    return record._replace(value=orjson.dumps(event))


def _is_binary(record: RawRecord) -> bool:
    return not _BINARY.isdisjoint(name for name, _ in record.headers)


def _structured(record: RawRecord) -> dict[str, object] | None:
    """The CloudEvent that is the record's value; None where the value is data alone (``connectors.decode``)."""
    headers = {name.lower(): value or b"" for name, value in record.headers}
    content_type = headers.get("content-type")
    told = content_type is not None and content_type.startswith(b"application/cloudevents")
    if not told and (content_type is not None or not headers.keys().isdisjoint(_BINARY)):
        return None
    try:
        found = orjson.loads(record.value or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) and "specversion" in found else None
