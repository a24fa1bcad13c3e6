"""Plain JSON records as events: a topic's settings say how type, id, key and time are found.

- ``type``: ``Topic.type``, else ``Topic.type_default``. A function is given data of its own, which it may change.
- ``id``: ``Topic.id``; without that setting ``<cluster>/<topic>/<partition>/<offset>``.
- ``source``: ``kafka://<cluster>/<topic>``. The partition is no part of it, so that an id of the sender's own
  is the same event in whichever partition it comes.
- key: ``Topic.key``; without that setting the Kafka key.
- time: ``Topic.time``, RFC 3339 or milliseconds since 1970; without that setting, or in a record that has
  none there, Kafka's time.
- data: the whole object.

Where a record holds several events (``Topic.each``), all of this is read from each element, before the headers; the
default id ends in the number of the element, and data is the element.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

from connectors import identity
from connectors.content import read_json
from connectors.decoded import Decoded, Unreadable
from connectors.elements import elements_of
from connectors.identity import FlawError, kind, shown, text_flaw
from connectors.lookup import Look, as_text, find, find_in_element, key_by_setting, key_of_record
from connectors.source import Record
from connectors.times import from_milliseconds, moment_of
from connectors.traces import trace_of
from statemachines.definition import name_of
from statemachines.events import Envelope
from statemachines.handlers import HandlerError, ask_for_type
from statemachines.suggest import listed
from statemachines.topic import Topic, TypeBy

_tuple = tuple.__new__


def decode_plain(
    record: Record, topic: Topic, cluster: str, document: Any, traceparent: bytes | None
) -> Decoded | Unreadable:
    """The event of a JSON value that is no CloudEvent."""
    key: str | None
    if topic.key is None:
        key, key_error = key_of_record(record.key)
    else:
        key, key_error = key_by_setting(topic.key, record.headers, document)
    if not isinstance(document, dict):
        error = f"the value is {kind(document)}, and only a JSON object can be an event"
        return Unreadable(error, None, None, key)
    event_type = None
    try:
        event_type = _type_of(record, topic, document, find)
        event_id = _id_of(record, topic, cluster, document, find)
        time = _time_of(record, topic, document, find)
    except FlawError as flaw:
        return _unreadable(flaw, record, topic, cluster, document, event_type, key)
    source = f"kafka://{cluster}/{record.topic}"
    trace = None if traceparent is None else trace_of(traceparent)
    envelope: tuple[Any, ...] = (event_id, source, event_type, key, time, None, trace, {})
    return _tuple(Decoded, (_tuple(Envelope, envelope), document, key_error))


def decode_element(
    record: Record, topic: Topic, cluster: str, element: Any, number: int, traceparent: bytes | None
) -> Decoded | Unreadable:
    """The event of one of the elements that a record holds. What has none still has an id to be asked for by."""
    where = f"element {number} of {shown(topic.each)}"
    event_id = f"{cluster}/{record.topic}/{record.partition}/{record.offset}/{number}"
    if topic.key is None:
        key, key_error = key_of_record(record.key)
    else:
        key, key_error = key_by_setting(topic.key, record.headers, element, look=find_in_element)
    if not isinstance(element, dict):
        error = f"{where} is {kind(element)}, and only a JSON object can be an event"
        return Unreadable(error, event_id, None, key)
    event_type = None
    try:
        if topic.id is not None:
            event_id = _id_of(record, topic, cluster, element, find_in_element)
        event_type = _type_of(record, topic, element, find_in_element)
        time = _time_of(record, topic, element, find_in_element)
    except FlawError as flaw:
        return Unreadable(f"{where}: {flaw}", event_id, event_type, key)
    trace = None if traceparent is None else trace_of(traceparent)
    source = f"kafka://{cluster}/{record.topic}"
    return Decoded(Envelope(event_id, source, event_type, key, time, None, trace), element, key_error)


def _unreadable(
    flaw: FlawError,
    record: Record,
    topic: Topic,
    cluster: str,
    document: dict[str, Any],
    event_type: str | None,
    key: str | None,
) -> Unreadable:
    event_id = None
    with contextlib.suppress(FlawError):
        event_id = _id_of(record, topic, cluster, document, find)
    return Unreadable(str(flaw), event_id, event_type, key)


def _id_of(record: Record, topic: Topic, cluster: str, document: dict[str, Any], look: Look) -> str:
    if topic.id is None:
        return f"{cluster}/{record.topic}/{record.partition}/{record.offset}"
    value = look(topic.id, record.headers, document)
    if value is None:
        raise FlawError(
            f"there is neither a header nor a field {shown(topic.id)}, which the topic's settings name as id"
        )
    return _sound("id", as_text("id", value), identity.ID_BYTES_MAX)


def _type_of(record: Record, topic: Topic, document: dict[str, Any], look: Look) -> str:
    by = topic.type
    value: Any = None  # of one that is known already (Topic.knowing), nothing in the record names it
    if not isinstance(by, str):
        value = _made_type(by, record, topic, document, look)
    elif by:
        value = look(by, record.headers, document)
    if value is None:
        if topic.type_default is not None:
            return topic.type_default
        raise FlawError(
            f"the record is neither a CloudEvent nor {_lacks_type(by)}, and the topic's settings give no type_default"
        )
    return _sound("type", value, identity.TYPE_BYTES_MAX)


def _made_type(by: TypeBy, record: Record, topic: Topic, document: dict[str, Any], look: Look) -> str | None:
    """What several fields make together, or a function of the data; None where one of them is missing."""
    if callable(by):
        own = read_json(record.value or b"", "the value")
        try:
            return ask_for_type(
                by, name_of(by) or "", own if topic.each is None else elements_of(own, topic)[0]
            )
        except HandlerError as error:
            raise FlawError(str(error)) from None
    parts = [(name, look(name, record.headers, document)) for name in by]
    if any(part is None for _, part in parts):
        return None
    return ".".join(_sound(shown(name), part, identity.TYPE_BYTES_MAX) for name, part in parts)


def _lacks_type(by: TypeBy) -> str:
    if callable(by):
        return f"does the function {name_of(by)}, which the topic's settings name as type, find one"
    if isinstance(by, tuple):
        return f"has it headers or fields {listed(by)} for its type"
    return f"has it a header or a field {shown(by)} for its type"


def _time_of(record: Record, topic: Topic, document: dict[str, Any], look: Look) -> datetime | None:
    value = None if topic.time is None else look(topic.time, record.headers, document)
    if value is None:
        return from_milliseconds(record.timestamp)
    moment = moment_of(value)
    if moment is None:
        raise FlawError(
            f"{shown(topic.time)} is {shown(value)}, which is neither a date and time with a zone by "
            "RFC 3339 nor milliseconds since 1970"
        )
    return moment


def _sound(name: str, value: Any, bytes_max: int) -> str:
    flaw = text_flaw(name, value, bytes_max)
    if flaw is not None:
        raise FlawError(flaw)
    text: str = value
    return text
