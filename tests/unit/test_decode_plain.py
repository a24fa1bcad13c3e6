"""Plain JSON records: everything is found by the topic's settings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.decode import decode_each
from connectors.decoded import Unreadable
from statemachines.definition import Topic
from statemachines.events import Envelope
from tests.records import binary_headers, event, read, record, refusal

KAFKA_TIME = datetime(2024, 5, 1, 12, 51, 30, 123_000, tzinfo=UTC)


def test_without_settings_the_record_itself_says_what_it_is() -> None:
    found = event({"type": "order.placed", "amount": 5})
    assert found.envelope == Envelope(
        id="c1/orders/3/42",
        source="kafka://c1/orders",
        type="order.placed",
        key="order-1",
        time=KAFKA_TIME,
        attributes={},
    )
    assert found.data == {"type": "order.placed", "amount": 5}


def test_settings_name_fields_and_fields_within_fields() -> None:
    topic = Topic("orders", type="meta.kind", id="meta.no", key="lines.0.order", time="at")
    sent = {
        "meta": {"kind": "order.placed", "no": 17},
        "lines": [{"order": "o-1"}],
        "at": "2024-05-01T00:00:00Z",
    }
    envelope = event(sent, topic=topic).envelope
    assert (envelope.id, envelope.type, envelope.key) == ("17", "order.placed", "o-1")
    assert envelope.time == datetime(2024, 5, 1, tzinfo=UTC)
    assert envelope.source == "kafka://c1/orders"


def test_a_header_comes_before_a_field_and_the_last_of_its_name_counts() -> None:
    headers = (("type", b"first"), ("type", b"last"))
    assert event({"type": "field"}, *headers).envelope.type == "last"


def test_a_field_whose_name_has_a_dot_is_found_by_its_whole_name() -> None:
    topic = Topic("orders", type="a.b")
    assert event({"a.b": "whole", "a": {"b": "inner"}}, topic=topic).envelope.type == "whole"
    assert event({"a": {"b": "inner"}}, topic=topic).envelope.type == "inner"


@pytest.mark.parametrize("sent", [{}, {"type": None}, {"a": 1}])
def test_a_record_without_a_type_gets_the_default_or_is_refused(sent: dict[str, Any]) -> None:
    assert event(sent, topic=Topic("orders", type_default="changed")).envelope.type == "changed"
    found = refusal(sent)
    assert "neither a CloudEvent nor has it a header or a field 'type'" in found.error
    assert (found.event_id, found.type, found.key) == ("c1/orders/3/42", None, "order-1")


@pytest.mark.parametrize(
    ("topic", "sent", "sentence"),
    [
        (Topic("orders"), {"type": 5}, "type is a number, not a string"),
        (Topic("orders"), {"type": ""}, "type is empty"),
        (Topic("orders"), {"type": "a\0"}, "type has a NUL character"),
        (Topic("orders"), {"type": "t" * 600}, "type takes 600 bytes"),
        (Topic("orders", id="no"), {"type": "t"}, "there is neither a header nor a field 'no'"),
        (Topic("orders", id="no"), {"type": "t", "no": 1.5}, "id is a number with a fraction"),
        (Topic("orders", id="no"), {"type": "t", "no": True}, "id is a boolean"),
        (Topic("orders", id="no"), {"type": "t", "no": {}}, "id is an object"),
        (Topic("orders", id="no"), {"type": "t", "no": "x" * 600}, "id takes 600 bytes"),
        (Topic("orders", time="at"), {"type": "t", "at": "soon"}, "'at' is 'soon', which is neither"),
        (Topic("orders", time="at"), {"type": "t", "at": 1e30}, "'at' is 1e+30, which is neither"),
        (Topic("orders", time="at"), {"type": "t", "at": 2**63}, "which is neither"),
        (Topic("orders", time="at"), {"type": "t", "at": "9" * 5000}, "which is neither"),
    ],
)
def test_what_cannot_identify_an_event_is_refused_with_a_sentence(
    topic: Topic, sent: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(sent, topic=topic).error


def test_times_are_rfc_3339_or_milliseconds_and_kafkas_where_there_is_none() -> None:
    topic = Topic("orders", time="at")

    def time(at: Any, *headers: tuple[str, bytes]) -> datetime | None:
        return event({"type": "t", "at": at}, *headers, topic=topic).envelope.time

    assert time("2011-10-11 13:45:40.276000+02:00") == datetime(2011, 10, 11, 11, 45, 40, 276_000, tzinfo=UTC)
    assert time(1_318_333_540_276) == datetime(2011, 10, 11, 11, 45, 40, 276_000, tzinfo=UTC)
    assert time(None) == KAFKA_TIME
    assert time(None, ("at", b"1000")) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("timestamp", [-1, 2**62])
def test_a_kafka_time_that_is_none_is_no_time(timestamp: int) -> None:
    assert event({"type": "t"}, timestamp=timestamp).envelope.time is None


def test_keys() -> None:
    topic = Topic("orders", key="order_id")
    assert event({"type": "t", "order_id": 17}, topic=topic).envelope.key == "17"
    assert (
        event({"type": "t", "order_id": "o"}, ("order_id", b"header"), topic=topic).envelope.key == "header"
    )
    missing = event({"type": "t"}, topic=topic)
    assert (missing.envelope.key, missing.key_error) == (
        None,
        "there is neither a header nor a field 'order_id', the topic's key",
    )
    oddities: tuple[Any, ...] = (True, 1.5, [], {}, "", "a\0b", "x" * 1025)
    for odd in oddities:
        found = event({"type": "t", "order_id": odd}, topic=topic)
        assert found.envelope.key is None
        assert found.key_error is not None
        assert found.key_error.startswith("no key could be read: ")
    assert event({"type": "t"}, key=None).key_error == "the record has no Kafka key"
    not_text = event({"type": "t", "order_id": "o"}, ("order_id", b"\xff"), topic=topic)
    assert not_text.key_error == "no key could be read: the header 'order_id' is not UTF-8 text"


def test_a_tombstone_is_refused() -> None:
    found = refusal(None)
    assert "tombstone" in found.error
    assert (found.key, found.ignored) == ("order-1", False)
    assert refusal(None, topic=Topic("orders", tombstones="ignore")).ignored
    [(_, held)] = decode_each(record(None), Topic("orders", each="items", tombstones="ignore"), "c1")
    assert isinstance(held, Unreadable)
    assert held.ignored


def test_what_has_a_value_or_says_what_it_is_in_its_headers_is_no_tombstone() -> None:
    topic = Topic("orders", tombstones="ignore")
    empty = refusal(b"", topic=topic)
    assert (empty.error, empty.ignored) == (
        "the record's value is empty, and no headers make it a CloudEvent",
        False,
    )
    assert not refusal(b"null", topic=topic).ignored
    assert not refusal(b" ", topic=topic).ignored
    assert event(None, *binary_headers(), topic=topic).data is None
    assert not refusal(None, *binary_headers(specversion=b"0.3"), topic=topic).ignored


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe\x00",
        b'{"type": "t"',
        b'{"type": "\\ud800"}',
        b'{"type": "t", "a": NaN}',
        b'{"type": "t", "a": Infinity}',
        b'{"type": "t", "a": ' + b"1" * 400 + b"}",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"type": "a\x00b"}',
        b"\xef\xbb\xbf" * 100_000,
    ],
)
def test_what_is_not_json_is_refused(value: bytes) -> None:
    found = refusal(value)
    assert found.error.startswith("the value is not JSON: ")
    assert (found.event_id, found.type, found.key) == (None, None, "order-1")


@pytest.mark.parametrize("value", [b"[]", b"[{}]", b"1", b"null", b'"order"', b"true"])
def test_json_that_is_no_object_is_refused(value: bytes) -> None:
    assert "only a JSON object can be an event" in refusal(value).error


def test_a_byte_order_mark_is_skipped() -> None:
    assert event(b'\xef\xbb\xbf{"type": "t"}').envelope.type == "t"


def test_numbers_beyond_64_bits_are_read_as_floats() -> None:
    found = event(b'{"type": "t", "a": ' + b"1" * 300 + b"}")
    assert found.data["a"] == pytest.approx(1.1111e299, rel=1e-4)


def test_of_a_field_given_twice_the_last_counts() -> None:
    topic = Topic("orders", key="k")
    found = event(b'{"type": "a", "type": "b", "k": "x", "k": "y"}', topic=topic)
    assert (found.envelope.type, found.envelope.key) == ("b", "y")


def test_nul_and_five_megabytes_are_fine_in_data() -> None:
    assert event(b'{"type": "t", "a": "\\u0000"}').data["a"] == "\0"
    assert len(event(b'{"type": "t", "a": "' + b"x" * 5_000_000 + b'"}').data["a"]) == 5_000_000


def test_content_types_that_are_no_json_are_named_where_the_value_is_none() -> None:
    assert event(b'{"type": "t"}', ("content-type", b"text/plain")).envelope.type == "t"
    found = refusal(b"\x00\x01", ("content-type", b"application/avro"))
    assert "the value is of type 'application/avro' and no JSON" in found.error
    assert read(b"{", ("content-type", b"x" * 10_000)) == refusal(b"{", ("content-type", b"x" * 10_000))


def test_an_object_with_specversion_and_another_content_type_is_plain() -> None:
    sent = {"specversion": "1.0", "id": "e-1", "source": "/s", "type": "t"}
    assert event(sent, ("content-type", b"application/json")).envelope.id == "c1/orders/3/42"


def test_a_real_change_event_needs_four_settings() -> None:
    topic = Topic("inventory", type="op", id="source.lsn", key="after.id", time="ts_ms")
    sent = {"op": "c", "ts_ms": 1_559_033_904_863, "after": {"id": 1}, "source": {"lsn": 24_023_128}}
    envelope = event(sent, topic=topic).envelope
    assert (envelope.id, envelope.type, envelope.key) == ("24023128", "c", "1")
    assert envelope.time == datetime(2019, 5, 28, 8, 58, 24, 863_000, tzinfo=UTC)


def test_of_a_refused_record_what_could_be_read_is_told() -> None:
    no_id = refusal({"type": "t"}, topic=Topic("orders", id="no"))
    assert (no_id.event_id, no_id.type, no_id.key) == (None, "t", "order-1")
    no_time = refusal({"type": "t", "no": 7, "at": "soon"}, topic=Topic("orders", id="no", time="at"))
    assert (no_time.event_id, no_time.type) == ("7", "t")
    no_type = refusal({"no": 7}, topic=Topic("orders", id="no"))
    assert (no_type.event_id, no_type.type) == ("7", None)
