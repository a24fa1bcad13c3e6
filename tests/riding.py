"""Bookings that are read from a topic, and rides that read none: what comes for these, bookings and operators send."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline, Topic
from statemachines.effects import Out, Send
from statemachines.events import Event
from statemachines.policies import Defer
from statemachines.step import Call

TOPIC = "bookings"


class Booked(Event, type="booking.booked", key="booking"):
    booking: str


class Confirmed(Event, type="booking.confirmed", key="booking"):
    booking: str
    told: str = "wanted"
    """Which of the events of a ride is sent to it."""


class Wanted(Event, type="ride.wanted", key="ride"):
    ride: str
    seconds: float = 3_600
    """Until it is given up, unless it is taken."""


class Taken(Event, type="ride.taken", key="ride"):
    ride: str


class Refused(Event, type="ride.refused", key="ride"):
    ride: str


class Strange(Event, type="ride.strange", key="ride"):
    """Of a type that no ride knows."""

    ride: str


class Booking(Context):
    booking: str


class Ride(Context):
    ride: str
    seconds: float
    paid: str = ""
    seen: list[str] = Field(default_factory=list)


SENT: dict[str, type[Event]] = {"wanted": Wanted, "taken": Taken, "refused": Refused, "strange": Strange}


def book(event: Booked) -> Booking:
    return Booking(booking=event.booking)


def tell(booking: Booking, event: Confirmed) -> Out:
    sent = SENT[event.told].model_validate({"ride": booking.booking})
    return Send(sent, to=booking.booking, pipeline="ride")


def want(event: Wanted) -> Ride:
    return Ride(ride=event.ride, seconds=event.seconds)


def patience(ride: Ride) -> timedelta:
    return timedelta(seconds=ride.seconds)


def refuse(_ride: Ride, _event: Refused) -> None:
    raise ValueError("nobody rides there")


def bookings_on(topic: str) -> Pipeline[Booking]:
    """Booked; each time that it is confirmed, its ride is told."""
    flow = Pipeline("booking", Booking, topics=[topic])
    booked = flow.state("booked", initial=True)
    flow.start(Booked, book)
    booked.on(Confirmed, do=tell)
    return flow


def rides(*topics: Topic | str, version: int = 1) -> Pipeline[Ride]:
    """Wanted, taken and paid for, or given up; one that is cancelled pays nothing."""
    flow = Pipeline("ride", Ride, topics=topics, version=version, no_run=Defer(timedelta(days=1)))

    @flow.step
    async def pay(ride: Ride, call: Call) -> str:
        return f"{ride.ride} {call.attempt}"

    @pay.compensate
    async def pay_back(ride: Ride, made: str | None, call: Call) -> None:
        del ride, made, call

    wanted = flow.state("wanted", initial=True)
    paying = flow.state("paying", run=pay)
    paid = flow.state("paid")
    given_up = flow.state("given-up", final=True)
    cancelled = flow.state("cancelled", final=True)
    flow.start(Wanted, want)
    wanted.on(Taken, to=paying)
    wanted.on(Refused, do=refuse)
    wanted.after(patience, to=given_up)
    paying.on(pay.done, to=paid)
    paid.after(timedelta(days=2), to=given_up)
    flow.on_cancel(to=cancelled, compensate=True)
    return flow
