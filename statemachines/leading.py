"""Whether a run that goes on without a step can leave the state that runs it, by the structure of its definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemachines.events import DONE_PREFIX, STEP_DONE, STEP_FAILED, Cancelled, Failed, StepFailed

Structure = Mapping[str, Any]


def leads_on(structure: Structure, state: str) -> bool:
    """Whether a run in this state waits for anything but how its own step ends, and a cancellation.

    Guards are taken to hold. What the state takes, or one around or inside it, is what it waits for, be it that it
    stays there; what the pipeline takes, or another region, must lead out of it. Of a state that is not there it is so,
    too.
    """
    states = {str(one["name"]): one for one in structure["states"]}
    return state not in states or any(_leads_on(move, state, states) for move in structure["moves"])


def _leads_on(move: Structure, state: str, states: Structure) -> bool:
    if not _may_come(str(move["event"]), state, states):
        return False
    source, targets = move["source"], move.get("targets") or [one for one in (move["target"],) if one]
    if source is None:
        return bool(targets)
    if "delay" in move and not targets:
        return False  # it comes once
    beside = _region_beside(source, state, states)
    if beside is None:
        return _is_related(source, state, states)
    return any(beside not in _chain(target, states)[1:] for target in targets)


def _may_come(event: str, state: str, states: Structure) -> bool:
    """Whether an event may come to a run that waits there for no step of that state."""
    if event in (Cancelled.event_type(), Failed.event_type()):
        return False
    if event.startswith(DONE_PREFIX) and event.removeprefix(DONE_PREFIX) in _chain(state, states):
        return False  # of a state around it, which is not done before something has led on
    step = states[state].get("run")
    own = (f"{STEP_DONE}{step}", f"{STEP_FAILED}{step}")
    if event != StepFailed.event_type():
        return event not in own and not event.startswith(f"{own[1]}.")
    return any(one != state and "run" in states[one] and _may_meet(one, state, states) for one in states)


def _may_meet(one: str, other: str, states: Structure) -> bool:
    return _is_related(one, other, states) or _region_beside(one, other, states) is not None


def _is_related(one: str, other: str, states: Structure) -> bool:
    return one in _chain(other, states) or other in _chain(one, states)


def _region_beside(one: str, other: str, states: Structure) -> str | None:
    """The region that a state is in which is active beside another state; None: it is not in such a one."""
    around = _chain(other, states)
    apart = [name for name in _chain(one, states) if name not in around]
    if not apart or one in around or other in _chain(one, states):
        return None
    return apart[-1] if states[apart[-1]].get("kind") == "region" else None


def _chain(state: str, states: Structure) -> list[str]:
    """The state and those around it, from the innermost on."""
    chain, one = [], states.get(state)
    while one is not None:
        chain.append(str(one["name"]))
        one = states.get(str(one.get("parent")))
    return chain
