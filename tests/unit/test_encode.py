"""What is published can be read again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from tests.records import event

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None)  # on a busy machine its time varies
@given(
    names, names, names, st.one_of(st.none(), names), st.dictionaries(st.text(max_size=3), st.integers(0, 9))
)
def test_an_encoded_event_is_decoded_as_it_was(
    event_id: str, source: str, event_type: str, subject: str | None, data: dict[str, Any]
) -> None:
    time = datetime(2024, 5, 1, 12, 0, 0, 7, timezone(timedelta(hours=-3)))
    value = encode_structured(
        id=event_id,
        source=source,
        type=event_type,
        data=orjson.dumps(data),
        subject=subject,
        time=time,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        causation_id="cause",
    )
    found = event(value, *STRUCTURED_HEADERS)
    envelope = found.envelope
    assert (envelope.id, envelope.source, envelope.type) == (event_id, source, event_type)
    assert (envelope.subject, envelope.time) == (subject, time)
    assert envelope.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert envelope.attributes == {"causationid": "cause"}
    assert found.data == data


def test_what_is_not_given_is_left_out() -> None:
    value = encode_structured(id="1", source="/s", type="t", data=None)
    assert orjson.loads(value) == {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def test_data_is_taken_as_it_is() -> None:
    number = b"1" * 300
    assert b'"data":' + number in encode_structured(id="1", source="/s", type="t", data=number)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_structured(id="\ud800", source="/s", type="t", data=b"{}")
