"""A pipeline that reads no topic is served like any: what comes for its runs, others and operators send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.reading import explain, history, list_dead_letters, list_runs, replay, verify
from engine.store.connecting import Connection
from statemachines.definition import Pipeline
from statemachines.machine import compile_pipeline
from tests.feeding import BEGINS, Feeding, event, feed
from tests.operators import ask, ask_pipeline, send
from tests.riding import TOPIC, bookings_on, rides
from tests.services import Database

HOUR = timedelta(hours=1)


@pytest.fixture
async def feeding(database: Database) -> AsyncIterator[Feeding]:
    async with feed(database, bookings_on(TOPIC), rides()) as made:
        yield made


def booked(key: str = "b1") -> RawRecord:
    return event("booking.booked", {"booking": key}, topic=TOPIC)


def confirmed(told: str = "wanted", key: str = "b1") -> RawRecord:
    return event("booking.confirmed", {"booking": key, "told": told}, topic=TOPIC)


async def rows(reader: Connection, key: str = "b1") -> list[tuple[str, str]]:
    found = await history(reader, "default", "ride", key)
    return [(row.event.type, " ".join(row.to_states)) for row in found]


async def state(reader: Connection) -> str:
    [run] = await list_runs(reader, "default", pipeline="ride")
    return " ".join(run.configuration)


async def check_the_log(reader: Connection, *pipelines: Pipeline[Any]) -> None:
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    machines = [compile_pipeline(one) for one in pipelines or (bookings_on(TOPIC), rides())]
    replayed = await replay(reader, "default", machines)
    assert replayed.is_equal, replayed


async def test_what_another_run_sends_begins_and_moves_its_runs(feeding: Feeding, reader: Connection) -> None:
    await feeding.records(booked(), confirmed())
    await feeding.commands()
    assert await rows(reader) == [("ride.wanted", "wanted")]
    await feeding.records(confirmed("taken"))
    await feeding.commands()
    await feeding.work()
    assert await rows(reader) == [
        ("ride.wanted", "wanted"),
        ("ride.taken", "paying"),
        ("done.step.pay", "paid"),
    ]
    [row, *_] = await history(reader, "default", "ride", "b1")
    [answer] = (await explain(reader, "default", event_id=row.event.id)).answers
    assert answer.origin is not None
    assert answer.origin.sentence.startswith(
        "The run 'b1' of booking sent it to the run 'b1' of ride in row 2 "
    )
    await check_the_log(reader)


async def test_its_timers_fire_and_its_steps_are_undone(feeding: Feeding, reader: Connection) -> None:
    await send(feeding, "ride", "b1", "ride.wanted", {"ride": "b1"})
    await send(feeding, "ride", "b2", "ride.wanted", {"ride": "b2"})
    await send(feeding, "ride", "b2", "ride.taken", {"ride": "b2"})
    await feeding.work()
    await feeding.due(BEGINS + 2 * HOUR)
    assert await rows(reader) == [("ride.wanted", "wanted"), ("after.wanted.0", "given-up")]
    assert (await ask(feeding, "cancel", "ride", "b2")).done
    await feeding.work()
    assert (await rows(reader, "b2"))[-2:] == [
        ("cancel.run", "$compensating"),
        ("done.step.pay_back", "cancelled"),
    ]
    await check_the_log(reader)


async def test_its_runs_are_paused_and_go_on_and_so_is_all_of_it(
    feeding: Feeding, reader: Connection
) -> None:
    await feeding.records(booked(), confirmed())
    await feeding.commands()
    assert (await ask(feeding, "pause", "ride", "b1")).done
    await send(feeding, "ride", "b1", "ride.taken", {"ride": "b1"})
    assert await state(reader) == "wanted"
    assert (await ask_pipeline(feeding, "pause", "ride")).done
    assert not (await ask(feeding, "resume", "ride", "b1")).taken, "it waits for the pipeline"
    assert (await ask_pipeline(feeding, "resume", "ride")).done
    await feeding.commands()
    assert await state(reader) == "paying"
    await feeding.work()
    assert await state(reader) == "paid"
    await check_the_log(reader)


async def test_its_dead_letters_go_to_the_topic_of_the_namespace_and_are_redriven(
    feeding: Feeding, reader: Connection
) -> None:
    await feeding.records(booked(), confirmed(), confirmed("strange"), confirmed("refused"))
    await feeding.commands()
    letters = await list_dead_letters(reader, "default")
    assert [(one.pipeline, one.reason) for one in letters] == [
        ("ride", "action raised"),
        ("ride", "unknown type"),
    ]
    topics = await reader.fetch("select distinct dead_letter_topic from pointsman.dead_letters")
    assert [tuple(one) for one in topics] == [("pointsman.default.dead-letters",)]
    await feeding.records(confirmed("taken"))
    await feeding.commands()
    assert await state(reader) == "wanted", "it is held"
    await feeding.redrive(letters[0].id)
    [again, *_] = await list_dead_letters(reader, "default", status="open")
    assert (again.id > letters[0].id, again.reason) == (True, "action raised")
    await feeding.drop(again.id)
    assert await state(reader) == "paying"
    await check_the_log(reader)


async def test_an_event_that_waits_from_a_topic_that_nobody_reads_any_more_is_taken_all_the_same(
    database: Database, reader: Connection
) -> None:
    async with feed(database, rides("rides")) as feeding:
        await feeding.records(event("ride.taken", {"ride": "b1"}, topic="rides"))
    async with feed(database, rides(version=2)) as feeding:
        await send(feeding, "ride", "b1", "ride.wanted", {"ride": "b1"})
        await feeding.work()
    assert await state(reader) == "paid"
    await check_the_log(reader, rides("rides"), rides(version=2))
