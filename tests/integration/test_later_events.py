"""Steps that go on outside, in a real Postgres, of which events tell how they ended."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.cli.looking import effect_words
from engine.commands import commands
from engine.limits import EngineLimits
from engine.reading import explain, history, list_runs
from engine.store.connecting import Connection
from statemachines.later import Later
from tests.feeding import Feeding, event, feed
from tests.lending import TOPIC, Verdict, World, clear, lending_pipeline
from tests.lent import TOKEN, VERDICT, check_the_log, handed_over, rows, states, told, waits
from tests.operators import ask, complete
from tests.services import Database

OPTIONS: dict[str, Any] = {"by_events": True}


@pytest.fixture
def world() -> Iterator[World]:
    yield clear()
    clear()


def decided(token: str = TOKEN, *, id: str = "", **said: Any) -> RawRecord:
    """A record by which the desk says what has become of a case."""
    known_as = id or f"decided {token}"
    return event("loan.decided", {"loan": "l1", "token": token, **said}, topic=TOPIC, id=known_as)


async def answers(reader: Connection) -> list[tuple[bool, str]]:
    """What has become of what runs said of their steps."""
    found = await reader.fetch("select done, answer from pointsman.operations order by command")
    return [(row["done"], row["answer"]) for row in found]


async def look(feeding: Feeding) -> bool:
    """Whether there is something to take up."""
    feeding.inbox.wanted.set()
    return await feeding.inbox.look()


async def test_an_event_completes_a_step_in_a_transition_of_its_own(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await waits(feeding)
        await feeding.records(decided(verdict=VERDICT))
        assert await states(reader) == {"l1": "reviewing"}
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 1
    # Whatever becomes of the engine: it is durable with the event.
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await feeding.commands()
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    [run] = await list_runs(reader, "default")
    assert (run.configuration, run.context["verdict"]) == (["granted"], VERDICT)
    assert await rows(reader) == [
        ("loan.applied", "started", "reviewing"),
        ("waits.step.review", "passed", "reviewing"),
        ("loan.decided", "moved", "reviewing"),
        ("done.step.review", "fired", "granted"),
    ]
    assert world.calls[0].attempt == 1
    found = await history(reader, "default", "lending", "l1")
    [effect] = found[2].effects
    assert effect_words(effect) == "complete review"
    assert (effect["id"], effect["name"], effect["data"]) == (None, TOKEN, VERDICT)
    by_event = await explain(reader, "default", event_id=f"decided {TOKEN}")
    assert "It said what the step review has made, by its token." in by_event.answers[0].current.sentence
    done = await explain(reader, "default", event_id=found[3].event.id)
    [answer] = done.answers
    assert answer.sender is not None
    assert (answer.sender.who, answer.sender.why) == ("the run 'l1'", f"on loan.decided 'decided {TOKEN}'")
    assert answer.current.sentence.startswith(
        "Attempt 1 of review was done. It moved the run 'l1' of lending "
    )
    await check_the_log(reader, **OPTIONS)


async def test_an_event_that_tells_of_a_failure_has_the_step_tried_again(
    database: Database, reader: Connection, world: World
) -> None:
    options = {**OPTIONS, "attempts": 2}
    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        await feeding.records(decided(why="the desk burns"))
        await feeding.commands()
        await feeding.work()
        assert [call.last_error for call in world.calls] == ["", "OutsideError: the desk burns"]
        await feeding.records(decided("case l1/2", verdict=VERDICT))
        await feeding.commands()
    assert await states(reader) == {"l1": "granted"}
    assert [
        effect_words(one) for row in await history(reader, "default", "lending", "l1") for one in row.effects
    ] == [
        "run review",
        "fail review",
        "complete review",
    ]
    await check_the_log(reader, **options)


async def test_an_event_that_comes_twice_or_too_late_changes_nothing(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await waits(feeding)
        again = decided(id="again", verdict=VERDICT)
        await feeding.records(decided(verdict=VERDICT), again)
        await feeding.commands()
    assert await states(reader) == {"l1": "granted"}
    [first, second] = await answers(reader)
    assert first == (
        True,
        "review of the run 'l1' of lending is completed (row 5), and the run is in granted.",
    )
    assert not second[0]
    assert second[1].startswith(
        "review of the run 'l1' of lending was completed already, by the run 'l1' at "
    )
    await check_the_log(reader, **OPTIONS)


async def test_an_event_that_is_faster_than_the_commit_waits_for_it(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        async with handed_over(feeding):
            await feeding.records(decided(why="the desk burns"))
            await feeding.commands()
            assert await reader.fetchval("select count(*) from pointsman.inbox") == 1
        await feeding.commands()
        assert [row[0] for row in await rows(reader)][-1] == "tried.step.review"
    await check_the_log(reader, **OPTIONS)


async def test_what_waits_for_its_token_is_taken_before_what_came_later_with_it(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        async with handed_over(feeding):
            await feeding.records(decided(why="the desk burns"))
            await feeding.commands()
            await feeding.records(decided(id="later", verdict=VERDICT))
        await feeding.commands()
    assert [row[0] for row in await rows(reader)][-2:] == ["waits.step.review", "tried.step.review"]
    assert [done for done, _ in await answers(reader)] == [True, False]
    await check_the_log(reader, **OPTIONS)


@pytest.mark.parametrize("many", [90, 100, 250])
async def test_what_waits_for_tokens_that_nobody_knows_keeps_nothing_behind_it_waiting(
    database: Database, reader: Connection, world: World, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(commands, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await waits(feeding, "l1", "l2")
        await feeding.records(*(decided(f"wrong {number}", verdict=VERDICT) for number in range(many)))
        # As many looks as it takes to read them.
        for _ in range(many // 100):
            assert not await look(feeding)
            assert feeding.inbox.wanted.is_set()
        answer = await ask(feeding, "pause", "lending", "l2")
        assert answer.done
        assert not await look(feeding)
        assert not feeding.inbox.wanted.is_set(), "nothing is left to look for at once"
        now[0] += EngineLimits().inbox_token_seconds
        while await look(feeding):
            await feeding.inbox.work()
    of_each = "select answer, at from pointsman.operations where what = 'complete' order by command"
    became = await reader.fetch(of_each)
    said = "No step of the run 'l1' of lending waits to be completed by the token 'wrong {}', or ever has."
    assert [one["answer"] for one in became] == [
        f"{said.format(number)} Nothing was changed." for number in range(many)
    ]
    assert len({one["at"] for one in became}) == -(-many // 100), "a hundred are told in one commit"
    await check_the_log(reader, **OPTIONS)


async def test_by_the_key_of_the_step_it_is_done_although_its_token_is_not_known(
    database: Database, reader: Connection, world: World
) -> None:
    world.script[:] = [lambda call: Later(call.idempotency_key)]
    limits = EngineLimits(step_poll_seconds=0.01, inbox_token_seconds=0.0)
    async with feed(database, lending_pipeline(**OPTIONS), limits=limits) as feeding, handed_over(feeding):
        await feeding.records(decided(world.calls[0].idempotency_key, verdict=VERDICT))
        await feeding.commands()
        assert await states(reader) == {"l1": "granted"}
    assert [row[0] for row in await rows(reader)][-1] == "done.step.review"
    await check_the_log(reader, **OPTIONS)


@pytest.mark.parametrize("token", ["nobody's", "case l2/1"])
async def test_a_token_that_no_step_of_the_run_has_is_told_and_completes_nothing(
    database: Database, reader: Connection, world: World, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    limits = EngineLimits(step_poll_seconds=0.01, inbox_token_seconds=0.0)
    async with feed(database, lending_pipeline(**OPTIONS), limits=limits) as feeding:
        await waits(feeding, "l1", "l2")
        await feeding.records(decided(token, id="event of the case", verdict=VERDICT))
        await feeding.commands()
    said = (
        f"No step of the run 'l1' of lending waits to be completed by the token {token!r}, or ever has. Nothing was "
        "changed."
    )
    assert await answers(reader) == [(False, said)]
    assert f"{said} It was asked for by the run 'l1', on loan.decided 'event of the case'" in caplog.text
    assert await states(reader) == {"l1": "reviewing", "l2": "reviewing"}
    await check_the_log(reader, **OPTIONS)


async def test_what_fits_no_step_is_an_action_that_has_failed(
    database: Database, reader: Connection, world: World
) -> None:
    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await waits(feeding)
        await feeding.records(decided())
        letters = await reader.fetch("select reason, error from pointsman.dead_letters")
        assert [(one["reason"], "does not survive being stored" in one["error"]) for one in letters] == [
            ("action raised", True)
        ]
        assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    await check_the_log(reader, **OPTIONS)


async def test_what_an_event_told_is_what_is_undone(
    database: Database, reader: Connection, world: World
) -> None:
    options = {**OPTIONS, "undone": True}
    async with feed(database, lending_pipeline(**options)) as feeding:
        await waits(feeding)
        await feeding.records(decided(verdict=VERDICT))
        await feeding.commands()
        await feeding.records(told("withdrawn"))
        await feeding.work()
    assert world.made == [("l1", Verdict(by="bo", amount=5))]
    assert await states(reader) == {"l1": "withdrawn"}
    await check_the_log(reader, **options)


async def test_one_from_outside_and_one_by_an_event_are_one(
    database: Database, reader: Connection, world: World
) -> None:
    async def both(feeding: Feeding) -> None:
        await waits(feeding)
        await feeding.records(decided(verdict=VERDICT))
        # The row of the event is the first in the inbox.
        assert not (await complete(feeding, TOKEN, {"by": "cy", "amount": 9})).done

    async with feed(database, lending_pipeline(**OPTIONS)) as feeding:
        await both(feeding)
    [run] = await list_runs(reader, "default")
    assert run.context["verdict"] == VERDICT
    await check_the_log(reader, **OPTIONS)
