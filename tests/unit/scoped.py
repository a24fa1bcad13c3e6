"""A pipeline of which states are undone: a journey is booked while its papers are got, and each may go wrong alone."""

from __future__ import annotations

from typing import Any

from statemachines import Call, Compensation, Event, Pipeline, Step
from statemachines.memory import Memory
from statemachines.testkit import Case, given
from tests.unit.undoing import Again, Cancelled, Gone, Noted, Order, Placed, Returned, memory_of, note_type


class Dropped(Event, type="trip.dropped"):
    pass


class Arrived(Event, type="trip.arrived"):
    pass


class Journey:
    """``wide`` has the regions ``travel``, where ``trip`` runs two steps, and ``papers``, which runs one."""

    def __init__(self, **settings: Any) -> None:
        flow: Pipeline[Order] = Pipeline("journey", Order, topics=["journeys"], **settings)
        self.flow = flow
        self.room: Step[Order, int] = flow.step()(room)
        self.leave_room: Compensation[Order, int] = self.room.compensate()(leave_room)
        self.seat: Step[Order, int] = flow.step()(seat)
        self.leave_seat: Compensation[Order, int] = self.seat.compensate()(leave_seat)
        self.visa: Step[Order, int] = flow.step()(visa)
        self.return_visa: Compensation[Order, int] = self.visa.compensate()(return_visa)
        self.wide = flow.state("wide", initial=True)
        self.travel, self.papers = self.wide.region("travel"), self.wide.region("papers")
        self.trip = self.travel.state("trip", initial=True)
        self.at_home = self.travel.state("at-home")
        self.abroad = self.travel.state("abroad")
        self.lodging = self.trip.state("lodging", initial=True, run=self.room)
        self.flying = self.trip.state("flying", run=self.seat)
        self.resting = self.trip.state("resting")
        self.asking = self.papers.state("asking", initial=True, run=self.visa)
        self.stamped = self.papers.state("stamped")
        self.after = flow.state("after")
        self.ended = flow.state("ended", final=True)
        flow.start(Placed, lambda _event: Order())
        self.lodging.on(self.room.done, to=self.flying)
        self.flying.on(self.seat.done, to=self.resting)
        self.flying.on(self.seat.failed, to=self.at_home, compensate=self.trip)
        self.resting.on(Again, to=self.lodging)
        self.trip.on(Dropped, to=self.at_home, do=note_type, compensate=True)
        self.trip.on(Arrived, to=self.abroad)
        self.asking.on(self.visa.done, to=self.stamped)
        self.papers.on(Noted, do=note_type)
        self.wide.on(Gone, to=self.after)
        self.wide.on(Returned, to=self.after, compensate=True)
        flow.on(Cancelled, to=self.ended, compensate=True)

    def begun(self) -> Case[Order]:
        """It has just begun: a room is asked for, and a visa."""
        return given(self.flow, Placed())

    def booked(self) -> Case[Order]:
        """Room and seat are booked, and the visa is there."""
        case = self.begun().step_done(self.room, 1).step_done(self.seat, 2).step_done(self.visa, 3)
        return case.then_owes(self.visa, self.seat, self.room)


def room(_order: Order, _call: Call) -> int:
    return 1


def seat(_order: Order, _call: Call) -> int:
    return 2


def visa(_order: Order, _call: Call) -> int:
    return 3


def leave_room(_order: Order, _made: int | None, _call: Call) -> None: ...
def leave_seat(_order: Order, _made: int | None, _call: Call) -> None: ...
def return_visa(_order: Order, _made: int | None, _call: Call) -> None: ...


def scopes_of(case: Case[Order]) -> dict[str, str]:
    """By step, the state that owes it; of those that are being undone with a star."""
    memory: Memory = memory_of(case)
    return {one.step: one.scope + "*" * one.undoing for one in memory.owed}


def asking(*effects: Any) -> Any:
    """An action that notes its event, and asks for these."""

    def ask(order: Order, event: Event) -> Any:
        note_type(order, event)
        return [*effects]

    return ask
