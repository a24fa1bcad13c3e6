"""Pipelines that note what they are told, and when; some of it in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pydantic import Field

from statemachines import Context, Event, Pipeline
from statemachines.memory import microseconds_of, read_memory
from statemachines.testkit import BEGINNING, Case

MINUTE = timedelta(minutes=1)
NOW = BEGINNING


class Begun(Event, type="begun"):
    number: int = 0


class Go(Event, type="go"):
    pass


class Back(Event, type="back"):
    pass


class Touched(Event, type="touched"):
    pass


class Said(Event, type="said"):
    word: str = ""


class Log(Context):
    at: Any = None
    words: list[str] = Field(default_factory=list)


def say(word: str) -> Callable[[Log, Event], None]:
    def said(log: Log, event: Event) -> None:
        log.words.append(word)

    return said


def heard(log: Log, event: Said) -> None:
    log.words.append(event.word)


def timed(delay: Any = 5 * MINUTE, **settings: Any) -> Pipeline[Log]:
    """``here`` until it is ``late``; ``away`` and back meanwhile."""
    flow = Pipeline("timed", Log, topics=["times"], **settings)
    here, away = flow.state("here", initial=True), flow.state("away")
    flow.start(Begun, lambda _event: Log())
    here.on(Go, to=away)
    away.on(Back, to=here)
    here.on(Touched, do=say("touched"))
    here.after(delay, to=flow.state("late"), do=say("late"))
    flow.on(Said, do=heard)
    return flow


def acting(do: Callable[..., Any], **settings: Any) -> Pipeline[Log]:
    """The same, without a timer; ``go`` does this."""
    flow = Pipeline("acting", Log, topics=["times"], **settings)
    open_, over = flow.state("open", initial=True), flow.state("over", final=True)
    flow.start(Begun, lambda _event: Log())
    open_.on(Go, do=do)
    open_.on(Back, to=over, do=do)
    open_.on(Said, do=heard)
    return flow


def due(case: Case[Any]) -> list[Any]:
    """What is to come, and when after the beginning."""
    assert case.run is not None
    return [(one.type, one.due - microseconds_of(NOW)) for one in read_memory(case.run.memory).delayed]


def micros(delay: timedelta) -> int:
    return delay // timedelta(microseconds=1)
