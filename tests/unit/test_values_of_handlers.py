"""Numbers and times of handlers that cannot be kept: each is an error of the handler, and holds the run."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from statemachines import Context, Event, Pipeline, Publish, Send
from statemachines.outcome import Reason
from statemachines.testkit import given


class Begun(Event, type="begun"):
    pass


class Go(Event, type="go"):
    pass


class Own(Event, type="own"):
    number: Any = 0


class Log(Context):
    heard: str = ""


class WithoutOffset(tzinfo):
    def __repr__(self) -> str:
        # Without its address, which is another one when the action is done once more.
        return type(self).__name__

    def utcoffset(self, _at: datetime | None) -> None:
        return None

    def dst(self, _at: datetime | None) -> None:
        return None

    def tzname(self, _at: datetime | None) -> str:
        return "none"


class Raising(WithoutOffset):
    def utcoffset(self, _at: datetime | None) -> None:
        raise ValueError("no such time")


class RaisingLater(WithoutOffset):
    """It answers once, and raises from then on."""

    def __init__(self) -> None:
        self.asked = 0

    def utcoffset(self, _at: datetime | None) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise ValueError("no such time")
        return timedelta(0)


ZONES = [
    (WithoutOffset, "a "),
    (Raising, "raised ValueError: no such time"),
    (RaisingLater, "raised ValueError: no such time"),
]


def hear(log: Log, event: Own) -> None:
    log.heard = str(event.number)


def acting(act: Any) -> Pipeline[Log]:
    flow = Pipeline("values", Log, topics=["t"])
    here = flow.state("here", initial=True)
    flow.start(Begun, lambda _: Log())
    here.on(Go, do=act)
    here.on(Own, do=hear)
    return flow


@pytest.mark.parametrize(("zone", "saying"), ZONES)
def test_a_time_whose_zone_says_nothing_is_an_error_of_the_action(zone: Any, saying: str) -> None:
    flow = acting(lambda _log, _event: Send(Own(), at=datetime(2026, 4, 1, tzinfo=zone())))
    given(flow, Begun()).when(Go()).then_refused(Reason.ACTION_FAILED, saying=saying, holds=True)


@pytest.mark.parametrize(("zone", "saying"), ZONES)
def test_a_time_whose_zone_says_nothing_is_an_error_of_the_timer(zone: Any, saying: str) -> None:
    flow = Pipeline("values", Log, topics=["t"])
    here, there = flow.state("here", initial=True), flow.state("there")
    flow.start(Begun, lambda _: Log())
    here.on(Go, to=there)
    there.after(lambda _: datetime(2026, 4, 1, tzinfo=zone()), to=here)
    given(flow, Begun()).when(Go()).then_refused(Reason.ACTION_FAILED, saying=saying, holds=True)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, {"within": [10**25]}])
def test_a_number_that_would_not_be_kept_exactly_is_not_sent(number: Any) -> None:
    later = timedelta(minutes=1)
    for effect in (
        Send(Own(number=number)),
        Send(Own(number=number), after=later),
        Send(Own(number=number), "other"),
        Publish("out", Own(number=number), "k", after=later),
    ):
        case = given(acting(lambda _log, _event, effect=effect: effect), Begun()).when(Go())
        case.then_refused(Reason.ACTION_FAILED, saying="a whole number of more than 64 bits", holds=True)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1e300, 0.1234567890123456789, "9" * 40])
def test_any_other_number_comes_as_it_was_sent(number: Any) -> None:
    case = given(acting(lambda _log, _event: Send(Own(number=number))), Begun()).when(Go())
    case.then(context={"heard": str(number)})


def test_an_output_that_would_not_be_kept_exactly_is_an_error() -> None:
    flow = Pipeline("values", Log, topics=["t"])
    here = flow.state("here", initial=True)
    flow.state("there", final=True, output=lambda _log, _event: {"number": 10**30})
    flow.start(Begun, lambda _: Log())
    here.on(Go, to="there")
    case = given(flow, Begun()).when(Go())
    case.then_refused(Reason.ACTION_FAILED, saying="a whole number of more than 64 bits", holds=True)
