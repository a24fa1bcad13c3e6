"""What is published is put together from pieces, and equals what is written plainly."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from engine.outbox import OutRecord
from engine.publications import instant_of, publish
from statemachines.effects import Publication
from statemachines.events import Address, Envelope

AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.just('quote " and \\ and \x7f')
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5))])
TIMES = st.datetimes(AT.replace(year=1971, tzinfo=None), AT.replace(year=2200, tzinfo=None), timezones=ZONES)
PUBLICATIONS = st.lists(
    st.builds(Publication, TEXT, TEXT, TEXT, st.sampled_from([b"{}", b'{"a":1.0}', '{"b":"é"}'.encode()])),
    min_size=1,
    max_size=4,
)
ADDRESSES = st.builds(Address, TEXT, TEXT, TEXT, st.integers(0, 9), st.integers(1, 99_999))
TRACEPARENTS = st.sampled_from(
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "00-a-b-c",
        "00-" + '"' * 32 + "-b-01",
    ]
)


@given(PUBLICATIONS, ADDRESSES, TEXT, TRACEPARENTS, TIMES)
def test_what_is_published_equals_what_is_written_plainly(
    publications: list[Publication], address: Address, cause: str, traceparent: str | None, at: datetime
) -> None:
    envelope = Envelope(cause, "/somebody", "something", None, None, traceparent=traceparent)
    effects, records = publish(publications, address, envelope, instant_of(at))
    assert effects == orjson.dumps(
        [
            {"publish": one.topic, "type": one.type, "key": one.key, "data": orjson.Fragment(one.data)}
            for one in publications
        ]
    )
    assert records == [
        plain_record(one, address.derive(index), address, envelope, at)
        for index, one in enumerate(publications)
    ]


def plain_record(
    one: Publication, number: uuid.UUID, address: Address, cause: Envelope, at: datetime
) -> OutRecord:
    parts = (cause.traceparent or "").split("-")
    goes_on = len(parts) >= 4 and len(parts[1]) == 32 and len(parts[3]) == 2
    trace, flags = (parts[1], parts[3]) if goes_on else (number.hex, "01")
    value = encode_structured(
        id=str(number),
        source=f"/pointsman/{quote(address.namespace)}/{quote(address.pipeline)}",
        type=one.type,
        subject=address.key,
        time=at,
        data=one.data,
        traceparent=f"00-{trace}-{number.hex[16:]}-{flags}",
        causation_id=cause.id,
    )
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return OutRecord(one.topic, one.key.encode(), value, STRUCTURED_HEADERS, milliseconds)


@pytest.mark.parametrize("key", ["\ud800", "fine \udfff"])
def test_a_lone_surrogate_is_not_published(key: str) -> None:
    address = Address("default", "orders", "o-1", 0, 1)
    with pytest.raises(TypeError):
        publish(
            [Publication("out", "t", key, b"{}")],
            address,
            Envelope("1", "/s", "t", None, None),
            instant_of(AT),
        )
