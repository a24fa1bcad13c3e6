"""The pipelines that are run while everything around them is killed.

``parcel`` refuses what does not fit and publishes with every move; ``ledger`` reads
the same topic, ignores what does not fit, and reads a second topic that is full of types nobody knows;
``journey`` is a chart over the same events: two regions, an eventless transition, a raised event, and a history.
"""

from __future__ import annotations

import os

from statemachines import Context, Event, Pipeline, Publish, Raise
from statemachines.definition import Topic

SUFFIX = os.environ.get("CHAOS_SUFFIX", "")
"""Tests that share a broker read topics of their own."""
PARCELS = "parcels"
CHATTER = "chatter"
OUT = "parcels-out"


class Opened(Event, type="parcel.opened", key="parcel"):
    parcel: str


class Weighed(Event, type="parcel.weighed", key="parcel"):
    parcel: str
    grams: int


class Stopped(Event, type="parcel.stopped", key="parcel"):
    parcel: str


class Resumed(Event, type="parcel.resumed", key="parcel"):
    parcel: str


class Closed(Event, type="parcel.closed", key="parcel"):
    parcel: str


class Progress(Event, type="parcel.progress"):
    """What ``parcel`` says with every move."""

    parcel: str
    move: int
    grams: int


class Sum(Event, type="ledger.sum"):
    """What ``ledger`` says at the end of a run."""

    parcel: str
    entries: int
    grams: int


class Grew(Event, type="journey.grew"):
    """Raised within ``journey``: what was light is heavy now."""


class Load(Event, type="journey.load"):
    """What ``journey`` says whenever it goes on with a heavy load."""

    parcel: str
    grams: int


class Parcel(Context):
    parcel: str
    moves: int = 0
    grams: int = 0


class Ledger(Context):
    parcel: str
    entries: int = 0
    grams: int = 0


def open_parcel(event: Opened) -> Parcel:
    return Parcel(parcel=event.parcel)


def tell(parcel: Parcel, _: Opened | Stopped | Resumed | Closed) -> Publish:
    parcel.moves += 1
    progress = Progress(parcel=parcel.parcel, move=parcel.moves, grams=parcel.grams)
    return Publish(OUT + SUFFIX, progress)


def weigh(parcel: Parcel, event: Weighed) -> Publish:
    parcel.grams += event.grams
    parcel.moves += 1
    progress = Progress(parcel=parcel.parcel, move=parcel.moves, grams=parcel.grams)
    return Publish(OUT + SUFFIX, progress)


def open_ledger(event: Opened) -> Ledger:
    return Ledger(parcel=event.parcel)


def enter(ledger: Ledger, event: Weighed) -> None:
    ledger.entries += 1
    ledger.grams += event.grams


def sum_up(ledger: Ledger, _: Closed) -> Publish:
    return Publish(OUT + SUFFIX, Sum(parcel=ledger.parcel, entries=ledger.entries, grams=ledger.grams))


parcel = Pipeline("parcel", Parcel, version=1, topics=[PARCELS + SUFFIX], unexpected="dead_letter")
going = parcel.state("going", initial=True)
standing = parcel.state("standing")
done = parcel.state("done", final=True)
parcel.start(Opened, open_parcel, do=tell)
going.on(Weighed, do=weigh)
going.on(Stopped, to=standing, do=tell)
standing.on(Resumed, to=going, do=tell)
going.on(Closed, to=done, do=tell)

ledger = Pipeline(
    "ledger",
    Ledger,
    version=1,
    topics=[PARCELS + SUFFIX, Topic(CHATTER + SUFFIX, unknown="ignore")],
    no_run="ignore",
    unexpected="ignore",
    closed="ignore",
)
counting = ledger.state("counting", initial=True)
summed = ledger.state("summed", final=True)
ledger.start(Opened, open_ledger)
counting.on(Weighed, do=enter)
counting.on(Closed, to=summed, do=sum_up)

HEAVY_GRAMS = 1_000


class Journey(Context):
    parcel: str
    entries: int = 0
    grams: int = 0


def begin_journey(event: Opened) -> Journey:
    return Journey(parcel=event.parcel)


def load(journey: Journey, event: Weighed) -> None:
    journey.entries += 1
    journey.grams += event.grams


def is_heavy(journey: Journey, _: Event) -> bool:
    return journey.grams >= HEAVY_GRAMS


def tell_load(journey: Journey, _: Event) -> list[Publish | Raise]:
    return [Publish(OUT + SUFFIX, Load(parcel=journey.parcel, grams=journey.grams)), Raise(Grew())]


journey = Pipeline(
    "journey",
    Journey,
    version=1,
    topics=[PARCELS + SUFFIX],
    no_run="ignore",
    unexpected="ignore",
    closed="ignore",
)
on_road = journey.state("on-road", initial=True)
wheels, scale = on_road.region("wheels"), on_road.region("scale")
rolling = wheels.state("rolling", initial=True)
labouring = wheels.state("labouring")
light = scale.state("light", initial=True)
heavy = scale.state("heavy")
weight = scale.history("weight")
parked = journey.state("parked")
arrived = journey.state("arrived", final=True)
journey.start(Opened, begin_journey)
on_road.on(Weighed, do=load)
light.always(to=heavy, when=is_heavy)
heavy.entry(tell_load)
rolling.on(Grew, to=labouring)
on_road.on(Stopped, to=parked)
parked.on(Resumed, to=weight)
journey.on(Closed, to=arrived)

PIPELINES = (parcel, ledger, journey)
