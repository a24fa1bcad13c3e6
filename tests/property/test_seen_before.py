"""An event counts once for its key, whatever its runs have forgotten, held against a plain dictionary.

Lives follow one another, events come before their time and again, commits have any size, each is stepped behind one in
flight, and the log answers when it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

import orjson
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import Partition, RawRecord
from engine.batch import by_itself
from engine.observing import Silent
from engine.routing import Loaded, Route, make_routes
from engine.session import committer as committing
from engine.session.claims import Claim, Slice
from engine.session.committer import Committer, Pending
from engine.store.values import Commit
from statemachines import Context, Event, Pipeline
from statemachines.limits import DEFERRED_MAX
from statemachines.machine import compile_pipeline
from statemachines.run import RECENT_DIGESTS_MAX
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Partition("bills", 0)
KINDS = ("made", "opened", "paid", "shut")
LOADED_AT_ONCE, BETWEEN_BREATHS = 10, 2


class Made(Event, type="made", key="bill"):
    bill: str
    number: int


class Opened(Event, type="opened", key="bill"):
    bill: str
    number: int


class Paid(Event, type="paid", key="bill"):
    bill: str
    number: int


class Shut(Event, type="shut", key="bill"):
    bill: str
    number: int


class Bill(Context):
    taken: list[int] = Field(default_factory=list)


def note(bill: Bill, event: Made | Opened | Paid | Shut) -> None:
    bill.taken.append(event.number)


flow = Pipeline("bills", Bill, topics=[PLACE.topic], no_run="defer", closed="restart")
made = flow.state("made", initial=True)
opened, shut = flow.state("open"), flow.state("shut", final=True)
flow.start(Made, lambda event: Bill(taken=[event.number]))
made.on(Opened, to=opened, do=note)
opened.on(Paid, do=note)
opened.on(Opened, do=note)
opened.on(Shut, to=shut, do=note)
TAKEN = {"": {"made"}, "made": {"opened"}, "open": {"paid", "opened", "shut"}, "shut": {"made"}}
GOES_TO = {"made": "made", "opened": "open", "shut": "shut"}


class Sent(NamedTuple):
    """An event; its number is its id."""

    bill: str
    kind: str
    number: int


@dataclass(slots=True)
class Expected:
    """What is to become of the events of a key."""

    state: str = ""
    seen: set[int] = field(default_factory=set)
    waits: list[Sent] = field(default_factory=list)
    lives: list[list[int]] = field(default_factory=list)
    """What each of its runs has taken."""

    def come(self, event: Sent) -> None:
        if event.number not in self.seen:
            self.seen.add(event.number)
            self._offer(event)

    def _offer(self, event: Sent) -> None:
        if event.kind not in TAKEN[self.state]:
            self.waits.append(event)
            return
        self._take(event)
        while (next_one := next((one for one in self.waits if one.kind in TAKEN[self.state]), None)) and (
            self.state != "shut"
        ):
            self.waits.remove(next_one)
            self._take(next_one)
        if self.state == "shut":
            # What waited for the run that has ended is for the next one, as if it came now.
            onward, self.waits = self.waits, []
            for one in onward:
                self._offer(one)

    def _take(self, event: Sent) -> None:
        if event.kind == "made":
            self.lives.append([])
        self.lives[-1].append(event.number)
        self.state = GOES_TO.get(event.kind, self.state)


def feed(draw: Random) -> list[Sent]:
    """Lives of two keys, with bursts of payments, which are early at times, and many that come again."""
    events: list[Sent] = []
    due = {"a": 0, "b": 0}
    for _ in range(draw.randint(5, 60)):
        bill, what = draw.choice("aab"), draw.random()
        if what < 0.15:
            many = RECENT_DIGESTS_MAX + draw.randint(-2, 6)
            events += [Sent(bill, "paid", len(events) + at) for at in range(many)]
        elif what < 0.5 and events:
            events.append(draw.choice(events))
        elif what < 0.6:
            events.append(Sent(bill, draw.choice(KINDS), len(events)))
        else:
            events.append(Sent(bill, ("made", "opened", "shut")[due[bill]], len(events)))
            due[bill] = (due[bill] + 1) % 3
    return events


class Moody(FakeStore):
    """Commits when it is let, and answers when it likes, as the log was when it was asked."""

    def __init__(self, draw: Random) -> None:
        super().__init__(Tables())
        self._draw = draw
        self.let = asyncio.Event()

    async def commit(self, commit: Commit) -> int | None:
        await self.let.wait()
        return await super().commit(commit)

    async def seen(
        self, asked: Sequence[tuple[int, int]], ids: Sequence[tuple[int, int]] = ()
    ) -> set[tuple[int, int]]:
        found = await super().seen(asked, ids)
        await self._take_time()
        return found

    async def seen_by_generations(
        self, asked: Sequence[tuple[int, str, int]], ids: Sequence[tuple[int, str, int]] = ()
    ) -> set[tuple[int, str, int]]:
        found = await super().seen_by_generations(asked, ids)
        await self._take_time()
        return found

    async def _take_time(self) -> None:
        for _ in range(self._draw.randint(0, LOADED_AT_ONCE)):
            await asyncio.sleep(0)


def record(offset: int, event: Sent) -> RawRecord:
    data = orjson.dumps({"bill": event.bill, "number": event.number})
    value = encode_structured(id=str(event.number), source="/s", type=event.kind, data=data, time=NOW)
    return RawRecord(PLACE.topic, PLACE.number, offset, 0, None, value, STRUCTURED_HEADERS)


class Engine:
    """Commits events in pieces of any size, most of them behind one in flight."""

    def __init__(self, draw: Random) -> None:
        self._draw, self.store = draw, Moody(draw)
        self._pending: Pending | None = None
        self._committer: Committer
        self._route: Route

    async def feed(self, events: list[Sent]) -> None:
        store, draw = self.store, self._draw
        loaded = [Loaded(compile_pipeline(flow), await store.register_pipeline("bills"), 1)]
        topics = make_routes(loaded, {})
        [self._route] = topics[PLACE.topic].routes
        self._committer = Committer(store, topics, "c", lambda: NOW, lambda: NOW, Silent(), [0, 0, 0, 0])
        await store.add_positions({PLACE: 0})
        [(number, _, position, epoch, _)] = await store.take_positions([PLACE])
        claim, records = Claim(number, PLACE, epoch, position), [record(*one) for one in enumerate(events)]
        start = 0
        while start < len(records):
            end = min(len(records), start + draw.choice([1, 3, 10, 30, 100]))
            await self._go_on([Slice(claim, records[start:end], start, end)])
            start = end
        await self._settle()

    async def _go_on(self, slices: list[Slice]) -> None:
        if self._draw.random() < 0.3:
            await self._settle()
            self._route.cache.clear()
        batch = await self._committer.prepare(slices, self._pending)
        await self._settle()
        self._pending = self._committer.begin(slices, batch)

    async def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self.store.let.set()
            assert await self._committer.settle(pending)
            self.store.let.clear()


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "EVENTS_LOADED_AT_ONCE", LOADED_AT_ONCE)
    monkeypatch.setattr(committing, "EVENTS_BETWEEN_BREATHS", BETWEEN_BREATHS)
    # Nobody takes up here what a run has put off, so it takes all that waits at once, however much that is.
    monkeypatch.setattr(by_itself, "FOLLOWING_MAX", DEFERRED_MAX)


@example(5086167)  # more waits than a run takes at once
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32))
def test_an_event_counts_once_for_its_key_whatever_its_runs_have_forgotten(seed: int) -> None:
    draw = Random(seed)
    events, expected = feed(draw), {"a": Expected(), "b": Expected()}
    for one in events:
        expected[one.bill].come(one)
    engine = Engine(draw)
    asyncio.run(engine.feed(events))
    runs = sorted((run.key, run.generation, run.context) for _, run in engine.store.tables.runs.values())
    taken = {
        key: [orjson.loads(context)["taken"] for one, _, context in runs if one == key and context]
        for key in "ab"
    }
    assert taken == {key: one.lives for key, one in expected.items()}
    assert not engine.store.tables.letters
    assert len(engine.store.tables.waiting) == sum(len(one.waits) for one in expected.values())
