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
    seen: set[str] = field(default_factory=set)
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

    def take(self, place: Place, event: dict[str, Any]) -> None:
        """The next event of its partition."""
        kind, number = event["type"], event["id"]
        trip = self._last(event)
        if number in trip.seen or any(number == one["id"] for _, one in trip.waits):
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
        if trip.state in ENDED:
            # It is taken as if there were none; what was seen stays so.
            following = ExpectedTrip(trip.generation + 1, seen=trip.seen)
            trip = self.trips[event["data"]["trip"], following.generation] = following
        if self._takes(trip, place, event):
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
            for place, event in trip.waits:
                if event["type"] == "trip.lost":
                    self._becomes(place, "dead-lettered", "waited too long")
                else:
                    self._becomes(place, "deferred")
            trip.waits = [(place, event) for place, event in trip.waits if event["type"] != "trip.lost"]

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

    def _takes(self, trip: ExpectedTrip, place: Place, event: dict[str, Any]) -> bool:
        """Whether the trip takes the event now; what that leads to at once, or by time alone, follows."""
        match trip.state, event["type"]:
            case "expected", "trip.booked":
                data = event["data"]
                trip.state = "booked"
                trip.number, trip.station = data["number"], data["station"]
                trip.pay_seconds = data["pay_seconds"]
                trip.say("booked")
                self._becomes(place, "started")
                trip.seen.add(event["id"])
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
            case "under-way", "trip.loaded" if trip.checked and trip.train != "rolling":
                trip.bags += event["data"]["bags"]
                trip.say("loaded")
            case _:
                return False
        trip.seen.add(event["id"])
        self._becomes(place, "applied")
        return True

    def _goes_on(self, trip: ExpectedTrip) -> None:
        """The oldest that waits and is taken by now, again and again; then what the trip has sent to itself."""
        checks = trip.fired["trip.checked"]
        while True:
            taken = next((one for one in trip.waits if self._takes(trip, *one)), None)
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
            # Nothing but time is waited for, and nothing is taken before it is over.
            trip.train, trip.state = "", "arrived"
            trip.fired["after.rolling.0"] += 1
            trip.say("there")
            trip.say("arrived")
            self._closes(trip)

    def _closes(self, trip: ExpectedTrip) -> None:
        onward, trip.waits = trip.waits, []
        for place, event in onward:
            self._offer(place, event)
