"""A pipeline that says what becomes of its runs when they are cancelled."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Publish
from statemachines.events import Cancelled, Event
from statemachines.policies import Closed, Defer

TOPIC = "parcels"


class Packed(Event, type="parcel.packed", key="parcel"):
    parcel: str


class Sent(Event, type="parcel.sent", key="parcel"):
    parcel: str


class Arrived(Event, type="parcel.arrived", key="parcel"):
    parcel: str


class Returned(Event, type="parcel.returned", key="parcel"):
    parcel: str


class Noted(Event, type="parcel.noted", key="parcel"):
    parcel: str
    text: str = ""


class CalledBack(Event, type="parcel.called_back", key="parcel"):
    parcel: str
    why: str


class Parcel(Context):
    parcel: str
    notes: list[str] = Field(default_factory=list)


BROKEN: set[str] = set()
"""Parcels of which an action fails, for as long as they are in here."""


def note(parcel: Parcel, event: Noted) -> None:
    if event.text == "breaks":
        raise ValueError("the note is lost")
    parcel.notes.append(event.text)


def call_back(parcel: Parcel, event: Cancelled) -> Publish:
    if parcel.parcel in BROKEN:
        raise ValueError("the carrier does not answer")
    parcel.notes.append(f"{event.who}: {event.why}")
    return Publish("carrier", CalledBack(parcel=parcel.parcel, why=event.why))


def leave(parcel: Parcel, _event: Event) -> None:
    parcel.notes.append("left the house")


def come_back(parcel: Parcel, _event: Event) -> None:
    parcel.notes.append("on its way back")


def decline(parcel: Parcel, event: Cancelled) -> None:
    parcel.notes.append(f"{event.who} came too late")


def parcel(*, closed: Closed = "dead_letter", version: int = 1) -> Pipeline[Parcel]:
    """packed -> sent -> arrived; cancelled, it is called back, and it has ended once it is back."""
    flow = Pipeline(
        "parcel", Parcel, version=version, topics=[TOPIC], closed=closed, unexpected=Defer(timedelta(hours=1))
    )
    packed = flow.state("packed", initial=True)
    sent = flow.state("sent")
    handed_over = flow.state("handed_over")
    called_back = flow.state("called_back")
    kept = flow.state("kept", final=True)
    back = flow.state("back", final=True)
    flow.start(Packed, lambda event: Parcel(parcel=event.parcel))
    packed.exit(leave)
    packed.on(Sent, to=sent)
    sent.on(Arrived, to=handed_over)
    sent.after(timedelta(days=3), to=handed_over)
    handed_over.on(Returned, to=kept)
    handed_over.on(Cancelled, do=decline)
    called_back.entry(come_back)
    called_back.on(Returned, to=back)
    flow.on(Noted, do=note)
    flow.on_cancel(to=called_back, do=call_back)
    return flow
