"""How many events may wait behind the hold of a run, and what becomes of those that come on top."""

from __future__ import annotations

from connectors.source import RawRecord
from engine.batch.settling import WAITING_EVENTS_MAX
from engine.reading import explain, list_dead_letters, list_runs, verify
from engine.store.connecting import Connection
from tests.feeding import event, feed
from tests.services import Database
from tests.shop import shop

PLACED = event("order.placed", {"order_id": "o1", "amount": 5}, id="placed")
BREAKING = event("order.broken", {"order_id": "o1"}, id="broken")
OVER = 3
ALL = WAITING_EVENTS_MAX + OVER


def noted(number: int) -> RawRecord:
    return event("order.noted", {"order_id": "o1", "text": str(number)}, id=f"note-{number}")


async def test_the_newest_beyond_the_limit_become_dead_letters_in_order(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(WAITING_EVENTS_MAX - 1)))
        # The last that fits, those on top of it, and one that waits already, in one batch and in the next.
        await feeding.records(*(noted(number) for number in (ALL - 4, ALL - 3, ALL - 2, 5)))
        await feeding.records(noted(ALL - 1), noted(ALL - 4))

        [run] = await list_runs(reader, "default")
        assert (run.status, run.waiting) == ("held", WAITING_EVENTS_MAX)
        *newest_first, holder = await list_dead_letters(reader, "default", limit=0)
        over = newest_first[::-1]
        assert [letter.event_id for letter in over] == [f"note-{number}" for number in range(ALL - OVER, ALL)]
        assert {letter.reason for letter in over} == {"waiting limit reached"}
        assert {(letter.status, letter.pipeline, letter.key) for letter in over} == {("open", "shop", "o1")}
        told = f"{WAITING_EVENTS_MAX} events wait already behind what holds the run; this one came on top"
        assert {letter.error for letter in over} == {told}
        assert (await verify(reader, "default")).is_clean

        for number, became in ((ALL - 1, "dead-lettered"), (ALL - 4, "held")):
            found = await explain(reader, "default", event_id=f"note-{number}")
            assert found.answers[0].current.disposition == became
        twice = await explain(reader, "default", event_id="note-5")
        assert [one.current.disposition for one in twice.answers] == ["held", "duplicate"]

        await feeding.drop(holder.id)
        await feeding.redrive(*(letter.id for letter in over))
        [run] = await list_runs(reader, "default")
        assert (run.status, run.waiting) == ("running", 0)
        assert run.context["notes"] == [str(number) for number in range(ALL)]
        assert (await verify(reader, "default")).is_clean


async def test_other_runs_of_the_partition_go_on(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, BREAKING, *(noted(number) for number in range(ALL)))
        await feeding.records(
            event("order.placed", {"order_id": "o2", "amount": 5}),
            noted(ALL),
            event("order.noted", {"order_id": "o2"}),
        )
    runs = {run.key: run for run in await list_runs(reader, "default")}
    assert (runs["o2"].status, runs["o2"].sequence) == ("running", 2)
    assert runs["o1"].waiting == WAITING_EVENTS_MAX
    assert len(await list_dead_letters(reader, "default", reason="waiting limit reached")) == OVER + 1
