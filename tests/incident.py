"""A pipeline with two regions, history, entry actions and raised events: what an incident goes through."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from statemachines import Context, Event, Failed, Pipeline, Publish, Raise, in_state

OUT = "incidents-out"


class Reported(Event, type="incident.reported", key="incident"):
    incident: str
    severity: int = 3


class Taken(Event, type="incident.taken", key="incident"):
    incident: str
    by: str


class Mended(Event, type="incident.mended", key="incident"):
    incident: str


class Told(Event, type="customer.told", key="incident"):
    incident: str


class Suspended(Event, type="incident.suspended", key="incident"):
    incident: str


class Resumed(Event, type="incident.resumed", key="incident"):
    incident: str


class Judged(Event, type="incident.judged", key="incident"):
    incident: str


class Entered(Event, type="incident.entered"):
    state: str


class Escalated(Event, type="incident.escalated"):
    to: str


class Incident(Context):
    severity: int
    owner: str = ""
    notes: list[str] = Field(default_factory=list)
    repaired: dict[str, Any] | None = None


def incident_pipeline(version: int = 1) -> Pipeline[Incident]:
    """Opened, worked on in two regions at once, suspended and resumed where it was, closed when both are done."""
    flow = Pipeline("incident", Incident, version=version, topics=["incidents"])
    active = flow.state("active", initial=True)
    repair, customer = active.region("repair"), active.region("customer")
    queued = repair.state("queued", initial=True)
    work = repair.state("work")
    looking, fixing = work.state("looking", initial=True), work.state("fixing")
    repaired = repair.state("repaired", final=True, output=owner_of)
    back = repair.history("back", deep=True)
    waiting = customer.state("waiting", initial=True)
    told = customer.state("told", final=True)
    suspended = flow.state("suspended")
    closed = flow.state("closed", final=True)

    work.entry(announce)
    work.exit(note("left work"))
    flow.start(Reported, report, do=judge)
    queued.on(Escalated, to=work, when=is_severe, do=escalate)
    queued.on(Taken, to=work, do=assign)
    looking.on(Taken, to=fixing, do=assign)
    work.on(Failed, do=remember_failure)
    work.on(Mended, to=repaired)
    repair.on(repair.done, do=keep_output)
    waiting.on(Told, to=told, when=in_state(repaired))
    waiting.on(Told, do=note("too early"))
    active.on(Suspended, to=suspended)
    suspended.on(Resumed, to=back)
    active.on(active.done, to=closed)
    return flow


def report(event: Reported) -> Incident:
    return Incident(severity=event.severity)


def judge(incident: Incident, event: Reported) -> Raise:
    del incident
    return Raise(Escalated(to=f"on call for {event.incident}"))


def is_severe(incident: Incident, event: Event) -> bool:
    del event
    return incident.severity == 1


def escalate(incident: Incident, event: Escalated) -> None:
    incident.owner = event.to


def assign(incident: Incident, event: Taken) -> Publish:
    incident.owner = event.by
    if event.by == "nobody":
        raise LookupError("there is nobody of that name")
    return Publish(OUT, Escalated(to=event.by))


def announce(incident: Incident, event: Event) -> Publish:
    del event
    incident.notes.append("entered work")
    return Publish(OUT, Entered(state="work"))


def note(word: str) -> Any:
    def noted(incident: Incident, event: Event) -> None:
        del event
        incident.notes.append(word)

    return noted


def remember_failure(incident: Incident, event: Failed) -> None:
    incident.notes.append(f"{event.handler} failed")


def owner_of(incident: Incident, event: Mended) -> dict[str, str]:
    del event
    return {"by": incident.owner}


def keep_output(incident: Incident, event: Any) -> None:
    incident.repaired = event.data
