"""Loans that are decided on outside: a step hands them over, and somebody completes it by its token."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field
from tenacity import wait_fixed

from statemachines.bounds import Breaker
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.done import Done
from statemachines.effects import Complete
from statemachines.events import Event, StepFailed
from statemachines.later import Later
from statemachines.step import Call, Retry, exponential

TOPIC = "loans"


class Applied(Event, type="loan.applied", key="loan"):
    loan: str


class Withdrawn(Event, type="loan.withdrawn", key="loan"):
    loan: str


class Verdict(BaseModel):
    by: str
    amount: int


class Decided(Event, type="loan.decided", key="loan"):
    """Says what the desk has made of a case, or why it has made nothing."""

    loan: str
    token: str
    verdict: Verdict | None = None
    why: str | None = None


class Loan(Context):
    loan: str
    verdict: Verdict | None = None
    notes: list[str] = Field(default_factory=list)


@dataclass
class World:
    """What was handed over, and what is to happen next."""

    calls: list[Call] = field(default_factory=list)
    made: list[tuple[str, Verdict | None]] = field(default_factory=list)
    """(run, what it was told that was made) of each that was undone."""
    script: list[Any] = field(default_factory=list)
    """What the step returns in turn, or a function that does; then Later with its token."""


WORLD = World()


def clear() -> World:
    """An empty world."""
    WORLD.calls.clear()
    WORLD.made.clear()
    WORLD.script.clear()
    return WORLD


def token_of(call: Call) -> str:
    """What a call is completed by, where nothing else is said."""
    return f"case {call.key}/{call.attempt}"


def apply(event: Applied) -> Loan:
    return Loan(loan=event.loan)


def note_verdict(loan: Loan, got: Done[Verdict]) -> None:
    loan.verdict = got.result
    if got.result.amount < 0:
        raise ValueError("nobody lends less than nothing")


def note_failure(loan: Loan, failed: StepFailed) -> None:
    loan.notes.append(f"{failed.error} after {failed.attempts}: {failed.message}")


def lending_pipeline(
    *,
    within: timedelta | None = None,
    attempts: int = 3,
    undone: bool = False,
    version: int = 1,
    pause: timedelta | None = None,
    breaker: Breaker | None = None,
    by_events: bool = False,
) -> Pipeline[Loan]:
    """Reviewed outside, then granted; or failed, or withdrawn. ``undone``: what was reviewed is closed again then.

    ``pause`` is between attempts; None: a minute at most. ``by_events``: the desk may publish what became of a case.
    """
    flow = Pipeline("lending", Loan, version=version, topics=[TOPIC], closed="restart")
    wait = exponential(1, 60) if pause is None else wait_fixed(pause)

    @flow.step(retry=Retry(attempts=attempts, wait=wait), at_once=2, breaker=breaker)
    async def review(loan: Loan, call: Call) -> Verdict | Later:
        del loan
        WORLD.calls.append(call)
        asked = WORLD.script.pop(0) if WORLD.script else None
        if callable(asked):
            asked = asked(call)
        if inspect.isawaitable(asked):
            asked = await asked
        return Later(token_of(call), within) if asked is None else asked

    if undone:

        @review.compensate()
        async def close(loan: Loan, made: Verdict | None, call: Call) -> None:
            del call
            WORLD.made.append((loan.loan, made))

    reviewing = flow.state("reviewing", run=review, initial=True)
    granted = flow.state("granted")
    failed = flow.state("failed", final=True)
    withdrawn = flow.state("withdrawn", final=True)
    flow.start(Applied, apply)
    reviewing.on(review.done, to=granted, do=note_verdict)
    if by_events:

        def complete(loan: Loan, event: Decided) -> Complete[Verdict]:
            del loan
            return Complete(review, event.token, event.verdict, error=event.why)

        flow.on(Decided, do=complete)
    flow.on_failure(to=failed, do=note_failure, compensate=undone)
    flow.on(Withdrawn, to=withdrawn, compensate=undone)
    return flow
