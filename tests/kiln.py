"""A chart that says most of what the language has words for: a kiln that is loaded, fired and cooled.

It is there for its identity: its hashes are in ``tests/unit/golden_hashes.json``, and must be the same on every Python.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from statemachines import (
    Context,
    Defer,
    Event,
    Failed,
    OrderBy,
    Pipeline,
    Publish,
    Raise,
    Searchable,
    Send,
    Topic,
    has_tag,
    in_state,
)


class Ordered(Event, type="kiln.ordered", key="kiln"):
    kiln: str
    until: datetime
    degrees: int = 980


class Measured(Event, type="kiln.measured", key="kiln"):
    kiln: str
    number: int
    degrees: int


class Fired(Event, type="kiln.fired", key="kiln"):
    kiln: str


class Opened(Event, type="door.opened", key="door.kiln"):
    door: dict[str, str]


class Checked(Event, type="kiln.checked"):
    pass


class Kiln(Context):
    until: datetime
    wanted: int
    degrees: Annotated[int, Searchable()] = 20
    notes: list[str] = Field(default_factory=list)


def order(event: Ordered) -> Kiln:
    return Kiln(until=event.until, wanted=event.degrees)


def note(word: str) -> Any:
    def noted(kiln: Kiln, event: Event) -> None:
        kiln.notes.append(f"{word} {event.meta.type}")

    return noted


def measure(kiln: Kiln, event: Measured) -> Raise:
    kiln.degrees = event.degrees
    return Raise(Checked())


def is_hot(kiln: Kiln, _event: Event) -> bool:
    return kiln.degrees >= kiln.wanted


def remind(kiln: Kiln, _event: Event) -> list[Any]:
    return [Send(Checked(), after=timedelta(minutes=3), id="check"), Publish("kilns-out", Fired(kiln=""))]


def when_ordered(kiln: Kiln) -> datetime:
    return kiln.until


def kiln_of(data: dict[str, Any]) -> str:
    return str(data["door"]["kiln"]).lower()


def said(kiln: Kiln, _event: Event) -> dict[str, Any]:
    return {"degrees": kiln.degrees, "notes": sorted(kiln.notes)}


flow = Pipeline(
    "kiln",
    Kiln,
    topics=[Topic("kilns", each="Records"), "doors"],
    no_run=Defer(timedelta(hours=1), then="ignore"),
    closed="restart",
)
cold, firing = flow.state("cold", initial=True), flow.state("firing", tags=["hot"])
heat, door = firing.region("heat"), firing.region("door")
heating, holding = heat.state("heating"), heat.state("holding")
rising, steady = heating.state("rising", initial=True), heating.state("steady")
fired = heat.state("fired", final=True, output=said)
shut, locked = door.state("shut", initial=True), door.state("locked", final=True)
before = firing.history("before", deep=True, default=["steady", "shut"], do=note("default"))
lately = heat.history("lately", default=holding)
done = flow.state("done", final=True, output=said)

heat.initially("rising", do=note("begins"))
firing.entry(note("entered"))
firing.exit(note("left"))
flow.start(Ordered, order, to=["holding", "shut"], do=remind)
cold.on(Fired, to=before)
cold.on(Opened, to=lately)
cold.on(Measured, to=["steady", "locked"], do=measure)
rising.on(Measured, to=steady, when=is_hot, do=measure)
steady.always(to=holding, when=in_state(locked))
holding.after(timedelta(hours=8), to=fired)
heating.after(when_ordered, to=holding, reenter=True, do=note("late"))
shut.on(Event.named("door.*"), to=locked, when=has_tag("hot"))
heat.on(heat.done, do=note("heat"))
firing.on(Opened, to=cold, do=note("opened"))
firing.on(firing.done, to=done)
flow.on(Failed, to=cold)
flow.after(timedelta(days=30), to=done)
flow.key(Opened, by=kiln_of)
steady.policy(Fired, unexpected="ignore")
firing.policy(unexpected=Defer(timedelta(minutes=10)))
flow.policy(Measured, order_by=OrderBy("number", contiguous=True, scope=("kiln",)))
flow.policy(Fired, duplicate_by=["kiln"], duplicate_for=timedelta(days=7))
