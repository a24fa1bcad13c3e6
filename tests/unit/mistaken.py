"""A pipeline without mistakes, for tests to add one, and how to look at it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from statemachines import Call, Context, Event, Mistake, Pipeline, Step
from statemachines.validation import find_mistakes

Flow = Pipeline[Any]
LONG = "x" * 240


class Empty(Context):
    pass


class Begun(Event, type="begun", key="name"):
    name: str


class Ended(Event, type="ended", key="name"):
    name: str


class Asked(Event, type="asked"):
    pass


def build(_event: Event) -> Any:
    """Of pipelines with other contexts, too, of which none begins a run here."""
    return Empty()


async def awaited(_context: Empty, _event: Event) -> None: ...


def yes(_context: Context, _event: Event) -> bool:
    return True


def no(_context: Context, _event: Event) -> bool:
    return False


def right(name: Any = "right", context: Any = Empty, **settings: Any) -> Flow:
    """A pipeline without mistakes, to which each test adds its own."""
    flow: Flow = Pipeline(name, context, topics=settings.pop("topics", ["things"]), **settings)
    flow.state("open", initial=True).on(Ended, to="done")
    flow.state("done", final=True)
    flow.start(Begun, build)
    return flow


def state_of(flow: Flow, name: str) -> Any:
    return next(state for state in flow.states if state.name == name)


def work(_context: Empty, _call: Call) -> int:
    return 1


def running(function: Any = work, **settings: Any) -> tuple[Flow, Step[Any, Any]]:
    """``open`` runs a step, whose end is taken in whatever way."""
    flow = right()
    step: Step[Any, Any] = flow.step(**settings)(function)
    state_of(flow, "open").run = step
    flow.on(step.done, to="done")
    flow.on_failure(to="done")
    return flow, step


def the_mistake(flow: Flow, severity: str = "error") -> Mistake:
    found = find_mistakes(flow)
    assert len(found) == 1, "\n".join(map(str, found)) or "no mistake was found"
    assert found[0].severity == severity
    return found[0]


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(at for at, line in enumerate(lines) if text in line)
