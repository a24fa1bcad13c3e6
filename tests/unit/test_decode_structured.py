"""Structured CloudEvents: what is read, and what is refused with which sentence."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from connectors.source import RawRecord
from statemachines.definition import Topic
from statemachines.events import Envelope
from tests.records import STRUCTURED, cloudevent, event, refusal

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_event_is_read_with_all_its_attributes() -> None:
    sent = cloudevent(
        subject="o-1",
        time="2024-05-01T12:34:56.5+02:00",
        traceparent=TRACE,
        datacontenttype="application/json",
        tries=3,
        urgent=True,
        tenant="eu",
    )
    found = event(sent, *STRUCTURED)
    assert found.envelope == Envelope(
        id="e-1",
        source="/shop",
        type="order.placed",
        key="order-1",
        time=datetime(2024, 5, 1, 12, 34, 56, 500_000, timezone(timedelta(hours=2))),
        subject="o-1",
        traceparent=TRACE,
        attributes={"datacontenttype": "application/json", "tries": 3, "urgent": True, "tenant": "eu"},
    )
    assert type(found.envelope) is Envelope
    assert found.data == {"amount": 5}
    assert found.key_error is None


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"application/cloudevents+json",
        b"application/cloudevents+json; charset=UTF-8",
        b"Application/CloudEvents+JSON;charset=utf-8",
        b"application/cloudevents",
    ],
)
def test_an_event_is_recognised_by_its_content_type_or_without_one(content_type: bytes | None) -> None:
    assert event(cloudevent(), ("content-type", content_type)).envelope.id == "e-1"


def test_the_content_type_header_may_be_written_in_capitals() -> None:
    assert event(cloudevent(), ("Content-Type", b"application/cloudevents+json")).envelope.id == "e-1"


def test_of_a_header_given_twice_the_last_counts() -> None:
    twice = (("content-type", b"application/json"), *STRUCTURED)
    assert event(cloudevent(), *twice).envelope.id == "e-1"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"specversion": None}, "there is no specversion"),
        ({"specversion": "0.3"}, "specversion is '0.3', and only '1.0' is read"),
        ({"specversion": "2.0"}, "specversion is '2.0'"),
        ({"specversion": 1.0}, "specversion is 1.0"),
        ({"id": None}, "there is no id"),
        ({"id": ""}, "id is empty"),
        ({"id": 7}, "id is a number, not a string"),
        ({"id": ["e-1"]}, "id is an array, not a string"),
        ({"id": "a\0b"}, "id has a NUL character"),
        ({"id": "x" * 513}, "id takes 513 bytes, of 512 allowed"),
        ({"id": "ä" * 257}, "id takes 514 bytes, of 512 allowed"),
        ({"source": None}, "there is no source"),
        ({"source": {}}, "source is an object"),
        ({"source": "/" * 1025}, "source takes 1,025 bytes"),
        ({"type": None}, "there is no type"),
        ({"type": False}, "type is a boolean"),
        ({"type": "t" * 513}, "type takes 513 bytes"),
        ({"subject": 5}, "subject is a number"),
        ({"subject": False}, "subject is a boolean"),
        ({"subject": "s" * 1025}, "subject takes 1,025 bytes"),
        ({"time": "2024\N{EN DASH}05\N{EN DASH}01T00:00:00Z"}, "which is no date and time with a zone"),
        ({"time": "2024-05-01"}, "which is no date and time with a zone"),
        ({"time": "2024-05-01T00:00:00"}, "which is no date and time with a zone"),
        ({"time": "2024-05-01T00:00Z"}, "which is no date and time with a zone"),
        ({"time": "2024-W01-1T00:00:00Z"}, "which is no date and time with a zone"),
        ({"time": "9999-12-31T23:59:59-14:00"}, "which is no date and time with a zone"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "which is no date and time with a zone"),
        ({"time": 1714567890}, "which is no date and time with a zone"),
        ({"tenant": {"a": 1}}, "the attribute 'tenant' is an object; attributes are strings"),
        ({"tenant": []}, "the attribute 'tenant' is an array"),
        ({"tenant": 1.5}, "the attribute 'tenant' is a number with a fraction"),
        ({"traceparent": {}}, "the attribute 'traceparent' is an object"),
        ({"datacontenttype": {}}, "the attribute 'datacontenttype' is"),
        ({"partitionkey": []}, "the attribute 'partitionkey' is an array"),
    ],
)
def test_what_breaks_the_specification_is_refused_with_a_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    found = refusal(cloudevent(**changes), *STRUCTURED)
    assert sentence in found.error
    assert found.key == "order-1"
    assert found.event_id == (None if "id" in changes else "e-1")
    assert found.type == (None if "type" in changes else "order.placed")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01T12:34:56Z", datetime(2024, 5, 1, 12, 34, 56, tzinfo=UTC)),
        ("2024-05-01t12:34:56z", datetime(2024, 5, 1, 12, 34, 56, tzinfo=UTC)),
        ("2024-05-01 12:34:56+00:00", datetime(2024, 5, 1, 12, 34, 56, tzinfo=UTC)),
        ("2024-05-01T12:34:56.1234567891Z", datetime(2024, 5, 1, 12, 34, 56, 123_456, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_rfc_3339_are_read_and_can_be_told_in_utc(text: str, moment: datetime) -> None:
    time = event(cloudevent(time=text), *STRUCTURED).envelope.time
    assert time == moment
    assert time is not None
    assert time.astimezone(UTC) == moment


def test_null_means_unset() -> None:
    sent = {**cloudevent(tenant="eu"), "time": None, "subject": None, "other": None, "data_base64": None}
    envelope = event(sent, *STRUCTURED).envelope
    assert (envelope.time, envelope.subject, envelope.attributes) == (None, None, {"tenant": "eu"})


def test_an_empty_subject_is_none() -> None:
    found = event(cloudevent(subject=""), *STRUCTURED, key=None)
    assert found.envelope.subject is None
    assert found.envelope.key is None


@pytest.mark.parametrize("data", [None, {}, [], 0, False, "text", {"deep": [{"a": "\0"}]}])
def test_data_may_be_any_json_and_may_be_missing(data: Any) -> None:
    assert event({**cloudevent(data=None), "data": data}, *STRUCTURED).data == data
    assert event(cloudevent(data=None), *STRUCTURED).data is None


def test_data_in_base64_is_read_where_it_is_json() -> None:
    encoded = base64.b64encode(b'{"a": [1]}').decode()
    assert event(cloudevent(data=None, data_base64=encoded), *STRUCTURED).data == {"a": [1]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data_base64": "e30="}, "there is both data and data_base64"),
        ({"data": None, "data_base64": "e30"}, "data_base64 is not base64"),
        ({"data": None, "data_base64": "ä"}, "data_base64 is not base64"),
        ({"data": None, "data_base64": 5}, "data_base64 is a number, not a string"),
        ({"data": None, "data_base64": "AAAA"}, "what data_base64 stands for is not JSON"),
        (
            {"data": None, "data_base64": "AAAA", "datacontenttype": "image/png"},
            "what data_base64 stands for is of type 'image/png' and no JSON",
        ),
        (
            {"data": "<a/>", "datacontenttype": "application/xml"},
            "the text in data is of type 'application/xml'",
        ),
    ],
)
def test_data_that_is_no_json_is_refused_with_the_identity_of_its_event(
    changes: dict[str, Any], sentence: str
) -> None:
    found = refusal(cloudevent(**changes), *STRUCTURED)
    assert sentence in found.error
    assert (found.event_id, found.type, found.key) == ("e-1", "order.placed", "order-1")


def test_text_that_is_json_after_all_is_read_as_such() -> None:
    sent = cloudevent(data='{"a": 1}', datacontenttype="text/plain")
    assert event(sent, *STRUCTURED).data == {"a": 1}


def test_text_in_a_json_event_is_not_parsed_again() -> None:
    for content_type in ("application/json", "application/vnd.shop+json; charset=utf-8", None):
        sent = cloudevent(data='{"a": 1}', datacontenttype=content_type)
        assert event(sent, *STRUCTURED).data == '{"a": 1}'


def test_the_key_is_the_kafka_key_then_partitionkey_then_subject() -> None:
    sent = cloudevent(partitionkey="p", subject="s")
    assert event(sent, *STRUCTURED, key=b"k").envelope.key == "k"
    assert event(sent, *STRUCTURED, key=None).envelope.key == "p"
    assert event(sent, *STRUCTURED, key=b"").envelope.key == "p"
    assert event(cloudevent(subject="s"), *STRUCTURED, key=None).envelope.key == "s"
    nothing = event(cloudevent(), *STRUCTURED, key=None)
    assert nothing.envelope.key is None
    assert nothing.key_error == "there is no Kafka key, and the event has neither partitionkey nor subject"


def test_a_whole_number_as_partitionkey_is_its_decimal_text() -> None:
    assert event(cloudevent(partitionkey=17), *STRUCTURED, key=None).envelope.key == "17"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (b"\xff\xfe", "the Kafka key is not UTF-8 text"),
        (b"\xed\xa0\x80", "the Kafka key is not UTF-8 text"),
        (b"k" * 10_000, "key takes 10,000 bytes, of 1,024 allowed"),
        (b"a\0b", "key has a NUL character in it"),
    ],
)
def test_an_event_whose_kafka_key_is_unfit_is_read_without_a_key(key: bytes, sentence: str) -> None:
    found = event(cloudevent(), *STRUCTURED, key=key)
    assert found.envelope.key is None
    assert found.key_error == f"no key could be read: {sentence}"


def test_a_key_of_the_longest_length_is_read() -> None:
    assert event(cloudevent(), *STRUCTURED, key=b"k" * 1024).envelope.key == "k" * 1024


def test_the_topics_key_setting_overrules_the_kafka_key() -> None:
    def key(name: str, *headers: tuple[str, bytes]) -> str | None:
        sent = cloudevent(subject="s", tenant="eu", data={"order": {"id": 17}, "tenant": "data"})
        return event(sent, *STRUCTURED, *headers, topic=Topic("orders", key=name)).envelope.key

    assert key("order.id") == "17"
    assert key("tenant") == "eu"
    assert key("subject") == "s"
    assert key("tenant", ("tenant", b"header")) == "header"
    assert key("nowhere") is None


def test_a_key_setting_that_finds_nothing_says_so_and_does_not_fall_back() -> None:
    found = event(cloudevent(), *STRUCTURED, topic=Topic("orders", key="order_id"))
    assert found.envelope.key is None
    assert found.key_error == "there is neither a header nor a field 'order_id', the topic's key"


def test_the_traceparent_of_the_event_comes_before_that_of_the_record() -> None:
    other = TRACE.replace("01", "00").encode()
    header = ("traceparent", other)
    assert event(cloudevent(traceparent=TRACE), *STRUCTURED, header).envelope.traceparent == TRACE
    assert event(cloudevent(), *STRUCTURED, header).envelope.traceparent == other.decode()
    assert event(cloudevent(), *STRUCTURED, ("traceparent", b"\xff")).envelope.traceparent is None
    odd = event(cloudevent(traceparent="odd"), *STRUCTURED).envelope
    assert (odd.traceparent, odd.attributes) == (None, {"traceparent": "odd"})


def test_letters_of_other_scripts_are_fine_everywhere() -> None:
    sent = cloudevent(id="ключ-1", type="заказ", source="/магазин", subject="\N{PARTY POPPER}" * 200)
    envelope = event(sent, *STRUCTURED, key="ключ".encode()).envelope
    assert (envelope.id, envelope.key, envelope.subject) == ("ключ-1", "ключ", "\N{PARTY POPPER}" * 200)


def test_of_an_attribute_given_twice_the_last_counts() -> None:
    value = b'{"specversion":"1.0","id":"first","id":"last","source":"/s","type":"t","data":{"a":1,"a":2}}'
    found = event(value, *STRUCTURED)
    assert (found.envelope.id, found.data) == ("last", {"a": 2})


@pytest.mark.parametrize("value", [b"[]", b"5", b'"text"', b"null"])
def test_an_event_that_is_no_object_is_refused(value: bytes) -> None:
    assert "a CloudEvent in JSON is an object" in refusal(value, *STRUCTURED).error


@pytest.mark.parametrize("form", ["avro", "protobuf", "xml"])
def test_other_formats_and_batches_are_refused(form: str) -> None:
    content_type = f"application/cloudevents+{form}".encode()
    assert f"in the format '{form}'" in refusal(b"\0\1", ("content-type", content_type)).error
    assert f"in the format '{form}'" in refusal(b"{}", ("content-type", content_type)).error
    batch = refusal(b"[]", ("content-type", b"application/cloudevents-batch+json"))
    assert "only single events in JSON are read" in batch.error


def test_every_event_has_attributes_of_its_own() -> None:
    first, second = event(cloudevent(), *STRUCTURED), event(cloudevent(), *STRUCTURED)
    assert first.envelope.attributes is not second.envelope.attributes


def test_bytes_are_left_as_they_came() -> None:
    value = orjson.dumps(cloudevent())
    before = RawRecord("orders", 0, 0, 0, None, value, STRUCTURED)
    assert event(before.value, *before.headers).data == {"amount": 5}
    assert before.value == value
