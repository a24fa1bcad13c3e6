"""From a record to an event: CloudEvents 1.0, structured or binary, or plain JSON by the topic's settings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import orjson

from connectors.cloudevents import decode_binary, decode_event, decode_usual
from connectors.content import CONTENT_TYPE_CHARACTERS_MAX, read_data, read_json
from connectors.decoded import Decoded, Unreadable
from connectors.elements import elements_of, index_of, records_of
from connectors.identity import FlawError, kind, shown
from connectors.lookup import Headers, key_by_setting, key_of_record
from connectors.plain import decode_element, decode_plain
from connectors.source import Record
from statemachines.topic import Topic

__all__ = ["Decoded", "Unreadable", "decode", "decode_each"]

_JSON_EVENT: Final = b"application/cloudevents+json"
_Told = tuple[bytes | None, str | None, bool, bytes | None]
"""By the headers: content type, format if it is that of a structured event, whether it is a binary one, traceparent."""
_TOLD_AS_USUAL: Final[_Told] = (_JSON_EVENT, "json", False, None)
_USUAL_HEADERS: Final = [("content-type", _JSON_EVENT)]
_REQUIRED: Final = frozenset(("ce_specversion", "ce_id", "ce_source", "ce_type"))
"""A record that has one of these headers means to be a CloudEvent in binary mode."""
_loads = orjson.loads


def decode(record: Record, topic: Topic, cluster: str) -> Decoded | Unreadable:
    """The event in a record, or why there is none. Pure, and raises nothing, whatever the bytes.

    A record whose ``content-type`` begins with ``application/cloudevents`` is a structured CloudEvent; else
    one with any of the required ``ce_`` headers is one in binary mode; else one without a content type whose
    value is a JSON object with ``specversion`` is a structured one too; all others are plain JSON.

    ``cluster`` names where the topic is; it becomes part of ids and sources that records do not have of their
    own.

    Of a topic whose records hold several events (``Topic.each``), this reads a record that holds one; ``decode_each``
    makes them of one that came.
    """
    headers = record.headers
    told = _TOLD_AS_USUAL if headers == _USUAL_HEADERS else _told_by(headers)
    content_type, form, binary, traceparent = told
    if binary and form is None:
        return decode_binary(record, topic, content_type, traceparent)
    value = record.value
    try:
        document = _loads(value)  # type: ignore[arg-type]  # what is no bytes is looked at again below
    except ValueError:
        try:
            document = _second_look(value, content_type, form)
        except FlawError as flaw:
            return _unreadable(record, topic, str(flaw))
    if type(document) is dict and (form == "json" or (content_type is None and "specversion" in document)):
        usual = decode_usual(record, document) if traceparent is None and topic.key is None else None
        return usual or decode_event(record, topic, document, traceparent)
    if form is not None:
        return _unreadable(record, topic, _not_an_event(document, form))
    if topic.each is not None:
        return _decode_one(record, topic, cluster, document, traceparent)
    return decode_plain(record, topic, cluster, document, traceparent)


def decode_each(record: Record, topic: Topic, cluster: str) -> list[tuple[Record, Decoded | Unreadable]]:
    """The events that a record holds, each with the record that it is read from again; pure, as ``decode`` is.

    A record that is one event, or that is unreadable as a whole, is its own. The list is empty where the record holds
    no event at all.
    """
    found = None if topic.each is None else _plain_document(record)
    if found is None:
        return [(record, decode(record, topic, cluster))]
    document, traceparent = found
    try:
        elements = elements_of(document, topic)
        records = records_of(record, document, topic, elements)
    except FlawError as flaw:
        return [(record, _unreadable(record, topic, str(flaw)))]
    first = index_of(record.headers) if len(elements) == 1 else 0
    return [
        (one, decode_element(one, topic, cluster, element, number, traceparent))
        for number, (one, element) in enumerate(zip(records, elements, strict=True), first)
    ]


def _decode_one(
    record: Record, topic: Topic, cluster: str, document: Any, traceparent: bytes | None
) -> Decoded | Unreadable:
    try:
        elements = elements_of(document, topic)
    except FlawError as flaw:
        return _unreadable(record, topic, str(flaw))
    if len(elements) != 1:
        return _unreadable(record, topic, f"the record holds {len(elements):,} events, and not one")
    number = index_of(record.headers)
    return decode_element(record, topic, cluster, elements[0], number, traceparent)


def _plain_document(record: Record) -> tuple[Any, bytes | None] | None:
    """The JSON in a record and its traceparent, unless it is a CloudEvent or unreadable."""
    content_type, form, binary, traceparent = _told_by(record.headers)
    if binary or form is not None:
        return None
    try:
        document = read_json(record.value or b"", "the value")
    except FlawError:
        return None
    if content_type is None and isinstance(document, dict) and "specversion" in document:
        return None
    return document, traceparent


def _told_by(headers: Headers) -> _Told:
    content_type = traceparent = None
    binary = False
    for name, header in headers:
        if name == "content-type" or (len(name) == len("content-type") and name.lower() == "content-type"):
            content_type = header
        elif name == "traceparent":
            traceparent = header
        elif name in _REQUIRED:
            binary = True
    form = None
    if content_type is not None:
        form = "json" if content_type == _JSON_EVENT else _event_format(content_type)
    return content_type, form, binary, traceparent


def _event_format(content_type: bytes) -> str | None:
    """The format of a structured CloudEvent, ``json`` for ``application/cloudevents+json``, or None."""
    if len(content_type) > CONTENT_TYPE_CHARACTERS_MAX:
        return None
    return _event_format_of(content_type)


@lru_cache(maxsize=256)
def _event_format_of(content_type: bytes) -> str | None:
    media_type = content_type.partition(b";")[0].strip().lower().decode("ascii", "replace")
    if not media_type.startswith("application/cloudevents"):
        return None
    # Without a format it is JSON, the one that all must understand.
    return media_type.removeprefix("application/cloudevents").removeprefix("+") or "json"


def _second_look(value: bytes | None, content_type: bytes | None, form: str | None) -> Any:
    """The JSON in a value that does not read as JSON at first sight.

    Raises:
        FlawError: there is none.
    """
    if not value:
        what = "the record has no value (a tombstone)" if value is None else "the record's value is empty"
        raise FlawError(f"{what}, and no headers make it a CloudEvent")
    if form not in (None, "json"):
        raise FlawError(_not_an_event(None, form))
    if content_type is None or form == "json":
        return read_json(value, "the value")
    return read_data(value, content_type.decode("utf-8", "replace"), "the value")


def _not_an_event(document: Any, form: str | None) -> str:
    if form == "json":
        return f"the value is {kind(document)}, and a CloudEvent in JSON is an object"
    return f"the record is a CloudEvent in the format {shown(form)}, and only single events in JSON are read"


def _unreadable(record: Record, topic: Topic, error: str) -> Unreadable:
    if topic.key is None:
        key, _ = key_of_record(record.key)
    else:
        key, _ = key_by_setting(topic.key, record.headers)
    return Unreadable(error, None, None, key, topic.tombstones == "ignore" and record.value is None)
