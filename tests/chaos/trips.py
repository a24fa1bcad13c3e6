"""Pipelines in which time passes, and events come too early, while everything around them is killed.

``trip`` has regions, a history, timers and events to itself; what does not fit yet waits, and one that has ended may be
booked again. Some of its events are in order, without a gap, and some are known by a business key. ``station`` has runs
that begin when a trip that has arrived tells them so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from statemachines import Context, Event, OrderBy, Pipeline, Publish, in_state
from statemachines.effects import Cancel, Out, Send
from statemachines.policies import Defer
from tests.chaos.parcels import SUFFIX

TRIPS = "trips"
STATIONS = "stations"
TRIPS_OUT = "trips-out"
LOST_WITHIN = timedelta(seconds=1)
CHECKS = 3
LATEST = timedelta(hours=6)
GAP_WITHIN = timedelta(seconds=5)
"""Shorter than it may take until another engine goes on; longer than until a transaction is sent again."""
TIPS_COUNT = timedelta(hours=6)
"""For so long a second one of the same is a duplicate: as long as any test lasts."""
WAVES_COUNT = timedelta(seconds=1)


class Booked(Event, type="trip.booked", key="trip"):
    trip: str
    number: int
    station: str
    pay_seconds: float
    """Then it lapses, and after half of them the trip is reminded."""
    ride_seconds: float


class Paid(Event, type="trip.paid", key="trip"):
    trip: str


class Boarded(Event, type="trip.boarded", key="trip"):
    trip: str


class Loaded(Event, type="trip.loaded", key="trip"):
    trip: str
    bags: int


class Left(Event, type="trip.left", key="trip"):
    trip: str


class Lost(Event, type="trip.lost", key="trip"):
    """Of trips that never begin."""

    trip: str


class Stamped(Event, type="trip.stamped", key="trip"):
    """One after the other, and what comes too early waits for a day."""

    trip: str
    number: int


class Scanned(Event, type="trip.scanned", key="trip"):
    """The same, but it waits for seconds only."""

    trip: str
    number: int


class Fined(Event, type="trip.fined", key="trip"):
    """Once for each ticket, for ever."""

    trip: str
    ticket: str


class Tipped(Event, type="trip.tipped", key="trip"):
    """Once for each ticket, for hours; and before it is paid a trip ignores it."""

    trip: str
    ticket: str


class Waved(Event, type="trip.waved", key="trip"):
    """Once for each ticket, for a second."""

    trip: str
    ticket: str


class Checked(Event, type="trip.checked"):
    """Sent by a trip to itself, at once."""

    times: int


class Reminded(Event, type="trip.reminded"):
    """Sent by a trip to itself, later, unless it is called off."""


class Visited(Event, type="station.visited", key="station"):
    """Sent by a trip to a station."""

    station: str
    trip: str
    number: int


class Told(Event, type="trip.told"):
    """What a trip says of itself."""

    trip: str
    what: str
    told: int
    bags: int


class Counted(Event, type="station.counted"):
    """What a station says with each visit."""

    station: str
    visits: int
    total: int


class Trip(Context):
    trip: str
    number: int
    station: str
    pay_seconds: float
    ride_seconds: float
    told: int = 0
    bags: int = 0
    weighed: int = 0


class Station(Context):
    visits: int = 0
    total: int = 0


def say(trip: Trip, what: str) -> Publish:
    trip.told += 1
    return Publish(TRIPS_OUT + SUFFIX, Told(trip=trip.trip, what=what, told=trip.told, bags=trip.bags))


def tell(what: str) -> Callable[[Trip, Event], Out]:
    def told(trip: Trip, _: Event) -> Out:
        return say(trip, what)

    return told


def book(event: Booked) -> Trip:
    return Trip(
        trip=event.trip,
        number=event.number,
        station=event.station,
        pay_seconds=event.pay_seconds,
        ride_seconds=event.ride_seconds,
    )


def remind_later(trip: Trip, _: Booked) -> Out:
    return [say(trip, "booked"), Send(Reminded(), after=timedelta(seconds=trip.pay_seconds / 2), id="remind")]


def pay(trip: Trip, _: Paid) -> Out:
    return [say(trip, "paid"), Cancel("remind"), Send(Checked(times=1))]


def check(trip: Trip, event: Checked) -> Out:
    said = say(trip, f"checked {event.times}")
    return [said, Send(Checked(times=event.times + 1))] if event.times < CHECKS else said


def weigh(trip: Trip, _: Event) -> None:
    trip.weighed += 1


def is_weighed_twice(trip: Trip, _: Event) -> bool:
    return trip.weighed == 2


def is_last(_: Trip, event: Checked) -> bool:
    return event.times == CHECKS


def load(trip: Trip, event: Loaded) -> Out:
    trip.bags += event.bags
    return say(trip, "loaded")


def count_off(trip: Trip, event: Stamped | Scanned) -> Out:
    return say(trip, f"{event.meta.type} {event.number}")


def take_ticket(trip: Trip, event: Fined | Tipped | Waved) -> Out:
    return say(trip, f"{event.meta.type} {event.ticket}")


def visit(trip: Trip, _: Event) -> Out:
    visited = Visited(station=trip.station, trip=trip.trip, number=trip.number)
    return [say(trip, "arrived"), Send(visited, to=trip.station, pipeline="station")]


def pay_within(trip: Trip) -> timedelta:
    return timedelta(seconds=trip.pay_seconds)


def ride(trip: Trip) -> timedelta:
    return timedelta(seconds=trip.ride_seconds)


def count(station: Station, event: Visited) -> Out:
    station.visits += 1
    station.total += event.number
    counted = Counted(station=event.station, visits=station.visits, total=station.total)
    return Publish(TRIPS_OUT + SUFFIX, counted)


trip = Pipeline("trip", Trip, version=1, topics=[TRIPS + SUFFIX], no_run="defer", closed="restart")
trip.policy(Lost, no_run=Defer(LOST_WITHIN))
trip.policy(Stamped, order_by=OrderBy("number", contiguous=True))
trip.policy(Scanned, order_by=OrderBy("number", contiguous=True, gap=Defer(GAP_WITHIN)))
trip.policy(Fined, duplicate_by="ticket")
trip.policy(Tipped, duplicate_by="ticket", duplicate_for=TIPS_COUNT)
trip.policy(Waved, duplicate_by="ticket", duplicate_for=WAVES_COUNT)
trip.start(Booked, book, do=remind_later)
booked = trip.state("booked", initial=True)
under_way = trip.state("under-way")
train, luggage = under_way.region("train"), under_way.region("luggage")
waiting = train.state("waiting", initial=True)
aboard = train.state("aboard")
rolling = train.state("rolling")
there = train.state("there", final=True)
desk, aside = luggage.state("desk", initial=True), luggage.state("aside")
queue, scales = desk.state("queue", initial=True), desk.state("scales")
back = desk.history("back", default=queue)
checked = luggage.state("checked")
sealed = luggage.state("sealed", final=True)
arrived = trip.state("arrived", final=True)
lapsed = trip.state("lapsed", final=True)
booked.on(Reminded, do=tell("reminded"))
booked.on(Paid, to=under_way, do=pay)
booked.policy(Tipped, unexpected="ignore")
booked.after(pay_within, to=lapsed, do=tell("lapsed"))
waiting.on(Boarded, to=aboard, do=tell("boarded"))
aboard.on(Left, to=rolling, do=tell("left"))
rolling.after(ride, to=there, do=tell("there"))
queue.on(Checked, to=scales, do=check)
scales.entry(weigh)
scales.on(Checked, to=aside, do=check)
# Who has forgotten where the luggage was before has it queue again, and it is never checked.
aside.on(Checked, to=back, when=is_last, do=check)
scales.always(to=checked, when=is_weighed_twice)
checked.on(Loaded, do=load)
checked.on(Stamped, do=count_off)
checked.on(Scanned, do=count_off)
checked.on(Fined, do=take_ticket)
checked.on(Tipped, do=take_ticket)
checked.on(Waved, do=take_ticket)
checked.always(to=sealed, when=in_state(rolling))
under_way.on(under_way.done, to=arrived, do=visit)
trip.on(Lost)
trip.after(LATEST, to=lapsed, do=tell("given up"))

station = Pipeline("station", Station, version=1, topics=[STATIONS + SUFFIX], no_run="start")
open_ = station.state("open", initial=True)
open_.on(Visited, do=count)
