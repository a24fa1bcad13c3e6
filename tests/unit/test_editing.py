"""Records with other data in them."""

from __future__ import annotations

import orjson
import pytest

from connectors.decode import Decoded, decode
from connectors.editing import with_data
from connectors.elements import INDEX_HEADER
from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import RawRecord
from engine.errors import UsageError
from engine.reading.editing import changed
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
    edited = with_data(record, PLAIN, b'{"amount":5}')
    before, after = decode(record, PLAIN, "c"), decode(edited, PLAIN, "c")
    assert isinstance(before, Decoded)
    assert isinstance(after, Decoded)
    assert (after.envelope, after.data) == (before.envelope, {"amount": 5})
    assert edited._replace(value=None) == record._replace(value=None)
    assert b"data_base64" not in (edited.value or b"")


def test_numbers_are_written_as_they_are_given() -> None:
    edited = with_data(
        raw(STRUCTURED, headers=STRUCTURED_HEADERS), PLAIN, b'{"amount":12345678901234567890123}'
    )
    assert b'"data":{"amount":12345678901234567890123}' in (edited.value or b"")
    assert orjson.loads(edited.value or b"")["id"] == "e1"


@pytest.mark.parametrize(
    ("each", "record", "expected"),
    [
        ("items", raw(b'{"items":[{"amount":"much"}],"beside":1}'), {"items": [{"amount": 5}], "beside": 1}),
        ("a.items", raw(b'{"a":{"items":[{"amount":"much"}]}}'), {"a": {"items": [{"amount": 5}]}}),
        ("a.0", raw(b'{"a":[[{"amount":"much"}]]}'), {"a": [[{"amount": 5}]]}),
        (
            "items",
            raw(b'\xef\xbb\xbf{"items":[{"amount":"much"}]}', headers=((INDEX_HEADER, b"3"),)),
            {"items": [{"amount": 5}]},
        ),
        ("items", raw(b'{"items":[]}', headers=BINARY), {"amount": 5}),
    ],
    ids=["field", "way", "element", "one of several", "binary"],
)
def test_of_a_record_that_may_hold_several_events_the_one_in_it_is_changed(
    each: str, record: RawRecord, expected: object
) -> None:
    topic = Topic("orders", type_default="order.paid", each=each)
    edited = with_data(record, topic, b'{"amount":5}')
    before, after = decode(record, topic, "c"), decode(edited, topic, "c")
    assert isinstance(before, Decoded)
    assert isinstance(after, Decoded)
    assert (after.envelope, after.data) == (before.envelope, {"amount": 5})
    assert orjson.loads(edited.value or b"") == expected
    assert edited._replace(value=None) == record._replace(value=None)


ROW = {"after": {"id": 7, "status": "new", "ship.to": "here"}, "before": None, "after.id": 8}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"op": "u"}, {**ROW, "op": "u"}),
        ({"after.status": "paid"}, {**ROW, "after": {**ROW["after"], "status": "paid"}}),  # type: ignore[dict-item]
        ({"after.amount": 5}, {**ROW, "after": {**ROW["after"], "amount": 5}}),  # type: ignore[dict-item]
        ({"after.ship.to": "there"}, {**ROW, "after": {**ROW["after"], "ship.to": "there"}}),  # type: ignore[dict-item]
        ({"after.id": 9}, {**ROW, "after.id": 9}),
        ({"before": {}, "before.id": 7}, {**ROW, "before": {"id": 7}}),
    ],
    ids=["field", "within", "new within", "with a dot within", "with a dot", "one after the other"],
)
def test_a_field_is_changed_where_its_name_says(changes: dict[str, object], expected: object) -> None:
    before = orjson.dumps(ROW)
    assert orjson.loads(changed(3, ROW, changes, add=True)) == expected
    assert orjson.dumps(ROW) == before


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("befor", "Did you mean 'before'?"),
        ("after.statsu", "Did you mean 'status'?"),
        ("op", "Known are 'after', 'before' and 'after.id'."),
    ],
)
def test_a_field_that_the_data_has_not_is_only_put_in_where_that_is_said(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as raised:
        changed(3, ROW, {"before": 1, name: 7})
    assert str(raised.value) == (
        f"The data of dead letter 3 has no field {name!r}. {meant} Nothing was changed: to have a new one put in, say "
        "--add, too."
    )
    assert changed(3, ROW, {"before": 1}) == orjson.dumps({**ROW, "before": 1})


@pytest.mark.parametrize(
    ("data", "changes", "said"),
    [
        (ROW, {"before.id": 7}, "'before.id' is no field within 'before', which has none in the data of"),
        (
            ROW,
            {"after.id.low": 7},
            "'after.id.low' is no field within 'after.id', which has none in the data of",
        ),
        (
            ROW,
            {"afer.id": 7},
            "The data of dead letter 3 has no field 'afer' for 'afer.id'. Did you mean 'after'?",
        ),
        (ROW, {"after.": 7}, "'after.' names no field"),
        ([ROW], {"op": 7}, "The data of dead letter 3 is no object with fields"),
    ],
)
def test_what_is_no_field_says_so(data: object, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        changed(3, data, changes)
    assert said in str(raised.value)
    assert "--data" in str(raised.value)
