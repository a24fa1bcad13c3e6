"""Records with other data in them."""

from __future__ import annotations

import orjson
import pytest

from connectors.decode import Decoded, decode
from connectors.editing import with_data
from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import RawRecord
from statemachines.topic import Topic
from tests.feeding import raw

STRUCTURED = encode_structured(
    id="e1", source="/shop", type="order.paid", subject="o1", data=b'{"amount":"much"}'
)
BINARY = (("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/shop"), ("ce_type", b"order.paid"))
PLAIN = Topic("orders", type_default="order.paid")


@pytest.mark.parametrize(
    "record",
    [
        raw(STRUCTURED, key=b"o1", headers=STRUCTURED_HEADERS),
        raw(STRUCTURED, key=b"o1"),
        raw(STRUCTURED.replace(b'"data":{"amount":"much"}', b'"data_base64":"Im11Y2gi"'), key=b"o1"),
        raw(b'{"amount":"much"}', key=b"o1", headers=BINARY),
        raw(b'{"amount":"much","specversion":"1.0"}', key=b"o1", headers=BINARY),
        raw(b'{"amount":"much"}', key=b"o1"),
        raw(b'{"specversion":"9"}', key=b"o1", headers=(("content-type", b"application/json"),)),
    ],
)
def test_all_but_the_data_is_as_it_came(record: RawRecord) -> None:
    edited = with_data(record, b'{"amount":5}')
    before, after = decode(record, PLAIN, "c"), decode(edited, PLAIN, "c")
    assert isinstance(before, Decoded)
    assert isinstance(after, Decoded)
    assert (after.envelope, after.data) == (before.envelope, {"amount": 5})
    assert edited._replace(value=None) == record._replace(value=None)
    assert b"data_base64" not in (edited.value or b"")


def test_numbers_are_written_as_they_are_given() -> None:
    edited = with_data(raw(STRUCTURED, headers=STRUCTURED_HEADERS), b'{"amount":12345678901234567890123}')
    assert b'"data":{"amount":12345678901234567890123}' in (edited.value or b"")
    assert orjson.loads(edited.value or b"")["id"] == "e1"
