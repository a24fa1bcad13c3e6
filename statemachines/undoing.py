"""What a run owes: which of its steps are to be undone if it is, and which of them comes next.

A step with a compensation is owed once it was done, and where it is not known what it did. That the run remembers the
execution comes before the step begins, so that nothing is done of which it does not know. Where the state of such a
step is left meanwhile, the run waits to hear what became of it.

What is owed belongs to the state that ran the step, and once that is left, to the innermost one around it that is not.
So a state can be undone alone: all that belongs to it, and to those inside it. What is undone is undone in one place,
which is ``$compensating`` of a state; where that is left, it goes on in that of a state around it. Where the run is
undone, all of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from statemachines.events import STEP_DONE, STEP_FAILED, STEP_STOPPED, STEP_WAITS
from statemachines.memory import Execution, Memory, Owed
from statemachines.stated import as_stated
from statemachines.step import TIMED_OUT, Compensation

NEVER, ENDED, FAILED, UNKNOWN = "never", "ended", "failed", "unknown"
"""What became of an execution: it was never begun, or not again; it was done; its attempts raised; nobody knows."""
HOWS: Final = (NEVER, ENDED, FAILED, UNKNOWN)
LEFT, TO_BE_UNDONE = 1, 2
"""Of an execution that is stopping: its state was left; or it is undone, as soon as it is known what became of it."""
By = Mapping[str, Compensation[Any, Any]]
"""The compensations, by the names of the steps that they undo."""


def how_ended(event_type: str, said: Mapping[str, Any], step: str) -> str:
    """What an event says of an execution: one of ``HOWS``.

    What an attempt did that was lost, or that took too long, nobody knows; nor what one does that goes on outside.
    Where there was no time left for another one after it, it has raised all the same.
    """
    if event_type.startswith(STEP_WAITS):
        return UNKNOWN
    if event_type.startswith(STEP_DONE):
        return ENDED
    if event_type.startswith(STEP_STOPPED):
        how = said.get("how")
        return str(how) if how in HOWS else UNKNOWN
    cut_short = event_type == f"{STEP_FAILED}{step}.{TIMED_OUT}" and said.get("raised") is not True
    unseen = said.get("lost") is True or cut_short
    return UNKNOWN if unseen else FAILED


def was_lost(said: Mapping[str, Any]) -> bool:
    """Whether an event says of an attempt that it was lost with its engine, and not only that nobody knows its end."""
    return said.get("lost") is True and said.get("error") == "LostError"


def settle(memory: Memory, execution: Execution, how: str, row: int, by: By) -> Memory:
    """The memory once it is known what became of an execution: without it, and with what is owed for it.

    ``row`` is the number of the log row that says so.
    """
    owed = _owed(execution, how, row, by)
    return memory.with_executions(memory.executions_but(execution), memory.owed + owed)


def _owed(execution: Execution, how: str, row: int, by: By) -> tuple[Owed, ...]:
    """What is owed for it: once, or not at all."""
    compensation = by.get(execution.step)
    if compensation is None or (how == NEVER and execution.attempt == 1):
        return ()
    has_raised = how in (NEVER, FAILED) and not execution.unknown
    if has_raised and not compensation.on_error:
        return ()
    made = row if how == ENDED else 0
    scope = execution.scope if execution.stopping else execution.state
    undoing = int(execution.stopping == TO_BE_UNDONE)
    return (Owed(execution.sequence, execution.number, execution.step, made, scope, undoing),)


class Begun(NamedTuple):
    """That a state, and so all that belongs to it, is undone from now on."""

    scope: str | None
    """Empty: the run; None: nothing is but what was being undone already, and what is left."""
    place: str
    """The state in whose ``$compensating`` it is; empty: the run's."""
    line: int
    """Which line of the definition says where the run goes from there then."""


class Change(NamedTuple):
    """What a microstep changes of what the run owes."""

    around: Callable[[str], str]
    """The state around one; empty: none is."""
    left: Mapping[str, str] = {}
    """By state that was left, the innermost one around it that was not; empty: the run."""
    begins: Sequence[Begun] = ()
    ended: Collection[str] = ()
    """The places that were left."""

    def is_within(self, state: str, scope: str) -> bool:
        """Whether a state is another one, or inside it."""
        while state and state != scope:
            state = self.around(state)
        return state == scope

    def onward(self, scope: str) -> str:
        """The innermost of a state and those around it that stays active; empty: the run."""
        return self.left.get(scope, scope)

    def place_of(self, scope: str) -> Begun | None:
        """Where it is undone what belongs to a state; None: it is not, by this change."""
        for one in self.begins:
            if one.scope is not None and self.is_within(scope, one.scope):
                return one
        return None

    def place_after(self, place: str) -> str:
        """Where it goes on that was being undone in a place."""
        if place not in self.ended:
            return place
        return next((one.place for one in self.begins if self.is_within(place, one.place)), place)


