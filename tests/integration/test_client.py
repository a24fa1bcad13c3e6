"""The client: what other programs ask of runs, while an engine takes that up."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.source import RawRecord
from engine import client as client_module
from engine.awaiting import Watch
from engine.client import (
    CONNECTIONS,
    NAME,
    AlreadyRunningError,
    Client,
    InvalidDataError,
    MissedError,
    NotDoneError,
    NotTakenError,
    StillWaitsError,
    TooLateError,
    WaitedTooLongError,
)
from engine.errors import PointsmanError, RefusedError, UsageError
from engine.reading import NotFoundError, verify
from engine.reading.explain import found
from engine.store.connecting import Connection
from statemachines.definition import Pipeline
from tests.chaos.slots import until
from tests.feeding import Feeding, event, feed
from tests.integration.test_unsticking import check_the_log, parcels
from tests.integration.test_unsticking import told as parcel
from tests.lending import TOPIC, Applied, Verdict, Withdrawn, World, clear, lending_pipeline
from tests.lent import told
from tests.services import Database, execute

SECONDS = 30.0


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


@pytest.fixture
async def client(database: Database) -> AsyncIterator[Client]:
    async with Client(database.engine_dsn, who="the till") as made:
        yield made


@dataclass
class Serving:
    """What is fed to it beside that."""

    feeding: Feeding
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def records(self, *records: RawRecord) -> None:
        async with self.turn:
            await self.feeding.records(*records)

    async def work(self) -> None:
        async with self.turn:
            await self.feeding.work()


@contextlib.asynccontextmanager
async def serving(database: Database, flow: Pipeline[Any] | None = None) -> AsyncIterator[Serving]:
    """An engine that takes up what is asked, as soon as it is."""
    async with feed(database, flow or lending_pipeline()) as feeding:
        served = Serving(feeding)

        async def serve() -> None:
            while True:
                await feeding.inbox.wanted.wait()
                async with served.turn:
                    await feeding.commands()

        await feeding.inbox.listen()
        work = asyncio.create_task(serve())
        try:
            yield served
        finally:
            work.cancel()
            await asyncio.wait({work})


async def has_looked(client: Client, runs: int = 1) -> None:
    """So many wait, and all of them were looked at."""

    async def are_seen() -> bool:
        waiting = client._watch._runs
        return len(waiting) == runs and all(one.seen is not None for one in waiting)

    await until(are_seen, SECONDS, f"{runs} who wait", 0.01)


async def test_what_is_sent_is_answered_with_what_became_of_it_and_where_the_run_is(
    database: Database, reader: Connection, client: Client, world: World
) -> None:
    async with serving(database):
        begun = await client.start("lending", "l1", Applied(loan="l1"), event_id="one")
        assert (begun.disposition, begun.configuration, begun.failed) == ("started", ["reviewing"], False)
        again = await client.start("lending", "l1", "loan.applied", {"loan": "l1"}, event_id="one")
        assert (again.disposition, again.as_json()["configuration"]) == ("duplicate", None)
        left = await client.send("lending", "l1", Withdrawn(loan="l1"), why="they found another bank")
        assert (left.disposition, left.configuration) == ("applied", ["withdrawn"])
        assert left.as_json()["run"]["status"] == "completed"
        [row] = [one for one in await client.history("lending", "l1") if one.event.type == "loan.withdrawn"]
        explained = await client.explain(row.event.id)
        sender = explained.answers[0].sender
        assert sender is not None
        assert (sender.who, sender.why) == ("the till", "they found another bank")
        await client.start("lending", "l2", Applied(loan="l2"))
        with pytest.raises(NotDoneError, match="dead letter") as dead:
            await client.send("lending", "l9", Withdrawn(loan="l9"))
        assert (dead.value.answered.disposition, dead.value.answered.run) == ("dead-lettered", None)
        with pytest.raises(InvalidDataError, match=r"invalid data\): loan: Input should be a valid string"):
            await client.send("lending", "l2", "loan.withdrawn", {"loan": ["l2"]})
        assert (await client.run("lending", "l2")).status == "running"
        letters = await reader.fetch("select status, who, why from pointsman.dead_letters")
        assert [tuple(one) for one in letters] == [("dropped", "the till", "its sender was told")] * 2
        paused = await client.pause("lending", "l2", why="a look")
        assert {*paused.as_json()} == {*paused.done.as_json(), "run"}
        with pytest.raises(UsageError, match=r"knows the type 'loan.lost'"):
            await client.send("lending", "l1", "loan.lost")
        with pytest.raises(NotFoundError, match="No pipeline 'landing' was ever run"):
            await client.send("landing", "l1", Applied(loan="l1"))
        with pytest.raises(UsageError, match="That has no words in JSON"):
            await client.send("lending", "l1", "loan.applied", {"loan": object()})


async def test_where_the_run_is_is_told_as_of_the_row_however_far_it_has_gone_since(
    database: Database, client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database) as feeding:
        is_taken = Watch.command

        async def is_taken_and_left(watch: Watch, command: int, seconds: float) -> None:
            await is_taken(watch, command, seconds)
            await feeding.records(told("withdrawn"))

        monkeypatch.setattr(Watch, "command", is_taken_and_left)
        begun = await client.start("lending", "l1", Applied(loan="l1"))
        assert (begun.generation, begun.sequence, begun.configuration) == (0, 1, ["reviewing"])
        assert begun.run is not None
        assert (begun.run.sequence, begun.run.configuration) == (2, ["withdrawn"])
        assert begun.as_json()["configuration"] == ["reviewing"]
        monkeypatch.undo()
        again = await client.start("lending", "l1", Applied(loan="l1"), event_id=begun.done.asked.event_id)
        assert (again.disposition, again.sequence, again.configuration) == ("duplicate", None, ["withdrawn"])


async def test_a_duplicate_has_begun_a_run_where_the_event_did_that_it_doubles(
    database: Database, client: Client, world: World
) -> None:
    async with serving(database) as feeding:
        await feeding.records(event("loan.applied", {"loan": "l1"}, id="two", topic=TOPIC))
        # It has the id of what has begun the run, and is another event, since it is of another source.
        waits = await client.send("lending", "l1", Applied(loan="l1"), event_id="two")
        with pytest.raises(NotDoneError, match="That has begun no run 'l1' of lending") as none:
            await client.start("lending", "l1", Applied(loan="l1"), event_id="two")
        assert (waits.disposition, none.value.answered.disposition) == ("deferred", "duplicate")
        await client.start("lending", "l2", Applied(loan="l2"), event_id="three")
        # It has waited, and then begins the next run of the key.
        await client.send("lending", "l1", Withdrawn(loan="l1"), event_id="four")
        for generation in (1, 2):
            begun = await client.start("lending", "l1", Applied(loan="l1"), event_id="two")
            assert begun.disposition == "duplicate"
            assert begun.run is not None
            assert begun.run.generation == generation
            await client.send("lending", "l1", Withdrawn(loan="l1"), event_id=f"five {generation}")
            await client.start("lending", "l1", Applied(loan="l1"), event_id=f"six {generation}")
        with pytest.raises(NotDoneError, match="That has begun no run") as left:
            await client.start("lending", "l1", "loan.withdrawn", {"loan": "l1"}, event_id="four")
        assert left.value.answered.disposition == "duplicate"


async def test_where_a_run_goes_on_none_is_begun_now_or_later(
    database: Database, reader: Connection, client: Client, world: World
) -> None:
    async with serving(database):
        await client.start("lending", "l1", Applied(loan="l1"), event_id="one")
        with pytest.raises(AlreadyRunningError) as goes_on:
            await client.start("lending", "l1", Applied(loan="l1"), event_id="two")
        assert str(goes_on.value) == (
            "That has begun no run 'l1' of lending. The run 'l1' of lending goes on already, in reviewing (row 1). "
            "Nothing was sent."
        )
        assert goes_on.value.answered.configuration == ["reviewing"]
        await client.pause("lending", "l1", why="a look")
        with pytest.raises(AlreadyRunningError, match=r"in reviewing \(row 2, held since row 2\)"):
            await client.start("lending", "l1", "loan.applied", {"loan": "l1"}, event_id="two")
        assert (await client.start("lending", "l1", Applied(loan="l1"), event_id="one")).done.done
        assert (await client.cancel("lending", "l1", why="enough")).run == await client.wait("lending", "l1")
        assert not (await client.explain("two")).known
        assert await reader.fetchval("select count(*) from pointsman.dead_letters") == 0
        begun = await client.start("lending", "l1", Applied(loan="l1"), event_id="two")
        assert begun.run is not None
        assert (begun.disposition, begun.run.generation) == ("started", 1)
    assert (await verify(reader, "default")).is_clean


async def test_whether_a_run_goes_on_is_what_the_store_says_and_not_what_an_engine_remembers(
    database: Database, client: Client, world: World
) -> None:
    async with serving(database), feed(database, lending_pipeline()) as other:
        await client.start("lending", "l1", Applied(loan="l1"))
        await other.records(told("withdrawn"))
        begun = await client.start("lending", "l1", Applied(loan="l1"))
        assert begun.run is not None
        assert begun.run.generation == 1


async def test_events_of_one_id_that_are_sent_to_several_runs_are_several(
    database: Database, client: Client, world: World
) -> None:
    async with serving(database):
        for disposition in ("started", "duplicate"):
            for loan in ("l2", "l1"):
                begun = await client.start("lending", loan, Applied(loan=loan), event_id="one")
                assert begun.disposition == disposition
                assert repr(loan) in begun.sentence
        answers = (await client.explain("one")).answers
        assert [(one.key, one.current.disposition) for one in answers] == [
            ("l2", "started"),
            ("l1", "started"),
        ]
        assert [len(one.earlier) for one in answers] == [1, 1]


async def test_however_many_runs_events_of_one_id_have_begun_each_is_known_to_have(
    database: Database, client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found, "FOUND_MAX", 2)
    flow = lending_pipeline()
    flow.policy(Applied, duplicate_by="loan")
    async with serving(database, flow):
        for disposition in ("started", "duplicate", "duplicate"):
            for loan in ("l1", "l2", "l3"):
                begun = await client.start("lending", loan, Applied(loan=loan), event_id="import 7")
                assert begun.disposition == disposition
        for loan in ("l1", "l2", "l3"):
            begun = await client.start("lending", loan, Applied(loan=loan), event_id="import 8")
            assert begun.disposition == "duplicate"


async def test_a_duplicate_by_its_business_key_has_begun_what_the_first_of_them_did(
    database: Database, client: Client, world: World
) -> None:
    flow = lending_pipeline()
    flow.policy(Applied, duplicate_by="loan")
    flow.policy(Withdrawn, duplicate_by="loan")
    async with serving(database, flow):
        await client.start("lending", "l1", Applied(loan="l1"), event_id="one")
        again = await client.start("lending", "l1", Applied(loan="l1"), event_id="another")
        assert again.disposition == "duplicate"
        await client.send("lending", "l1", Withdrawn(loan="l1"))
        with pytest.raises(NotDoneError, match="That has begun no run") as left:
            await client.start("lending", "l1", Withdrawn(loan="l1"))
        assert left.value.answered.disposition == "duplicate"


async def test_what_no_engine_takes_up_in_time_waits_and_is_asked_for_again_by_its_id(
    database: Database, reader: Connection, client: Client, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        with pytest.raises(TimeoutError, match=r"It waits in the inbox .* ask again by its id, '.+'") as late:
            await client.start("lending", "l1", Applied(loan="l1"), timeout=0.01)
        assert isinstance(late.value, NotTakenError)
        own_id = late.value.event_id
        asked = asyncio.create_task(
            client.start("lending", "l1", Applied(loan="l1"), event_id=own_id, timeout=SECONDS)
        )

        async def both_wait() -> bool:
            return bool(await reader.fetchval("select count(*) = 2 from pointsman.inbox"))

        await until(both_wait, SECONDS, "two commands", 0.01)
        await feeding.commands()
        assert (await asked).disposition == "duplicate"
        with pytest.raises(NotTakenError) as paused:
            await client.pause("lending", "l1", why="a look", timeout=0.01)
        assert paused.value.event_id is None
    assert (await client.run("lending", "l1")).configuration == ["reviewing"]


async def test_a_step_is_completed_by_its_token_with_a_model_or_fails(
    database: Database, client: Client, world: World
) -> None:
    async with serving(database) as feeding:
        await feeding.records(told("applied"), told("applied", "l2"))
        await feeding.work()
        done = await client.complete("case l1/1", Verdict(by="bo", amount=5))
        assert (done.done.done, done.disposition, done.configuration) == (True, "applied", ["granted"])
        assert done.run is not None
        assert done.run.context["verdict"] == {"by": "bo", "amount": 5}
        with pytest.raises(TooLateError, match="was completed already, by the till at") as late:
            await client.complete("case l1/1", {"by": "cy", "amount": 6})
        assert (late.value.answered.failed, late.value.answered.disposition) == (True, "void")
        with pytest.raises(StillWaitsError, match="and still waits: that is no result of review") as wrong:
            await client.complete("case l2/1", {"by": "cy"})
        assert wrong.value.answered.configuration == ["reviewing"]
        failed = await client.fail("case l2/1", "no paper")
        assert "is to be tried again" in failed.sentence
        [step] = (await client.show("lending", "l2")).steps
        assert step.error == "OutsideError: no paper"
        with pytest.raises(NotFoundError, match="No step in the namespace"):
            await client.complete("nobody's", 7, timeout=0.1)
        await client.cancel("lending", "l2", why="enough")
        with pytest.raises(TooLateError):
            await client.fail("case l2/1", "no paper")
        with pytest.raises(NotDoneError, match="'l2' of lending") as ended:
            await client.pause("lending", "l2", why="a look")
        assert (type(ended.value), ended.value.answered.configuration) == (NotDoneError, ["reviewing"])


async def test_a_token_that_is_not_known_yet_is_looked_for_a_while(
    database: Database, client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here the engine's commit may take as long as it likes.
    monkeypatch.setattr(client_module, "TOKEN_SECONDS", SECONDS)
    async with serving(database) as feeding:
        early = asyncio.create_task(
            client.complete("case l1/1", Verdict(by="bo", amount=5), timeout=2 * SECONDS)
        )
        await feeding.records(told("applied"))
        await feeding.work()
        assert (await early).configuration == ["granted"]


async def test_a_run_is_waited_for_until_it_is_in_a_state_or_has_ended(
    database: Database, client: Client, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        begins = asyncio.create_task(client.wait("lending", "l1", ["reviewing", "granted"], timeout=SECONDS))
        ends = asyncio.create_task(client.wait("lending", "l1", timeout=SECONDS))
        await has_looked(client, 2)
        await feeding.records(told("applied"))
        assert (await begins).configuration == ["reviewing"]
        assert not ends.done()
        assert (await client.wait("lending", "l1", until="reviewing")).sequence == 1
        missed = asyncio.create_task(client.wait("lending", "l1", "granted"))
        await has_looked(client, 2)
        await feeding.records(told("withdrawn"))
        assert (await ends).configuration == ["withdrawn"]
        with pytest.raises(
            MissedError, match="'l1' of lending has ended in withdrawn, and will not come to granted"
        ):
            await missed


async def test_a_state_that_was_left_between_two_looks_was_come_to(
    database: Database, client: Client, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        new = asyncio.create_task(client.wait("lending", "l1", "reviewing", timeout=SECONDS))
        await has_looked(client)
        await feeding.records(told("applied"), told("withdrawn"))
        assert (await new).configuration == ["withdrawn"]
        # What the run before it came through does not count.
        with pytest.raises(MissedError):
            await client.wait("lending", "l1", "reviewing", timeout=SECONDS)
        await feeding.records(told("applied"))
        second = asyncio.create_task(client.wait("lending", "l1", "withdrawn", timeout=SECONDS))
        await has_looked(client)
        await feeding.records(told("withdrawn"), told("applied"))
        # Another run of the key is there by now, and is not the one that was waited for.
        found = await second
        assert (found.generation, found.configuration) == (1, ["withdrawn"])
        third = asyncio.create_task(client.wait("lending", "l1", "granted", timeout=SECONDS))
        fourth = asyncio.create_task(client.wait("lending", "l1", timeout=SECONDS))
        await has_looked(client, 2)
        await feeding.records(told("withdrawn"), told("applied"))
        with pytest.raises(MissedError, match="has ended in withdrawn"):
            await third
        assert (await fourth).generation == 2
    with pytest.raises(NotFoundError):
        await client.wait("landing", "l1")
    with pytest.raises(UsageError, match="at least one state"):
        await client.wait("lending", "l1", [])
    said = "No version of lending that was ever run has a state 'grantd'. Did you mean 'granted'?"
    with pytest.raises(UsageError, match=re.escape(said)):
        await client.wait("lending", "l1", ["withdrawn", "grantd"])
    with pytest.raises(UsageError, match="is no run's key"):
        await client.wait("lending", "")


async def test_a_state_of_a_version_that_came_since_is_waited_for(
    database: Database, client: Client, world: World
) -> None:
    newer = lending_pipeline(version=2)
    newer.on_cancel(to=newer.state("archived", final=True))
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"))
        for state in ("archived", "$compensating"):
            with pytest.raises(UsageError if state == "archived" else WaitedTooLongError):
                await client.wait("lending", "l1", state, timeout=0.01)
    async with feed(database, newer):
        with pytest.raises(WaitedTooLongError):
            await client.wait("lending", "l1", "archived", timeout=0.01)


async def test_what_does_not_come_in_time_is_said_with_where_the_run_is(
    database: Database, client: Client, world: World
) -> None:
    async with serving(database) as feeding:
        with pytest.raises(
            WaitedTooLongError, match="'l1' of lending, which has not begun, did not come to its end"
        ):
            await client.wait("lending", "l1", timeout=0.01)
        await feeding.records(told("applied"))
        await client.pause("lending", "l1", why="a look")
        with pytest.raises(TimeoutError) as late:
            await client.wait("lending", "l1", "granted", timeout=0.01)
        assert str(late.value) == (
            "The run 'l1' of lending, which is in reviewing, paused since row 2, did not come to granted within 0.01 "
            "seconds."
        )
        assert isinstance(late.value, PointsmanError)
        assert (await client.resume("lending", "l1", why="seen")).failed is False
        assert (await client.cancel("lending", "l1", why="enough")).configuration == ["reviewing"]
        assert (await client.wait("lending", "l1", timeout=SECONDS)).status == "cancelled"


async def test_however_many_wait_they_share_one_look(
    database: Database, reader: Connection, client: Client, world: World
) -> None:
    loans = [f"l{number}" for number in range(300)]
    async with feed(database, lending_pipeline()) as feeding:
        waiting = [asyncio.create_task(client.wait("lending", one, timeout=SECONDS)) for one in loans]
        await has_looked(client, len(loans))
        # All wait, and each look asks one question; those who wait have no connection of their own.
        asked = "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()"
        assert await reader.fetchval(asked, NAME) <= CONNECTIONS + 1
        looks = client._watch.looks
        await feeding.records(*(told("applied", one) for one in loans))
        await feeding.records(*(told("withdrawn", one) for one in loans))
        ended = await asyncio.gather(*waiting)
        assert {run.status for run in ended} == {"completed"}
        assert client._watch.looks - looks < len(loans) / 3
        assert not client._watch._runs
        assert client._watch._looking is not None
        await client._watch._looking
        assert client._watch.looks - looks < len(loans) / 3, "nobody waits, and nobody looks"


async def test_who_waits_goes_on_waiting_where_the_connection_breaks(
    database: Database, client: Client, world: World
) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        waits = asyncio.create_task(client.wait("lending", "l1", timeout=SECONDS))
        await has_looked(client)
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        await execute(database.owner_dsn, f"{kill} and application_name = '{NAME}'")
        await feeding.records(told("applied"), told("withdrawn"))
        assert (await waits).configuration == ["withdrawn"]
        assert (await client.run("lending", "l1")).configuration == ["withdrawn"]


async def test_runs_that_are_stuck_are_begun_anew_skipped_and_resolved(
    database: Database, reader: Connection, client: Client
) -> None:
    flow = parcels([], [True] * 6)
    async with serving(database, flow) as feeding:
        await feeding.records(*(parcel("sent", key) for key in ("p1", "p2", "p3")))
        await feeding.work()
        assert await client.count(status="stuck") == 3
        resolved = await client.resolve("parcels", "p1", 250, why="weighed by hand")
        assert resolved.run is not None
        assert (resolved.configuration, resolved.run.context["grams"]) == (["weighed"], 250)
        skipped = await client.skip("parcels", "p2", why="nobody needs it")
        assert skipped.sentence == "The run 'p2' of parcels goes on without weigh, in weighing (row 5)."
        assert skipped.run is not None
        assert (skipped.run.status, skipped.run.stuck) == ("running", None)
        with pytest.raises(NotDoneError, match="The run 'p3' of parcels is not resolved: ") as wrong:
            await client.resolve("parcels", "p3", "heavy", why="somebody has looked")
        assert wrong.value.answered.run is not None
        assert wrong.value.answered.run.status == "held"
        retried = await client.retry("parcels", "p3", why="the scales are back")
        assert {*retried.as_json()} == {*retried.done.as_json(), "run"}
        await feeding.work()
        assert (await client.run("parcels", "p3")).configuration == ["weighed"]
        for ask in (client.retry, client.skip, client.resolve):
            with pytest.raises(NotDoneError, match="The run 'p2' of parcels is not stuck: nothing holds it"):
                await ask("parcels", "p2", why="once more")
            with pytest.raises(NotFoundError, match="has no run with the key 'p9'"):
                await ask("parcels", "p9", why="once more")
        with pytest.raises(UsageError, match="That has no words in JSON"):
            await client.resolve("parcels", "p3", object(), why="once more")
    said = await reader.fetch("select status, who, why from pointsman.dead_letters order by id")
    assert [tuple(one) for one in said] == [
        ("resolved", "the till", "weighed by hand"),
        ("dropped", "the till", "nobody needs it"),
        ("redriven", "the till", "the scales are back"),
    ]
    await check_the_log(reader, flow)


async def test_runs_are_listed_and_counted(database: Database, client: Client, world: World) -> None:
    async with feed(database, lending_pipeline()) as feeding:
        await feeding.records(told("applied"), told("applied", "l2"), told("withdrawn", "l2"))
        assert [run.key for run in await client.runs(state="reviewing")] == ["l1"]
        assert len(await client.runs(pipeline="lending", limit=1)) == 1
        assert await client.count() == await client.count(pipeline="lending") == 2
        assert await client.count(status="completed") == 1
        assert await client.count(state="granted") == 0
        with pytest.raises(UsageError, match="There is no status 'complete'"):
            await client.count(status="complete")
        for limit in (-1, 2**63, "5"):
            number: Any = limit
            with pytest.raises(UsageError, match=f"or 0 for all of them, and not {limit!r}"):
                await client.runs(limit=number)
        assert await client.runs(pipeline="lending", state="granted") == []
        for asks in (client.runs(pipeline="landing"), client.count(pipeline="landing", status="held")):
            with pytest.raises(NotFoundError, match=r"No pipeline 'landing' .* Did you mean 'lending'\?"):
                await asks
        with pytest.raises(NotFoundError, match="has no run with the key 'l3'"):
            await client.run("lending", "l3")
        with pytest.raises(NotFoundError, match="has no generation 4"):
            await client.run("lending", "l1", generation=4)


async def test_a_role_that_may_only_look_reads_and_does_not_ask(database: Database, world: World) -> None:
    async with serving(database) as feeding, Client(database.reader_dsn, who="the till") as client:
        await feeding.records(told("applied"))
        assert (await client.wait("lending", "l1", "reviewing", timeout=SECONDS)).key == "l1"
        with pytest.raises(RefusedError, match="may only look"):
            await client.send("lending", "l1", Withdrawn(loan="l1"))


async def test_one_that_is_closed_lets_nobody_wait(database: Database, client: Client, world: World) -> None:
    async with feed(database, lending_pipeline()):
        waits = asyncio.create_task(client.wait("lending", "l1"))
        await has_looked(client)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await waits
        for asks in (client.wait("lending", "l1"), client.run("lending", "l1")):
            with pytest.raises(UsageError, match="This client is closed"):
                await asks
