"""A pipeline that works: a card is charged, a parcel is packed, and each may fail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from statemachines import Call, Context, Done, Event, Pipeline, Retry, Step, StepFailed, exponential
from statemachines.events import Envelope
from statemachines.handlers import validated
from statemachines.interpreter import step as take
from statemachines.memory import Execution, read_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Outcome
from statemachines.testkit import Case


class PaymentError(Exception):
    pass


class CardRefused(PaymentError):  # noqa: N818 - as people call it
    pass


class CardStolen(CardRefused):
    pass


class Charge(BaseModel):
    id: str


class Placed(Event, type="order.placed"):
    pass


class Cancelled(Event, type="order.cancelled"):
    pass


class Again(Event, type="order.again"):
    pass


class Paid(Event, type="order.paid"):
    pass


class Refused(Event, type="order.refused"):
    pass


class Noted(Event, type="order.noted"):
    pass


class Order(Context):
    amount: int = 5
    charge: Charge | None = None
    said: list[str] = Field(default_factory=list)


class Shop:
    """``charging`` runs ``charge``; then it is ``paid``, or ``refused``, or ``stuck``, or it was ``cancelled``."""

    def __init__(self, **settings: Any) -> None:
        self.flow: Pipeline[Order] = Pipeline("shop", Order, topics=["orders"], **settings)
        self.charge: Step[Order, Charge] = self.flow.step(
            timeout=timedelta(seconds=30),
            retry=Retry(attempts=3, wait=exponential(1, 60), unless=CardRefused),
            at_once=10,
        )(charge)
        self.charging = self.flow.state("charging", run=self.charge, initial=True)
        self.paid = self.flow.state("paid", final=True)
        self.refused = self.flow.state("refused", final=True)
        self.cancelled = self.flow.state("cancelled")
        self.flow.start(Placed, lambda _event: Order())
        self.flow.on(Cancelled, to=self.cancelled)
        self.flow.on(Again, to=self.charging)
        self.flow.on(Paid, to=self.paid)
        self.flow.on(Refused, to=self.refused)
        self.flow.on(Noted, do=note_type)


def shop() -> Shop:
    """With what becomes of every outcome but failures that nobody has thought of."""
    made = Shop()
    made.charging.on(made.charge.done, to=made.paid, do=keep)
    made.charging.on(made.charge.failed_with(CardRefused), to=made.refused, do=say_why)
    made.charging.on(made.charge.timed_out, to=made.cancelled, do=say_why)
    return made


async def charge(order: Order, call: Call) -> Charge:
    return Charge(id=f"{call.idempotency_key} for {order.amount}")


def keep(order: Order, got: Done[Charge]) -> None:
    order.charge = got.result


def say_why(order: Order, failed: StepFailed) -> None:
    order.said.append(f"{failed.error}: {failed.message} after {failed.attempts} as {failed.meta.type}")


def note_type(order: Order, event: Event) -> None:
    order.said.append(event.meta.type)


def going_on(case: Case[Any]) -> list[Any]:
    """The steps that the run has asked for, as (step, state, attempt)."""
    assert case.run is not None
    return [(one.step, one.state, one.attempt) for one in read_memory(case.run.memory).executions]


def first_of(case: Case[Any]) -> Execution:
    assert case.run is not None
    return read_memory(case.run.memory).executions[0]


def ends(case: Case[Any], event_type: str, data: Any) -> Outcome:
    """What becomes of the run by how a step ended; the run is left as it is."""
    assert case.run is not None
    event, error = validated(case.machine, event_type, data)
    run, now, of_step = case.run, case.now, Execution(0, 0, "", "")
    envelope = Envelope("id", "engine", event_type, run.key, now)
    occurrence = Occurrence(envelope, run.key, b"", now, event, error, data=data, delayed=of_step)
    return take(case.machine, run, occurrence)
