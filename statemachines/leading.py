"""Where events may lead a run, by the structure of its definition alone; guards are taken to hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from statemachines.events import DONE_PREFIX, STEP_DONE, STEP_FAILED, Cancelled, Failed, StepFailed, is_result
from statemachines.patterns import covers, is_from_inside

Structure = Mapping[str, Any]
States = Mapping[str, Structure]


def leads_on(structure: Structure, state: str) -> bool:
    """Whether anything leads a run on from this state but how its own step ends, and a cancellation.

    What the state takes, or one around or inside it, must not stay there; what another region
    takes must lead out of it, also on how a step of its own ends, be it the same one. Where not even how its own step
    ends leads on, the run is meant to live in the state: an event that it takes there is enough. Of a state that is not
    there it is so, too.
    """
    states = {str(one["name"]): one for one in structure["states"]}
    if state not in states:
        return True
    moves: list[Structure] = structure["moves"]
    if any(_may_come(move, state, states) and _leads_out(move, state, states) for move in moves):
        return True
    lives_there = not any(
        _is_of_end(move, state, states) and _leads_out(move, state, states) for move in moves
    )
    return lives_there and any(_is_awaited(move, state, states) for move in moves)


def may_reenter(structure: Structure, event_type: str, active: Collection[str]) -> bool:
    """Whether an event may have a run leave states that it is in again behind it, these being all that are active.

    A transition to its own state, or to one inside it, leaves what is inside alone, unless it says ``reenter``. What a
    state takes without a guard, those around it are not asked for.
    """
    states = {str(one["name"]): one for one in structure["states"]}
    moves = [one for one in structure["moves"] if _takes(str(one["event"]), event_type)]
    ways = [_chain(one, states) for one in active]
    around = {other for way in ways for other in way[1:]}
    return any(_may_leave([*way, None], moves, states) for way in ways if way and way[0] not in around)


def _may_leave(sources: Iterable[str | None], moves: Sequence[Structure], states: States) -> bool:
    """Whether any of these transitions that may be taken leaves states; ``sources`` are the innermost first."""
    for source in sources:
        taken = [move for move in moves if move["source"] == source]
        if any(_leaves(move, states) for move in taken):
            return True
        if any(move["guard"] is None for move in taken):
            return False
    return False


def _takes(name: str, event_type: str) -> bool:
    below = is_result(event_type) and event_type.startswith(f"{name}.")
    return below or covers(name, event_type)


def _leaves(move: Structure, states: States) -> bool:
    """Whether a transition leaves any state."""
    source, targets = move["source"], _targets(move)
    within = all(source in _chain(target, states) for target in targets)
    return bool(targets) and (not within or bool(move.get("reenter")) or _has_inside(source, states))


def _may_come(move: Structure, state: str, states: States) -> bool:
    """Whether the event of a transition may come to a run that waits there for no step of that state."""
    event = str(move["event"])
    if event in (Cancelled.event_type(), Failed.event_type()):
        return False
    if event.startswith(DONE_PREFIX) and event.removeprefix(DONE_PREFIX) in _chain(state, states):
        return False  # of a state around it, which is not done before something has led on
    if not is_result(event):
        return True
    return any(one != state and _may_meet(one, state, states) for one in _runners(move, states))


def _is_of_end(move: Structure, state: str, states: States) -> bool:
    """Whether a transition is taken on how the state's own step ends."""
    return is_result(str(move["event"])) and state in _runners(move, states)


def _runners(move: Structure, states: States) -> Iterator[str]:
    """The states of whose steps a transition is told how they ended: its own, those inside it, or all of the run's."""
    event, source = str(move["event"]), move["source"]
    for name, one in states.items():
        if (
            "run" in one
            and _tells_of(one["run"], event)
            and (source is None or source in _chain(name, states))
        ):
            yield name


def _tells_of(step: str, event: str) -> bool:
    failed = f"{STEP_FAILED}{step}"
    return event in (f"{STEP_DONE}{step}", failed, StepFailed.event_type()) or event.startswith(f"{failed}.")


def _leads_out(move: Structure, state: str, states: States) -> bool:
    """Whether a transition changes where a run is that is in this state."""
    source, targets = move["source"], _targets(move)
    beside = None if source is None else _region_beside(source, state, states)
    if beside is not None:
        return any(beside not in _chain(target, states)[1:] for target in targets)
    return _leaves(move, states) and (source is None or _is_related(source, state, states))


def _is_awaited(move: Structure, state: str, states: States) -> bool:
    """Whether a state takes an event from outside, or one around or inside it."""
    event, source = move["event"], move["source"]
    if event is None or source is None or "delay" in move or is_from_inside(event):
        return False
    return _is_related(source, state, states)


def _targets(move: Structure) -> list[str]:
    return move.get("targets") or [one for one in (move["target"],) if one]


def _has_inside(state: str, states: States) -> bool:
    return any(one.get("parent") == state for one in states.values())


def _may_meet(one: str, other: str, states: States) -> bool:
    return _is_related(one, other, states) or _region_beside(one, other, states) is not None


def _is_related(one: str, other: str, states: States) -> bool:
    return one in _chain(other, states) or other in _chain(one, states)


def _region_beside(one: str, other: str, states: States) -> str | None:
    """The region that a state is in which is active beside another state; None: it is not in such a one."""
    around = _chain(other, states)
    apart = [name for name in _chain(one, states) if name not in around]
    if not apart or one in around or other in _chain(one, states):
        return None
    return apart[-1] if states[apart[-1]].get("kind") == "region" else None


def _chain(state: str, states: States) -> list[str]:
    """The state and those around it, from the innermost on."""
    chain, one = [], states.get(state)
    while one is not None:
        chain.append(str(one["name"]))
        one = states.get(str(one.get("parent")))
    return chain
