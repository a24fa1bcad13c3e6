"""What operators ask of many runs, which are chosen by what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.errors import UsageError
from engine.reading import (
    Chosen,
    Done,
    ask_of_runs,
    choose_runs,
    end_told,
    history,
    list_dead_letters,
    list_runs,
    replay,
    send_to_runs,
    verify,
    wait_until_done,
)
from engine.reading.choosing import data_for_runs
from engine.reading.operating import EXPLAINED_MAX, What
from engine.store.connecting import Connection, connect
from statemachines.machine import compile_pipeline
from tests.feeding import Feeding, event, feed
from tests.operators import ask
from tests.parcel import BROKEN, TOPIC, parcel
from tests.services import Database
from tests.shop import shop
from tests.tickets import tickets

WHY = "the depot burned down"


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Connection]:
    connection = await connect(database.engine_dsn, for_engine=False)
    yield connection
    await connection.close()


def placed(key: str) -> RawRecord:
    return event("order.placed", {"order_id": key, "amount": 5})


async def statuses(reader: Connection, **filters: Any) -> dict[str, str]:
    return {run.key: run.status for run in await list_runs(reader, "default", limit=0, **filters)}


async def done_to(feeding: Feeding, engine: Connection, what: What, chosen: list[Chosen]) -> list[Done]:
    asked = await ask_of_runs(engine, "default", what, chosen, who="ana", why=WHY)
    while await engine.fetchval("select exists (select from pointsman.inbox)"):
        await feeding.commands()
    return await wait_until_done(engine, "default", asked, seconds=0)


async def test_runs_are_chosen_by_status_state_pipeline_and_attributes(
    database: Database, engine: Connection
) -> None:
    async with feed(database, shop(), tickets()) as feeding:
        for key in ("o1", "o2", "o3", "o4"):
            await feeding.records(placed(key))
        await feeding.records(event("order.paid", {"order_id": "o2", "amount": 5}))
        await feeding.records(event("order.broken", {"order_id": "o3"}))
        await ask(feeding, "pause", "shop", "o4")
        for key, tenant in (("t1", "acme"), ("t2", "umbrella")):
            data = {"ticket": key, "tenant": tenant}
            await feeding.records(event("ticket.opened", data))
        await feeding.records(placed("o5"), event("order.paid", {"order_id": "o5", "amount": 5}))
        await feeding.records(event("order.shipped", {"order_id": "o5"}))

    async def keys(what: What, **filters: Any) -> set[str]:
        return {one.key for one in await choose_runs(engine, "default", what, **filters)}

    assert await keys("pause", pipeline="shop") == {"o1", "o2"}
    assert await keys("resume", pipeline="shop") == {"o4"}
    assert await keys("cancel", pipeline="shop") == {"o1", "o2", "o3", "o4"}
    assert await keys("cancel", status="held") == {"o3"}
    assert await keys("pause", status="held") == set()
    assert await keys("cancel", state="paid") == {"o2"}
    assert await keys("cancel", status="completed") == set()
    assert await keys("cancel", where=[("tenant", "acme")]) == {"t1"}
    with pytest.raises(UsageError, match="no status 'hold'"):
        await keys("cancel", status="hold")
    with pytest.raises(UsageError, match="search attribute"):
        await keys("cancel", where=[("tenat", "acme")])


async def test_all_that_were_chosen_are_cancelled_and_what_failed_is_told(
    database: Database, reader: Connection, engine: Connection
) -> None:
    number = EXPLAINED_MAX + 5
    BROKEN.add("p3")
    try:
        async with feed(database, parcel()) as feeding:
            await feeding.records(
                *(event("parcel.packed", {"parcel": f"p{one}"}, topic=TOPIC) for one in range(number))
            )
            chosen = await choose_runs(engine, "default", "cancel", state="packed")
            became = await done_to(feeding, engine, "cancel", chosen)
            report = await replay(reader, "default", [compile_pipeline(parcel())])
            assert report.is_equal, report.mismatches
    finally:
        BROKEN.clear()
    assert (len(became), sum(one.done for one in became)) == (number, number - 1)
    (failed,) = [one for one in became if one.failed]
    assert (failed.asked.key, failed.dead_letter) == ("p3", 1)
    assert failed.sentence.startswith(
        "The run 'p3' of parcel is not cancelled (action raised): call_back raised ValueError"
    )
    assert "The run 'p7' of parcel is cancelled (row 2)." in {one.sentence for one in became}
    assert await statuses(reader, state="packed") == {"p3": "held"}
    assert (await verify(reader, "default")).is_clean


async def test_a_run_that_has_moved_since_it_was_chosen_is_left_alone(
    database: Database, reader: Connection, engine: Connection
) -> None:
    async with feed(database, shop(closed="restart")) as feeding:
        await feeding.records(placed("o1"), placed("o2"), placed("o3"))
        chosen = await choose_runs(engine, "default", "cancel", state="placed")
        await feeding.records(event("order.paid", {"order_id": "o2", "amount": 5}))
        await ask(feeding, "cancel", "shop", "o3")
        await feeding.records(placed("o3"))
        became = await done_to(feeding, engine, "cancel", chosen)
    told = {one.asked.key: (one.done, one.sentence) for one in became}
    assert told["o1"][0]
    for key in ("o2", "o3"):
        assert told[key] == (False, f"The run '{key}' of shop has moved since it was chosen. Choose again.")
    assert await statuses(reader, status="running") == {"o2": "running", "o3": "running"}


async def test_an_event_is_sent_to_all_that_were_chosen_each_with_its_own_key(
    database: Database, reader: Connection, engine: Connection
) -> None:
    number = EXPLAINED_MAX + 5

    async def send(feeding: Feeding, chosen: list[Chosen], what: str, data: bytes) -> list[Done]:
        own_id = f"all {data!r}"
        asked = await send_to_runs(engine, "default", chosen, what, data, who="ana", why=WHY, event_id=own_id)
        while await engine.fetchval("select exists (select from pointsman.inbox)"):
            await feeding.commands()
        return await wait_until_done(engine, "default", asked, seconds=0)

    async with feed(database, shop()) as feeding:
        await feeding.records(*(placed(f"o{one}") for one in range(number)))
        await ask(feeding, "pause", "shop", "o3")
        chosen = await choose_runs(engine, "default", "send", state="placed")
        await feeding.records(event("order.paid", {"order_id": "o4", "amount": 5}))
        became = await send(feeding, chosen, "order.paid", b'{"amount": 5}')
        told = {one.asked.key: one for one in became}
        assert not told["o4"].done
        assert told["o4"].sentence == "The run 'o4' of shop has moved since it was chosen. Choose again."
        assert sum(one.done for one in became) == number - 1
        paid = await choose_runs(engine, "default", "send", state="paid")
        assert {one.key for one in paid} == {f"o{one}" for one in range(number) if one != 3}
        assert {one.event.id for one in await history(reader, "default", "shop", "o7")} >= {
            "all b'{\"amount\": 5}'"
        }
        failed = await send(feeding, paid, "order.paid", b'{"amount": "much"}')
        assert [one.done for one in failed] == [False] * len(paid)
        [first] = [one for one in failed if one.asked.key == "o7"]
        assert first.sentence == f"The event for 'o7' of shop is dead letter {first.dead_letter}."
        assert all(one.is_invalid for one in failed)
        assert {one.status for one in await list_dead_letters(reader, "default", limit=0)} == {"open"}
        await end_told(engine, failed, who="ana")
        assert {one.status for one in await list_dead_letters(reader, "default", limit=0)} == {"dropped"}
        with pytest.raises(UsageError, match="No version of shop that was ever run knows the type"):
            await data_for_runs(engine, "default", paid, "order.payd", b"{}")
        assert await data_for_runs(engine, "default", paid[:1], "order.paid", b"{}") == [
            b'{"order_id":"%s"}' % paid[0].key.encode()
        ]
        with pytest.raises(
            UsageError, match="The data is for the run 'o1', by its field 'order_id', and not for"
        ):
            await send(feeding, paid, "order.paid", b'{"order_id": "o1", "amount": 5}')
        with pytest.raises(UsageError, match="No version of shop that was ever run knows the type"):
            await send(feeding, paid, "order.payd", b"{}")
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(shop())])).is_equal


async def test_what_no_engine_took_up_is_told_as_waiting(database: Database, engine: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(*(placed(f"o{one}") for one in range(EXPLAINED_MAX + 1)))
        chosen = await choose_runs(engine, "default", "pause")
        asked = await ask_of_runs(engine, "default", "pause", chosen, who="ana", why=WHY)
        became = await wait_until_done(engine, "default", asked, seconds=0)
        assert [(one.taken, one.done, one.failed) for one in became] == [(False, False, False)] * len(chosen)
        await feeding.commands()
    assert await engine.fetchval("select count(*) from pointsman.runs where held > 0") == len(chosen)
    with pytest.raises(UsageError, match="Say why"):
        await ask_of_runs(engine, "default", "pause", chosen, who="ana", why="")
