"""Random pipelines in which time passes, events wait and runs send themselves some, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from pydantic import Field

from statemachines import Cancel, Context, Defer, Event, OrderBy, Pipeline, Publish, Send
from statemachines.effects import Out

MINUTE = timedelta(minutes=1)
MINUTES = 30
"""How far away timers and ends of deferrals are, at most."""


class Begun(Event, type="begun"):
    number: int = 0


class Red(Event, type="red"):
    number: int = 0


class Green(Event, type="green"):
    number: int = 0


class Blue(Event, type="blue"):
    number: int = 0


KINDS: tuple[type[Event], ...] = (Begun, Red, Green, Blue)


class Log(Context):
    lines: list[str] = Field(default_factory=list)


def begin(event: Begun) -> Log:
    return Log(lines=[f"begun {event.number}"])


Trouble = Callable[[Log], None]
"""What each action begins with; it may raise."""


def no_trouble(_log: Log) -> None:
    """All goes well."""


def action(word: str, effects: tuple[Any, ...], trouble: Trouble = no_trouble) -> Callable[[Log, Event], Out]:
    def act(log: Log, event: Event) -> Out:
        trouble(log)
        log.lines.append(f"{word} {event.meta.type} {(event.meta.now.minute, event.meta.now.second)}")
        # Once in a while only, else runs that send to themselves would never come to rest.
        return list(effects) if len(log.lines) % 3 == 0 else None

    return act


def guard(remainder: int) -> Callable[[Log, Event], bool]:
    return lambda log, _event: len(log.lines) % 3 != remainder


def delay(minutes: int, kind: int) -> Any:
    if kind == 0:
        return MINUTE * minutes
    if kind == 1:
        return lambda log: MINUTE * ((minutes + len(log.lines)) % MINUTES)
    return lambda log: None if len(log.lines) % 2 else MINUTE * minutes


@dataclass(frozen=True)
class Passing:
    """Time that passes between two events."""

    time: timedelta


Happening = Passing | Event


def effects(draw: Random) -> tuple[Any, ...]:
    found: list[Any] = []
    for _ in range(draw.randint(0, 2)):
        event = draw.choice(KINDS[1:])(number=draw.randint(0, 9))
        after = draw.choice([None, MINUTE, 7 * MINUTE])
        found.append(
            draw.choice(
                [
                    Send(event, after=after, id="one"),
                    Send(event, to="other", after=after),
                    Publish("out", event, after=after, id="two"),
                    Cancel("one"),
                    Cancel("two"),
                ]
            )
        )
    return tuple(found)


def deferral(draw: Random) -> Defer:
    return Defer(MINUTE * draw.randint(1, MINUTES), draw.choice(["dead_letter", "ignore"]))


def policies(draw: Random, flow: Pipeline[Log], names: list[str]) -> None:
    for kind in KINDS[1:]:
        what = draw.randint(0, 5)
        if what == 0:
            order = OrderBy("number", scope=(), contiguous=draw.choice([True, False]), gap=Defer())
            flow.policy(kind, order_by=order)
        elif what == 1:
            flow.policy(kind, duplicate_by="number", duplicate_for=MINUTE * 9)
        elif what == 2:
            flow.policy(kind, unexpected=deferral(draw), no_run=draw.choice(["defer", "ignore"]))
    for state in flow.states:
        if state.name in names and not state.final and draw.randint(0, 3) == 0:
            state.policy(
                draw.choice([None, *KINDS[1:]]),
                unexpected=draw.choice(["ignore", "dead_letter", deferral(draw)]),
            )


def transitions(draw: Random, flow: Pipeline[Log], names: list[str], final: str, trouble: Trouble) -> None:
    for name in names:
        state = next(one for one in flow.states if one.name == name)
        for _ in range(draw.randint(1, 3)):
            to = draw.choice([None, *names, final])
            when = guard(draw.randint(0, 3))
            do = action(name, effects(draw), trouble)
            if draw.choice([True, False]):
                reenter = to is not None and draw.choice([True, False])
                state.on(draw.choice(KINDS), to=to, when=when, do=do, reenter=reenter)
            else:
                wait = delay(draw.randint(1, MINUTES), draw.randint(0, 2))
                state.after(wait, to=to, when=when, do=do)
    # Whatever else there is, each state is reached, and each event is taken somewhere.
    for at, name in enumerate(names):
        state = next(one for one in flow.states if one.name == name)
        state.on(KINDS[1 + at % 3], to=[*names, final][at + 1], when=guard(3), do=action(name, (), trouble))


def pipeline_from(draw: Random, trouble: Trouble = no_trouble) -> Pipeline[Log]:
    """A pipeline without mistakes; states in states and regions among its states.

    Not drawn by hypothesis, which would rather have small ones, in which nothing happens.
    """
    flow = Pipeline(
        "random",
        Log,
        topics=["things"],
        no_run=draw.choice(["start", "defer", deferral(draw), "ignore", "dead_letter"]),
        unexpected=draw.choice(["defer", deferral(draw), deferral(draw), "ignore", "dead_letter"]),
        closed=draw.choice(["restart", "restart", "ignore", "dead_letter"]),
    )
    flow.start(Begun, begin)
    names = [f"s{number}" for number in range(draw.randint(2, 4))]
    for number, name in enumerate(names):
        state = flow.state(name, initial=number == 0)
        if draw.choice([True, False]):
            inner = (
                [state.region(f"{name}-left"), state.region(f"{name}-right")]
                if draw.choice([True, False])
                else [state]
            )
            for around in inner:
                own = [f"{around.name}-{end}" for end in "ab"]
                for at, inside in enumerate(own):
                    around.state(inside, initial=at == 0)
                transitions(draw, flow, own, own[0], trouble)
    flow.state("end", final=True, output=lambda log, _event: len(log.lines))
    transitions(draw, flow, names, "end", trouble)
    if draw.choice([True, False]):
        flow.after(MINUTE * draw.randint(1, 60), to="end", do=action("all", ()))
    for kind in KINDS[1:]:
        flow.on(kind, when=lambda log, _event: len(log.lines) % 7 == 6, do=action("any", ()))
    policies(draw, flow, names)
    return flow


def happenings_from(draw: Random) -> list[Happening]:
    """Events and time, beginning with what begins a run, as a rule."""
    found: list[Happening] = [Begun()] if draw.randint(0, 3) else []
    numbers = dict.fromkeys(KINDS, 0)
    for _ in range(draw.randint(10, 30)):
        if draw.randint(0, 3) == 0:
            found.append(Passing(MINUTE * draw.randint(1, MINUTES)))
            continue
        kind = draw.choice(KINDS)
        numbers[kind] += draw.choice([0, 1, 1, 1, 2, -1])
        found.append(kind(number=max(numbers[kind], 0)))
    return found
