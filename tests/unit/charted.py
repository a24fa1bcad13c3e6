"""Charts without mistakes, for tests to add one."""

from __future__ import annotations

from typing import Any

from statemachines import Event, Failed, State, in_state
from tests.unit.mistaken import Asked, Ended, Flow, right, state_of, yes

Said = Event.named("said")


def note(_context: Any, _event: Any) -> None: ...


def nested() -> Flow:
    """``open`` leads on to ``box``, which has ``first``, ``second`` and a final state."""
    flow = right()
    box: State[Any] = flow.state("box")
    first, second = box.state("first", initial=True), box.state("second")
    state_of(flow, "open").on(Asked, to=box)
    first.on(Asked, to=second)
    second.on(Asked, to=box.state("finished", final=True, output=lambda _context, _event: 1))
    box.on(box.done, to="done")
    return flow


def parallel() -> Flow:
    """``open`` leads on to ``both``, whose regions ``left`` and ``right`` have two states each."""
    flow = right()
    both: State[Any] = flow.state("both")
    for side in ("left", "right"):
        region = both.region(side)
        region.state(f"{side}-on", initial=True).on(Asked, to=f"{side}-off")
        region.state(f"{side}-off", final=True)
    state_of(flow, "open").on(Asked, to=both)
    both.on(both.done, to="done")
    return flow


def with_histories() -> Flow:
    flow = parallel()
    both, away = state_of(flow, "both"), flow.state("away")
    both.on(Said, to=away)
    away.on(Said, to=both.history("all", deep=True))
    state_of(flow, "left").history("last", default="left-off", do=note)
    away.on(Ended, to=["last", "right-on"])
    away.on(Asked, to=both.history("either", default=["left-off", "right-off"]))
    return flow


def with_guards_and_eventless() -> Flow:
    flow = parallel()
    flow.on(Failed, to="done")
    state_of(flow, "right-on").on(Said, to="right-off", when=in_state("left-off"))
    both, route = state_of(flow, "both"), flow.state("route")
    both.on(Said, to=route, reenter=True)
    route.always(to=["left-on", "right-off"], when=yes)
    route.always(to=both, do=note)
    both.entry(note)
    both.exit(note)
    return flow


def beginning_further_inside() -> Flow:
    flow = nested()
    outer = flow.state("outer")
    outer.state("rest").on(Asked, to=outer)
    inner = outer.state("inner")
    inner.state("deep").on(Asked, to="rest")
    inner.initially("deep", do=note)
    outer.initially("deep")
    state_of(flow, "open").on(Said, to=outer)
    inner.on(Ended, to=inner, reenter=True)
    outer.on(Said, to="done")
    return flow
