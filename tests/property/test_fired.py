"""The rows of what runs do by themselves: written in one go, and equal to what the log's plain functions make."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.envelope import decode_envelope
from engine.log import Kind, LogRow, fold, pack, seal, unpack
from engine.routing import Loaded, Route, make_routes
from engine.steps.result import StepResult
from engine.store.values import AskedExecution, BegunExecution
from statemachines import After, Call, Context, Done, Event, Pipeline, Publish, Searchable, Send
from statemachines.machine import compile_pipeline
from statemachines.memory import read_memory, time_of
from statemachines.results import done_event, event_id
from statemachines.run import Run

START = datetime(2026, 1, 1, tzinfo=UTC)
UNTIL = timedelta(days=2)


class Begun(Event, type="begun"):
    word: str
    later: int
    """How many microseconds later the word is to come back."""


class Said(Event, type="said"):
    word: str


class Heard(Context):
    words: list[str]


def say(heard: Heard, event: Begun) -> Send:
    return Send(Said(word=event.word), after=timedelta(microseconds=event.later))


def hear(heard: Heard, event: Said) -> Publish:
    heard.words.append(event.word)
    return Publish("words", event)


def ring(heard: Heard, event: After) -> None:
    heard.words.append("ring")


flow = Pipeline("hearing", Heard, topics=["words-in"])
quiet = flow.state("quiet", initial=True)
loud = flow.state("loud", final=True)
flow.start(Begun, lambda _event: Heard(words=[]), do=say)
quiet.on(Said, do=hear)
quiet.after(timedelta(days=1), to=loud, do=ring)
MACHINE = compile_pipeline(flow)


class Worn(Context):
    place: Annotated[str, Searchable()] = "drawer"


works = Pipeline("mending", Worn, topics=["words-in"])


@works.step(timeout=timedelta(minutes=1))
async def mend(worn: Worn, call: Call) -> str:
    return f"{worn.place} {call.attempt}"


def carry(worn: Worn, event: After) -> None:
    worn.place = "bench"


def wear(worn: Worn, done: Done[str]) -> None:
    worn.place = done.result


lying = works.state("lying", initial=True)
mending = works.state("mending", run=mend)
worn_again = works.state("worn", final=True)
works.start(Begun, lambda _event: Worn())
lying.after(timedelta(days=1), to=mending, do=carry)
mending.on(mend.done, to=worn_again, do=wear)
WORKS = compile_pipeline(works)

letters = st.characters(exclude_categories=["Cs"])
texts = st.text(letters, max_size=12)
keys = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


def begun(key: str, word: str, later: int) -> RawRecord:
    value = {
        "specversion": "1.0",
        "id": "1",
        "source": "/here",
        "type": "begun",
        "subject": key,
        "data": {"word": word, "later": later},
    }
    return RawRecord("words-in", 0, 0, 1_767_225_600_000, key.encode(), orjson.dumps(value), ())


def rows_of(batch: Batch) -> list[LogRow]:
    return [unpack(row) for row in batch.commit.rows]


def folded(rows: list[LogRow], key: str) -> Run:
    """The run of these rows, each of which is the one that the log's plain functions make."""
    run: Run | None = None
    for row in rows:
        fields = row[:-1]
        previous = b"" if run is None else run.hash
        assert row.hash == seal(previous, fields)
        assert unpack(pack(fields) + (12).to_bytes(4, "big") + row.hash) == row
        run = fold(run, row, key=key)
    assert run is not None
    return run


@given(keys, texts, st.integers(0, 10**11))
def test_a_row_of_a_timer_is_the_one_that_the_log_s_plain_functions_make(
    key: str, word: str, later: int
) -> None:
    topics = make_routes([Loaded(MACHINE, 1, 1)], {})
    [route] = topics["words-in"].routes
    ids = itertools.count(1)
    first = Batch(START, ids, "here", [0, 0, 0, 0])
    first.read([begun(key, word, later)], 1, topics["words-in"])
    first.meet(first.take_arrivals())
    second = Batch(START + UNTIL, ids, "here", [0, 0, 0, 0])
    second.fall_due(route, key, START + UNTIL)
    rows = [*rows_of(first), *rows_of(second)]
    assert {row.kind for row in rows[1:]} == {Kind.FIRED}
    run = folded(rows, key)
    assert run == route.cache[key]
    assert not read_memory(run.memory).delayed
    for row in rows[1:]:
        document = orjson.loads(row.payload or b"")
        due = datetime.fromisoformat(document["time"])
        assert row.payload == encode_structured(
            id=row.event_id,
            source="/pointsman/default/hearing",
            type=row.type,
            subject=key,
            time=due,
            data=orjson.dumps({"word": word}) if row.type == "said" else None,
        )
        milliseconds, kafka_key, headers = decode_envelope(row.envelope, key.encode())
        assert headers == STRUCTURED_HEADERS
        assert (time_of(milliseconds * 1_000), kafka_key) == (
            due.replace(microsecond=due.microsecond // 1_000 * 1_000),
            key.encode(),
        )


def done(route: Route, asked: AskedExecution, result: str) -> StepResult:
    """That the step is done that a run has asked for."""
    run = route.cache[asked.key]
    [execution] = read_memory(run.memory).executions
    begun = BegunExecution(
        1, asked.pipeline, asked.key, 0, run.id, run.definition, 0, *asked.address[1:], asked.step, 1, "", b""
    )
    return StepResult(
        begun, route, event_id(WORKS, run, execution, 1, "done"), *done_event(mend, execution, 1, result)
    )


@given(keys, keys)
def test_with_it_comes_what_it_changes_of_steps_and_of_what_runs_are_found_by(key: str, result: str) -> None:
    topics = make_routes([Loaded(WORKS, 1, 1)], {})
    [route] = topics["words-in"].routes
    ids = itertools.count(1)
    first, second, third = (Batch(START + UNTIL * number, ids, "here", [0, 0, 0, 0]) for number in range(3))
    first.read([begun(key, "", 0)], 1, topics["words-in"])
    first.meet(first.take_arrivals())
    second.commit.steps_at = START + UNTIL
    second.fall_due(route, key, START + UNTIL)
    commit = second.finish()
    [asked] = commit.executions_asked
    assert (asked.key, asked.step, asked.address, asked.again) == (key, "mend", (1, 2, 0), START + UNTIL)
    assert (commit.attributes, commit.executions_over) == ([(1, {"place": "bench"})], [])
    assert (second.fired, second.lateness) == ({"mending": 1}, timedelta(days=1).total_seconds())
    third.meet_results([done(route, asked, result)])
    commit = third.finish()
    assert (commit.executions_asked, commit.executions_over) == ([], [asked.address])
    assert commit.attributes == [(1, {"place": result})]
    assert (third.fired, third.lateness) == ({}, None), "it is no timer"
    rows = [row for batch in (first, second, third) for row in rows_of(batch)]
    assert [row.kind for row in rows] == [Kind.STARTED, Kind.FIRED, Kind.FIRED]
    assert folded(rows, key) == route.cache[key]
