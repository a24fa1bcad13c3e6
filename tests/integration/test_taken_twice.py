"""What a run has taken by its log, and would take once more, is a dead letter, wherever it comes from but a topic."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.source import RawRecord
from engine.batch.consumed import Consumed
from engine.reading import DeadLetterView, list_dead_letters, list_runs
from engine.session.timers import Due
from engine.store.connecting import Connection
from statemachines import Pipeline
from tests import operators
from tests.bills import (
    EARLY,
    PAYMENTS,
    TOPIC,
    WAITED_FOR_ITS_OPENING,
    Bill,
    Made,
    Paid,
    Shut,
    bills,
    check,
    pay,
    told,
)
from tests.feeding import BEGINS, Feeding, event, feed
from tests.services import Database

HOUR = timedelta(hours=1)
OTHERS = 6
SENT = """
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why, home)
    values ('default', $1, 'event', $2, 'engine', 'sent by a run', pointsman.home_of($3))
"""


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have engines not find what a run has taken, and does not remember any more."""
    monkeypatch.setattr(Consumed, "has", lambda *asked: False)


async def letters(reader: Connection) -> list[DeadLetterView]:
    found = await list_dead_letters(reader, "default")
    assert all(one.reason == "refused by store" and "has taken it already" in one.error for one in found)
    return found


async def send(owner: Connection, feeding: Feeding, record: RawRecord, bill: str) -> None:
    """Have this be in the inbox, as a run of another pipeline sends it."""
    [route] = feeding.topics[TOPIC].routes
    await owner.execute(SENT, route.pipeline, b"\0".join((bill.encode(), record.value or b"")), bill)


async def test_an_event_from_a_run_keeps_no_other_from_coming(
    database: Database, reader: Connection, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"other{number}" for number in range(OTHERS)]
    async with feed(database, bills()) as feeding:
        await feeding.records(*WAITED_FOR_ITS_OPENING)
        for bill in [*others[:3], "b1", *others[3:]]:
            made = event("made", {"bill": bill}, topic=TOPIC)
            await send(owner, feeding, told("opened", "o") if bill == "b1" else made, bill)
        forget(monkeypatch)
        await feeding.commands()
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    assert {run.key for run in await list_runs(reader, "default")} == {"b1", *others}
    [letter] = await letters(reader)
    assert (letter.type, letter.key) == ("opened", "b1")
    await check(reader, [*range(EARLY)])


def closing() -> Pipeline[Bill]:
    """open, where lines are paid -> closed for an hour, where payments wait."""
    flow = Pipeline("bills", Bill, topics=[TOPIC])
    opened, closed = flow.state("open", initial=True), flow.state("closed")
    flow.start(Made, lambda made: Bill())
    opened.on(Paid, do=pay)
    opened.on(Shut, to=closed)
    closed.after(HOUR, to=opened)
    return flow


async def test_what_has_fallen_due_keeps_nothing_else_from_happening(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [event(kind, {"bill": "other"}, topic=TOPIC) for kind in ("made", "shut")]
    async with feed(database, closing()) as feeding:
        await feeding.records(told("made", "m"), *PAYMENTS, told("shut", "s"), *other)
        forget(monkeypatch)
        await feeding.records(PAYMENTS[0])
        feeding.clock.now = BEGINS + 2 * HOUR
        [route] = feeding.topics[TOPIC].routes
        found = [route.cache[key] for key in ("b1", "other")]
        due = [Due(route, run.key, 0, run.sequence, feeding.clock.now) for run in found]
        committer = feeding.committer
        batch = await committer.prepare([], None, due)
        assert not await committer.settle(committer.begin([], batch, due))
        assert committer.left_alone == {}
        assert await feeding.due(feeding.clock.now) == 0
    [letter] = await letters(reader)
    runs = await list_runs(reader, "default")
    assert {run.key: (run.configuration, run.held is None) for run in runs} == {
        "b1": (["closed"], False),
        "other": (["open"], True),
    }
    assert letter.key == "b1"


async def test_what_an_operator_sends_is_answered(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(told("made", "m"), told("opened", "o"))
        assert (await operators.send(feeding, "bills", "b1", "paid", {"bill": "b1", "line": 0}, id="a")).done
        await feeding.records(*PAYMENTS[1:])
        forget(monkeypatch)
        done = await operators.send(feeding, "bills", "b1", "paid", {"bill": "b1", "line": 0}, id="a")
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    assert not done.done
    assert (
        "(dead letter 1, refused by store): the log has it that the run of an event has taken"
        in done.sentence
    )
    await check(reader, [*range(EARLY)])


async def test_of_what_has_waited_the_rest_goes_on(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, bills()) as feeding:
        await feeding.records(*WAITED_FOR_ITS_OPENING)
        assert (await operators.ask(feeding, "pause", "bills", "b1")).done
        with monkeypatch.context() as patched:
            forget(patched)
            later = [told("paid", f"p{EARLY + number}") for number in range(OTHERS)]
            await feeding.records(*later[:3], told("opened", "o"), *later[3:])
            assert (await operators.ask(feeding, "resume", "bills", "b1")).done
            await feeding.commands()
        [letter] = await letters(reader)
        assert (letter.type, letter.key) == ("opened", "b1")
        await feeding.drop(letter.id)
    assert await reader.fetchval("select count(*) from pointsman.inbox") == 0
    [run] = await list_runs(reader, "default")
    assert (run.context["lines"], run.held, run.waiting) == ([*range(EARLY + OTHERS)], None, 0)
