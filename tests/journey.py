"""A pipeline in which time passes, events come too early, and a run sends events to itself and to another one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Cancel, Out, Publish, Send
from statemachines.events import Event
from statemachines.policies import Defer

TOPIC = "journeys"
PAY_WITHIN = timedelta(minutes=5)
REMIND_AFTER = timedelta(minutes=2)
LATEST = timedelta(days=2)


class Booked(Event, type="journey.booked", key="journey"):
    journey: str
    hours: int = 1


class Paid(Event, type="journey.paid", key="journey"):
    journey: str


class Boarded(Event, type="journey.boarded", key="journey"):
    journey: str


class Arrived(Event, type="journey.arrived", key="journey"):
    journey: str


class Checked(Event, type="journey.checked"):
    """Sent to itself."""

    times: int


class Reminded(Event, type="journey.reminded"):
    """Sent to itself, later, unless it is called off."""


class Counted(Event, type="ledger.counted", key="ledger"):
    ledger: str
    journey: str


class Journey(Context):
    hours: int
    notes: list[str] = Field(default_factory=list)


class Ledger(Context):
    journeys: list[str] = Field(default_factory=list)


def book(event: Booked) -> Journey:
    return Journey(hours=event.hours)


def remind_later(_journey: Journey, _event: Booked) -> Out:
    return Send(Reminded(), after=REMIND_AFTER, id="reminder")


def remind(journey: Journey, event: Reminded) -> Out:
    journey.notes.append("reminded")
    return Publish("letters", event)


def pay(journey: Journey, _event: Paid) -> Out:
    journey.notes.append("paid")
    return [Cancel("reminder"), Send(Checked(times=1))]


def check(journey: Journey, event: Checked) -> Out:
    journey.notes.append(f"checked {event.times}")
    return Send(Checked(times=event.times + 1)) if event.times < 3 else None


def was_checked(_journey: Journey, event: Checked) -> bool:
    return event.times == 3


def duration(journey: Journey) -> timedelta:
    return timedelta(hours=journey.hours)


NOTED = "noted"
"""None: to note anything fails."""


def note(word: str) -> Callable[[Journey, Event], None]:
    def noted(journey: Journey, _event: Event) -> None:
        assert NOTED is not None, "there is nothing to note it on"
        journey.notes.append(word)

    return noted


def count(_journey: Journey, event: Arrived) -> Out:
    return Send(Counted(ledger="all", journey=event.journey), to="all", pipeline="ledger")


def add(ledger: Ledger, event: Counted) -> None:
    ledger.journeys.append(event.journey)


def journey_pipeline() -> Pipeline[Journey]:
    """Booked, paid within five minutes, checked three times by itself, boarded, late or not, and arrived."""
    flow = Pipeline("journey", Journey, topics=[TOPIC], no_run=Defer(timedelta(minutes=10)), closed="restart")
    booked = flow.state("booked", initial=True)
    paid = flow.state("paid")
    ready = flow.state("ready")
    aboard = flow.state("aboard")
    late = flow.state("late")
    arrived = flow.state("arrived", final=True)
    lapsed = flow.state("lapsed", final=True)
    flow.start(Booked, book, do=remind_later)
    booked.on(Reminded, do=remind)
    booked.on(Paid, to=paid, do=pay)
    booked.after(PAY_WITHIN, to=lapsed, do=note("lapsed"))
    paid.on(Checked, to=ready, when=was_checked, do=check)
    paid.on(Checked, do=check)
    ready.on(Boarded, to=aboard, do=note("boarded"))
    aboard.after(duration, to=late, do=note("late"))
    aboard.on(Arrived, to=arrived, do=count)
    late.on(Arrived, to=arrived, do=count)
    flow.after(LATEST, to=lapsed, do=note("given up"))
    return flow


def ledger_pipeline() -> Pipeline[Ledger]:
    """All journeys that have ended; runs begin by themselves."""
    flow = Pipeline("ledger", Ledger, topics=["ledgers"], no_run="start")
    open_ = flow.state("open", initial=True)
    open_.on(Counted, do=add)
    return flow
