"""Which states and steps are called otherwise in another definition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from statemachines.events import AFTER_PREFIX
from statemachines.suggest import did_you_mean

IS_UNDONE = (
    "it is being undone, which comes to its end by the version that it follows: load that until it has"
)
"""Why a run is not mapped then, as a sentence without its end."""


class Renames(NamedTuple):
    """What is called otherwise: by the old names, the new ones."""

    states: Mapping[str, str] = {}
    steps: Mapping[str, str] = {}
    """Steps and compensations."""

    def state(self, name: str) -> str:
        """What a state is called now."""
        return self.states.get(name, name)

    def step(self, name: str) -> str:
        """What a step is called now, or a compensation."""
        return self.steps.get(name, name)


def renamed_timer(event_type: str, renames: Renames) -> str:
    """The type of a timer where its state is called otherwise; one of the whole run keeps its own."""
    state, _, number = event_type.removeprefix(AFTER_PREFIX).rpartition(".")
    return f"{AFTER_PREFIX}{renames.state(state)}.{number}" if state else event_type


def strange_state(name: str, known: Collection[str], version: object) -> str:
    """That a run is in a state that a version does not have, as a sentence without its end."""
    return f"it is in {name!r}, which is no state of version {version}. {did_you_mean(name, known)}"


def other_timers(before: Mapping[str, Any], after: Mapping[str, Any], renames: Renames) -> list[str]:
    """By their types, the timers of a definition that lead elsewhere in another one; from the structures of both.

    A timer is known by its state and its place among the timers of that. One that goes on is due when it was, so it
    does not matter how long the other one takes.
    """
    ends, ends_now = _ends_of_timers(before), _ends_of_timers(after)
    found = []
    for timer, targets in ends.items():
        now = ends_now.get(renamed_timer(timer, renames))
        if now is not None and now != [[renames.state(one) for one in several] for several in targets]:
            found.append(timer)
    return found


def _ends_of_timers(structure: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """By the type of each timer, where its moves lead, in their order."""
    found: dict[str, list[list[str]]] = {}
    for move in structure.get("moves", ()):
        event_type = str(move.get("event"))
        if event_type.startswith(AFTER_PREFIX):
            target = move.get("target")
            found.setdefault(event_type, []).append(
                move.get("targets") or ([] if target is None else [target])
            )
    return found
