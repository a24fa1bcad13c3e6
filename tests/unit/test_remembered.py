"""What a run remembers, where it goes on under a version that asks less, and where nothing is left of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.batch.by_itself import OF_ITSELF, STRIKES_MAX
from engine.log import Kind, LogRow, unpack
from engine.routing import Loaded, TopicRoute, make_routes
from statemachines import Context, Event, Pipeline, Send
from statemachines.ids import number_of_id
from statemachines.interpreter import step
from statemachines.machine import compile_pipeline
from statemachines.memory import Delayed, Memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Ignored, Reason
from statemachines.run import Run, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MARKED = write_memory(Memory(marks={"begun": 5}))


class Begun(Event, type="begun"):
    number: int = 0


class Sent(Event, type="sent"):
    pass


class Closed(Event, type="closed"):
    pass


class Count(Context):
    number: int = 0


def send(count: Count, event: Begun) -> Send:
    count.number = event.number
    return Send(Sent())


def hear(count: Count, event: Sent) -> None:
    pass


def counting(
    *, version: int = 1, ordered: bool = False, timed: bool = False, nested: bool = False, **settings: Any
) -> Pipeline[Count]:
    flow = Pipeline("counting", Count, version=version, topics=["counts"], **settings)
    open_, over = flow.state("open", initial=True), flow.state("over", final=True)
    flow.start(Begun, lambda event: Count(number=event.number))
    open_.on(Begun, do=send)
    open_.on(Closed, to=over)
    if ordered:
        flow.policy(Begun, order_by="number")
    if nested:
        open_.state("inside", initial=True)
    if timed:
        late = flow.state("late")
        late.after(timedelta(hours=1), to=over)
        open_.on(Sent, to=late)
    return flow


def topic_of(flow: Pipeline[Count], definition: int = 1) -> TopicRoute:
    return make_routes([Loaded(compile_pipeline(flow), 1, definition)], {})["counts"]


def taken(
    topic: TopicRoute,
    *given: tuple[str, str],
    first: int = 0,
    strikes: dict[tuple[int, int], tuple[int, str]],
) -> tuple[Batch, list[int]]:
    """What becomes of these events of one run, and the last that the watchdog was told."""
    beat = [0, 0, 0, 0]
    batch = Batch(NOW, itertools.count(first + 1), "here", beat)
    batch.strikes = strikes
    records = [
        RawRecord("counts", 0, offset, 0, b"k", value.encode(), [("type", name.encode())])
        for offset, (name, value) in enumerate(given, first)
    ]
    batch.read(records, 1, topic)
    batch.meet(batch.arrivals)
    return batch, beat


def rows_of(topic: TopicRoute, *given: tuple[str, str], first: int = 0) -> list[LogRow]:
    batch, _ = taken(topic, *given, first=first, strikes={})
    return [unpack(row) for row in batch.commit.rows]


def test_what_was_applied_does_not_go_on_to_a_generation_under_a_version_without_an_order() -> None:
    # Logs were written so, and are replayed.
    before = topic_of(counting(ordered=True, closed="restart"))
    rows_of(before, ("begun", '{"number": 5}'), ("closed", "{}"))
    ended = before.routes[0].cache["k"]
    assert ended.memory == MARKED
    for ordered, goes_on in ((False, b""), (True, write_memory(Memory(marks={"begun": 6})))):
        later = topic_of(counting(version=2, ordered=ordered, closed="restart"), 2)
        later.routes[0].cache["k"] = ended
        [started] = rows_of(later, ("begun", '{"number": 6}'), first=2)
        assert (started.kind, started.memory) == (Kind.STARTED, goes_on)


@pytest.mark.parametrize(
    ("timed", "nested", "written"), [(True, False, b"{}"), (False, True, b""), (False, False, b"")]
)
def test_what_a_run_that_has_not_begun_remembers_is_looked_at_where_anything_asks_for_it(
    *, timed: bool, nested: bool, written: bytes
) -> None:
    topic = topic_of(counting(timed=timed, nested=nested))
    expected = Run(7, "k", 0, 1, int(Status.EXPECTED), "", b"", b"", b"", 1, 0, 0, NOW, NOW, MARKED)
    topic.routes[0].cache["k"] = expected
    [started] = rows_of(topic, ("begun", "{}"))
    assert (started.kind, started.memory) == (Kind.STARTED, written)


@pytest.mark.parametrize("timed", [False, True])
def test_what_a_run_has_not_asked_for_by_itself_is_noted_and_gone(*, timed: bool) -> None:
    # As what an earlier generation has asked for was, once a person had it come again.
    topic = topic_of(counting(timed=timed))
    rows_of(topic, ("begun", "{}"), *([("sent", "{}")] if timed else []))
    run, machine = topic.routes[0].cache["k"], topic.routes[0].newest
    assert machine.flat != timed
    own = Delayed(0, 1, 0, "sent", {}, at_once=True)
    batch, _ = taken(topic, ("begun", "{}"), first=5, strikes={})
    envelope = batch.arrivals[0].decoded.envelope._replace(type="sent")
    occurrence = Occurrence(envelope, "k", b"", NOW, Sent(), data={}, delayed=own)
    outcome = step(machine, run._replace(memory=b""), occurrence)
    assert isinstance(outcome, Ignored)
    assert (outcome.reason, outcome.memory) == (Reason.UNEXPECTED, b"{}")


def test_what_a_run_has_asked_for_and_ended_engines_is_a_dead_letter() -> None:
    given = (("begun", "{}"), ("begun", '{"number": 1}'))
    flow = counting()
    flow.on(Sent, do=hear)
    batch, beat = taken(topic_of(flow), *given, strikes={})
    *_, fired = map(unpack, batch.commit.rows)
    place = (OF_ITSELF, number_of_id(fired.event_id))
    assert (beat[0], beat[1]) == place
    struck, again = taken(topic_of(flow), *given, strikes={place: (STRIKES_MAX, "notes")})
    assert (again[0], again[1]) == place, "the same after a crash"
    assert [Kind(unpack(row).kind) for row in struck.commit.rows] == [
        Kind.STARTED,
        Kind.MOVED,
        Kind.HELD_FIRED,
    ]
    assert [one.reason for one in struck.commit.dead_letters] == [Reason.NEVER_RETURNED]
    assert struck.commit.strikes_forgotten == [place]
    once, _ = taken(topic_of(flow), *given, strikes={place: (STRIKES_MAX - 1, "notes")})
    assert [Kind(unpack(row).kind) for row in once.commit.rows] == [Kind.STARTED, Kind.MOVED, Kind.FIRED]
