"""A pipeline in which all goes wrong that can go wrong by itself, in the same way each time."""

from __future__ import annotations

from datetime import timedelta

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Out, Send
from statemachines.events import Event
from statemachines.policies import Defer

TOPIC = "errands"
SOON = timedelta(minutes=1)
AT_LAST = timedelta(minutes=2)
WAITS_FOR = timedelta(minutes=10)


class Given(Event, type="errand.given", key="errand"):
    errand: str


class Begun(Event, type="errand.begun", key="errand"):
    errand: str


class Stumbled(Event, type="errand.stumbled", key="errand"):
    """Waits until the errand has begun, and fails then."""

    errand: str


class Remembered(Event, type="errand.remembered"):
    """Sent to itself; nothing takes it while the errand goes on."""


class Forgotten(Event, type="errand.forgotten", key="errand"):
    """Nothing ever takes it but an errand that is lost."""

    errand: str


class Errand(Context):
    steps: int = 0


def fall(_errand: Errand, _event: Event) -> None:
    raise ValueError("it fell")


def remember(errand: Errand, _event: Begun) -> Out:
    errand.steps += 1
    return [Send(Remembered()), Send(Remembered(), after=SOON)]


def errand(*, steps: int = 1, soon: timedelta = SOON) -> Pipeline[Errand]:
    """given -> going -> given up, or lost on the way."""

    def counted(errand: Errand, _event: Event) -> None:
        errand.steps += steps

    flow = Pipeline("errand", Errand, topics=[TOPIC], unexpected=Defer(WAITS_FOR))
    given = flow.state("given", initial=True)
    going = flow.state("going")
    tired = flow.state("tired")
    lost = flow.state("lost", final=True)
    flow.start(Given, lambda _event: Errand())
    given.on(Begun, to=going, do=remember)
    going.on(Stumbled, do=fall)
    going.after(AT_LAST, do=fall)
    going.after(AT_LAST + soon, to=tired, do=counted)
    tired.on(Forgotten, to=lost)
    tired.on(Remembered)
    return flow
