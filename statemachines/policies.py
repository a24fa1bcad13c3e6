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
then the pipeline's for the event type, then the pipeline's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

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


@dataclass(slots=True, eq=False)
class Policies:
    """The policies of a pipeline, to be looked up."""

    general: Mapping[str, Decided]
    by_type: dict[tuple[str, str], Decided] = field(default_factory=dict)
    """By (situation, event type)."""
    by_state: dict[tuple[str, str | None], Decided] = field(default_factory=dict)
    """What a state says to what is unexpected, by (state, event type or None)."""

    def of(self, situation: str, event_type: str) -> Decided:
        """What the pipeline says."""
        return self.by_type.get((situation, event_type)) or self.general[situation]

    def unexpected(self, innermost_first: Iterable[str], event_type: str) -> Decided:
        """What the nearest says."""
        if self.by_state:
            for state in innermost_first:
                for one in (event_type, None):
                    found = self.by_state.get((state, one))
                    if found is not None:
                        return found
        return self.of("unexpected", event_type)


def policies_of(pipeline: Pipeline[Any]) -> Policies:
    """The policies of a pipeline without mistakes."""
    general = {name: Decided(getattr(pipeline, name), f"{name} of the pipeline") for name in SITUATIONS}
    found = Policies(general)
    for line in pipeline.policies:
        event_type = None if line.event is None else line.event.event_type()
        for situation, decision in line.decisions.items():
            on = "" if event_type is None else f" for {event_type}"
            if line.state is not None:
                whose = f"{situation} of the state {line.state}{on}"
                found.by_state[line.state, event_type] = Decided(decision, whose)
            elif event_type is not None:
                found.by_type[situation, event_type] = Decided(decision, f"{situation} of the pipeline{on}")
    return found


def told(decided: Decided) -> str:
    """In words: ``defer for 1 day, 0:00:00 by unexpected of the pipeline``."""
    decision = decided.decision
    if isinstance(decision, Defer):
        return f"defer for {decision.ttl}, then {decision.then} ({decided.whose})"
    return f"{decision} ({decided.whose})"


def as_defer(decision: Decision) -> Defer | None:
    """How an event is deferred; None where it is not."""
    if decision == "defer":
        return Defer()
    return decision if isinstance(decision, Defer) else None
