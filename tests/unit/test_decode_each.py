"""Records that hold several events: what each of them is, and how it is read again from a record of its own."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connectors.decode import Decoded, Unreadable, decode, decode_each
from connectors.elements import ELEMENTS_MAX, INDEX_HEADER
from connectors.source import Record
from statemachines.topic import Topic
from tests.records import cloudevent, record
from tests.storage import TEST_EVENT, TOPIC, put, sent

PLAIN = Topic("orders", each="items", type="kind")


def read(value: Any, *headers: tuple[str, bytes], topic: Topic = PLAIN) -> list[tuple[Record, Decoded]]:
    """The events, each of which is one."""
    found = decode_each(record(orjson.dumps(value), *headers), topic, "c1")
    return [(own, decoded) for own, decoded in found if isinstance(decoded, Decoded)]


def refusals(value: Any, *headers: tuple[str, bytes], topic: Topic = PLAIN) -> list[Unreadable]:
    found = decode_each(record(orjson.dumps(value), *headers), topic, "c1")
    return [one for _, one in found if isinstance(one, Unreadable)]


def test_each_element_is_an_event_of_its_own_with_a_record_of_its_own() -> None:
    found = read({"items": [{"kind": "a", "n": 1}, {"kind": "b"}], "beside": "it"}, ("h", b"v"))
    assert [(one.envelope.id, one.envelope.type, one.envelope.key) for _, one in found] == [
        ("c1/orders/3/42/0", "a", "order-1"),
        ("c1/orders/3/42/1", "b", "order-1"),
    ]
    assert [one.data for _, one in found] == [{"kind": "a", "n": 1}, {"kind": "b"}]
    assert {one.envelope.source for _, one in found} == {"kafka://c1/orders"}
    own = found[1][0]
    assert (own.topic, own.partition, own.offset, own.timestamp, own.key) == (
        "orders", 3, 42, 1_714_567_890_123, b"order-1",
    )  # fmt: skip
    assert own.value == b'{"items":[{"kind":"b"}]}', "what stands beside the list is no part of the event"
    assert own.headers == (("h", b"v"), (INDEX_HEADER, b"1"))
    for again, event in found:
        assert decode(again, PLAIN, "c1") == event
        assert decode_each(again, PLAIN, "c1") == [(again, event)]


def test_a_record_with_one_element_is_its_own_to_the_byte() -> None:
    whole = record(b'{ "items": [ {"kind": "a"} ], "beside": 1 }')
    [(own, event)] = decode_each(whole, PLAIN, "c1")
    assert own is whole
    assert decode(whole, PLAIN, "c1") == event
    assert isinstance(event, Decoded)
    assert event.envelope.id == "c1/orders/3/42/0"


@pytest.mark.parametrize("index", [b"", b"-1", b"07", b"x", b"\xff", b"10000", "٣".encode(), None])
def test_a_header_that_is_no_index_is_as_good_as_none(index: bytes | None) -> None:
    [(_, event)] = decode_each(record(b'{"items": [{"kind": "a"}]}', (INDEX_HEADER, index)), PLAIN, "c1")
    assert isinstance(event, Decoded)
    assert event.envelope.id == "c1/orders/3/42/0"
    both = read({"items": [{"kind": "a"}, {"kind": "b"}]}, (INDEX_HEADER, b"7"))
    assert [one.envelope.id[-2:] for _, one in both] == ["/0", "/1"]
    assert [own.headers for own, _ in both] == [((INDEX_HEADER, b"0"),), ((INDEX_HEADER, b"1"),)]


def test_settings_are_looked_up_in_the_element_first_and_then_in_the_headers() -> None:
    topic = Topic("orders", each="items", type="kind", id="no", key="who.name", time="at")
    items = [
        {"kind": "own", "no": 5, "who": {"name": "ann"}, "at": 1_000},
        {"no": "x"},
    ]
    headers = (("kind", b"all"), ("who.name", b"bob"), ("no", b"h"), ("at", b"1970-01-01T00:00:09Z"))
    found = [one.envelope for _, one in read({"items": items, "kind": "outer"}, *headers, topic=topic)]
    assert [(one.id, one.type, one.key, one.time and one.time.timestamp()) for one in found] == [
        ("5", "own", "ann", 1.0),
        ("x", "all", "bob", 9.0),
    ]


@pytest.mark.parametrize(
    ("each", "document", "kept"),
    [
        ("a.b", {"a": {"b": [{}, {}], "c": 1}}, {"a": {"b": [{}]}}),
        ("a.b", {"a.b": [{}, {}], "a": {"b": 1}}, {"a.b": [{}]}),
        ("a.0.b", {"a": [{"b": [{}, {}]}]}, {"a": {"0": {"b": [{}]}}}),
    ],
)
def test_the_list_may_be_within_a_field(each: str, document: Any, kept: Any) -> None:
    topic = Topic("orders", each=each, type_default="t")
    found = read(document, topic=topic)
    assert [orjson.loads(own.value or b"") for own, _ in found] == [kept, kept]
    assert [decode(own, topic, "c1") for own, _ in found] == [event for _, event in found]


def test_an_element_that_is_no_event_is_refused_alone() -> None:
    topic = Topic("orders", each="items", type="kind", id="no")
    items: list[Any] = [
        {"kind": "a", "no": "1"},
        5,
        {"no": "2"},
        {"kind": "d"},
        None,
        {"kind": "e", "no": "3"},
    ]
    assert [one.envelope.id for _, one in read({"items": items}, topic=topic)] == ["1", "3"]
    told = refusals({"items": items}, topic=topic)
    assert [(one.event_id, one.error.partition(":")[0]) for one in told] == [
        ("c1/orders/3/42/1", "element 1 of 'items' is a number, and only a JSON object can be an event"),
        ("2", "element 2 of 'items'"),
        ("c1/orders/3/42/3", "element 3 of 'items'"),
        ("c1/orders/3/42/4", "element 4 of 'items' is null, and only a JSON object can be an event"),
    ]
    assert "neither a CloudEvent nor has it a header or a field 'kind'" in told[1].error
    assert "neither a header nor a field 'no'" in told[2].error


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "there is no field 'items', which the topic's settings name as the list of events"),
        ({"items": None}, "there is no field 'items'"),
        ({"items": {"kind": "a"}}, "the field 'items' is an object, and no list of events"),
        ([{"kind": "a"}], "the value is an array, and only a JSON object can hold events"),
        ({"items": [{}] * (ELEMENTS_MAX + 1)}, "has 10,001 elements, of 10,000 allowed in one record"),
    ],
)
def test_a_record_without_a_list_of_events_is_refused_as_a_whole(value: Any, sentence: str) -> None:
    [told] = refusals(value)
    assert sentence in told.error
    assert (told.event_id, told.type, told.key) == (None, None, "order-1")
    assert decode(record(orjson.dumps(value)), PLAIN, "c1") == told


def test_as_many_elements_as_are_allowed_are_read() -> None:
    assert len(read({"items": [{"kind": "a"}] * ELEMENTS_MAX})) == ELEMENTS_MAX


@pytest.mark.parametrize("value", [b"{", b"", None, b"[" * 2_000])
def test_what_is_not_json_is_refused_as_ever(value: bytes | None) -> None:
    whole = record(value)
    assert decode_each(whole, PLAIN, "c1") == [(whole, decode(whole, Topic("orders"), "c1"))]


def test_what_can_be_read_and_not_be_written_again_is_refused_as_a_whole() -> None:
    deep = b"[" * 500 + b"]" * 500
    [(_, told)] = decode_each(
        record(b'{"items": [{"kind": "a"}, {"kind": "b", "x": %s}]}' % deep), PLAIN, "c1"
    )
    assert isinstance(told, Unreadable)
    assert told.error == "element 1 of 'items' is nested too deep to be kept by itself"
    alone = record(b'{"items": [{"kind": "b", "x": %s}]}' % deep)
    assert isinstance(decode_each(alone, PLAIN, "c1")[0][1], Decoded)


def test_an_empty_list_holds_no_event_and_neither_does_a_message_without_one_where_settings_say_so() -> None:
    assert decode_each(record(b'{"items": []}'), PLAIN, "c1") == []
    assert decode_each(sent(), TOPIC, "c1") == []
    assert decode_each(record(orjson.dumps(TEST_EVENT)), TOPIC, "c1") == []
    assert refusals({"Records": 5}, topic=TOPIC), "what is no list is another matter"


def test_cloudevents_are_not_taken_apart() -> None:
    event = cloudevent(items=None, data={"items": [{"kind": "a"}, {"kind": "b"}]})
    [(_, found)] = read(event)
    assert (found.envelope.id, found.data) == ("e-1", event["data"])
    binary = record(b'{"items": [1, 2]}', ("ce_specversion", b"1.0"), ("ce_id", b"i"), ("ce_type", b"t"),
                    ("ce_source", b"/s"))  # fmt: skip
    assert [one for one, _ in decode_each(binary, PLAIN, "c1")] == [binary]


def test_a_notification_of_s3_is_read_by_its_settings() -> None:
    whole = sent(put("a b.jpg", "01"), put("c.jpg", "02"))
    found = [one for _, one in decode_each(whole, TOPIC, "c1") if isinstance(one, Decoded)]
    assert [(one.envelope.type, one.envelope.id, str(one.envelope.time)) for one in found] == [
        ("ObjectCreated:Put", "01", "2026-03-01 11:59:00.123000+00:00"),
        ("ObjectCreated:Put", "02", "2026-03-01 11:59:00.123000+00:00"),
    ]
    assert found[0].data == put("a b.jpg", "01")
