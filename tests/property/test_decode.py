"""Whatever comes, decoding answers: an event that is fit to be stored, or a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import identity
from connectors.cloudevents import decode_event, decode_usual
from connectors.decode import Decoded, Unreadable, decode, decode_each
from connectors.source import RawRecord
from statemachines.definition import Topic
from tests.records import cloudevent

JSON_EVENT = b"application/cloudevents+json"
NAMES = [
    "content-type",
    "traceparent",
    "type",
    "key",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_specversion",
    "ce_time",
]
VALUES = [b"application/cloudevents+json", b"application/json", b"1.0", b"t", b"2024-05-01T00:00:00Z"]
ATTRIBUTES = [
    "id",
    "type",
    "source",
    "subject",
    "time",
    "specversion",
    "data",
    "data_base64",
    "partitionkey",
    "x",
]

headers = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.text(max_size=8)),
        st.one_of(st.none(), st.sampled_from(VALUES), st.binary(max_size=12)),
    ),
    max_size=8,
).map(tuple)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
texts = st.one_of(st.text(max_size=20), st.integers(1, 1_100).map(lambda length: "ä" * length))
events = st.builds(
    lambda changes: cloudevent(**changes),
    st.dictionaries(
        st.sampled_from(ATTRIBUTES),
        st.one_of(json_values, texts, st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)),
        max_size=4,
    ),
)
bodies = st.one_of(st.none(), st.binary(max_size=60), json_values.map(orjson.dumps), events.map(orjson.dumps))
names = st.sampled_from(["type", "key", "x", "data.a", "0", "a.0.b", ""])
topics = st.builds(
    Topic,
    st.just("orders"),
    type=names,
    type_default=st.sampled_from([None, "t"]),
    id=st.one_of(st.none(), names),
    key=st.one_of(st.none(), names),
    time=st.one_of(st.none(), names),
    tombstones=st.sampled_from(["dead_letter", "ignore"]),
)
records = st.builds(
    RawRecord,
    topic=st.just("orders"),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**63 - 1),
    key=st.one_of(st.none(), st.binary(max_size=8), st.text(max_size=8).map(str.encode)),
    value=bodies,
    headers=headers,
)

timeless = settings(deadline=None)
"""What is asked here is not how long it takes, which on a busy machine varies."""


def fits(text: str | None, bytes_max: int) -> bool:
    """Whether Postgres would take this text; the check is written anew here."""
    return text is None or (
        bool(text) and "\0" not in text and len(text.encode("utf-8", "strict")) <= bytes_max
    )


@settings(max_examples=500, deadline=None)
@given(records, topics)
def test_every_record_is_an_event_that_can_be_stored_or_a_sentence(record: RawRecord, topic: Topic) -> None:
    found = decode(record, topic, "c1")
    match found:
        case Decoded(envelope, _, key_error):
            assert envelope.id
            assert envelope.type
            assert envelope.source
            assert fits(envelope.id, identity.ID_BYTES_MAX)
            assert fits(envelope.type, identity.TYPE_BYTES_MAX)
            assert fits(envelope.source, identity.SOURCE_BYTES_MAX)
            assert fits(envelope.subject, identity.SUBJECT_BYTES_MAX)
            assert fits(envelope.key, identity.KEY_BYTES_MAX)
            assert (envelope.key is None) is (key_error is not None)
            assert envelope.time is None or envelope.time.astimezone(UTC).tzinfo is UTC
            assert all(isinstance(value, (str, int)) for value in envelope.attributes.values())
        case Unreadable(error, event_id, event_type, key):
            assert error.isprintable()
            assert len(error) < 500
            assert fits(event_id, identity.ID_BYTES_MAX)
            assert fits(event_type, identity.TYPE_BYTES_MAX)
            assert fits(key, identity.KEY_BYTES_MAX)


@timeless
@given(records, topics)
def test_decoding_twice_gives_the_same(record: RawRecord, topic: Topic) -> None:
    assert repr(decode(record, topic, "c1")) == repr(decode(record, topic, "c1"))


@timeless
@given(st.data(), st.binary(max_size=30), events)
def test_bytes_cut_anywhere_are_answered(data: st.DataObject, tail: bytes, event: dict[str, Any]) -> None:
    whole = orjson.dumps(event)
    cut = data.draw(st.integers(0, len(whole)))
    record = RawRecord("orders", 0, 0, 0, None, whole[:cut] + tail, ())
    assert isinstance(decode(record, Topic("orders"), "c1"), (Decoded, Unreadable))


usual_events = st.builds(
    lambda changes: cloudevent(
        **{"subject": "s", "time": "2026-01-01T00:00:00Z", "data": {"a": 1}} | changes
    ),
    st.dictionaries(
        st.sampled_from(["id", "type", "source", "subject", "time", "specversion", "x", "partitionkey"]),
        st.sampled_from(["", "a", "a\0b", "ä" * 100, "ä" * 600, "x" * 300, "x" * 1_100, "0.3", 1, None]),
        max_size=2,
    ),
)


@given(usual_events | events, st.sampled_from([b"k", b"", None, b"\xff", b"a\0b", "ä".encode() * 600]))
def test_what_most_events_have_is_read_as_if_it_were_looked_for(
    event: dict[str, Any], key: bytes | None
) -> None:
    record = RawRecord("orders", 0, 0, 0, key, orjson.dumps(event), [("content-type", JSON_EVENT)])
    read = orjson.loads(orjson.dumps(event))
    assert decode(record, Topic("orders"), "here") == decode_event(record, Topic("orders"), read, None)


def test_an_event_that_has_what_most_have_is_read_the_short_way() -> None:
    event = cloudevent(subject="s", time="2026-01-01T00:00:00Z", data={"a": 1})
    record = RawRecord("orders", 0, 0, 0, b"k", orjson.dumps(event), ())
    assert decode_usual(record, event) == decode(record, Topic("orders"), "here")


# Records that hold several events

elements = st.lists(
    json_values | st.fixed_dictionaries({}, optional={"type": texts, "key": texts, "x": json_values}),
    max_size=4,
)
holders = st.builds(
    lambda found, beside, name: {**beside, name: found},
    elements | json_values,
    st.dictionaries(st.text(max_size=3), json_values, max_size=2),
    st.sampled_from(["x", "a", "a.b", "specversion"]),
) | st.builds(lambda found: {"a": {"b": found}, "x": found}, elements)
several = st.builds(
    lambda topic, each, missing: replace(topic, each=each, each_missing=missing),
    topics,
    st.sampled_from(["x", "a.b", "a.0", "specversion"]),
    st.sampled_from(["dead_letter", "ignore"]),
)
indices = st.sampled_from([b"0", b"3", b"9999", b"10000", b"-1", b"\xff", b"", None])
holding = st.builds(
    lambda record, value, index: record._replace(
        value=orjson.dumps(value), headers=(*record.headers, ("pointsman-index", index))
    ),
    records,
    holders,
    indices,
)


@settings(max_examples=500, deadline=None)
@given(holding | records, several)
def test_each_event_of_a_record_is_read_again_from_its_own_record(record: RawRecord, topic: Topic) -> None:
    found = decode_each(record, topic, "c1")
    for own, decoded in found:
        assert repr(decode(own, topic, "c1")) == repr(decoded)
        assert repr(decode_each(own, topic, "c1")) == repr([(own, decoded)])
        place = own.topic, own.partition, own.offset, own.timestamp, own.key
        assert place == (record.topic, record.partition, record.offset, record.timestamp, record.key)
        if isinstance(decoded, Unreadable):
            assert decoded.error.isprintable()
            assert fits(decoded.event_id, identity.ID_BYTES_MAX)
            assert fits(decoded.key, identity.KEY_BYTES_MAX)
        else:
            assert fits(decoded.envelope.id, identity.ID_BYTES_MAX)
            assert (decoded.envelope.key is None) is (decoded.key_error is not None)
    if topic.id is None:
        ids = [one.envelope.id for _, one in found if isinstance(one, Decoded)]
        assert len(ids) == len(set(ids))
    without = replace(topic, each=None)
    assert repr(decode_each(record, without, "c1")) == repr([(record, decode(record, without, "c1"))])
