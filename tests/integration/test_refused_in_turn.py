"""What a user's own trigger refuses, and refuses once more as a dead letter, is told once and harms nobody else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import Field

from engine.log import Kind
from engine.reading import AskedOfRun, history, list_dead_letters, list_runs, replay, verify, wait_until_done
from engine.reading.operating import put
from engine.session.timers import Due
from engine.store.connecting import Connection, connect
from statemachines import Context, Event, Pipeline, Publish, Send
from statemachines.effects import Effect
from statemachines.machine import compile_pipeline
from tests.chaos.contender import told as parcel_told
from tests.chaos.contender import weighed
from tests.chaos.lived import lived
from tests.chaos.parcels import PARCELS, Opened, Weighed
from tests.chaos.test_refusals import REFUSE
from tests.feeding import BEGINS, event, feed
from tests.journey import PAY_WITHIN, REMIND_AFTER, TOPIC, journey_pipeline, ledger_pipeline
from tests.operators import ask
from tests.services import Database, execute

COUNTED_OF_J1 = """
    create trigger refuse_it before insert on pointsman.events for each row
    when (new.type = 'ledger.counted' and position('"j1"' in encode(new.payload, 'escape')) > 0)
    execute function public.refuse()
"""
FIRED = f"""
    create trigger refuse_it before insert on pointsman.events for each row
    when (new.kind = {int(Kind.FIRED)}) execute function public.refuse()
"""
AS_DEAD_LETTER = """
    create trigger refuse_it before insert on pointsman.dead_letters for each row
    when (new.reason = 'refused by store') execute function public.refuse()
"""
ANSWERED_OF_J1 = """
    create trigger refuse_it before insert on pointsman.operations for each row
    when (new.key = 'j1') execute function public.refuse()
"""
MENDED = "drop trigger refuse_it on pointsman.events"


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the engine: what tests before have left is told of whenever it is collected."""
    ours = [record for record in caplog.records if record.name.startswith("pointsman")]
    return [record.getMessage() for record in ours if record.levelname == "ERROR"]


