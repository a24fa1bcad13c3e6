"""CloudEvents in binary mode: attributes in headers, data in the value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from statemachines.definition import Topic
from tests.records import binary_headers, event, refusal

JSON = ("content-type", b"application/json")


def test_an_event_is_read_from_headers_and_value() -> None:
    headers = binary_headers(time=b"2024-05-01T12:34:56Z", subject=b"s", tenant="größe".encode(), tries=b"3")
    found = event(b'{"amount": 5}', *headers, JSON)
    envelope = found.envelope
    assert (envelope.id, envelope.source, envelope.type, envelope.key) == (
        "e-1",
        "/shop",
        "order.placed",
        "order-1",
    )
    assert (envelope.time, envelope.subject) == (datetime(2024, 5, 1, 12, 34, 56, tzinfo=UTC), "s")
    assert envelope.attributes == {"tenant": "größe", "tries": "3", "datacontenttype": "application/json"}
    assert found.data == {"amount": 5}


@pytest.mark.parametrize(
    "content_type", [None, b"application/json", b"text/plain", b"application/x+json", b"\xff"]
)
def test_json_is_read_whatever_its_content_type_says(content_type: bytes | None) -> None:
    headers = (*binary_headers(), ("content-type", content_type))
    if content_type == b"\xff":
        assert "the header 'content-type' is not UTF-8 text" in refusal(b"{}", *headers).error
    else:
        assert event(b'{"a": 1}', *headers).data == {"a": 1}


def test_data_that_is_not_json_is_refused_with_the_identity_of_its_event() -> None:
    found = refusal(b"<a/>", *binary_headers(), ("content-type", b"application/xml"))
    assert "the value is of type 'application/xml' and no JSON" in found.error
    assert (found.event_id, found.type, found.key) == ("e-1", "order.placed", "order-1")
    assert "the value is not JSON" in refusal(b"<a/>", *binary_headers(), JSON).error
    assert "the value is not JSON" in refusal(b"\xff\xfe", *binary_headers()).error


@pytest.mark.parametrize("value", [None, b""])
def test_an_event_without_a_value_has_no_data(value: bytes | None) -> None:
    assert event(value, *binary_headers(), JSON).data is None


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_an_event_without_a_required_attribute_is_refused(name: str) -> None:
    assert f"there is no {name}" in refusal(b"{}", *binary_headers(**{name: None})).error


def test_headers_that_are_not_utf8_are_refused_only_where_they_are_attributes() -> None:
    found = refusal(b"{}", *binary_headers(tenant=b"\xff"))
    assert "the header 'ce_tenant' is not UTF-8 text" in found.error
    assert found.event_id == "e-1"
    assert event(b"{}", *binary_headers(), ("other", b"\xff"), ("ce_none", None)).data == {}


def test_of_a_header_given_twice_the_last_counts() -> None:
    assert event(b"{}", *binary_headers(), ("ce_id", b"last")).envelope.id == "last"


def test_an_identity_that_is_unfit_is_refused() -> None:
    assert "id has a NUL character" in refusal(b"{}", *binary_headers(id=b"a\0b")).error
    assert "id takes 600 bytes" in refusal(b"{}", *binary_headers(id=b"x" * 600)).error
    assert "id is empty" in refusal(b"{}", *binary_headers(id=b"")).error


def test_structured_mode_wins_over_copied_headers() -> None:
    value = b'{"specversion":"1.0","id":"inner","source":"/s","type":"t","data":1}'
    structured = ("content-type", b"application/cloudevents+json")
    assert event(value, *binary_headers(id=b"outer"), structured).envelope.id == "inner"


def test_an_attribute_called_like_the_data_does_no_harm() -> None:
    assert event(b"5", *binary_headers(data=b"header", data_base64=b"e30=")).data == 5


def test_the_key_may_come_from_a_setting() -> None:
    topic = Topic("orders", key="order.id")
    assert event(b'{"order": {"id": "o-7"}}', *binary_headers(), topic=topic).envelope.key == "o-7"
    unread = refusal(b"<", *binary_headers(), ("order.id", b"o-8"), topic=topic)
    assert unread.key == "o-8"
