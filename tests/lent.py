"""Loans in a real Postgres, of which tests hold what waits outside, what completes it, and what the log says then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from connectors.source import RawRecord
from engine.reading import history, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.later import Later
from statemachines.machine import compile_pipeline
from statemachines.step import Call
from tests.feeding import Feeding, event
from tests.lending import TOPIC, World, lending_pipeline, token_of

VERDICT = {"by": "bo", "amount": 5}
TOKEN = "case l1/1"


def told(kind: str, loan: str = "l1") -> RawRecord:
    """A record of what has happened to a loan."""
    return event(f"loan.{kind}", {"loan": loan}, topic=TOPIC)


async def waits(feeding: Feeding, *loans: str) -> None:
    """These are applied for, and reviewed outside by now."""
    await feeding.records(*(told("applied", loan) for loan in loans or ("l1",)))
    await feeding.work()


@contextlib.asynccontextmanager
async def handed_over(feeding: Feeding) -> AsyncIterator[None]:
    """Meanwhile a loan is handed over, and its run does not know so before the end."""
    await feeding.records(told("applied"))
    await feeding.begin_steps()
    await feeding.steps.arrived.wait()
    yield
    await feeding.take_results()
    await feeding.steps.close()


async def take_until(feeding: Feeding, is_so: Callable[[], Awaitable[bool]]) -> None:
    """Have runs take what becomes of attempts until this is so."""
    await feeding.begin_steps()
    while not await is_so():
        await feeding.steps.arrived.wait()
        await feeding.take_results()
    await feeding.steps.close()


def stubborn(world: World) -> asyncio.Event:
    """Have the next attempt hand its loan over only when it is cancelled; what is returned is set once it has begun."""
    begun = asyncio.Event()

    async def hand_over_all_the_same(call: Call) -> Later:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Later(token_of(call))

    world.script.append(hand_over_all_the_same)
    return begun


async def rows(reader: Connection, loan: str = "l1") -> list[tuple[str, str, str]]:
    """Type, kind and states of each row of a run."""
    found = await history(reader, "default", "lending", loan)
    return [(row.event.type, row.event.kind, " ".join(row.to_states)) for row in found]


async def states(reader: Connection) -> dict[str, str]:
    """Where each run is."""
    return {run.key: " ".join(run.configuration) for run in await list_runs(reader, "default")}


async def check_the_log(reader: Connection, **options: Any) -> None:
    """All of it is as it must be, and comes out equal when it is replayed."""
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(lending_pipeline(**options))])
    assert replayed.is_equal, replayed
