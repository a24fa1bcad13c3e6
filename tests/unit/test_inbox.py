"""What is in the inbox, taken up over a store in memory: in which commits, and what waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from connectors.encode import encode_structured
from engine.commands import commands
from engine.commands.commands import Commands
from engine.homes import HOMES, home_of
from engine.limits import EngineLimits
from engine.observing import Silent
from engine.outlet import Outlet
from engine.routing import Loaded, make_routes
from engine.session.committer import Committer
from engine.session.session import Session
from engine.store.contract import RefusedByStoreError
from engine.store.values import Commit, FollowUp, SentCompletion, SentEvent
from statemachines import Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FOR_EVER_SECONDS = 1e12


class Applied(Event, type="loan.applied", key="loan"):
    loan: str


class Loan(Context): ...


def lending() -> Pipeline[Loan]:
    flow = Pipeline("lending", Loan, topics=["loans"])
    flow.state("reviewing", initial=True)
    flow.start(Applied, lambda _: Loan())
    return flow


class ToldStore(FakeStore):
    """Tells which commands each commit has consumed."""

    def __init__(self) -> None:
        super().__init__(Tables())
        self.consumed: list[list[int]] = []

    async def commit(self, commit: Commit) -> int | None:
        self.consumed.append(commit.commands)
        return await super().commit(commit)


class ContestedStore(ToldStore):
    """Another engine, which was refused the same, has dealt with the commands of the next commit by then."""

    refuses = False

    async def commit(self, commit: Commit) -> int | None:
        if self.refuses:
            self.refuses = False
            for number in commit.commands:
                del self.tables.inbox[number]
            raise RefusedByStoreError("a value is too long")
        return await super().commit(commit)


@dataclass
class Inbox:
    """That of an engine, and what it does with it."""

    commands: Commands
    committer: Committer
    store: ToldStore = field(default_factory=ToldStore)

    @property
    def left(self) -> list[int]:
        return sorted(self.store.tables.inbox)

    async def put(self, **commit: Any) -> None:
        await self.store.commit(Commit(NOW, **commit))
        self.store.consumed.clear()

    async def apply(self, loan: str) -> int:
        """Have a run begin; returns its number."""
        await self.put(sent=[applied(loan)])
        await self.take()
        self.store.consumed.clear()
        return next(number for number, (_, run) in self.store.tables.runs.items() if run.key == loan)

    async def take(self) -> None:
        """Look, and take up what is found, until nothing more is wanted."""
        self.commands.wanted.set()
        while self.commands.wanted.is_set():
            await self.commands.look()
            await self.commands.work()


async def inbox(store: ToldStore | None = None, **limits: Any) -> Inbox:
    store, machine = store or ToldStore(), compile_pipeline(lending())
    pipeline = await store.register_pipeline(machine.name)
    definition = await store.register_definition(pipeline, 1, b"h", b"c", b"{}")
    topics = make_routes([Loaded(machine, pipeline, definition)], {})
    committer = Committer(store, topics, "c", lambda: NOW, lambda: NOW, Silent(), [0, 0, 0, 0])
    own = EngineLimits(inbox_poll_seconds=FOR_EVER_SECONDS, **limits)
    taking = Commands(store, topics, topics.pipelines, committer, own, Outlet(), lambda _: None)
    taking.homes = [*range(HOMES)]
    return Inbox(taking, committer, store)


def applied(loan: str) -> SentEvent:
    """Sent by a run."""
    data = orjson.dumps({"loan": loan})
    event = encode_structured(id=f"of {loan}", source="/desk", type="loan.applied", data=data, time=NOW)
    return SentEvent("lending", loan, b"\0".join((loan.encode(), event)))


def completion(token: str, **said: Any) -> SentCompletion:
    """With a token that nobody knows."""
    body = orjson.dumps({"key": "l1", "token": token, "result": None, **said})
    return SentCompletion("lending", "complete", body, "the run 'l1'", "on told 'e1'", token)


async def test_of_unknown_tokens_of_one_run_is_told_in_one_commit(caplog: pytest.LogCaptureFixture) -> None:
    one = await inbox(inbox_token_seconds=0)
    await one.put(completed=[completion("t1"), completion("t2")])
    await one.take()
    assert one.store.consumed == [[1, 2]]
    assert one.left == []
    told = [(answer.command, answer.done, answer.answer) for answer in one.store.tables.operations]
    assert [(number, done) for number, done, _ in told] == [(1, False), (2, False)]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for token, (_, _, answer), line in zip(("t1", "t2"), told, said, strict=True):
        assert f"by the token {token!r}, or ever has" in answer
        assert line.startswith(answer)


async def test_where_no_token_is_unknown_nothing_is_committed_for_those_that_are() -> None:
    one = await inbox(inbox_token_seconds=0)
    run = await one.apply("l1")
    await one.put(completed=[completion("t", execution=[run, 1, 0, "review", 1])])
    await one.take()
    assert one.store.consumed == [[2]]
    assert one.left == []


async def test_where_more_wait_than_are_looked_at_those_behind_are_taken_at_once_and_all_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: now))
    one = await inbox(inbox_commands_max=2, inbox_token_seconds=10)
    await one.put(completed=[completion(f"t{number}") for number in range(3)])
    await one.put(going_on=[FollowUp(1, "cancel", b'{"key":"l1"}', "ana", "not wanted")])
    await one.take()
    assert one.store.consumed == [[4]]
    assert one.left == [1, 2, 3]
    now = 10.0
    await one.take()
    assert one.store.consumed == [[4], [1, 2], [3]]


async def test_an_engine_works_while_an_event_waits_for_the_engine_that_has_its_home() -> None:
    one = await inbox()
    steps: Any = SimpleNamespace()
    engine: Any = SimpleNamespace(steps=steps)
    parts: Any = SimpleNamespace(limits=EngineLimits())
    session = Session(engine, parts, one.store)
    session._commands, session._committer = one.commands, one.committer
    await one.put(sent=[applied("l1")])
    one.commands.homes.remove(home_of("l1"))
    await one.take()
    assert one.left == [1]
    assert await session.works()
    one.commands.homes.append(home_of("l1"))
    await one.take()
    assert one.left == []
    assert not await session.works()


async def test_a_command_that_the_store_does_not_take_may_be_dealt_with_by_another_engine_first() -> None:
    store = ContestedStore()
    one = await inbox(store)
    await one.apply("l1")
    await one.put(going_on=[FollowUp(1, "pause", b'{"key":"l1"}', "ana", "not now")])
    store.refuses = True
    await one.take()
    assert one.left == []


async def test_an_event_that_the_store_does_not_take_may_be_dealt_with_by_another_engine_first() -> None:
    store = ContestedStore()
    one = await inbox(store)
    await one.put(sent=[applied("l1")])
    store.refuses = True
    await one.take()
    assert one.left == []
    assert store.tables.letters == {}
