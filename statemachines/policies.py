"""Policies: what becomes of an event that does not fit, for a pipeline, an event type, or a state.

=============  ==================================================  =========================================
situation      choices                                             default
=============  ==================================================  =========================================
no run         start, defer, ignore, dead_letter                   dead_letter
closed         restart, ignore, dead_letter                        dead_letter
unexpected     defer, ignore, dead_letter                          defer
seen before    ``duplicate_by``: a business key beside (source, id)  (source, id), for ever
out of order   ``order_by``: stale ones are not applied, gaps wait   no order is asked for
=============  ==================================================  =========================================

Of several that speak of an event the nearest decides: the innermost active state's (for its event type, then for any),
of states side by side that of the first in the file; then the pipeline's for the event type, then the pipeline's.
What is said of a pattern (``order.*``) is said of each type that it stands for, where nothing nearer to the type is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from statemachines.durations import told_duration
from statemachines.patterns import widened
from statemachines.places import Place

if TYPE_CHECKING:
    from statemachines.definition import Pipeline
    from statemachines.events import Event
    from statemachines.ordering import OrderBy

DEFER_TTL = timedelta(days=1)
"""How long a deferred event waits where nothing else is said."""

Fate = Literal["dead_letter", "ignore"]


@dataclass(frozen=True, slots=True)
class Defer:
    """Let the event wait until the run takes it; after ``ttl`` it meets its fate."""

    ttl: timedelta = DEFER_TTL
    then: Fate = "dead_letter"


@dataclass(frozen=True, slots=True)
class Once:
    """What tells an event from others that mean the same, whatever their ids: some fields of its data.

    ``within`` says for how long; None: for ever.
    """

    fields: tuple[str, ...]
    within: timedelta | None = None


Unexpected = Literal["defer", "ignore", "dead_letter"] | Defer
NoRun = Literal["start", "defer", "ignore", "dead_letter"] | Defer
Closed = Literal["restart", "ignore", "dead_letter"]
Decision = str | Defer
"""Any of them."""

SITUATIONS: Mapping[str, tuple[str, ...]] = {
    "no_run": ("start", "defer", "ignore", "dead_letter"),
    "unexpected": ("defer", "ignore", "dead_letter"),
    "closed": ("restart", "ignore", "dead_letter"),
}
"""The policies and what each may be."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLine:
    """One line about policies: of the pipeline or of a state, for an event type or for all."""

    state: str | None
    event: type[Event] | None
    decisions: Mapping[str, Any]
    """By situation; those that are given."""
    once: Once | None
    order: OrderBy | None
    place: Place


@dataclass(frozen=True, slots=True)
class Decided:
    """A policy, and whose it is, as ``explain`` tells it."""

    decision: Decision
    whose: str


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """The policies of a pipeline, to be looked up."""

    general: Mapping[str, Decided]
    by_type: Mapping[str, Mapping[str, Decided]]
    """By situation, then by event type."""
    by_state: Mapping[str, Mapping[str, Decided]]
    """What a state says to what is unexpected, by event type."""
    of_states: Mapping[str, Decided]
    """What it says to all that is."""
    inside_out: Mapping[str, int]
    """The states as they are asked: each after those inside it, and those beside one another as in the file."""

    def of(self, situation: str, event_type: str) -> Decided:
        """What the pipeline says."""
        return self.by_type.get(situation, {}).get(event_type) or self.general[situation]

    def unexpected(self, active: Collection[str], event_type: str) -> Decided:
        """What the nearest of the active states says, or the pipeline."""
        if self.by_state or self.of_states:
            for state in sorted(active, key=lambda one: self.inside_out.get(one, 0)):
                found = self.by_state.get(state, {}).get(event_type) or self.of_states.get(state)
                if found is not None:
                    return found
        return self.of("unexpected", event_type)


def policies_of(pipeline: Pipeline[Any]) -> Policies:
    """The policies of a pipeline without mistakes."""
    general = {name: Decided(getattr(pipeline, name), whose(name)) for name in SITUATIONS}
    by_type: dict[str, dict[str, Decided]] = {}
    by_state: dict[str, dict[str, Decided]] = {}
    of_states: dict[str, Decided] = {}
    for line in pipeline.policies:
        event_type = None if line.event is None else line.event.event_type()
        for situation, decision in line.decisions.items():
            decided = Decided(decision, whose(situation, event_type, line.state))
            if line.state is None and event_type is not None:
                by_type.setdefault(situation, {})[event_type] = decided
            elif line.state is not None and event_type is not None:
                by_state.setdefault(line.state, {})[event_type] = decided
            elif line.state is not None:
                of_states[line.state] = decided
    return Policies(
        general,
        {situation: widened(lines) for situation, lines in by_type.items()},
        {state: widened(lines) for state, lines in by_state.items()},
        of_states,
        _inside_out(pipeline),
    )


def _inside_out(pipeline: Pipeline[Any]) -> dict[str, int]:
    inside: dict[Any, list[Any]] = {}
    for state in pipeline.states:
        inside.setdefault(state.parent, []).append(state)
    ranks: dict[str, int] = {}

    def visit(around: Any) -> None:
        for state in inside.get(around, ()):
            visit(state)
            ranks[state.name] = len(ranks)

    visit(None)
    return ranks


def whose(situation: str, event_type: str | None = None, state: str | None = None) -> str:
    """Which line says it, in words: ``no_run of the pipeline for order.paid``."""
    of = "the pipeline" if state is None else f"the state {state}"
    return f"{situation} of {of}" + ("" if event_type is None else f" for {event_type}")


def told(decided: Decided) -> str:
    """In words: ``defer for 1 d, then dead_letter (unexpected of the pipeline)``."""
    defer = as_defer(decided.decision)
    if defer is not None:
        return f"defer for {told_duration(defer.ttl)}, then {defer.then} ({decided.whose})"
    return f"{decided.decision} ({decided.whose})"


def as_defer(decision: Decision) -> Defer | None:
    """How an event is deferred; None where it is not."""
    if decision == "defer":
        return Defer()
    return decision if isinstance(decision, Defer) else None
