"""A pipeline that is undone: a card is charged, a parcel is packed and sent, and each may have to be taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from statemachines import Call, Compensation, Context, Event, Pipeline, Retry, Step
from statemachines.memory import Execution, Memory, read_memory
from statemachines.testkit import Case, given
from tests.unit.working import CardRefused, Charge


class Placed(Event, type="order.placed"):
    pass


class Cancelled(Event, type="order.cancelled"):
    pass


class Returned(Event, type="order.returned"):
    pass


class Again(Event, type="order.again"):
    pass


class Noted(Event, type="order.noted"):
    pass


class Order(Context):
    said: list[str] = Field(default_factory=list)


class Trade:
    """``charging`` runs ``charge``, then ``packing`` runs ``pack``, then it is ``sent``.

    It may be undone to ``cancelled``, which is final, and to ``open``, from where it may go on.
    """

    def __init__(self, *, on_error: bool = False, **settings: Any) -> None:
        self.flow: Pipeline[Order] = Pipeline("trade", Order, topics=["orders"], **settings)
        self.charge: Step[Order, Charge] = self.flow.step(retry=Retry(attempts=3, unless=CardRefused))(charge)
        self.refund: Compensation[Order, Charge] = self.charge.compensate(
            timeout=timedelta(seconds=9), retry=Retry(attempts=10), at_once=3, on_error=on_error
        )(refund)
        self.pack: Step[Order, int] = self.flow.step()(pack)
        self.unpack: Compensation[Order, int] = self.pack.compensate()(unpack)
        self.tell: Step[Order, None] = self.flow.step()(tell)
        self.charging = self.flow.state("charging", run=self.charge, initial=True)
        self.packing = self.flow.state("packing", run=self.pack)
        self.sent = self.flow.state("sent", run=self.tell)
        self.over = self.flow.state("over", final=True)
        self.open = self.flow.state("open")
        self.cancelled = self.flow.state("cancelled", final=True)
        self.flow.start(Placed, lambda _event: Order())
        self.charging.on(self.charge.done, to=self.packing)
        self.packing.on(self.pack.done, to=self.sent)
        self.sent.on(self.tell.done, to=self.over)
        self.flow.on(Cancelled, to=self.cancelled, do=note_type, compensate=True)
        self.flow.on(Returned, to=self.open, do=note_type, compensate=True)
        self.flow.on(Again, to=self.charging)
        self.flow.on(Noted, do=note_type)
        self.open.entry(note_type)


async def charge(_order: Order, call: Call) -> Charge:
    return Charge(id=call.idempotency_key)


async def refund(order: Order, made: Charge | None, call: Call) -> None:
    order.said.append(f"{call.step} of {made}")


def pack(_order: Order, _call: Call) -> int:
    return 3


def unpack(order: Order, made: int | None, call: Call) -> None:
    order.said.append(f"{call.step} of {made}")


def tell(_order: Order, _call: Call) -> None: ...


def note_type(order: Order, event: Event) -> None:
    order.said.append(event.meta.type)


OK = Charge(id="c-1")


def memory_of(case: Case[Any]) -> Memory:
    assert case.run is not None
    return read_memory(case.run.memory)


def doing(case: Case[Any]) -> Execution:
    """The one execution that the run waits for."""
    [found] = memory_of(case).executions
    return found


class Gone(Event, type="order.gone"):
    pass


def packing(made: Trade) -> Case[Any]:
    return given(made.flow, Placed()).step_done(made.charge, OK)


def sent(made: Trade) -> Case[Any]:
    return packing(made).step_done(made.pack, 3)
