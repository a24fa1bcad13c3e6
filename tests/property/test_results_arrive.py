"""What became of an attempt is put together as an arrival, and equal to what is read from its record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.encode import encode_structured
from connectors.source import RawRecord
from engine.batch.inside import inner_arrival, result_arrival
from engine.publications import source_of
from engine.routing import Loaded, Route, make_routes
from statemachines import Context, Event, Pipeline
from statemachines.events import OUTCOMES
from statemachines.machine import compile_pipeline

START = datetime(2026, 1, 1, tzinfo=UTC)


class Begun(Event, type="begun"):
    pass


class Nothing(Context):
    pass


def route() -> Route:
    flow = Pipeline("done", Nothing, topics=["begun"])
    flow.state("open", initial=True)
    flow.start(Begun, lambda event: Nothing())
    [found] = make_routes([Loaded(compile_pipeline(flow, namespace="shop"), 1, 1)], {})["begun"].routes
    return found


ROUTE = route()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2), "summer")])


@given(
    key=TEXTS,
    kind=st.sampled_from(OUTCOMES),
    said=VALUES,
    later=st.integers(0, 10**14),
    zone=ZONES,
    by=st.sampled_from([{}, {"who": "ann", "why": "it was"}]),
)
def test_it_is_what_its_record_says(
    key: str, kind: str, said: Any, later: int, zone: timezone, by: dict[str, str]
) -> None:
    at = (START + timedelta(microseconds=later)).astimezone(zone)
    data = {"execution": "3.1", "attempt": 2, "data": said}
    made = result_arrival(ROUTE, key, "0b1c/2/done", f"{kind}charge", data, at, by)
    assert isinstance(made.record, RawRecord)
    assert made.record.value == encode_structured(
        id="0b1c/2/done",
        source=source_of("shop", "done"),
        type=f"{kind}charge",
        subject=key,
        time=at,
        data=orjson.dumps(data),
        said_by=by,
    )
    read = inner_arrival(ROUTE, key, made.record)
    assert made == read
    # Times of different zones are equal, too.
    assert repr(made.decoded) == repr(read.decoded)
    assert made.decoded.data == data
    assert made.delayed is not None


def test_data_are_its_own_each_time() -> None:
    """A result that is taken again must not be seen as a handler has left it."""
    data = {"execution": "3.1", "attempt": 1, "data": {"list": [1]}}
    made = result_arrival(ROUTE, "k", "id/1/done", "done.step.charge", data, START)
    made.decoded.data["data"]["list"].append(2)
    assert data == {"execution": "3.1", "attempt": 1, "data": {"list": [1]}}
