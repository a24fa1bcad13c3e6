"""The test kit for topics: it says of a record what the engine makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.content import written
from connectors.source import RawRecord
from connectors.testkit import Read, TopicCase, reading
from engine.batch.batch import Batch
from engine.routing import Loaded, make_routes
from statemachines import Context, Event, OrderBy, Pipeline, Topic
from statemachines.machine import compile_pipeline
from statemachines.outcome import Reason
from statemachines.testkit import ImpureHandlerError
from tests.storage import TEST_EVENT, objects, put, removed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Row(Event, key="after.id"):
    source: dict[str, Any]
    after: dict[str, Any]


class Inserted(Row, type="customers.c"):
    pass


class Updated(Row, type="customers.u"):
    pass


class Customer(Context):
    name: str


def keep(event: Inserted) -> Customer:
    return Customer(name=event.after["name"])


def change(customer: Customer, event: Updated) -> None:
    customer.name = event.after["name"]


def customers(do: Callable[[Customer, Updated], None] = change, **settings: Any) -> Pipeline[Customer]:
    topic = Topic("customers", type=("source.table", "op"), **settings)
    flow = Pipeline("customer", Customer, topics=[topic])
    there = flow.state("there", initial=True)
    flow.start(Inserted, keep)
    there.on(Updated, do=do)
    for event in (Inserted, Updated):
        flow.policy(event, order_by=OrderBy("source.lsn", kind="lsn", stream="row"))
    return flow


def row(op: str, name: Any = "Ann", lsn: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "source": {"table": "customers", "lsn": lsn},
        "op": op,
        "after": {"id": 7, "name": name},
    } | changes


def ends(case: TopicCase[Any]) -> list[tuple[str, Reason | None]]:
    return [(one.becomes, one.reason) for one in case.read]


def test_a_record_is_an_event_of_its_topic_and_moves_its_run() -> None:
    topic = reading(customers(time="ts_ms"))
    topic.record(row("c", ts_ms=1_772_366_400_000), key={"id": 7})
    assert topic.read == [
        Read(
            "event",
            "test/customers/0/0",
            "customers.c",
            "7",
            datetime(2026, 3, 1, 12, tzinfo=UTC),
            row("c", ts_ms=1_772_366_400_000),
        )
    ]
    topic.run("7").then(state="there", context={"name": "Ann"})
    topic.record(row("u", "Anne", lsn=3)).run("7").then(context={"name": "Anne"})
    topic.record(row("u", "Anna", lsn=2)).run("7").then_stale()
    again = Updated(source={"lsn": 4}, after={"id": 7, "name": "Bo"})
    topic.run("7").when(again).then(context={"name": "Bo"})


def test_each_element_is_an_event_and_duplicates_are_known_by_their_ids() -> None:
    topic = reading(objects(), "s3")
    topic.record({"Records": [put("a", "01"), put("b", "02"), put("a", "01")]})
    assert [(one.id, one.key) for one in topic.read] == [("01", "a"), ("02", "b"), ("01", "a")]
    topic.run("a").then_duplicate()
    topic.record({"Records": [removed("b", "03")]}).run("b").then(state="gone", ended=True)
    by_place = Topic("s3", each="Records", type="eventName")
    assert reading(objects(by_place)).record({"Records": [put("a", "01")]}).read[0].id == "test/s3/0/0/0"


@pytest.mark.parametrize(
    ("topic", "value", "becomes"),
    [
        (reading(objects()), TEST_EVENT, ("ignored", Reason.NO_EVENTS)),
        (reading(customers(tombstones="ignore")), None, ("ignored", Reason.NO_EVENTS)),
        (reading(customers()), None, ("dead letter", Reason.UNREADABLE)),
        (reading(customers()), b"{", ("dead letter", Reason.UNREADABLE)),
        (reading(customers()), "[1]", ("dead letter", Reason.UNREADABLE)),
        (reading(customers()), row("t"), ("dead letter", Reason.UNKNOWN_TYPE)),
        (reading(customers(unknown="ignore")), row("t"), ("ignored", Reason.UNKNOWN_TYPE)),
        (reading(customers()), row("c", after={}), ("dead letter", Reason.NO_KEY)),
        (reading(customers()), row("c", after={"id": "x" * 1_025}), ("dead letter", Reason.NO_KEY)),
    ],
)
def test_what_no_run_is_offered_says_why(
    topic: TopicCase[Any], value: Any, becomes: tuple[str, Reason]
) -> None:
    topic.record(value)
    assert ends(topic) == [becomes]
    assert bool(topic.read[0].error) == (becomes[0] == "dead letter")
    assert topic.runs == {}


def test_what_its_run_refuses_is_an_event_still() -> None:
    topic = reading(customers()).record(row("u"))
    assert ends(topic) == [("event", None)]
    topic.run("7").then_refused(Reason.NO_RUN)
    reading(customers()).record(row("c", name=[])).run("7").then_refused(Reason.ACTION_FAILED)
    reading(customers()).record(row("c", after={"id": 7})).run("7").then_refused(Reason.ACTION_FAILED)


def test_headers_and_keys_are_as_they_are_given() -> None:
    class Noted(Event, type="noted"):
        text: str

    flow = Pipeline("notes", Customer, topics=["notes", "others"])
    flow.state("there", initial=True)
    flow.start(Noted, lambda event: Customer(name=event.text))
    headers = {"ce_specversion": "1.0", "ce_id": "n1", "ce_source": "/me", "ce_type": "noted", "x": None}
    notes = reading(flow, "notes").record({"text": "hello"}, key="k", headers=headers)
    notes.run("k").then(context={"name": "hello"})
    assert ends(notes.record({"text": "hello"}, key=b"\xff", headers=headers)) == [
        ("dead letter", Reason.NO_KEY)
    ]
    assert notes.record({"type": "noted", "text": "x"}, key="l", time=notes.now + timedelta(hours=1)).read[
        0
    ].time == (notes.now + timedelta(hours=1))
    with pytest.raises(AssertionError, match=r"no event was for the run 'kk'. Did you mean 'k'"):
        notes.run("kk")
    with pytest.raises(AssertionError, match=r"notes reads no topic 'note'. Did you mean 'notes'"):
        reading(flow, "note")
    with pytest.raises(AssertionError, match="notes reads 'notes' and 'others': say which of them"):
        reading(flow)


def test_handlers_that_answer_differently_are_found() -> None:
    asked: list[object] = []

    def counts(customer: Customer, event: Updated) -> None:
        asked.append(event)
        customer.name = f"asked {len(asked)} times"

    topic = reading(customers(do=counts)).record(row("c"))
    with pytest.raises(ImpureHandlerError):
        topic.record(row("u", lsn=2))


def one_after_the_other(*answers: int | Exception) -> Callable[[Any], int]:
    """A function that answers differently to equal input, or raises."""
    left = iter(answers)

    def asked(_data: Any) -> int:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asked


@pytest.mark.parametrize(
    ("answers", "saying"),
    [((0, 1), r"\['0'\]; then \['1'\]"), ((0, LookupError("now")), r"\['0'\]; then .*LookupError: now")],
)
def test_a_type_that_differs_for_equal_input_is_found(answers: tuple[Any, ...], saying: str) -> None:
    flow = customers()
    flow.topics = [Topic("customers", type=one_after_the_other(*answers))]
    with pytest.raises(ImpureHandlerError, match=f"type of a record of customers differs .*: {saying}"):
        reading(flow).record(row("c"))


@pytest.mark.parametrize(
    ("answers", "saying"),
    [((0, 1), "'0'; then '1'"), ((LookupError("once"), 1), "LookupError: once .*; then '1'")],
)
def test_a_key_that_differs_for_equal_input_is_found(answers: tuple[Any, ...], saying: str) -> None:
    flow = customers()
    flow.key(Inserted, by=one_after_the_other(*answers))
    with pytest.raises(ImpureHandlerError, match=f"the key of customers.c differs for .*: .*{saying}"):
        reading(flow).record(row("c"))


RECORDS: list[Any] = [
    row("c"),
    row("u", "Anne", lsn=3),
    row("u", "Anna", lsn=2),
    row("c", lsn=4),
    row("t"),
    None,
    "",
    "5",
    row("u", after={}),
    row("u", source={"table": "customers"}, after={"id": 8}),
    row("c", after={"id": 8}, lsn=5),
    row("u", lsn=6, after={"id": 8, "name": "Bo"}),
]


@pytest.mark.parametrize("settings", [{}, {"unknown": "ignore", "tombstones": "ignore"}])
def test_it_says_of_each_record_what_the_engine_makes_of_it(settings: dict[str, Any]) -> None:
    flow = customers(**settings)
    topic = make_routes([Loaded(compile_pipeline(flow), 1, 1)], {})["customers"]
    kit = reading(flow)
    for offset, value in enumerate(RECORDS):
        batch = Batch(NOW, itertools.count(1), "test", [0, 0, 0, 0])
        kit.record(value, key="7")
        batch.read([RawRecord("customers", 0, offset, 0, b"7", written(value), ())], 1, topic)
        batch.meet(batch.take_arrivals())
        batch.finish()
        [said] = kit.read
        [*letters] = [one for one in batch.commit.dead_letters if one.sequence is None]
        if said.becomes == "dead letter":
            assert [(one.reason, one.event_id, one.type) for one in letters] == [
                (said.reason, said.id, said.type)
            ]
        ranges = [one.first for one in batch.commit.ranges]
        assert ranges == ([offset] if said.becomes == "ignored" else [])
    found = {key: (run.configuration, run.context, run.held) for key, run in topic.routes[0].cache.items()}
    told = {key: case.run for key, case in kit.runs.items()}
    assert found == {key: (run.configuration, run.context, run.held) for key, run in told.items() if run}
    assert found["7"][1] == b'{"name":"Anne"}'
