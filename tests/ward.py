"""A hospital's ward: who comes is let in by one of several starts, each under a condition, and some by none."""

from __future__ import annotations

from typing import Any

from statemachines import Context, Event, Pipeline, Publish

TOPIC = "ward"


class Came(Event, type="patient.came", key="patient"):
    patient: str = "p1"
    pain: int = 0
    referred: bool = False


class Treated(Event, type="patient.treated", key="patient"):
    patient: str = "p1"


class Patient(Context):
    pain: int = 0
    visits: int = 0
    came_by: str = ""


def urgently(event: Came) -> Patient:
    return Patient(pain=event.pain, came_by="urgently")


def by_letter(event: Came) -> Patient:
    return Patient(pain=event.pain, came_by="by letter")


def hurts(patient: Patient, event: Came) -> bool:
    return patient.pain > 7 and event.meta.address.sequence >= 1


def is_referred(_patient: Patient, event: Came) -> bool:
    return event.referred


def announce(_patient: Patient, event: Came) -> Publish:
    return Publish("announcements", event)


def count(patient: Patient, _event: Came) -> None:
    patient.visits += 1


def ward(*, chart: bool = False, **settings: Any) -> Pipeline[Patient]:
    """Flat, or the same with an entry action, which makes it a chart."""
    flow = Pipeline("ward", Patient, topics=[TOPIC], **settings)
    waiting, bed = flow.state("waiting", initial=True), flow.state("bed")
    home = flow.state("home", final=True)
    flow.start(Came, urgently, to=bed, when=hurts, do=announce)
    flow.start(Came, by_letter, when=is_referred)
    waiting.on(Came, when=hurts, to=bed)
    waiting.on(Came, do=count)
    flow.on(Treated, to=home)
    if chart:
        bed.entry(lambda _patient, _event: None)
    return flow