def changed(memory: Memory, change: Change, by: By) -> tuple[Memory, list[Execution]]:
    """The memory once a microstep was done, and the executions that are to be stopped for it.

    What the run waits to hear of is still among those that it remembers.
    """
    left = change.left
    is_plain = not (change.begins or change.ended)
    if is_plain and not any(one.state in left or one.scope in left for one in memory.executions):
        # As almost always: all that goes on goes on as it does.
        owed = [
            Owed(one.sequence, one.number, one.step, one.made, left[one.scope]) if one.scope in left else one
            for one in memory.owed
        ]
        is_same = owed == [*memory.owed]
        return (memory if is_same else memory.with_executions(memory.executions, tuple(owed))), []
    kept: list[Execution] = []
    stopped: list[Execution] = []
    owed = [_carried(one, change) for one in memory.owed]
    for one in memory.executions:
        if one.of:
            kept.append(one._replace(scope=change.place_after(one.scope)))
            continue
        if one.stopping:
            kept.append(_still_stopping(one, change))
            continue
        begun = change.place_of(one.state)
        if begun is None and one.state not in left:
            kept.append(one)
            continue
        stopped.append(one)
        scope = change.onward(one.state) if begun is None else begun.place
        stops = one._replace(stopping=LEFT if begun is None else TO_BE_UNDONE, scope=scope)
        if one.is_given_up:
            owed += _owed(stops, FAILED, 0, by)
        elif one.token:
            owed += _owed(stops, UNKNOWN, 0, by)
        elif one.step in by:
            kept.append(stops)
    scopes = {place: line for place, line in memory.scopes.items() if place not in change.ended}
    scopes |= {one.place: one.line for one in change.begins}
    whole = next((one.line for one in change.begins if one.scope == ""), memory.undoing)
    if "" in change.ended and whole == memory.undoing:
        whole = -1
    found = memory._replace(executions=tuple(kept), owed=tuple(owed), undoing=whole, scopes=scopes)
    return (found if whole < 0 else _as_a_whole(found)), stopped


def _carried(one: Owed, change: Change) -> Owed:
    if one.undoing:
        return one._replace(scope=change.place_after(one.scope))
    begun = change.place_of(one.scope)
    if begun is not None:
        return one._replace(scope=begun.place, undoing=1)
    return one._replace(scope=change.onward(one.scope))


def _still_stopping(one: Execution, change: Change) -> Execution:
    if one.stopping == TO_BE_UNDONE:
        return one._replace(scope=change.place_after(one.scope))
    begun = change.place_of(one.scope)
    if begun is not None:
        return one._replace(stopping=TO_BE_UNDONE, scope=begun.place)
    return one._replace(scope=change.onward(one.scope))


def _as_a_whole(memory: Memory) -> Memory:
    """Where the run is undone nothing is told apart: all of it is."""
    owed = tuple(one._replace(scope="", undoing=0) for one in memory.owed)
    executions = tuple(one._replace(scope="", stopping=min(one.stopping, LEFT)) for one in memory.executions)
    return memory._replace(owed=owed, executions=executions, scopes={})


def settled(memory: Memory, within: Callable[[str], bool]) -> tuple[Memory, list[Owed | Execution]]:
    """The memory without what belongs to the states that are asked for, and that; but for what is being undone.

    What has not ended yet, and whose state is active, is not owed yet.
    """

    def is_settled(one: Owed | Execution) -> bool:
        is_owed = not one.undoing if isinstance(one, Owed) else one.stopping == LEFT
        return is_owed and within(one.scope)

    everything: list[Owed | Execution] = [*memory.owed, *memory.executions]
    owed = tuple(one for one in memory.owed if not is_settled(one))
    executions = tuple(one for one in memory.executions if not is_settled(one))
    return memory._replace(owed=owed, executions=executions), [one for one in everything if is_settled(one)]


def places(memory: Memory) -> dict[str, int]:
    """The states in whose ``$compensating`` the run is, each with the line that says where it goes from there."""
    if memory.undoing >= 0:
        return {"": memory.undoing}
    return dict(sorted(memory.scopes.items()))


def waits_in(memory: Memory, place: str) -> list[Execution]:
    """What is to end, or to be heard of, before the next is undone in a place."""
    if memory.undoing >= 0:
        return [*memory.executions]
    return [
        one for one in memory.executions if one.scope == place and (one.of or one.stopping == TO_BE_UNDONE)
    ]


def owed_in(memory: Memory, place: str) -> list[Owed]:
    """What is still to be undone in a place, in that order, but where another one is stated."""
    if memory.undoing >= 0:
        return in_order(memory.owed)
    return in_order([one for one in memory.owed if one.undoing and one.scope == place])


def next_in(memory: Memory, place: str, room: int, ranks: Mapping[str, int]) -> list[Owed]:
    """What is to be undone next in a place: nothing before all was heard of that was stopped.

    ``room`` is how many may begin where they are undone at once; 0: they are not, and the next one waits for the last.
    ``ranks`` is the order that is stated for the place, if any is.
    """
    waits = waits_in(memory, place)
    if any(not one.of for one in waits) or (waits and not room):
        return []
    going = {one.of for one in waits}
    return [one for one in as_stated(owed_in(memory, place), ranks) if one.id not in going][: room or 1]


def place_of(memory: Memory, execution: Execution) -> str | None:
    """Where it is undone what an execution belongs to that is stopping; None: it is not."""
    if memory.undoing >= 0:
        return ""
    return execution.scope if execution.stopping == TO_BE_UNDONE else None


def is_undone(memory: Memory, place: str) -> bool:
    """Whether nothing is left to undo in a place, or to hear of."""
    return not (waits_in(memory, place) or owed_in(memory, place))


def is_stuck(memory: Memory) -> bool:
    """Whether a run that is held could not go on without what holds it: how something ended that it waits to hear of.

    That is what undoes, or a step whose state was left. What else holds a run that is being undone is no part of that.
    """
    return any(one.is_given_up and (one.of or one.stopping) for one in memory.executions)


def undone(memory: Memory, execution: Execution) -> Memory:
    """The memory once a compensation was done, or is not to be: neither it nor what it was to undo is in it."""
    owed = tuple(one for one in memory.owed if one.id != execution.of)
    return memory.with_executions(memory.executions_but(execution), owed)


def in_order(owed: Sequence[Owed]) -> list[Owed]:
    """How it is undone: first that of which nobody knows what it did, then what was done, each from the last on."""
    unknown, known = ([one for one in owed if bool(one.made) is made] for made in (False, True))
    return [*reversed(unknown), *reversed(known)]
