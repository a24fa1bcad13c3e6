"""Loans that are handed over to a desk outside, by engines in processes that are killed; each call is a line of a file.

Topic and file are named by the environment, since each test has its own.
"""

from __future__ import annotations

import os

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.events import Event
from statemachines.later import Later
from statemachines.step import Call, Retry, exponential
from tests.parcelling import write_line

MODULE = "tests.handing:loans"


class Applied(Event, type="loan.applied", key="loan"):
    loan: str


class Loan(Context):
    loan: str
    amount: int = 0


def apply(event: Applied) -> Loan:
    return Loan(loan=event.loan)


def note(loan: Loan, got: Done[int]) -> None:
    loan.amount = got.result


def token_of(loan: str) -> str:
    """What the review of a loan is completed by, whichever attempt has handed it over."""
    return f"loan {loan}"


def loans_on(topic: str) -> Pipeline[Loan]:
    """Reviewed outside, then granted."""
    flow = Pipeline("loans", Loan, topics=[topic])

    @flow.step(retry=Retry(attempts=50, wait=exponential(0.05, 0.2)), at_once=3)
    async def review(loan: Loan, call: Call) -> int | Later:
        write_line(call, "handed over")
        return Later(token_of(loan.loan))

    reviewing = flow.state("reviewing", run=review, initial=True)
    granted = flow.state("granted", final=True)
    flow.start(Applied, apply)
    reviewing.on(review.done, to=granted, do=note)
    flow.on_failure(to=flow.state("failed", final=True))
    return flow


loans = loans_on(os.environ.get("TIMED_TOPIC", "loans"))
