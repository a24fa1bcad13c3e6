"""Handlers are called once for an event, also where an action of a flat pipeline asks for more than publications."""

from __future__ import annotations

from pydantic import Field

from statemachines import Context, Event, Pipeline, Publish, Raise, Send
from statemachines.effects import Out
from statemachines.testkit import given

TAKEN = 2
"""How often the test kit has each event taken, to see that the outcome is the same."""


class Begun(Event, type="begun"):
    items: list[int] = Field(default_factory=lambda: [1, 2, 3])


class Listed(Event, type="listed"):
    items: list[int] = Field(default_factory=lambda: [1, 2, 3])


class Own(Event, type="own"):
    pass


class Log(Context):
    words: list[str] = Field(default_factory=list)


def take(log: Log, event: Begun | Listed) -> Out:
    log.words.append(f"took {event.items.pop()}")
    return Send(Own())


def hear(log: Log, _event: Own) -> None:
    log.words.append("heard")


def test_an_action_that_sends_is_called_once_with_the_event_as_it_came() -> None:
    flow = Pipeline("once", Log, topics=["t"])
    here, there = flow.state("here", initial=True), flow.state("there")
    flow.start(Begun, lambda _: Log())
    asked: list[str] = []

    def never(_log: Log, event: Listed) -> bool:
        asked.append("never")
        event.items.append(4)
        return False

    def always(_log: Log, event: Listed) -> bool:
        asked.append("always")
        return event.items[-1] == 4

    here.on(Listed, to=here, when=never)
    here.on(Listed, to=there, when=always, do=take)
    flow.on(Own, do=hear)
    case = given(flow, Begun()).when(Listed())
    case.then(state="there", context={"words": ["took 4", "heard"]})
    assert asked == ["never", "always"] * TAKEN


def test_a_start_that_sends_builds_and_acts_once() -> None:
    built: list[int] = []

    def make(event: Begun) -> Log:
        built.append(event.items.pop())
        return Log()

    flow = Pipeline("once", Log, topics=["t"])
    flow.state("here", initial=True).on(Own, do=hear)
    flow.start(Begun, make, do=take)
    given(flow).when(Begun()).then(state="here", context={"words": ["took 2", "heard"]})
    assert built == [3] * TAKEN


def test_what_is_raised_and_published_on_the_way_comes_once() -> None:
    flow = Pipeline("once", Log, topics=["t"])
    here, there = flow.state("here", initial=True), flow.state("there")
    flow.start(Begun, lambda _: Log())

    def act(log: Log, event: Listed) -> Out:
        log.words.append(f"took {event.items.pop()}")
        return [Publish("out", Own(), "k"), Raise(Own())]

    here.on(Listed, to=there, do=act)
    there.on(Own, to=here, do=hear)
    case = given(flow, Begun()).when(Listed())
    case.then(state="here", context={"words": ["took 3", "heard"]}, publishes=[Publish("out", Own(), "k")])
