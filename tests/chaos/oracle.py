"""What must have become of the records of a feed, by a plain dictionary; no code of the engine.

It is given what a reader of committed records finds in the topics, in the order of each partition, so it need
not know which transactions were aborted or done twice.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.parcels import CHATTER, HEAVY_GRAMS, PARCELS
from tests.chaos.trip_oracle import TripOracle
from tests.chaos.trips import TRIPS

KNOWN = {
    "parcel": {"parcel.opened", "parcel.weighed", "parcel.stopped", "parcel.resumed", "parcel.closed"},
    "ledger": {"parcel.opened", "parcel.weighed", "parcel.closed"},
    "journey": {"parcel.opened", "parcel.weighed", "parcel.stopped", "parcel.resumed", "parcel.closed"},
}
READERS = {PARCELS: ("parcel", "ledger", "journey"), CHATTER: ("ledger",), TRIPS: ("trip",)}
MOVES = {
    "parcel": {
        ("going", "parcel.weighed"): "going",
        ("going", "parcel.stopped"): "standing",
        ("standing", "parcel.resumed"): "going",
        ("going", "parcel.closed"): "done",
    },
    "ledger": {
        ("counting", "parcel.weighed"): "counting",
        ("counting", "parcel.closed"): "summed",
    },
    "journey": {
        ("on-road", "parcel.weighed"): "on-road",
        ("on-road", "parcel.stopped"): "parked",
        ("parked", "parcel.resumed"): "on-road",
        ("on-road", "parcel.closed"): "arrived",
        ("parked", "parcel.closed"): "arrived",
    },
}
INITIAL = {"parcel": "going", "ledger": "counting", "journey": "on-road"}
FINAL = {"done", "summed", "arrived"}
ECHO = b"echo-"
"""How the Kafka keys of events begin that come again in any partition."""


class Found(NamedTuple):
    """A record of a topic, as any reader of committed records finds it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


@dataclass(slots=True)
class Expected:
    """A run as it must be."""

    state: str
    """The outermost one."""
    grams: int = 0
    moves: int = 0
    entries: int = 0
    held: bool = False
    seen: set[str] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)
    heavy: bool = False
    """Of a journey: what its scale shows."""
    remembered: str = ""
    """Of a journey: what its scale showed when it was left last."""

    @property
    def configuration(self) -> str:
        """As it is stored."""
        load = "heavy" if self.heavy else "light"
        text = self.state
        if self.state == "on-road":
            text = f"on-road wheels {'labouring' if self.heavy else 'rolling'} scale {load}"
        return f"{text}  weight 1 {self.remembered}" if self.remembered else text


@dataclass(slots=True)
class Oracle:
    """Runs, dispositions, dead letters and publications that a feed must lead to.

    ``released`` are the keys of runs whose holds are lifted by dropping what held them; for those it makes no
    difference when that happens.
    """

    suffix: str
    released: Collection[str]
    runs: dict[tuple[str, str], Expected] = field(default_factory=dict)
    dispositions: dict[tuple[tuple[str, int, int], str], str] = field(default_factory=dict)
    """(place, pipeline) -> word and reason."""
    dead: dict[tuple[tuple[str, int, int], str | None], str] = field(default_factory=dict)
    """(place, pipeline, None for all) -> reason."""
    out: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    """(pipeline, key) -> (cause, data) of what it publishes, in order."""
    trips: TripOracle = field(init=False)

    def __post_init__(self) -> None:
        self.trips = TripOracle(self.dispositions, self.dead)

    def read(self, records: Iterable[Found]) -> None:
        """Take records in the order of each partition; echoes came when all others were done."""
        for record in sorted(records, key=lambda one: (one.key or b"").startswith(ECHO)):
            self._take(record, record.topic.removesuffix(self.suffix))
        self.trips.end()

    def _take(self, record: Found, topic: str) -> None:
        event = _event(record.value)
        if topic == TRIPS:
            assert event is not None, "none of them is poison"
            self.trips.take(record.place, event)
            return
        if event is None or not any(event["type"] in KNOWN[name] for name in READERS[topic]):
            if event is not None and topic == CHATTER:
                for name in READERS[topic]:
                    self.dispositions[record.place, name] = "ignored"
                return
            self.dead[record.place, None] = "unreadable" if event is None else "unknown type"
            for name in READERS[topic]:
                self.dispositions[record.place, name] = "dead-lettered"
            return
        for name in READERS[topic]:
            if event["type"] in KNOWN[name]:
                word, reason = self._apply(name, event)
                self.dispositions[record.place, name] = word
                if reason:
                    self.dead[record.place, name] = reason
            else:
                # Another reader of the topic knows the type.
                self.dispositions[record.place, name] = "ignored"

    def _apply(self, name: str, event: dict[str, Any]) -> tuple[str, str]:
        key, kind, number = event["data"]["parcel"], event["type"], event["id"]
        run = self.runs.get((name, key))
        if run is None:
            if kind != "parcel.opened":
                return _refused(name, "no run")
            run = self.runs[name, key] = Expected(INITIAL[name])
            self._move(name, key, run, event)
            return "started", ""
        if number in run.seen:
            return "duplicate", ""
        if run.held:
            if number in run.waiting:
                return "duplicate", ""
            run.waiting.append(number)
            return "held", ""
        if run.state in FINAL:
            return ("late", "run closed") if name == "parcel" else ("ignored", "")
        if kind == "parcel.weighed" and not isinstance(event["data"]["grams"], int):
            run.held = key not in self.released
            return "dead-lettered", "invalid data"
        target = MOVES[name].get((run.state, kind))
        if target is None:
            return _refused(name, "not accepted")
        before, run.state = run.state, target
        self._move(name, key, run, event)
        if name == "journey":
            self._go_on(key, run, event, before)
        return "applied", ""

    def _go_on(self, key: str, run: Expected, event: dict[str, Any], before: str) -> None:
        """What follows in a journey: it says its load when that becomes heavy, and when it goes on with it."""
        grew = not run.heavy and run.state == "on-road" and run.grams >= HEAVY_GRAMS
        run.heavy = run.heavy or grew
        if before == "on-road" and run.state != "on-road":
            run.remembered = "heavy" if run.heavy else "light"
        resumed = before == "parked" and run.state == "on-road"
        if grew or (resumed and run.heavy):
            said = {"parcel": key, "grams": run.grams}
            self.out.setdefault(("journey", key), []).append((event["id"], said))

    def _move(self, name: str, key: str, run: Expected, event: dict[str, Any]) -> None:
        run.seen.add(event["id"])
        run.moves += 1
        if event["type"] == "parcel.weighed":
            run.grams += event["data"]["grams"]
            run.entries += 1
        data: dict[str, Any] | None = None
        if name == "parcel":
            data = {"parcel": key, "move": run.moves, "grams": run.grams}
        elif run.state == "summed":
            data = {"parcel": key, "entries": run.entries, "grams": run.grams}
        if data is not None:
            self.out.setdefault((name, key), []).append((event["id"], data))


def _refused(name: str, reason: str) -> tuple[str, str]:
    return ("dead-lettered", reason) if name == "parcel" else ("ignored", "")


def _event(value: bytes | None) -> dict[str, Any] | None:
    try:
        event = json.loads(value or b"")
    except ValueError:
        return None
    return event if isinstance(event, dict) and "id" in event and "type" in event else None