async def test_an_event_to_another_run_is_dropped_and_those_behind_it_come(
    database: Database, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(database.owner_dsn, REFUSE, COUNTED_OF_J1, AS_DEAD_LETTER)
    async with feed(database, journey_pipeline(), ledger_pipeline()) as feeding:
        for journey in ("j1", "j2"):
            kinds = ("booked", "paid", "boarded", "arrived")
            await feeding.records(
                *(event(f"journey.{kind}", {"journey": journey}, topic=TOPIC) for kind in kinds)
            )
        await feeding.commands()
    runs = {run.key: run for run in await list_runs(reader, "default")}
    assert runs["all"].context == {"journeys": ["j2"]}
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    assert await list_dead_letters(reader, "default") == []
    [said] = errors(caplog)
    assert (
        "(ledger.counted), which the run 'j1' of /pointsman/default/journey has sent to the run 'all'" in said
    )
    event_id = said.split("'")[1]
    sent = [one for row in await history(reader, "default", "journey", "j1") for one in row.effects]
    assert [one["data"] for one in sent if one["id"] == event_id] == [{"ledger": "all", "journey": "j1"}]
    assert (await verify(reader, "default")).is_clean


async def test_what_an_operator_asks_is_dropped_where_it_cannot_be_answered_and_what_is_behind_it_is_done(
    database: Database, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(database.owner_dsn, REFUSE, ANSWERED_OF_J1)
    async with feed(database, journey_pipeline()) as feeding:
        for journey in ("j1", "j2"):
            await feeding.records(event("journey.booked", {"journey": journey}, topic=TOPIC))
        unheard = await ask(feeding, "pause", "journey", "j1")
        assert (unheard.failed, unheard.sentence.split(",")[0]) == (True, "An engine has dropped the pause")
        assert (await ask(feeding, "pause", "journey", "j2")).done
    assert {run.key: bool(run.held) for run in await list_runs(reader, "default")} == {
        "j1": False,
        "j2": True,
    }
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    refused, dropped = errors(caplog)
    assert "(pause) is refused by the store" in refused
    assert "(pause), asked by ana, is dropped, and who asked is not answered" in dropped


async def test_who_asks_what_the_engine_does_not_know_is_told_where_to_read_why_it_was_dropped(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await connect(database.engine_dsn, for_engine=False)
    async with feed(database, journey_pipeline()) as feeding:
        asked = AskedOfRun(0, "rewind", "journey", "j1")
        asked = await put(connection, "default", asked, {"key": "j1"}, "ana", "too fast")
        await feeding.commands()
        (unheard,) = await wait_until_done(connection, "default", [asked], seconds=0)
    await connection.close()
    assert unheard.failed
    assert "An engine has dropped the rewind, and its log says why: it does not know such" in unheard.sentence
    (dropped,) = errors(caplog)
    assert "'rewind' that this version does not know; it is dropped" in dropped


async def test_what_has_fallen_due_is_left_alone_until_something_else_moves_its_run(
    database: Database, reader: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await execute(database.owner_dsn, REFUSE, FIRED, AS_DEAD_LETTER)
    async with feed(database, journey_pipeline()) as feeding:
        await feeding.records(event("journey.booked", {"journey": "j1"}, topic=TOPIC))
        feeding.clock.now = BEGINS + REMIND_AFTER + timedelta(minutes=1)
        route = feeding.topics[TOPIC].routes[0]
        due = Due(route, "j1", 0, 1, feeding.clock.now)
        committer = feeding.committer
        batch = await committer.prepare([], None, [due])
        assert not await committer.settle(committer.begin([], batch, [due]))
        assert committer.left_alone == {(route, "j1"): due}
        [said] = errors(caplog)
        assert said.startswith(
            "what has fallen due for the run 'j1' of journey does not happen: Postgres refuses it"
        )
        # The run itself goes on, and with it what falls due later.
        await execute(database.owner_dsn, MENDED)
        await feeding.records(event("journey.paid", {"journey": "j1"}, topic=TOPIC))
        assert await feeding.due(BEGINS + PAY_WITHIN + timedelta(minutes=1)) == 0, "its state was left"
    [run] = await list_runs(reader, "default")
    assert (run.status, run.configuration, run.context["notes"][0]) == ("running", ["ready"], "paid")
    assert await list_dead_letters(reader, "default") == []
    assert (await verify(reader, "default")).is_clean


class Visited(Event, type="visited", key="guest"):
    guest: str


class Thanked(Event, type="thanked", key="guest"):
    guest: str


class Visit(Context):
    thanks: list[str] = Field(default_factory=list)


def thank(visit: Visit, event: Thanked) -> None:
    visit.thanks.append(event.guest)


def thanking(later: Effect) -> Pipeline[Visit]:
    """What a visit asks for later leaves it after an hour."""
    flow = Pipeline("visits", Visit, topics=[TOPIC])
    here = flow.state("here", initial=True)
    flow.start(Visited, lambda _: Visit(), do=lambda _visit, _event: later)
    here.on(Thanked, do=thank)
    return flow


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "later",
    [
        Send(Thanked(guest="ana"), to="bo", after=HOUR),
        Send(Thanked(guest="ana"), to="bo", pipeline="visits", after=HOUR),
        Publish("thanks", Thanked(guest="ana"), key="bo", after=HOUR),
    ],
    ids=["to a run", "to a run of a pipeline", "to a topic"],
)
async def test_what_was_to_leave_leaves_once_it_is_redriven(
    database: Database, reader: Connection, later: Effect
) -> None:
    flow = thanking(later)
    others = [event("visited", {"guest": "bo"}, topic=TOPIC)] if isinstance(later, Send) else []
    await execute(database.owner_dsn, REFUSE, FIRED)
    async with feed(database, flow) as feeding:
        await feeding.records(event("visited", {"guest": "ana"}, topic=TOPIC))
        feeding.clock.now = BEGINS + 2 * HOUR
        due = [Due(feeding.topics[TOPIC].routes[0], "ana", 0, 1, feeding.clock.now)]
        committer = feeding.committer
        batch = await committer.prepare([], None, due)
        assert not await committer.settle(committer.begin([], batch, due))
        await execute(database.owner_dsn, MENDED)
        await feeding.records(*others)
        [letter] = await list_dead_letters(reader, "default")
        await feeding.redrive(letter.id)
        await feeding.commands()
    rows = await history(reader, "default", "visits", "ana")
    assert [row.event.kind for row in rows] == ["started", "held fired", "released", "fired"]
    runs = {run.key: run for run in await list_runs(reader, "default")}
    assert runs["ana"].context == {"thanks": []}, "it was not for the run itself"
    [left] = rows[-1].effects
    assert (left["what"], left["key"], left["data"]) == (
        "send" if isinstance(later, Send) else "publish",
        "bo",
        {"guest": "ana"},
    )
    if isinstance(later, Send):
        assert runs["bo"].context == {"thanks": ["ana"]}
    assert (await verify(reader, "default")).is_clean
    replayed = await replay(reader, "default", [compile_pipeline(flow)])
    assert replayed.is_equal, replayed


async def test_an_engine_says_it_once_and_lets_the_time_of_others_come(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    flow = Pipeline("ticking", Visit, topics=[PARCELS], timers="on_time")
    here = flow.state("here", initial=True)
    flow.start(Opened, lambda _: Visit())
    here.on(Weighed)
    here.after(timedelta(milliseconds=1), do=lambda _visit, _event: None)
    of_p = """position('"subject":"p"' in encode(new.payload, 'escape')) > 0 and new.kind ="""
    await execute(database.owner_dsn, REFUSE, FIRED.replace("new.kind =", of_p), AS_DEAD_LETTER)
    async with lived(database, flow=flow, timer_poll_seconds=0) as one:
        await one.append(parcel_told("opened", "p"))
        await one.append(parcel_told("opened", "q"))
        await one.moves(3)
        # It is looked again and again meanwhile what has fallen due.
        for rows in range(4, 14):
            await one.append(weighed("q"))
            await one.moves(rows)
        assert one.engine.troubles() == []
        fired = await one.ask(
            "select r.key from pointsman.events e join pointsman.runs r on r.id = e.run where e.kind = 14"
        )
        assert [row["key"] for row in fired] == ["q"]
        [said] = errors(caplog)
        assert said.startswith("what has fallen due for the run 'p' of ticking does not happen")
