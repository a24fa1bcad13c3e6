"""Events that would undo what is being undone already, in a real Postgres: as they are noted, told of and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from connectors.source import RawRecord
from engine.reading import explain, history, list_dead_letters, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines import Event, Pipeline
from statemachines.chart.macrostep import Macrostep
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.integration.test_compensation_stored import until_going
from tests.operators import ask, send
from tests.saga import TOPIC, Order, OutOfStockError, World, clear, forever, saga_pipeline
from tests.services import Database

WHY = (
    "It was ignored (is being undone already): all of the run 'o1' of saga that it would undo was being undone "
    "already, and nothing cuts that short."
)


class Recalled(Event, type="order.recalled", key="order"):
    order: str
    number: int


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def told(kind: str, **data: object) -> RawRecord:
    return event(f"order.{kind}", {"order": "o1", **data}, topic=TOPIC, id=f"{kind}-{data.get('number', '')}")


def saga() -> Pipeline[Order]:
    """One that may be recalled as well, from where it can be placed again; recalls are in order."""
    flow = saga_pipeline()
    recalled = flow.state("recalled")
    flow.on(Recalled, to=recalled, compensate=True)
    flow.policy(Recalled, order_by="number")
    return flow


async def test_a_second_cancel_is_told_that_the_run_is_being_undone(
    database: Database, reader: Connection, world: World
) -> None:
    world.script |= {"reserve": [forever], "release": [forever]}
    async with feed(database, saga_pipeline()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "reserve", reader)
        first = await send(feeding, "saga", "o1", "order.cancelled", {"order": "o1"}, id="first")
        again = await send(feeding, "saga", "o1", "order.cancelled", {"order": "o1"}, id="again")
        await feeding.steps.close()
    assert (first.disposition, again.disposition) == ("applied", "ignored")
    assert again.done
    assert again.sentence == WHY
    [answer] = (await explain(reader, "default", event_id="again")).answers
    assert answer.current.sentence == WHY
    [run] = await list_runs(reader, "default")
    assert run.context["notes"] == ["cancelled"]
    assert (await verify(reader, "default")).is_clean


@pytest.mark.parametrize("earlier", [False, True])
async def test_logs_of_engines_that_did_as_the_policy_says_are_equal_as_well(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    if earlier:
        monkeypatch.setattr(Macrostep, "would_undo_again", lambda *_: False)
    goes_on = asyncio.Event()

    async def wait() -> None:
        await goes_on.wait()

    world.script |= {"release": [wait], "ship": [OutOfStockError("none left")]}
    async with feed(database, saga()) as feeding:
        await feeding.records(told("placed"))
        await feeding.begin_steps()
        await until_going(feeding, "release", reader)
        await feeding.records(told("cancelled", number=1))
        await feeding.records(told("recalled", number=1))
        assert (await ask(feeding, "pause", "saga", "o1")).done
        await feeding.records(told("cancelled", number=2))
        await feeding.records(told("recalled", number=2))
        assert (await ask(feeding, "resume", "saga", "o1")).done
        goes_on.set()
        await feeding.steps.close()
        await feeding.work()
    monkeypatch.undo()
    deferred = [row for row in await history(reader, "default", "saga", "o1") if row.deferral]
    assert len(deferred) == (4 if earlier else 0)
    assert len(await list_dead_letters(reader, "default")) == (4 if earlier else 0)
    assert (await verify(reader, "default")).is_clean
    replayed = await replay(reader, "default", [compile_pipeline(saga())])
    assert replayed.is_equal, replayed
