"""The one form in which people read how long something takes: in pictures, policies, and what explains them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from statemachines import Defer, Event, OrderBy, Pipeline
from statemachines.diagram import to_mermaid
from statemachines.durations import told_duration, told_time
from statemachines.testkit import given
from tests.unit.mistaken import Begun, Empty, build

LONG = timedelta(days=1, hours=2, minutes=30)


class Counted(Event, type="counted", key="name"):
    name: str
    number: int


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (timedelta(0), "0 s"),
        (timedelta(days=1), "1 d"),
        (timedelta(hours=1), "1 h"),
        (LONG, "1 d 2 h 30 min"),
        (timedelta(seconds=1.5), "1.5 s"),
        (timedelta(microseconds=1), "1e-06 s"),
    ],
)
def test_a_duration_is_told_in_its_units(duration: timedelta, told: str) -> None:
    assert told_duration(duration) == told


def test_pictures_and_policies_tell_durations_in_the_same_form() -> None:
    flow = Pipeline("told", Empty, topics=["things"])
    here, there = flow.state("here", initial=True), flow.state("there", final=True)
    flow.start(Begun, build)
    here.on(Counted, to=there, when=lambda _context, counted: counted.number > 7)
    here.after(LONG, to=there)
    here.policy(Counted, unexpected=Defer(LONG))
    flow.policy(Counted, order_by=OrderBy("number", contiguous=True, gap=Defer(LONG)))
    picture = to_mermaid(flow)
    assert "after 1 d 2 h 30 min" in picture
    assert "defer 1 d 2 h 30 min" in picture
    case = given(flow, Begun(name="a")).when(Counted(name="a", number=1)).then_deferred()
    assert case.outcome is not None
    assert "defer for 1 d 2 h 30 min, then" in case.outcome.policy  # type: ignore[union-attr]
    late = given(flow, Begun(name="a")).when(Counted(name="a", number=2))
    assert "gap=1 d 2 h 30 min, then" in late.outcome.policy  # type: ignore[union-attr]


def test_a_moment_is_told_in_one_form_whatever_its_zone_is() -> None:
    noon = datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    for at in (noon, noon.astimezone(timezone(timedelta(hours=5, minutes=30)))):
        assert told_time(at) == "2026-03-01T12:00:00Z"
