"""In which order it is undone what a run, or a state, owes, where its definition states one.

    flow.state("ordering", undo=[refund, release])
    Pipeline("order", Order, undo=["refund", "release"])

What is named first is undone first, however often it was done; what is not named comes behind. Of each, and of what is
not named, it is as without a stated order: first that of which nobody knows what it did, then from the last on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeGuard, TypeVar

from statemachines.memory import Owed
from statemachines.step import Compensation, Step

S = TypeVar("S", bound=Owed)

UndoWord = Literal["in_order", "parallel"]
Stated: TypeAlias = list[Step[Any, Any] | str] | tuple[Step[Any, Any] | str, ...]
"""Compensations, or what they undo, or the names of either."""
Undo: TypeAlias = UndoWord | Stated


def is_stated(undo: object) -> TypeGuard[Stated]:
    """Whether this names an order of its own, be it right or wrong."""
    return isinstance(undo, list | tuple)


def stated_steps(undo: Undo, steps: Iterable[Step[Any, Any]]) -> list[str]:
    """The names of the steps that are undone in an order of their own; none are where no such order is stated."""
    if not is_stated(undo):
        return []
    by_name = {one.name: one for one in steps}
    by_name |= {other.name: one for one in by_name.values() for other in one.compensations}
    return [undone.name for one in undo if (undone := undone_by(one, by_name)) is not None]


def undone_by(one: object, by_name: Mapping[str, Step[Any, Any]]) -> Step[Any, Any] | None:
    """The step that something in an order stands for; None: there is none of that name."""
    if isinstance(one, Compensation):
        return one.of
    if isinstance(one, Step):
        return one
    return by_name.get(one) if isinstance(one, str) else None


def ranks_of(undo: Undo, steps: Iterable[Step[Any, Any]]) -> dict[str, int]:
    """By the name of each step that is undone in an order of its own, its place there."""
    return {name: at for at, name in enumerate(stated_steps(undo, steps))}


def as_stated(owed: Sequence[S], ranks: Mapping[str, int]) -> list[S]:
    """What is owed, as it is undone otherwise, in the order that is stated for it."""
    return sorted(owed, key=lambda one: ranks.get(one.step, len(ranks))) if ranks else [*owed]
