"""Where an oracle may differ from the recommendation, and by how much: each option has its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Semantics:
    """The options of an oracle. The defaults are the declared deviations; `W3C` is the text without them."""

    bare_names_match_by_prefix: bool = False
    """Whether `foo` matches `foo.bar`, as the text has it (3.12.1).

    Off, because who names an event type means that type: a new type `order.paid.late` must not silently take
    the way of `order.paid`. A descriptor matches its exact name, `foo.*` matches `foo` and all below it (as in
    the text, and in XState), and `*` matches everything.
    """
    any_matches_failures: bool = True
    """Whether `*` matches `error.execution`, as in the text. A chart that takes everything from outside does not mean
    to have what its own functions do wrong dealt with, too; who does names `error.execution` or `error.*`."""
    internal_at_any_source: bool = True
    """Whether an internal transition whose targets are its source, or inside it, never leaves the source.

    The text says so only of a compound source and of proper descendants, and makes external what is left. On,
    because whoever writes "stay here" of a state must not find it left and entered again (and, say, a payment
    charged twice), be it atomic, compound or parallel: as XState v5 without `reenter`. It goes by the targets as
    written, so that a history outside the source never makes a transition internal by what it remembers.
    """
    failed_blocks_are_undone: bool = False
    """Whether what a block did before it failed is taken back. In the text it stays: only the rest is skipped."""
    done_goes_upwards: bool = False
    """Whether a parallel state in a region, all of whose regions are final, makes that region final for the parallel
    state around it, whichever of them is the last. The algorithm looks at the grandparent of the final state only,
    though section 3.4 has it so."""
    microsteps_max: int = 200
    """Microsteps of one macrostep; one more raises `TooManyMicrostepsError`. The text has no limit."""


W3C = Semantics(bare_names_match_by_prefix=True, internal_at_any_source=False)
DEVIATING = Semantics()


def name_match(descriptors: tuple[str, ...], event: str, semantics: Semantics) -> bool:
    """Whether one of the event descriptors of a transition matches the event's name (3.12.1)."""
    return any(_matches(descriptor, event, semantics) for descriptor in descriptors)


def _matches(descriptor: str, event: str, semantics: Semantics) -> bool:
    if descriptor == "*":
        return semantics.any_matches_failures or event != "error.execution"
    if descriptor.endswith(".*"):
        prefix = descriptor.removesuffix(".*")
        return event == prefix or event.startswith(prefix + ".")
    by_prefix = semantics.bare_names_match_by_prefix and event.startswith(descriptor + ".")
    return event == descriptor or by_prefix
