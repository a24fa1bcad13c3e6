"""A door that opens, is painted and is shut, and events for it that come when they do not fit."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from statemachines import Context, Event, Pipeline


class Made(Event, type="door.made", key="door"):
    door: str = "d1"


class Opened(Event, type="door.opened", key="door"):
    door: str = "d1"


class Painted(Event, type="door.painted", key="door"):
    door: str = "d1"
    coat: int = 1
    side: str = "front"


class Shut(Event, type="door.shut", key="door"):
    door: str = "d1"


class Rung(Event, type="bell.rung", key="door"):
    door: str = "d1"


class Door(Context):
    coats: list[int] = Field(default_factory=list)


def make(_event: Made) -> Door:
    return Door()


def paint(door: Door, event: Painted) -> None:
    door.coats.append(event.coat)


def is_dry(door: Door, _event: Event) -> bool:
    return len(door.coats) != 1


def door_pipeline(**settings: Any) -> Pipeline[Door]:
    """Made, it is closed; opened, it takes paint; shut, it is over, unless there is one coat only."""
    flow = Pipeline("door", Door, topics=["doors"], **settings)
    closed = flow.state("closed", initial=True)
    opened = flow.state("opened")
    over = flow.state("over", final=True)
    flow.start(Made, make)
    closed.on(Opened, to=opened)
    opened.on(Painted, do=paint)
    opened.on(Shut, to=over, when=is_dry)
    closed.on(Shut, to=over)
    closed.on(Rung, do=lambda _door, _event: None)
    return flow


def gallery(**settings: Any) -> Pipeline[Door]:
    """The same door in one region, and a bell beside it that is rung twice."""
    flow = Pipeline("door", Door, topics=["doors"], **settings)
    both = flow.state("both", initial=True)
    door, bell = both.region("door"), both.region("bell")
    closed, opened = door.state("closed", initial=True), door.state("opened")
    quiet, rung = bell.state("quiet", initial=True), bell.state("rung")
    flow.start(Made, make)
    closed.on(Opened, to=opened)
    opened.on(Painted, do=paint)
    quiet.on(Rung, to=rung)
    rung.on(Painted, to=quiet)
    flow.on(Shut, to=flow.state("over", final=True))
    return flow


def state_of(flow: Pipeline[Any], name: str) -> Any:
    return next(state for state in flow.states if state.name == name)
