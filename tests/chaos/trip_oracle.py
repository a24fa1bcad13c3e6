"""What must have become of the events of trips, by a plain dictionary; no code of the engine.

A timer and an event that could meet either way are never in one trip: either no payment comes at all, or it is in Kafka
before the time is over (it came in one transaction with the booking, perhaps by another partition), or there are hours
to pay in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.trips import CHECKS

Place = tuple[str, int, int]
ENDED = {"arrived", "lapsed"}
HOURS = 3_600
ORDERED = {"trip.stamped", "trip.scanned"}
"""What is taken one after the other."""
ONCE, FOR_HOURS, FOR_A_MOMENT = "trip.fined", "trip.tipped", "trip.waved"
"""What has a ticket, and how long that counts; no second one comes before the moment is over."""
MARKED = {*ORDERED, ONCE, FOR_HOURS, FOR_A_MOMENT}
DOUBLE, LATER = "doubled within a trip", "doubled by the next trip"
FILLED, LEFT_OPEN = "early, and its gap was filled", "early, and its gap was not filled"
MET = DOUBLE, LATER, FILLED, LEFT_OPEN
"""What a feed is to have some of."""


@dataclass(slots=True)
class Known:
    """What belongs to the key, whichever of its trips took it."""

    ids: set[str] = field(default_factory=set)
    tickets: dict[tuple[str, str], int] = field(default_factory=dict)
    """Those that still count, by type, and of which trip they are."""
    marks: Counter[str] = field(default_factory=Counter)
    """How far what is ordered has come, by type."""


@dataclass(slots=True)
class ExpectedTrip:
    """A trip as it must be; ``expected`` where no event has begun it."""

    generation: int = 0
    state: str = "expected"
    train: str = ""
    checked: bool = False
    bags: int = 0
    number: int = 0
    station: str = ""
    pay_seconds: float = 0
    known: Known = field(default_factory=Known)
    waits: list[tuple[Place, dict[str, Any]]] = field(default_factory=list)
    said: list[tuple[str, int]] = field(default_factory=list)
    """What it says, and how many bags it has then."""
    fired: Counter[str] = field(default_factory=Counter)

    def say(self, what: str) -> None:
        self.said.append((what, self.bags))


@dataclass(slots=True)
class TripOracle:
    """Trips, and what became of their records; ``dispositions`` and ``dead`` are those of all pipelines."""

    dispositions: dict[tuple[Place, str], str]
    dead: dict[tuple[Place, str | None], str]
    trips: dict[tuple[str, int], ExpectedTrip] = field(default_factory=dict)
    """By key and generation."""
    met: Counter[str] = field(default_factory=Counter)
    early: set[Place] = field(default_factory=set)
    """What has left a gap as it came."""

    def take(self, place: Place, event: dict[str, Any]) -> None:
        """The next event of its partition."""
        kind, number = event["type"], event["id"]
        trip = self._last(event)
        if number in trip.known.ids or any(_is_same(event, one) for _, one in trip.waits):
            self._becomes(place, "duplicate")
        elif (
            trip.state not in {"expected", *ENDED}
            and kind == "trip.loaded"
            and not isinstance(event["data"]["bags"], int)
        ):
            # What holds the run is dropped, and makes no difference then.
            self._becomes(place, "dead-lettered", "invalid data")
        else:
            self._offer(place, event)

    def _last(self, event: dict[str, Any]) -> ExpectedTrip:
        key, generation = event["data"]["trip"], 0
        while (key, generation + 1) in self.trips:
            generation += 1
        return self.trips.setdefault((key, generation), ExpectedTrip(generation))

    def _offer(self, place: Place, event: dict[str, Any]) -> None:
        trip = self._last(event)
        if self._is_too_late(trip, place, event):
            return
        if trip.state in ENDED:
            # It is taken as if there were none; what was seen stays so.
            following = ExpectedTrip(trip.generation + 1, known=trip.known)
            trip = self.trips[event["data"]["trip"], following.generation] = following
        if self._takes(trip, place, event, again=False):
            self._goes_on(trip)
        else:
            trip.waits.append((place, event))

    def end(self) -> None:
        """All events have come: what rests on time alone happens, and what waits still does so for a day."""
        for trip in [*self.trips.values()]:
            if trip.state == "booked" and trip.pay_seconds < HOURS:
                trip.fired += Counter(["trip.reminded", "after.booked.0"])
                trip.say("reminded")
                trip.say("lapsed")
                trip.state = "lapsed"
                self._closes(trip)
        for trip in self.trips.values():
            waited, trip.waits = trip.waits, []
            for place, event in waited:
                if _is_given_up(trip, event):
                    self._becomes(place, "dead-lettered", "waited too long")
                    self.met[LEFT_OPEN] += place in self.early
                else:
                    self._becomes(place, "deferred")
                    trip.waits.append((place, event))

    def stations(self) -> dict[str, tuple[int, int, set[tuple[str, int]]]]:
        """By key: how many trips arrived there, their numbers added up, and which they are."""
        found: dict[str, tuple[int, int, set[tuple[str, int]]]] = {}
        for (key, _), trip in self.trips.items():
            if trip.state == "arrived":
                visits, total, trips = found.get(trip.station, (0, 0, set()))
                found[trip.station] = (visits + 1, total + trip.number, trips | {(key, trip.number)})
        return found

    def _becomes(self, place: Place, word: str, reason: str = "") -> None:
        self.dispositions[place, "trip"] = word
        if reason:
            self.dead[place, "trip"] = reason

    def _is_too_late(self, trip: ExpectedTrip, place: Place, event: dict[str, Any]) -> bool:
        """Whether another one was taken that means the same, or comes behind it."""
        kind, data = event["type"], event["data"]
        if kind in ORDERED and data["number"] <= trip.known.marks[kind]:
            self._becomes(place, "stale")
            return True
        of = trip.known.tickets.get((kind, data.get("ticket")))
        if of is None:
            return False
        self._becomes(place, "duplicate")
        self.met[DOUBLE if of == trip.generation else LATER] += 1
        return True

    def _takes(self, trip: ExpectedTrip, place: Place, event: dict[str, Any], *, again: bool) -> bool:
        """Whether the trip takes the event now, or it is too late; what that leads to, at once or in time, follows.

        ``again`` says that it has waited.
        """
        if self._is_too_late(trip, place, event):
            return True
        if _leaves_gap(trip, event):
            self.early.add(place)
            return False
        kind, data, is_checked = event["type"], event["data"], trip.checked and trip.train != "rolling"
        word = "applied"
        match trip.state, kind:
            case "expected", "trip.booked":
                trip.state, word = "booked", "started"
                trip.number, trip.station = data["number"], data["station"]
                trip.pay_seconds = data["pay_seconds"]
                trip.say("booked")
            case "booked", "trip.tipped" if not again:
                # It may come again, but counts as seen.
                trip.known.tickets[kind, data["ticket"]] = trip.generation
                self._becomes(place, "ignored")
                return True
            case "booked", "trip.paid":
                trip.state, trip.train = "under-way", "waiting"
                trip.say("paid")
            case "under-way", "trip.boarded" if trip.train == "waiting":
                trip.train = "aboard"
                trip.say("boarded")
            case "under-way", "trip.left" if trip.train == "aboard":
                trip.train = "rolling"
                trip.say("left")
            case "under-way", "trip.loaded" if is_checked:
                trip.bags += data["bags"]
                trip.say("loaded")
            case "under-way", "trip.stamped" | "trip.scanned" if is_checked:
                trip.known.marks[kind] += 1
                self.met[FILLED] += place in self.early
                trip.say(f"{kind} {data['number']}")
            case "under-way", "trip.fined" | "trip.tipped" | "trip.waved" if is_checked:
                trip.say(f"{kind} {data['ticket']}")
            case _:
                return False
        if kind in (ONCE, FOR_HOURS):
            trip.known.tickets[kind, data["ticket"]] = trip.generation
        trip.known.ids.add(event["id"])
        self._becomes(place, word)
        return True

    def _goes_on(self, trip: ExpectedTrip) -> None:
        """The oldest that waits and is taken by now, again and again; then what the trip has sent to itself."""
        checks = trip.fired["trip.checked"]
        while True:
            taken = next((one for one in trip.waits if self._takes(trip, *one, again=True)), None)
            if taken is not None:
                trip.waits.remove(taken)
            elif trip.state == "under-way" and checks < CHECKS:
                checks += 1
                trip.say(f"checked {checks}")
                trip.checked = checks == CHECKS
            else:
                break
        trip.fired["trip.checked"] = checks
        if trip.train == "rolling":
            self._arrives(trip)

    def _arrives(self, trip: ExpectedTrip) -> None:
        """Nothing but time is waited for, and nothing is taken before it is over: so it makes no difference when."""
        trip.train, trip.state = "", "arrived"
        trip.fired["after.rolling.0"] += 1
        trip.say("there")
        trip.say("arrived")
        self._closes(trip)

    def _closes(self, trip: ExpectedTrip) -> None:
        onward, trip.waits = trip.waits, []
        for place, event in onward:
            self._offer(place, event)


def _is_same(event: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether they are one event, by what counts for ever."""
    of_one_ticket = (
        event["type"] == other["type"] == ONCE and event["data"]["ticket"] == other["data"]["ticket"]
    )
    return bool(event["id"] == other["id"] or of_one_ticket)


def _leaves_gap(trip: ExpectedTrip, event: dict[str, Any]) -> bool:
    kind = event["type"]
    return kind in ORDERED and event["data"]["number"] > trip.known.marks[kind] + 1


def _is_given_up(trip: ExpectedTrip, event: dict[str, Any]) -> bool:
    """Whether it waits for seconds only, and for what never comes."""
    return event["type"] == "trip.lost" or (event["type"] == "trip.scanned" and _leaves_gap(trip, event))
