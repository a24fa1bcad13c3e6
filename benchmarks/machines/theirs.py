"""The machines in other libraries, each said and driven in the way that is quickest there.

That is: by the bound trigger of each event, looked up beforehand; without automatic transitions, queues, and event
objects for callbacks where a library can do without; an action is a bound method or a plain function, not a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statemachine import State, StateChart, StateMachine
from transitions import Machine
from transitions.extensions import HierarchicalMachine

from benchmarks.machines.player import FLAT_EVENTS, FLAT_STATES, INNERMOST, NESTED_EVENTS, Player, ring


class Model:
    """What state and context are kept in."""

    def __init__(self) -> None:
        self.state: Any = None
        self.moves = 0

    def note(self) -> None:
        self.moves += 1


@dataclass(frozen=True, slots=True)
class Theirs:
    """A machine by its triggers."""

    model: Model
    triggers: Mapping[str, Callable[[], object]]
    active: Callable[[], Iterable[str]]
    """The names of the active states, those around them perhaps among them."""

    def play(self, events: Sequence[str], times: int) -> None:
        triggers = [self.triggers[name] for name in events]
        for _ in range(times):
            for trigger in triggers:
                trigger()

    @property
    def states(self) -> frozenset[str]:
        return INNERMOST.intersection(self.active())

    @property
    def moves(self) -> int:
        return self.model.moves


def transitions_flat(*, writing: bool) -> Player:
    model = Model()
    after = [model.note] if writing else []
    moves = [
        {"trigger": event, "source": source, "dest": target, "after": after}
        for event, source, target in ring()
    ]
    states = list(FLAT_STATES)
    Machine(model, states, initial=states[0], transitions=moves, auto_transitions=False)
    return Theirs(model, _triggers(model, FLAT_EVENTS), lambda: [model.state])


def transitions_nested(*, writing: bool) -> Player:
    model = Model()
    after = [model.note] if writing else []
    payment, parcel = "active_payment_", "active_parcel_"
    moves = [
        ("begin", "idle", "active"),
        ("stop", "active", "idle"),
        ("pay", f"{payment}unpaid", f"{payment}paid"),
        ("book", f"{payment}paid", f"{payment}booked"),
        ("renew", f"{payment}booked", f"{payment}unpaid"),
        ("cancel", f"{payment}unpaid", "idle"),
        ("box", f"{parcel}unpacked", f"{parcel}boxed"),
        ("ship", f"{parcel}boxed", f"{parcel}sent"),
        ("renew", f"{parcel}sent", f"{parcel}unpacked"),
    ]
    regions = [
        {"name": "payment", "initial": "unpaid", "children": ["unpaid", "paid", "booked"]},
        {"name": "parcel", "initial": "unpacked", "children": ["unpacked", "boxed", "sent"]},
    ]
    HierarchicalMachine(
        model,
        ["idle", {"name": "active", "parallel": regions}],
        initial="idle",
        transitions=[
            {"trigger": event, "source": source, "dest": target, "after": after}
            for event, source, target in moves
        ],
        auto_transitions=False,
    )

    def active() -> Iterable[str]:
        paths = [model.state] if isinstance(model.state, str) else model.state
        return (path.rpartition("_")[2] for path in paths)

    return Theirs(model, _triggers(model, NESTED_EVENTS), active)


def statemachine_flat(*, writing: bool) -> Player:
    model = Model()
    on = [model.note] if writing else None

    class Flat(StateMachine):
        placed = State(initial=True)
        charged, packed, shipped, settled = State(), State(), State(), State()
        charge = placed.to(charged, on=on)
        pack = charged.to(packed, on=on)
        ship = packed.to(shipped, on=on)
        settle = shipped.to(settled, on=on)
        reopen = settled.to(placed, on=on)

    machine = Flat(model)
    return Theirs(model, _triggers(machine, FLAT_EVENTS), lambda: machine.configuration_values)


def statemachine_nested(*, writing: bool) -> Player:
    model = Model()
    on = [model.note] if writing else None

    class Nested(StateChart[Model]):
        catch_errors_as_events = False
        atomic_configuration_update = True

        idle = State(initial=True)

        class active(State.Parallel):  # noqa: N801 - the library takes it as the name of the state
            class payment(State.Compound):  # noqa: N801 - the library takes it as the name of the state
                unpaid = State(initial=True)
                paid, booked = State(), State()
                pay = unpaid.to(paid, on=on)
                book = paid.to(booked, on=on)
                renew = booked.to(unpaid, on=on)

            class parcel(State.Compound):  # noqa: N801 - the library takes it as the name of the state
                unpacked = State(initial=True)
                boxed, sent = State(), State()
                box = unpacked.to(boxed, on=on)
                ship = boxed.to(sent, on=on)
                renew = sent.to(unpacked, on=on)

        begin = idle.to(active, on=on)
        stop = active.to(idle, on=on)
        cancel = active.payment.unpaid.to(idle, on=on)

    machine = Nested(model)
    return Theirs(model, _triggers(machine, NESTED_EVENTS), lambda: machine.configuration_values)


def _triggers(owner: object, events: Sequence[str]) -> dict[str, Callable[[], object]]:
    return {name: getattr(owner, name) for name in events}
