"""What a batch makes of events, without a store."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.dispositions import Disposition
from engine.limits import EngineLimits
from engine.routing import RUN_BYTES, Loaded, TopicRoute, bytes_of, make_routes
from engine.session.caches import evict
from engine.store.values import IgnoredRange
from statemachines import Context, Event, Pipeline, Send, Topic
from statemachines.machine import compile_pipeline

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Begun(Event, type="begun"):
    pass


class Added(Event, type="added"):
    amount: int


class Closed(Event, type="closed"):
    pass


class Sum(Context):
    amount: int = 0


def add(total: Sum, event: Added) -> None:
    total.amount += event.amount
    assert event.meta.type == "added"


def sums(
    name: str = "sums", *, adds: bool = True, closed: Literal["dead_letter", "restart"] = "dead_letter"
) -> Pipeline[Sum]:
    pipeline = Pipeline(name, Sum, topics=["numbers"], closed=closed)
    state = pipeline.state("open", initial=True)
    state.on(Closed, to=pipeline.state("closed", final=True))
    pipeline.start(Begun, lambda event: Sum())
    if adds:
        state.on(Added, do=add)
    return pipeline


def route(*pipelines: Pipeline[Any]) -> TopicRoute:
    loaded = [Loaded(compile_pipeline(one), number, number) for number, one in enumerate(pipelines, 1)]
    return make_routes(loaded, {})["numbers"]


class Kept(Context):
    text: str


class Noted(Event, type="noted"):
    text: Any


def note(kept: Kept, event: Noted) -> None:
    kept.text = str(event.text)
    if isinstance(event.text, dict):
        event.text["seen"] = True


def notes(name: str = "notes") -> Pipeline[Kept]:
    pipeline = Pipeline(name, Kept, topics=["numbers"])
    state = pipeline.state("open", initial=True)
    closed = pipeline.state("closed", final=True)
    pipeline.start(Begun, lambda event: Kept(text=""))
    state.on(Noted, do=note)
    state.on(Closed, to=closed)
    return pipeline


def records(*given: tuple[str, str, bytes], first: int = 0) -> list[RawRecord]:
    return [
        RawRecord("numbers", 0, offset, 0, key.encode(), value, [("type", event_type.encode())])
        for offset, (key, event_type, value) in enumerate(given, first)
    ]


def met(topic: TopicRoute, given: list[RawRecord]) -> Batch:
    batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    batch.read(given, 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    return batch


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
def test_moves_leave_nothing_for_the_garbage_collector() -> None:
    # The collector would look through all that a batch left behind.
    topic = route(sums())
    events = [
        (key, kind, b'{"amount": 1}') for key in ("a", "b") for kind in ("begun", "added", "added", "unknown")
    ]
    batch = met(topic, records(*events))
    assert len(batch.commit.rows) == 6
    del batch, topic
    before = {type(one) for one in gc.get_objects()}
    assert {Begun, Added} & before == set(), "no event is left, though nothing was collected"


def test_a_deferred_event_may_be_as_deep_as_it_can_be_read() -> None:
    pipeline = Pipeline("notes", Kept, topics=["numbers"])
    shut, opened = pipeline.state("shut", initial=True), pipeline.state("opened")
    pipeline.start(Begun, lambda event: Kept(text=""))
    shut.on(Added, to=opened)
    opened.on(Noted, to=pipeline.state("over", final=True))
    deep = b'{"text": %s1%s}' % (b"[" * 1_000, b"]" * 1_000)
    added = ("a", "added", b'{"amount": 1}')
    topic = route(pipeline)
    met(topic, records(("a", "begun", b"{}"), ("a", "noted", deep), added))
    assert topic.routes[0].cache["a"].configuration == "over"


def test_events_of_one_run_are_applied_in_order_beside_those_of_others() -> None:
    topic = route(sums())
    met(topic, records(*[(key, "begun", b"{}") for key in "abc"]))
    given = [("a", "added", b'{"amount": %d}' % amount) for amount in range(1, 6)]
    given.insert(2, ("b", "added", b'{"amount": 7}'))
    met(topic, records(*given, first=10))
    cache = topic.routes[0].cache
    assert {key: (run.sequence, run.context) for key, run in cache.items()} == {
        "a": (6, b'{"amount":15}'),
        "b": (2, b'{"amount":7}'),
        "c": (1, b'{"amount":0}'),
    }
    assert list(cache) == ["c", "b", "a"], "the least recently moved first"


def test_an_event_that_only_another_reader_of_the_topic_knows_is_ignored_and_noted() -> None:
    topic = route(sums(), sums("others", adds=False))
    batch = met(topic, records(("a", "begun", b"{}"), ("a", "added", b'{"amount": 1}')))
    assert batch.counts == {
        ("sums", Disposition.STARTED): 1,
        ("sums", Disposition.APPLIED): 1,
        ("others", Disposition.STARTED): 1,
        ("others", Disposition.APPLIED): 0,
        ("others", Disposition.IGNORED): 1,
    }
    [noted] = batch.commit.noted
    assert (noted.pipeline, noted.offset, noted.type, noted.reason) == (2, 1, "added", "unknown type")
    assert not batch.commit.dead_letters


def test_what_a_handler_does_to_an_event_is_not_seen_by_another_pipeline() -> None:
    topic = route(notes(), notes("others"))
    met(topic, records(("a", "begun", b"{}"), ("a", "noted", b'{"text": {"seen": false}}')))
    assert [one.cache["a"].context for one in topic.routes] == [b'{"text":"{\'seen\': False}"}'] * 2


def test_the_least_recently_moved_runs_leave_a_cache_that_is_full() -> None:
    topic = route(sums())
    limits = EngineLimits(batch_records_max=2, cache_runs_max=4)
    batch = met(topic, records(*[(key, "begun", b"{}") for key in "abcdef"]))
    evict(topic.routes, limits, batch)
    assert list(topic.routes[0].cache) == list("abcdef"), "they are not durable yet"
    evict(topic.routes, limits, met(topic, records(("b", "added", b'{"amount": 1}'), first=9)))
    assert list(topic.routes[0].cache) == list("defb")


def test_large_contexts_lower_the_number_of_runs_in_a_cache_whatever_came_last() -> None:
    topic = route(notes(), sums())
    large = b'{"text": "%s"}' % (b"x" * 100_000)
    limits = EngineLimits(cache_bytes_max=2 * 1_000_000)
    for number in range(20):
        key = f"large-{number}"
        given = [(key, "begun", b"{}"), (key, "noted", large), (f"small-{number}", "begun", b"{}")]
        evict(topic.routes, limits, met(topic, records(*given, first=10 * number)))
        for one in topic.routes:
            taken = sum(map(bytes_of, one.cache.values()))
            assert taken <= one.cache_bytes
            assert taken <= 1_000_000, "each pipeline has its part"
    assert [key for key in topic.routes[0].cache if key.startswith("large")] == [
        f"large-{number}" for number in range(11, 20)
    ]
    assert len(topic.routes[1].cache) == 40 < 1_000_000 // RUN_BYTES


def test_what_is_deferred_and_delayed_counts_for_what_a_cache_takes() -> None:
    pipeline = Pipeline("waits", Sum, topics=["numbers"])
    first = pipeline.state("first", initial=True)
    pipeline.start(Begun, lambda event: Sum())
    first.on(Closed, to=(second := pipeline.state("second")))
    first.on(Added, do=lambda total, event: Send(Noted(text="x" * 20_000), after=timedelta(days=1)))
    second.on(Noted)
    topic = route(pipeline)
    large = b'{"text": "%s"}' % (b"x" * 100_000)
    [one] = topic.routes
    met(topic, records(("delayed", "begun", b"{}"), ("delayed", "added", b'{"amount": 1}')))
    assert 20_000 < bytes_of(one.cache["delayed"]) <= one.cache_bytes
    limits = EngineLimits(cache_bytes_max=1_000_000)
    for number in range(20):
        key = f"deferred-{number}"
        batch = met(topic, records((key, "begun", b"{}"), (key, "noted", large), first=10 + 10 * number))
        assert len(one.cache[key].deferred) == 1
        evict(topic.routes, limits, batch)
        assert sum(map(bytes_of, one.cache.values())) <= min(one.cache_bytes, 1_000_000)


def test_records_that_nobody_knows_are_one_range_however_they_are_read() -> None:
    pipeline = sums()
    pipeline.topics = [Topic("numbers", unknown="ignore")]
    topic = route(pipeline)
    given = records(*[("a", "unheard", b"{}")] * 5, ("a", "begun", b"{}"), *[("a", "unheard", b"{}")] * 4)
    batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    for portion in (given[:2], given[2:8], given[8:]):
        batch.read(portion, 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    assert batch.commit.ranges == [
        IgnoredRange(1, 0, 4, 5, "unknown type"),
        IgnoredRange(1, 6, 9, 4, "unknown type"),
    ]
    assert batch.counts[("sums", Disposition.IGNORED)] == 9


def test_tombstones_that_a_topic_ignores_are_ranges_also_among_records_with_several_events() -> None:
    for each in (None, "items"):
        pipeline = sums()
        pipeline.topics = [Topic("numbers", tombstones="ignore", each=each)]
        topic = route(pipeline)
        begun = b'{"type": "begun"}' if each is None else b'{"items": [{"type": "begun"}]}'
        given = [
            RawRecord("numbers", 0, at, 1_000, b"k", value, ())
            for at, value in enumerate([None, None, begun, None, b"5"])
        ]
        batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
        batch.read(given, 1, topic)
        batch.meet(batch.arrivals)
        batch.finish()
        assert batch.commit.ranges == [
            IgnoredRange(1, 0, 1, 2, "no events"),
            IgnoredRange(1, 3, 3, 1, "no events"),
        ]
        assert [one.offset for one in batch.commit.dead_letters] == [4]
        assert batch.counts[("sums", Disposition.IGNORED)] == 3


def test_a_range_is_of_one_reason() -> None:
    pipeline = sums()
    pipeline.topics = [Topic("numbers", tombstones="ignore", unknown="ignore")]
    values = [None, None, b'{"type": "unheard"}', b'{"type": "unheard"}', None]
    batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    for position in (1, 2):
        given = [RawRecord("numbers", 0, at, 1_000, b"k", value, ()) for at, value in enumerate(values)]
        batch.read(given, position, route(pipeline))
    batch.finish()
    assert sorted(batch.commit.ranges) == [
        IgnoredRange(position, *span, reason)
        for position in (1, 2)
        for span, reason in (
            ((0, 1, 2), "no events"),
            ((2, 3, 2), "unknown type"),
            ((4, 4, 1), "no events"),
        )
    ]


def test_what_was_made_of_events_weighs_as_much_as_is_written() -> None:
    topic = route(sums())
    batch = Batch(NOW, itertools.count(1), "c", [0] * 4)
    [one] = topic.routes
    records = [
        RawRecord("numbers", 0, at, 1_000, b"k", value, ())
        for at, value in enumerate([b'{"type":"begun"}', b'{"type":"added","amount":1234567}'])
    ]
    batch.read(records[:1], 1, topic)
    batch.meet(batch.take_arrivals())
    rows = len(batch.commit.rows)
    batch.read(records[1:], 1, topic)
    taken = batch.take_arrivals()
    batch.meet(taken)
    run = one.cache["k"]
    assert batch.bytes_since(rows, taken) == len(batch.commit.rows[-1]) + len(run.context) + len(run.memory)
    assert run.context == b'{"amount":1234567}'


def test_what_is_known_of_runs_that_follow_one_another_in_a_batch_is_no_more_than_they_have_taken() -> None:
    life = [("a", "begun", b"{}"), ("a", "added", b'{"amount": 1}'), ("a", "closed", b"{}")]
    for lives in (1, 30, 60):
        topic = route(sums(closed="restart"))
        batch = met(topic, records(*life * lives))
        assert topic.routes[0].cache["a"].generation == lives - 1
        assert len(batch.consumed) == len(life) * (lives - 1)
