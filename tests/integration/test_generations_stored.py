"""What a run leaves to the next one of its key, across holds, releases and versions, in a real Postgres."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Literal

import pytest
from pydantic import Field

from connectors.source import Partition, RawRecord
from engine.batch.moves import RECENT_BYTES
from engine.log import Kind
from engine.reading import history, list_dead_letters, list_runs, replay, verify
from engine.session.claims import Slice
from engine.session.committer import Pending
from engine.store.connecting import Connection
from statemachines import Context, Defer, Event, OrderBy, Pipeline, Send
from statemachines.machine import compile_pipeline
from statemachines.run import DIGEST_BYTES
from tests.feeding import BEGINS, event, feed
from tests.operators import ask
from tests.services import Database, execute

TOPIC = "visits"
WHILE_ANOTHER_HOUR = timedelta(hours=1)
SENDS_MAX = 250
REFUSED_SEND = 150
"""Beyond what goes into one commit, so that a release goes on with it."""


class Came(Event, type="came", key="guest"):
    guest: str
    number: int = 0


class Returned(Event, type="returned", key="guest"):
    guest: str


class Broke(Event, type="broke", key="guest"):
    guest: str
    number: int = 0


class Left(Event, type="left", key="guest"):
    guest: str


class Ordered(Event, type="ordered", key="guest"):
    guest: str
    number: int = 0
    urgent: bool = False


class Again(Event, type="again"):
    number: int


class Visit(Context):
    orders: list[int] = Field(default_factory=list)
    is_open: bool = False


class Mended:
    """Whether what a pipeline does with ``Broke`` fails no more."""

    def __init__(self) -> None:
        self.yes = False

    def __call__(self, visit: Visit, broke: Broke) -> None:
        if not self.yes:
            raise ValueError("the till is stuck")


def told(type: str, *, id: str | None = None, **data: Any) -> RawRecord:
    return event(type, {"guest": "ana", **data}, topic=TOPIC, id=id)


def note(visit: Visit, ordered: Ordered) -> None:
    visit.orders.append(ordered.number)


def visits(
    mended: Mended | None = None,
    *,
    no_run: Defer | Literal["dead_letter"] = "dead_letter",
    closed: Literal["restart", "dead_letter"] = "restart",
    version: int = 1,
) -> Pipeline[Visit]:
    flow = Pipeline("visits", Visit, topics=[TOPIC], closed=closed, no_run=no_run, version=version)
    here = flow.state("here", initial=True)
    back = flow.state("back")
    gone = flow.state("gone", final=True)
    flow.start(Came, lambda came: Visit())
    flow.start(Returned, lambda returned: Visit(), to=back)
    here.on(Ordered, do=note)
    here.on(Broke, do=mended or Mended())
    here.on(Left, to=gone)
    back.on(Ordered, do=note)
    back.on(Left, to=gone)
    return flow


async def check_the_log(reader: Connection, *pipelines: Pipeline[Any]) -> None:
    """Folding gives the rows of the runs and replaying the same log; nothing is held, and nothing is counted twice."""
    verified = await verify(reader, "default")
    assert verified.is_clean, verified
    replayed = await replay(reader, "default", [compile_pipeline(one) for one in pipelines])
    assert replayed.is_equal, replayed.mismatches
    assert all(run.held is None and run.waiting == 0 for run in await list_runs(reader, "default"))


async def letters_of(reader: Connection) -> list[str]:
    return [letter.type or "" for letter in await list_dead_letters(reader, "default")]


@pytest.mark.parametrize("begins", [True, False], ids=["begins", "is early"])
async def test_what_waited_behind_a_hold_of_a_run_that_then_ended_begins_the_next_one_once_it_is_redriven(
    database: Database, reader: Connection, *, begins: bool
) -> None:
    mended = Mended()
    pipeline = visits(mended, no_run=Defer(WHILE_ANOTHER_HOUR))
    last = told("came") if begins else told("ordered", number=2)
    async with feed(database, pipeline) as feeding:
        await feeding.records(told("came"), told("broke"), told("left"), told("ordered", number=1), last)
        mended.yes = True
        await feeding.redrive(*[letter.id for letter in await list_dead_letters(reader, "default")])
        letters = await list_dead_letters(reader, "default", status="open")
        assert [letter.reason for letter in letters] == ["run closed"] * 2
        verified = await verify(reader, "default")
        assert verified.is_clean, verified
        await feeding.redrive(*sorted(letter.id for letter in letters))
        if not begins:
            await feeding.records(told("came"))
    runs = await list_runs(reader, "default")
    assert {run.generation: run.context["orders"] for run in runs} == {0: [], 1: [1] if begins else [1, 2]}
    assert all(run.held is None and run.waiting == 0 for run in runs)
    verified = await verify(reader, "default")
    assert verified.is_clean, verified


@pytest.mark.parametrize("no_run", ["dead_letter", Defer()], ids=["dead letter", "deferred"])
@pytest.mark.parametrize("visits_more", [1, 2])
async def test_whole_lives_that_waited_for_the_end_of_a_run_are_lived_in_their_order(
    database: Database, reader: Connection, no_run: Any, visits_more: int
) -> None:
    flow = Pipeline("visits", Visit, topics=[TOPIC], closed="restart", no_run=no_run)
    first = flow.state("first", initial=True)
    later = flow.state("later")
    gone = flow.state("gone", final=True)
    flow.start(Came, lambda came: Visit())
    flow.start(Returned, lambda returned: Visit(), to=later)
    first.on(Broke, to=gone)
    later.on(Left, to=gone)
    async with feed(database, flow) as feeding:
        await feeding.records(told("came"), *[told(one) for one in ("returned", "left") * visits_more])
        await feeding.records(told("broke"))
    runs = await list_runs(reader, "default")
    assert {run.generation: run.status for run in runs} == dict.fromkeys(range(visits_more + 1), "completed")
    assert await letters_of(reader) == []
    await check_the_log(reader, flow)


async def test_what_was_deferred_under_an_older_version_is_for_the_next_run_under_the_newest(
    database: Database, reader: Connection
) -> None:
    older, newest = visits(closed="dead_letter"), visits(closed="restart", version=2)
    async with feed(database, older) as feeding:
        await feeding.records(told("came"), told("returned"))
    async with feed(database, older, newest) as feeding:
        await feeding.records(told("left"))
    runs = await list_runs(reader, "default")
    assert {run.generation: run.status for run in runs} == {0: "completed", 1: "running"}
    assert await letters_of(reader) == []
    await check_the_log(reader, older, newest)


async def test_what_waits_for_a_run_of_which_there_is_none_says_which_version_has_it_wait(
    database: Database, reader: Connection
) -> None:
    older, newest = visits(no_run=Defer(WHILE_ANOTHER_HOUR)), visits(no_run=Defer(), version=2)
    async with feed(database, older) as feeding:
        await feeding.records(told("ordered", number=1))
    async with feed(database, newest) as feeding:
        await feeding.records(told("ordered", number=2))
        await feeding.records(told("came"))
    await check_the_log(reader, older, newest)


async def test_what_was_deferred_under_a_business_key_is_known_by_that_in_the_next_run_of_a_version_without_one(
    database: Database, reader: Connection
) -> None:
    def pipeline(version: int) -> Pipeline[Visit]:
        flow = Pipeline("visits", Visit, topics=[TOPIC], closed="restart", no_run=Defer(), version=version)
        here, back = flow.state("here", initial=True), flow.state("back")
        flow.start(Came, lambda came: Visit())
        flow.start(Returned, lambda returned: Visit(), to=back)
        here.on(Left, to=flow.state("gone", final=True))
        back.on(Ordered, do=note)
        return flow

    older, newest = pipeline(1), pipeline(2)
    older.policy(Ordered, duplicate_by="number")
    async with feed(database, older) as feeding:
        await feeding.records(told("came"), told("ordered", number=1), told("ordered", number=2))
    async with feed(database, older, newest) as feeding:
        await feeding.records(told("left"))
        await feeding.records(told("returned"))
        await feeding.records(told("ordered", number=3))
    run = max(await list_runs(reader, "default"), key=lambda one: one.generation)
    assert (run.generation, run.context["orders"]) == (1, [1, 2, 3])
    await check_the_log(reader, older, newest)


async def test_a_deferred_beginning_begins_the_run_and_names_what_it_sends_as_the_log_does(
    database: Database, reader: Connection
) -> None:
    flow = Pipeline("visits", Visit, topics=[TOPIC], no_run="ignore")
    here = flow.state("here", initial=True)
    flow.start(
        Came, lambda came: Visit(), do=lambda visit, came: Send(Again(number=1), after=timedelta(minutes=1))
    )
    here.on(Again, do=lambda visit, again: visit.orders.append(again.number))
    here.on(Ordered)
    flow.policy(Came, order_by=OrderBy("number", contiguous=True, stream="numbers"))
    flow.policy(Ordered, order_by=OrderBy("number", contiguous=True, stream="numbers"))
    async with feed(database, flow) as feeding:
        await feeding.records(told("came", number=2), told("ordered", number=1))
        await feeding.due(BEGINS + timedelta(minutes=5))
    rows = await history(reader, "default", "visits", "ana")
    [started] = [row for row in rows if row.event.kind == "started"]
    [fired] = [row for row in rows if row.event.kind == "fired"]
    assert fired.event.id in str(started)
    await check_the_log(reader, flow)


@pytest.mark.parametrize("is_ordered", [True, False])
async def test_a_business_key_is_taken_once_though_the_first_event_with_it_still_waits(
    database: Database, reader: Connection, *, is_ordered: bool
) -> None:
    def pipeline() -> Pipeline[Visit]:
        flow = Pipeline("visits", Visit, topics=[TOPIC])
        here = flow.state("here", initial=True)
        flow.start(Came, lambda came: Visit())

        def open_up(visit: Visit, returned: Returned) -> None:
            visit.is_open = True

        here.on(Returned, do=open_up)
        here.on(Broke)
        here.on(Ordered, when=lambda visit, ordered: ordered.urgent or visit.is_open, do=note)
        flow.policy(Ordered, duplicate_by="number")
        if is_ordered:
            flow.policy(Broke, order_by=OrderBy("number"))
        return flow

    async with feed(database, pipeline()) as feeding:
        await feeding.records(
            told("came"), told("ordered", number=1), told("ordered", number=1, urgent=True), told("returned")
        )
    [run] = await list_runs(reader, "default")
    assert run.context["orders"] == [1]
    await check_the_log(reader, pipeline())


async def test_a_deferred_event_that_comes_again_behind_a_hold_is_a_duplicate(
    database: Database, reader: Connection
) -> None:
    mended = Mended()
    flow = Pipeline("visits", Visit, topics=[TOPIC])
    here, back = flow.state("here", initial=True), flow.state("back")
    flow.start(Came, lambda came: Visit())
    here.on(Broke, do=mended)
    here.on(Returned, to=back)
    back.on(Ordered, do=note)
    async with feed(database, flow) as feeding:
        early = told("ordered", number=1, id="early")
        await feeding.records(told("came"), early)
        await feeding.records(told("broke"), early)
        mended.yes = True
        await feeding.redrive(*[one.id for one in await list_dead_letters(reader, "default")])
        await feeding.records(told("returned"))
    [run] = await list_runs(reader, "default")
    assert (run.context["orders"], run.held, run.waiting) == ([1], None, 0)
    kinds = [row.event.kind for row in await history(reader, "default", "visits", "ana")]
    assert kinds.count("deferred") == 1


async def test_what_a_release_goes_on_with_and_the_store_refuses_is_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    def go_on(visit: Visit, again: Again) -> Send | None:
        visit.orders = [again.number]
        return Send(Again(number=again.number + 1)) if again.number < SENDS_MAX else None

    flow = Pipeline("visits", Visit, topics=[TOPIC])
    here = flow.state("here", initial=True)
    flow.start(Came, lambda came: Visit())
    here.on(Returned, do=lambda visit, returned: Send(Again(number=1)))
    here.on(Again, do=go_on)
    await execute(
        database.owner_dsn,
        f"""create function refuse() returns trigger language plpgsql as $$
        begin
            if position('[{REFUSED_SEND}]' in convert_from(new.context, 'UTF8')) > 0 then
                raise exception 'no' using errcode = '22P05';
            end if;
            return new;
        end $$""",
        "create trigger refuse before insert on pointsman.events for each row execute function refuse()",
    )
    async with feed(database, flow) as feeding:
        await feeding.records(told("came"), told("returned"))
        for _ in range(SENDS_MAX // 50):
            await feeding.commands()
    [letter] = await list_dead_letters(reader, "default")
    assert (letter.type, letter.reason, letter.status) == ("again", "refused by store", "open")
    [run] = await list_runs(reader, "default")
    assert (run.held, run.context["orders"]) == (run.sequence, [REFUSED_SEND - 1])
    rows = await history(reader, "default", "visits", "ana")
    assert [row.event.kind for row in rows].count(str(Kind.DRAINING.name).lower()) >= 1
    verified = await verify(reader, "default")
    assert verified.is_clean, verified


async def test_an_event_that_the_ended_run_took_is_a_duplicate_while_the_next_run_is_not_durable_yet(
    database: Database, reader: Connection
) -> None:
    pipeline = visits()
    first = told("ordered", number=1, id="first")
    others = [told("ordered", number=number) for number in range(2, 2 + RECENT_BYTES // DIGEST_BYTES + 1)]
    async with feed(database, pipeline) as feeding:
        await feeding.records(told("came"), first, *others)
        claim = feeding.claims[Partition(TOPIC, 0)]

        def one_slice(*records: RawRecord) -> list[Slice]:
            start = claim.read_to
            claim.read_to += len(records)
            placed = [record._replace(offset=start + number) for number, record in enumerate(records)]
            return [Slice(claim, placed, start, claim.read_to)]

        gate = asyncio.Event()
        slices = one_slice(told("left"), told("came"))
        batch = await feeding.committer.prepare(slices, None)

        async def commit() -> Any:
            await gate.wait()
            return await feeding.store.commit(batch.commit)

        pending = Pending(slices, [], [], batch, asyncio.create_task(commit()))
        slices = one_slice(first)
        following = await feeding.committer.prepare(slices, pending)
        gate.set()
        assert await feeding.committer.settle(pending, following)
        assert await feeding.committer.settle(feeding.committer.begin(slices, following))
    runs = {run.generation: run for run in await list_runs(reader, "default")}
    assert runs[0].context["orders"][0] == 1
    assert (runs[1].status, runs[1].context["orders"]) == ("running", [])
    await check_the_log(reader, pipeline)


@pytest.mark.parametrize("is_held", [True, False])
async def test_as_many_runs_as_events_have_waited_begin_at_the_end_of_one(
    database: Database, reader: Connection, *, is_held: bool
) -> None:
    flow = Pipeline("visits", Visit, topics=[TOPIC], closed="restart")
    here, gone = flow.state("here", initial=True), flow.state("gone", final=True)
    flow.start(Came, lambda came: Visit())
    flow.start(Ordered, lambda ordered: Visit(orders=[ordered.number]), to=gone)
    mended = Mended()
    here.on(Broke, do=mended)
    here.on(Left, to=gone)
    waiting = 40
    async with feed(database, flow) as feeding:
        await feeding.records(told("came"), *[told("ordered", number=number) for number in range(waiting)])
        # So that there are none to spare.
        ids = feeding.committer._ids
        while len(ids._numbers) > 1:
            next(ids)
        if is_held:
            await feeding.records(told("broke"), told("left"))
            mended.yes = True
            await feeding.redrive(*[letter.id for letter in await list_dead_letters(reader, "default")])
        else:
            await feeding.records(told("left"))
    runs = await list_runs(reader, "default")
    assert {run.generation: run.context["orders"] for run in runs if run.generation} == {
        number + 1: [number] for number in range(waiting)
    }
    verified = await verify(reader, "default")
    assert verified.is_clean, verified


@pytest.mark.parametrize("otherwise", ["refused", "deferred", "in its turn, and ignored"])
@pytest.mark.parametrize("how", ["completed", "cancelled"])
async def test_who_knows_only_the_run_that_has_ended_learns_that_the_next_one_has_begun(
    database: Database, reader: Connection, how: str, otherwise: str
) -> None:
    """``otherwise`` is what would become of the event if the run that has ended were the last one."""
    pipeline = visits(no_run=Defer(WHILE_ANOTHER_HOUR) if otherwise == "deferred" else "dead_letter")
    if otherwise == "in its turn, and ignored":
        pipeline.policy(Ordered, closed="ignore", order_by="number")
    async with feed(database, pipeline) as one, feed(database, pipeline) as other:
        await other.records(told("came"))
        if how == "cancelled":
            await ask(other, "cancel", "visits", "ana")
        else:
            await other.records(told("left"))
        await one.claim(Partition(TOPIC, 1))
        came, ordered = told("came"), told("ordered", number=7)
        await one.records(came._replace(partition=1))
        # As it reads another partition, or serves the home of the run.
        claim = other.claims[Partition(TOPIC, 0)]
        record = ordered._replace(offset=claim.read_to)
        claim.read_to += 1
        slices = [Slice(claim, [record], record.offset, claim.read_to)]
        batch = await other.committer.prepare(slices, None)
        assert not await other.committer.settle(other.committer.begin(slices, batch)), "it has lost"
    assert await letters_of(reader) == []
    [second, first] = await list_runs(reader, "default")
    assert (first.status, second.generation, second.context["orders"]) == (how, 1, [7])
    await check_the_log(reader, pipeline)
