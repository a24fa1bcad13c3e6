"""How a commit talks to Postgres: in few messages, and without data of users in its statements."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from connectors.source import Partition
from engine.limits import EngineLimits
from engine.store.connecting import CopyingConnection
from statemachines import Context, Event, Pipeline
from tests.charging import TOPIC, charging_pipeline, clear
from tests.contract.test_store import World, postgres_world, started
from tests.contract.test_store_promises import promise
from tests.feeding import event, feed
from tests.services import Database

__all__ = ["postgres_world"]

SECRET = 'it\'s {a} "secret"'


class Case(Context):
    note: str


class Opened(Event, type="case.opened"):
    note: str


class Told(Event, type="case.told"):
    note: str


class Closed(Event, type="case.closed"):
    pass


def _note(case: Case, told: Told) -> None:
    case.note = told.note


def _pipeline() -> Pipeline[Case]:
    flow = Pipeline("cases", Case, version=1, topics=["cases"])
    opened, closed = flow.state("opened", initial=True), flow.state("closed", final=True)
    flow.start(Opened, lambda opened: Case(note=opened.note))
    opened.on(Told, do=_note)
    opened.on(Closed, to=closed)
    return flow


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said to Postgres on connections that write, message by message."""
    said: list[str] = []
    for name in ("copy_among", "execute", "fetch", "fetchval", "fetchrow"):
        plain = getattr(CopyingConnection, name)

        async def telling(
            self: CopyingConnection, statements: str, *rest: Any, _plain: Any = plain, **more: Any
        ) -> Any:
            said.append(statements)
            return await _plain(self, statements, *rest, **more)

        monkeypatch.setattr(CopyingConnection, name, telling)
    return said


def _told(type: str, note: str) -> Any:
    return event(type, {"note": note}, key=SECRET, topic="cases")


async def test_a_commit_that_moves_runs_waits_for_two_answers_and_one_that_starts_them_too(
    messages: list[str], database: Database
) -> None:
    async with feed(database, _pipeline()) as feeding:
        for record in (_told("case.opened", "a"), _told("case.told", "b")):
            messages.clear()
            await feeding.records(record)
            # What loads the run is heard before.
            begun = next(number for number, said in enumerate(messages) if said.startswith("begin; "))
            first, second = messages[begun:]
            assert "execute move_positions(" in first
            assert second.endswith("; commit")


async def test_a_commit_that_begins_steps_waits_for_no_more_answers(
    messages: list[str], database: Database
) -> None:
    clear()
    async with feed(database, charging_pipeline(), limits=EngineLimits(step_poll_seconds=60.0)) as feeding:
        await feeding.begin_steps()
        feeding.steps.turned.clear()
        await asyncio.wait_for(feeding.steps.turned.wait(), 60)
        place = Partition(TOPIC, 0)
        for order in ("o1", "o2"):
            # The numbers of both are heard before the first.
            messages.clear()
            pending = await feeding.promise(place, event("order.placed", {"order": order}, topic=TOPIC))
            feeding.steps.settle([], pending.batch.commit)
        assert [one.key for one in pending.batch.commit.begun] == ["o2"]
        assert not [said for said in messages if "nextval" in said]
        # Other connections have statements of their own meanwhile, which begin and commit nothing.
        first, second = [said for said in messages if said.startswith("begin; ") or said.endswith("commit")]
        assert "execute move_positions(" in first
        assert "execute add_first(" in second
        assert "copy pointsman.events" in second
        await feeding.steps.close()
    clear()


async def test_a_commit_that_begins_to_undo_says_no_more_once_it_is_there(
    messages: list[str], postgres_world: World
) -> None:
    store = await postgres_world.open()
    run, _ = await promise(store, await started(store), of="1.0", made=1)
    messages.clear()
    _, commit = await promise(store, run, of="1.1", made=1)
    assert [one.made for one in commit.begun] == [b"{}"]
    # What the step has returned was read before.
    assert "copy pointsman.events" in messages[-1]
    assert messages[-1].endswith("commit")


async def test_no_statement_has_data_of_users_which_postgres_would_quote_in_its_log(
    messages: list[str], database: Database
) -> None:
    async with feed(database, _pipeline()) as feeding:
        await feeding.records(_told("case.opened", SECRET))
        await feeding.records(_told("case.told", SECRET * 2))
        [route] = feeding.topics["cases"].routes
        [run] = await feeding.store.load_runs(route.pipeline, [SECRET])
        assert orjson.loads(run.context) == {"note": SECRET * 2}
    assert [said for said in messages if "copy pointsman.events" in said]
    for said in messages:
        assert SECRET not in said
        assert SECRET.encode().hex() not in said
