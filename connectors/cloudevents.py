"""CloudEvents 1.0 as Kafka records: structured JSON, and binary mode with ``ce_`` headers.

Specified in https://github.com/cloudevents/spec, documents ``spec.md``, ``formats/json-format.md`` and
``bindings/kafka-protocol-binding.md``. Where a sender is at odds with them and yet can be understood in one
way only, it is understood: an empty ``subject`` counts as none, attribute names are not checked, a
``traceparent`` that is none stays an extension, and data that is JSON is taken whatever its content type
says.

This is the hot path: the checks that nearly every event passes are made in one go, and only an event that
fails them is examined attribute by attribute, to say what is wrong with it, if anything is.
"""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple

from connectors import identity
from connectors.content import read_data, read_other_data
from connectors.decoded import Decoded, Unreadable
from connectors.identity import FlawError, fit, kind, shown, text_flaw
from connectors.lookup import KEY_IS_NO_TEXT, as_text, fit_key, header_text, key_by_setting
from connectors.source import Record
from connectors.times import rfc3339
from connectors.traces import is_traceparent, trace_of
from statemachines.events import Envelope
from statemachines.topic import Topic

NO_KEY: Final = "there is no Kafka key, and the event has neither partitionkey nor subject"
_SAFE_ASCII_CHARACTERS: Final = min(identity.ID_BYTES_MAX, identity.TYPE_BYTES_MAX)
_SAFE_CHARACTERS: Final = _SAFE_ASCII_CHARACTERS // 4
"""Texts that are together no longer than this are within every limit, with up to four bytes a character."""
_USUAL: Final = ("specversion", "id", "type", "source", "subject", "time", "data")
_USUAL_COUNT: Final = len(_USUAL)
_usual_attributes = itemgetter(*_USUAL)
_joined = "".join
_tuple = tuple.__new__
"""Makes a tuple past its class's own ``__new__``, which takes twice as long."""


def decode_usual(record: Record, event: Any) -> Decoded | None:
    """The event of an object that has just what most have; None leaves the answer to ``decode_event``.

    Nearly none has anything else, and looking for it takes longer than all of this.
    """
    try:
        version, event_id, event_type, source, subject, time, data = _usual_attributes(event)
        raw = record.key
        key = raw.decode() if raw else subject
        moment = rfc3339(time)
        texts = _joined((event_id, event_type, source, subject, key))
    except (KeyError, TypeError, UnicodeDecodeError):
        return None
    if (
        len(event) == _USUAL_COUNT
        and (len(texts) <= _SAFE_CHARACTERS or (texts.isascii() and len(texts) <= _SAFE_ASCII_CHARACTERS))
        and "\0" not in texts
        and event_id
        and event_type
        and source
        and subject
        and version == "1.0"
        and moment is not None
    ):
        return _tuple(
            Decoded,
            (_tuple(Envelope, (event_id, source, event_type, key, moment, subject, None, {})), data, None),
        )
    return None


def decode_binary(
    record: Record, topic: Topic, content_type: bytes | None, traceparent: bytes | None
) -> Decoded | Unreadable:
    """The event of a record whose attributes are in ``ce_`` headers; of one given twice the last counts."""
    event: dict[str, Any] = {}
    data = flaw = None
    misread = None
    for name, value in record.headers:
        if name[:3] == "ce_" and value is not None:
            try:
                event[name[3:]] = value.decode()
            except UnicodeDecodeError:
                misread = f"the header {shown(name)} is not UTF-8 text"
    try:
        if content_type is not None:
            event["datacontenttype"] = header_text("content-type", content_type)
        if record.value:
            data = read_data(record.value, event.get("datacontenttype"), "the value")
    except FlawError as error:
        flaw = str(error)
    event["data"] = data
    found = decode_event(record, topic, event, traceparent, binary=True, flaw=misread or flaw)
    if misread is not None and isinstance(found, Unreadable):
        # Without it the attribute is missing, and that alone would be told.
        return found._replace(error=_cannot_be_read(misread))
    return found


