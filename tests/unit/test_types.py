"""What says of which type an event is: a field, several of them, or a function of the data."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from connectors.decode import decode_each
from connectors.decoded import Decoded
from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.routing import Loaded, TopicRoute, make_routes
from statemachines import Context, Event, Pipeline, Topic
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.machine import compile_pipeline
from statemachines.topic import TypeBy
from statemachines.validation import find_mistakes_across
from tests.records import cloudevent, event, record, refusal
from tests.unit.mistaken import right, the_mistake

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOTH = Topic("orders", type=("source.table", "op"))


class Kept(Context):
    op: str


class Changed(Event, type="orders.*", key="id"):
    id: str
    op: str


class Created(Changed, type="orders.c"):
    pass


def of_change(data: dict[str, Any]) -> str:
    table, data["source"] = data["source"]["table"], None
    return f"{table}.{data['op']}"


def of_operation(data: dict[str, Any]) -> str:
    return f"orders.{data['op']}"


def changes(by: TypeBy = ("source.table", "op")) -> Pipeline[Kept]:
    flow = Pipeline("changes", Kept, topics=[Topic("orders", type=by)])
    there = flow.state("there", initial=True)
    flow.start(Created, lambda event: Kept(op=event.op))
    there.on(Changed, to=flow.state("gone", final=True))
    return flow


def route(flow: Pipeline[Any]) -> TopicRoute:
    return make_routes([Loaded(compile_pipeline(flow), 1, 1)], {})["orders"]


def sent(offset: int = 0, **data: Any) -> RawRecord:
    value = orjson.dumps({"id": "o1", "source": {"table": "orders"}, "op": "c"} | data)
    return RawRecord("orders", 0, offset, 0, b"kafka", value, ())


def met(topic: TopicRoute, *records: RawRecord, **strikes: Any) -> Batch:
    batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    batch.strikes = strikes.get("strikes", {})
    batch.read(records, 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    return batch


def test_several_fields_are_joined_headers_first() -> None:
    data = {"source": {"table": "orders"}, "op": "c"}
    assert event(data, topic=BOTH).envelope.type == "orders.c"
    assert event(data, ("op", b"u"), topic=BOTH).envelope.type == "orders.u"
    each = Topic("orders", type=("source.table", "op"), each="items")
    [(own, found)] = decode_each(record(orjson.dumps({"items": [data]}), ("op", b"u")), each, "c1")
    assert isinstance(found, Decoded)
    assert found.envelope.type == "orders.c"
    assert decode_each(own, each, "c1") == [(own, found)]


def test_where_one_of_several_fields_is_missing_there_is_no_type() -> None:
    lacking = {"source": {"table": "orders"}}
    assert (
        "nor has it headers or fields 'source.table' and 'op' for its type"
        in refusal(lacking, topic=BOTH).error
    )
    default = Topic("orders", type=("source.table", "op"), type_default="other")
    assert event(lacking, topic=default).envelope.type == "other"


@pytest.mark.parametrize(
    ("op", "sentence"),
    [(5, "'op' is a number, not a string"), ("", "'op' is empty"), ("a\0", "'op' has a NUL")],
)
def test_each_of_several_fields_is_text(op: object, sentence: str) -> None:
    assert sentence in refusal({"source": {"table": "orders"}, "op": op}, topic=BOTH).error


def test_a_function_makes_it_of_data_of_its_own() -> None:
    topic = Topic("orders", type=of_change)
    data = {"source": {"table": "orders"}, "op": "c"}
    found = event(data, topic=topic)
    assert (found.envelope.type, found.data) == ("orders.c", data)
    several = Topic("orders", type=of_change, each="items")
    both = decode_each(record(orjson.dumps({"items": [data, data | {"op": "u"}]})), several, "c1")
    assert [(one.envelope.type, one.data) for _, one in both if isinstance(one, Decoded)] == [
        ("orders.c", data),
        ("orders.u", data | {"op": "u"}),
    ]
    assert [decode_each(own, several, "c1") for own, _ in both] == [[one] for one in both]
    assert event(cloudevent(), topic=topic).envelope.type == "order.placed"


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (of_change, "of_change raised KeyError: 'source'"),
        (
            lambda data: None,
            "nor does the function <lambda>, which the topic's settings name as type, find one",
        ),
        (lambda data: "", "name as type, find one"),
        (
            lambda data: ["c"],
            "<lambda> returned list; a type is text or a whole number, or None where there is none",
        ),
        (lambda data: "t" * 600, "type takes 600 bytes"),
    ],
)
def test_a_record_of_which_a_function_tells_no_type_is_refused_and_says_why(
    by: TypeBy, sentence: str
) -> None:
    found = refusal({"op": "c"}, topic=Topic("orders", type=by))
    assert sentence in found.error
    assert (found.event_id, found.key) == ("c1/orders/3/42", "order-1")


def test_a_function_that_finds_none_leaves_it_to_the_default() -> None:
    topic = Topic("orders", type=lambda data: None, type_default="other")
    assert event({}, topic=topic).envelope.type == "other"


@pytest.mark.parametrize("by", [("source.table", "op"), of_change])
def test_a_pattern_stands_for_what_is_made(by: TypeBy) -> None:
    topic = route(changes(by))
    batch = met(topic, sent(), sent(1, op="u"), sent(2, source={"table": "other"}))
    assert [(one.offset, one.reason) for one in batch.commit.dead_letters] == [(2, "unknown type")]
    assert topic.routes[0].cache["o1"].sequence == 2


def test_while_a_function_is_called_the_watchdog_sees_which_record_it_is() -> None:
    beat = [0, 0, 0, 0]
    seen: list[list[int]] = []

    def looks(data: Any) -> str:
        seen.append(list(beat))
        return "orders.c"

    Batch(NOW, itertools.count(1), "here", beat).read([sent(41)], 1, route(changes(looks)))
    assert seen[0][:2] == [1, 41]
    assert seen[0][2]
    assert not beat[2], "nothing is called any more"


def test_no_function_is_asked_again_once_a_type_is_known() -> None:
    """Neither for another pipeline, nor for a function that makes keys; what it is given is its own."""
    asked: list[dict[str, Any]] = []

    def noted(data: dict[str, Any]) -> str:
        asked.append(data.copy())
        if len(asked) % 2 == 0:
            raise LookupError("the second time")
        return of_change(data)

    flows = [changes(noted) for _ in range(3)]
    flows[1].name, flows[2].name = "others", "more"
    flows[2].key(Created, by=lambda data: data["source"].popitem()[1])
    loaded = [Loaded(compile_pipeline(one), number, number) for number, one in enumerate(flows, 1)]
    topic = make_routes(loaded, {})["orders"]
    batch = met(topic, sent(), sent(1))
    assert len(asked) == 2
    assert [(one.offset, one.reason) for one in batch.commit.dead_letters] == [(1, "unreadable")]
    assert [list(one.cache) for one in topic.routes] == [["o1"], ["o1"], ["orders"]]
    asked.clear()
    again = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    again.read_each(sent(2), 1, topic, "here", [1, 2, 3])
    assert len(asked) == 1
    assert [one.route.pipeline for one in again.arrivals] == [1, 2, 3]


@pytest.mark.parametrize("known", [{"": "orders.c"}, {"": 5}])
def test_nothing_in_a_record_names_a_type_that_is_known(known: dict[str, Any]) -> None:
    data = {"source": {"table": "orders"}, "op": "u"} | known
    for each, value in ((None, data), ("items", {"items": [data]})):
        topic = Topic("orders", type=of_change, each=each)
        assert event(value, ("", b"orders.c"), topic=topic.knowing("orders.u")).envelope.type == "orders.u"


def test_a_function_that_never_returned_is_named_and_not_called_again() -> None:
    traced: list[str] = []

    def noted(data: Any) -> str:
        traced.append(data["id"])
        return "orders.c"

    topic = route(changes(noted))
    batch = met(topic, sent(), sent(1, id="o2"), strikes={(1, 0): (2, "noted (x.py:1)")})
    [letter] = batch.commit.dead_letters
    assert (letter.reason, letter.offset, letter.key, letter.run) == (
        "handler never returned",
        0,
        "kafka",
        None,
    )
    assert "noted (x.py:1) did not return, 2 times" in letter.error
    assert set(traced) == {"o2"}
    assert batch.commit.strikes_forgotten == [(1, 0)]


def test_the_form_names_what_is_named_and_the_code_of_functions_counts() -> None:
    def form(flow: Pipeline[Kept]) -> Any:
        return orjson.loads(canonical_bytes(flow))["topics"][0]["type"]

    assert form(changes("op")) == "op"
    assert form(changes()) == ["source.table", "op"]
    assert form(changes(of_change)) == {"function": "of_change"}
    hashes = {code_hash(changes(by)) for by in ("op", ("source.table", "op"), of_change, of_operation)}
    assert len(hashes) == 3, "names are the structure's"


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("", "type='' of topic 'a' names no header and no field"),
        ((), "type=() of topic 'a' names no header and no field"),
        (("op", ""), "type=('op', '') of topic 'a' names no header and no field"),
        (["op"], "type=['op'] of topic 'a' names no header and no field"),
        (("op", "op"), "type=('op', 'op') of topic 'a' names 'op' twice"),
        (lambda: "t", "the type function <lambda>() cannot be called with (data)"),
    ],
)
def test_what_cannot_name_a_type_is_a_mistake(by: Any, message: str) -> None:
    assert the_mistake(right(topics=[Topic("a", type=by)])).message == message


async def awaited(data: Any) -> Any:
    return "t"


def test_an_async_function_is_a_mistake_and_functions_go_by_their_names() -> None:
    assert (
        "the type function awaited is async" in the_mistake(right(topics=[Topic("a", type=awaited)])).message  # type: ignore[arg-type]  # the mistake
    )
    first, second = changes(of_change), changes(of_operation)
    second.name = "others"
    [*_, found] = find_mistakes_across([first, second])
    assert "is read with type=of_operation, but with type=of_change by 'changes'" in found.message
