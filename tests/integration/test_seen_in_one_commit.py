"""What a run has taken and forgotten within one commit is a duplicate still, also for the next, in a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from connectors.source import Partition, RawRecord
from engine.batch import ledger
from engine.batch.batch import Batch
from engine.batch.consumed import Consumed
from engine.reading import list_dead_letters, list_runs
from engine.routing import Route
from engine.session.claims import Slice
from engine.session.committer import EVENTS_LOADED_AT_ONCE, Pending
from engine.store.connecting import Connection
from engine.store.contract import Store
from engine.store.postgres import PostgresStore
from statemachines.run import Run
from tests.bills import (
    EARLY,
    SECOND_LIFE,
    TOPIC,
    WAITED_FOR_ITS_OPENING,
    bills,
    check,
    told,
)
from tests.feeding import event, feed
from tests.services import Database


async def test_what_deferred_events_push_out_is_a_duplicate_in_the_same_commit(
    database: Database, reader: Connection
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(*WAITED_FOR_ITS_OPENING, told("opened", "o"))
    await check(reader, [*range(EARLY)])


@pytest.mark.parametrize("again", [told("paid", "p0"), told("opened", "o"), told("made", "m")])
async def test_what_deferred_events_push_out_is_a_duplicate_for_the_next_generation(
    database: Database, reader: Connection, again: RawRecord
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(*WAITED_FOR_ITS_OPENING, told("shut", "s"), *SECOND_LIFE, again)
    await check(reader, [*range(EARLY)], [])


@pytest.mark.parametrize(
    ("later", "lines"),
    [
        ([told("made", "m")], [[*range(EARLY)]]),
        ([told("opened", "o"), *SECOND_LIFE, told("paid", "p0")], [[*range(EARLY)], []]),
    ],
)
async def test_what_deferred_events_push_out_is_a_duplicate_behind_a_commit_in_flight(
    database: Database, reader: Connection, later: list[RawRecord], lines: list[list[int]]
) -> None:
    async with feed(database, bills()) as feeding:
        committer, claim, met = feeding.committer, await feeding.claim(Partition(TOPIC, 0)), asyncio.Event()
        earlier = [*WAITED_FOR_ITS_OPENING, told("shut", "s")]
        end, placed = len(earlier), placed_from(0, [*earlier, *later])
        slices = [Slice(claim, placed[:end], 0, end)]
        batch = await committer.prepare(slices, None)
        in_flight = asyncio.create_task(after(met, feeding.store.commit(batch.commit)))
        pending = Pending(slices, (), (), batch, in_flight)
        behind = [Slice(claim, placed[end:], end, len(placed))]
        ahead = await committer.prepare(behind, pending)
        met.set()
        assert await committer.settle(pending, ahead)
        assert await committer.settle(committer.begin(behind, ahead))
    await check(reader, *lines)


def placed_from(first: int, records: list[RawRecord]) -> list[RawRecord]:
    return [one._replace(offset=at) for at, one in enumerate(records, first)]


async def after(event: asyncio.Event, doing: Coroutine[Any, Any, int | None]) -> int | None:
    await event.wait()
    return await doing


@pytest.mark.parametrize("generation", [0, 1])
async def test_what_a_run_has_taken_long_ago_is_a_duplicate_where_it_ends_while_the_log_is_asked(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    lives = [told("shut", "s1"), *SECOND_LIFE, told("shut", "s2"), told("made", "m3"), told("opened", "o3")]
    others = range(EVENTS_LOADED_AT_ONCE - len(lives))
    first = [event("made", {"bill": f"other{number}"}, topic=TOPIC) for number in others]
    async with feed(database, bills()) as feeding:
        if generation:
            await feeding.records(told("made", "m0"), told("opened", "o0"), told("shut", "s0"))
        await feeding.records(*WAITED_FOR_ITS_OPENING)
        ended, retire = asyncio.Event(), Batch.retire

        def tells(batch: Batch, route: Route, run: Run, successor: int) -> None:
            retire(batch, route, run, successor)
            if run.generation > generation:
                ended.set()

        def answers_late(ask: Callable[..., Awaitable[set[Any]]]) -> Callable[..., Awaitable[set[Any]]]:
            async def answer(_: Store, *asked: Any) -> set[Any]:
                found = await ask(*asked)
                if found:
                    await ended.wait()
                return found

            return answer

        monkeypatch.setattr(Batch, "retire", tells)
        for name in ("seen", "seen_by_generations"):
            monkeypatch.setattr(PostgresStore, name, answers_late(getattr(feeding.store, name)))
        await feeding.records(*first, *lives, told("paid", "p0"))
    await check(reader, *([[]] * generation), [*range(EARLY)], [], [])


@pytest.mark.parametrize(
    ("forgets", "letters"),
    [
        # In a commit of its own the log is asked about it.
        ((ledger, "recent_is_full", lambda recent: False), []),
        ((Consumed, "has", lambda *asked: False), [("opened", "refused by store", "has taken it already")]),
    ],
    ids=["within a commit", "for ever"],
)
async def test_what_an_engine_would_take_twice_keeps_it_from_nothing_else(
    database: Database,
    reader: Connection,
    monkeypatch: pytest.MonkeyPatch,
    forgets: tuple[object, str, object],
    letters: list[tuple[str, str, str]],
) -> None:
    others = [event("made", {"bill": f"other{number}"}, topic=TOPIC) for number in range(6)]
    records = placed_from(0, [*others[:3], *WAITED_FOR_ITS_OPENING, told("opened", "o"), *others[3:]])
    async with feed(database, bills()) as feeding:
        claim = await feeding.claim(Partition(TOPIC, 0))
        claim.read_to = len(records)
        slices = [Slice(claim, records, 0, claim.read_to)]
        with monkeypatch.context() as patched:
            patched.setattr(*forgets)
            batch = await feeding.committer.prepare(slices, None)
            assert not await feeding.committer.settle(feeding.committer.begin(slices, batch))
        await feeding.records(told("shut", "s"))
    assert len(await list_runs(reader, "default")) == len(others) + 1
    found = [(one.type, one.reason, one.error) for one in await list_dead_letters(reader, "default")]
    assert [one[:2] for one in found] == [one[:2] for one in letters]
    assert all(expected[2] in one[2] for one, expected in zip(found, letters, strict=True))
    await check(reader, [*range(EARLY)])