def decode_event(
    record: Record,
    topic: Topic,
    event: dict[str, Any],
    traceparent: bytes | None,
    *,
    binary: bool = False,
    flaw: str | None = None,
) -> Decoded | Unreadable:
    """The event of an object in CloudEvents' JSON format, which is used up.

    ``binary`` says that its attributes were headers, and its data the value. ``flaw`` is what was wrong with
    it so far.
    """
    take = event.pop
    data = take("data", None)
    version = take("specversion", None)
    event_id = take("id", None)
    event_type = take("type", None)
    source = take("source", None)
    subject = take("subject", None)
    time = take("time", None)
    trace = None
    ordinary = True
    if traceparent is not None or event:
        trace = _trace_of(event, traceparent)
        if not binary and ("datacontenttype" in event or "data_base64" in event):
            data, flaw = _data_of(event, data)
        ordinary = _are_texts(event)
    key: Any
    key_error = None
    if topic.key is not None:
        known = {"id": event_id, "type": event_type, "source": source, "subject": subject}
        key, key_error = key_by_setting(topic.key, record.headers, known, event, data)
    else:
        raw = record.key
        try:
            key = raw.decode() if raw else event.get("partitionkey") or subject or None
        except UnicodeDecodeError:
            key, key_error = None, KEY_IS_NO_TEXT
        else:
            if key is None:
                key_error = NO_KEY
    moment = None if time is None else rfc3339(time)
    try:
        texts = _joined((event_id, event_type, source, "" if subject is None else subject, key or ""))
    except TypeError:
        texts = "\0"
    if (
        (len(texts) <= _SAFE_CHARACTERS or (texts.isascii() and len(texts) <= _SAFE_ASCII_CHARACTERS))
        and "\0" not in texts
        and event_id
        and event_type
        and source
        and version == "1.0"
        and (moment is None) is (time is None)
        and flaw is None
        and ordinary
    ):
        envelope = (event_id, source, event_type, key, moment, subject or None, trace, event)
        return _tuple(Decoded, (_tuple(Envelope, envelope), data, key_error))
    found = _Attributes(version, event_id, event_type, source, subject, time, moment, trace, event)
    return _examined(found, key, key_error, data, flaw)


def _trace_of(event: dict[str, Any], header: bytes | None) -> str | None:
    """The event's own traceparent rather than that of the record's last hop."""
    own = event.get("traceparent")
    if own is not None and is_traceparent(own):
        trace: str = event.pop("traceparent")
        return trace
    return None if header is None else trace_of(header)


def _data_of(event: dict[str, Any], data: Any) -> tuple[Any, str | None]:
    """The data, and what is wrong with it, where more than ``data`` says what it is."""
    content_type = event.get("datacontenttype")
    if content_type == "application/json" and "data_base64" not in event:
        return data, None
    try:
        return read_other_data(data, event.pop("data_base64", None), content_type), None
    except FlawError as error:
        return None, str(error)


def _are_texts(attributes: dict[str, Any]) -> bool:
    for value in attributes.values():  # noqa: SIM110 - all() and a generator take three times as long
        if type(value) is not str:
            return False
    return True


class _Attributes(NamedTuple):
    """The attributes as they were found, whatever they are."""

    version: Any
    id: Any
    type: Any
    source: Any
    subject: Any
    time: Any
    moment: datetime | None
    trace: str | None
    others: dict[str, Any]


def _examined(
    found: _Attributes, key: Any, key_error: str | None, data: Any, data_flaw: str | None
) -> Decoded | Unreadable:
    """The verdict on an event that is not sure to be sound: what is wrong with it first, or the event."""
    if key is not None:
        key, key_error = _checked_key(key)
    flaw = _attributes_flaw(found) or _others_flaw(found.others) or data_flaw
    if flaw is not None:
        event_id, event_type = fit(found.id, identity.ID_BYTES_MAX), fit(found.type, identity.TYPE_BYTES_MAX)
        return Unreadable(_cannot_be_read(flaw), event_id, event_type, key)
    others = {name: value for name, value in found.others.items() if value is not None}
    envelope = Envelope(
        id=found.id,
        source=found.source,
        type=found.type,
        key=key,
        time=found.moment,
        subject=found.subject or None,
        traceparent=found.trace,
        attributes=others,
    )
    return Decoded(envelope, data, key_error)


def _cannot_be_read(flaw: str) -> str:
    return f"the CloudEvent cannot be read: {flaw}"


def _checked_key(key: Any) -> tuple[str | None, str | None]:
    try:
        return fit_key(as_text("key", key))
    except FlawError as flaw:
        return None, f"no key could be read: {flaw}"


def _attributes_flaw(found: _Attributes) -> str | None:
    if found.version != "1.0":
        if found.version is None:
            return "there is no specversion"
        return f"specversion is {shown(found.version)}, and only '1.0' is read"
    if found.time is not None and found.moment is None:
        return f"time is {shown(found.time)}, which is no date and time with a zone by RFC 3339"
    return (
        text_flaw("id", found.id, identity.ID_BYTES_MAX)
        or text_flaw("source", found.source, identity.SOURCE_BYTES_MAX)
        or text_flaw("type", found.type, identity.TYPE_BYTES_MAX)
        or (
            text_flaw("subject", found.subject, identity.SUBJECT_BYTES_MAX)
            if found.subject not in (None, "")
            else None
        )
    )


def _others_flaw(others: dict[str, Any]) -> str | None:
    for name, value in others.items():
        if not (value is None or isinstance(value, (str, int))):
            what = "a number with a fraction, or beyond 64 bits" if isinstance(value, float) else kind(value)
            return f"the attribute {shown(name)} is {what}; attributes are strings, whole numbers or booleans"
    return None
