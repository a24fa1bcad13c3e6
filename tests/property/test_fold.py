"""The engine's moves and the fold of their rows are the same run; the chain of hashes breaks where it must."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.envelope import TIME_MAX, USUAL_HEADERS, Headers, decode_envelope
from engine.log import LogRow, fold, pack, seal, unpack, with_hash
from engine.routing import Loaded, Route, TopicRoute, make_routes
from statemachines import Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from statemachines.run import RECENT_DIGESTS_MAX, Run

START = datetime(2026, 1, 1, tzinfo=UTC)


class Begun(Event, type="begun"):
    amount: int


class Added(Event, type="added"):
    amount: int


class Ended(Event, type="ended"):
    pass


class Sum(Context):
    amount: int


flow = Pipeline("sum", Sum, topics=["sums"])
open_ = flow.state("open", initial=True)
closed = flow.state("closed", final=True)


def begin(event: Begun) -> Sum:
    return Sum(amount=event.amount)


def add(total: Sum, event: Added) -> None:
    if event.amount < 0:
        raise ValueError("no negative amounts")
    total.amount += event.amount


flow.start(Begun, begin)
open_.on(Added, do=add)
open_.on(Ended, to=closed)
MACHINE = compile_pipeline(flow)

events = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["begun", "added", "added", "added", "ended", "unheard"]),
    st.one_of(st.integers(-1, 9), st.just("nonsense")),
    st.integers(0, 60),
)
batches = st.lists(st.lists(events, max_size=40), max_size=6)


HEADERS: tuple[Headers, ...] = ((), (("x", b"1"), ("y", None)), [*USUAL_HEADERS], USUAL_HEADERS)
TIMES = (1_700_000_000_000, -1, 0, TIME_MAX, TIME_MAX + 1)


def kafka_part(offset: int, key: str) -> tuple[int, bytes | None, Headers]:
    """Time, Kafka key and headers of the record at an offset: all that there may be, in turns."""
    return (
        TIMES[offset % len(TIMES)],
        [key.encode(), b"", None][offset % 3],
        HEADERS[offset % len(HEADERS)],
    )


def record(offset: int, key: str, event_type: str, amount: object, event_id: int) -> RawRecord:
    value = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": "/here",
        "type": event_type,
        "subject": key,
        "data": {"amount": amount},
    }
    time, kafka_key, headers = kafka_part(offset, key)
    return RawRecord("sums", 0, offset, time, kafka_key, orjson.dumps(value), headers)


def run_batches(given_batches: list[list[tuple[str, str, object, int]]]) -> tuple[Route, list[Batch]]:
    topics: dict[str, TopicRoute] = make_routes([Loaded(MACHINE, 1, 1)], {})
    ids = itertools.count(1)
    offsets = itertools.count()
    done: list[Batch] = []
    for number, given_events in enumerate(given_batches):
        # The clock goes back now and then; a run's time must not.
        batch = Batch(START + timedelta(seconds=(number * 7) % 5), ids, "here", [0, 0, 0, 0])
        if done:
            batch.inherit(done[-1])
        batch.read([record(next(offsets), *one) for one in given_events], 1, topics["sums"])
        batch.meet(batch.arrivals)
        batch.finish()
        done.append(batch)
    return topics["sums"].routes[0], done


def rows_by_run(done: list[Batch]) -> dict[int, list[LogRow]]:
    found: dict[int, list[LogRow]] = {}
    for batch in done:
        for packed in batch.commit.rows:
            row = unpack(packed)
            found.setdefault(row.run, []).append(row)
    return found


@given(batches)
def test_a_run_is_the_fold_of_its_rows(given_batches: list[list[tuple[str, str, object, int]]]) -> None:
    route, done = run_batches(given_batches)
    rows = rows_by_run(done)
    assert {run.id for run in route.cache.values()} == rows.keys()
    for key, run in route.cache.items():
        folded: Run | None = None
        for row in rows[run.id]:
            folded = fold(folded, row, key=key)
        assert folded is not None
        assert folded == run._replace(deferred=())
        assert run.behind >= 0


@given(batches)
def test_a_row_gives_a_record_s_time_key_and_headers_back(
    given_batches: list[list[tuple[str, str, object, int]]],
) -> None:
    route, done = run_batches(given_batches)
    keys = {run.id: key for key, run in route.cache.items()}
    for row in (unpack(packed) for batch in done for packed in batch.commit.rows):
        assert row.offset is not None
        time, kafka_key, headers = decode_envelope(row.envelope, keys[row.run].encode())
        assert (time, kafka_key, tuple(headers)) == (
            *kafka_part(row.offset, keys[row.run])[:2],
            tuple(kafka_part(row.offset, keys[row.run])[2]),
        )


@given(batches)
def test_sequences_have_no_gaps_and_times_never_go_back(
    given_batches: list[list[tuple[str, str, object, int]]],
) -> None:
    _, done = run_batches(given_batches)
    for rows in rows_by_run(done).values():
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        assert all(before.at <= after.at for before, after in itertools.pairwise(rows))


@given(batches)
def test_each_hash_seals_its_row_and_all_before_it(
    given_batches: list[list[tuple[str, str, object, int]]],
) -> None:
    _, done = run_batches(given_batches)
    for rows in rows_by_run(done).values():
        previous = b""
        for row in rows:
            assert row.hash == seal(previous, row[:-1])
            changed = row._replace(context=row.context + b" ")
            assert row.hash != seal(previous, changed[:-1])
            assert row.hash != seal(previous + b"x", row[:-1])
            previous = row.hash


@given(batches)
def test_packing_is_the_same_however_a_row_was_packed(
    given_batches: list[list[tuple[str, str, object, int]]],
) -> None:
    _, done = run_batches(given_batches)
    for packed in itertools.chain.from_iterable(batch.commit.rows for batch in done):
        row = unpack(packed)
        assert with_hash(pack(row[:-1]), row.hash) == packed


@given(batches)
def test_every_event_has_one_disposition_and_counts_once(
    given_batches: list[list[tuple[str, str, object, int]]],
) -> None:
    _, done = run_batches(given_batches)
    for batch, given_events in zip(done, given_batches, strict=True):
        # What was deferred and left since has another one, and counted when it was deferred.
        changed = len(batch.commit.waiting_removed)
        assert sum(batch.counts.values()) - changed == len(given_events) == batch.records


@given(st.lists(st.integers(0, 3 * RECENT_DIGESTS_MAX), max_size=150))
def test_a_duplicate_within_a_batch_is_one_however_long_ago(ids: list[int]) -> None:
    given_events = [("a", "begun", 0, 1_000)] + [("a", "added", 1, one) for one in ids]
    route, _ = run_batches([given_events])  # type: ignore[list-item]  # amounts are ints here
    assert orjson.loads(route.cache["a"].context) == {"amount": len(set(ids))}
