"""Routing by type where patterns are among the types: who reads what, as which class, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.dead_letters import DeadLetterTopic
from engine.routing import Loaded, TopicRoute, is_known_by_both, make_routes
from statemachines import Context, Event, Pipeline
from statemachines.machine import compile_pipeline
from tests.riding import bookings_on, rides


class Begun(Event, type="begun"):
    pass


class Nothing(Context):
    pass


def pipeline(name: str, *events: type[Event], version: int = 1) -> Pipeline[Nothing]:
    flow = Pipeline(name, Nothing, topics=["t"], version=version)
    state = flow.state("open", initial=True)
    flow.start(Begun, lambda _event: Nothing())
    for event in events:
        state.on(event)
    return flow


def routed(*pipelines: Pipeline[Any]) -> TopicRoute:
    numbers = {flow.name: at for at, flow in enumerate(pipelines)}
    loaded = [Loaded(compile_pipeline(flow), numbers[flow.name], at) for at, flow in enumerate(pipelines)]
    return make_routes(loaded, {})["t"]


Wide, Narrow = Event.named("order.*", key=None), Event.named("order.paid.*")
Paid: Any = Event.named("order.paid")


def readers_of(topic: TopicRoute, kind: str) -> list[tuple[str, type[Event] | None]]:
    return [(reader.route.name, reader.event_class) for reader in topic.readers.get(kind, ())]


def test_each_pipeline_reads_a_type_as_the_class_that_it_has_for_it() -> None:
    topic = routed(pipeline("exact", Paid), pipeline("wide", Narrow, Wide), pipeline("other"))
    assert readers_of(topic, "order.paid") == [("exact", Paid), ("wide", Narrow), ("other", None)]
    assert readers_of(topic, "order.sent") == [("exact", None), ("wide", Wide), ("other", None)]
    assert "order.sent" in topic.readers
    assert readers_of(topic, "orders.x") == []
    assert "orders.x" not in topic.readers
    assert "error.execution" not in topic.readers


@pytest.mark.parametrize(
    ("kind", "event_class"), [("order.paid", lambda: Wide), ("order.sent", lambda: Wide), ("x", lambda: None)]
)
def test_of_the_versions_that_know_a_type_the_newest_has_the_say(
    kind: str, event_class: Callable[[], Any]
) -> None:
    topic = routed(pipeline("one", Paid, version=1), pipeline("one", Wide, version=2))
    [route] = topic.routes
    assert route.events.get(kind) is event_class()
    older = routed(pipeline("one", Wide, version=1), pipeline("one", Paid, version=2))
    assert older.routes[0].events["order.paid"] is Paid
    assert older.routes[0].events["order.sent"] is Wide


def test_without_patterns_routes_are_plain_tables() -> None:
    topic = routed(pipeline("exact", Paid))
    assert (type(topic.readers), type(topic.routes[0].events)) == (dict, dict)


def test_what_is_kept_of_types_that_come_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statemachines.patterns.TYPES_KEPT_MAX", 50)
    topic = routed(pipeline("wide", Wide))
    for number in range(300):
        assert f"order.{number}" in topic.readers
        assert f"other.{number}" not in topic.readers
    kept: Any = [topic.readers, topic.routes[0].events]
    assert all(len(one._found) <= 50 for one in kept)


def test_pipelines_that_read_no_topic_are_among_all_and_their_dead_letters_have_a_topic() -> None:
    flows: list[tuple[int, Pipeline[Any]]] = [
        (1, bookings_on("bookings")),
        (2, rides()),
        (3, rides("others")),
        (3, rides(version=2)),
    ]
    loaded = [
        Loaded(compile_pipeline(flow, namespace="shop"), pipeline, number)
        for number, (pipeline, flow) in enumerate(flows)
    ]
    routes = make_routes(loaded, {"pointsman.shop.dead-letters": 5_000})
    assert {name: [one.pipeline for one in topic.routes] for name, topic in routes.items()} == {
        "bookings": [1],
        "others": [3],
    }
    assert {one.pipeline: one.inner and one.inner.dead_letters for one in routes.pipelines} == {
        1: DeadLetterTopic("bookings.dead-letters"),
        2: DeadLetterTopic("pointsman.shop.dead-letters", 5_000),
        3: DeadLetterTopic("others.dead-letters"),
    }


def test_types_that_a_version_which_is_gone_knew_by_business_keys_are_known_by_their_ids_too() -> None:
    loaded = Loaded(compile_pipeline(pipeline("wide", Wide)), 1, 1)
    routes = make_routes([loaded._replace(keyed=frozenset({"begun", "order.paid.*"}))], {})
    readers = routes["t"].readers
    by_both = [kind for kind in ("begun", "order.paid.late", "order.sent") if readers[kind][0].by_both]
    assert by_both == ["begun", "order.paid.late"]
    [route] = routes.pipelines
    assert is_known_by_both(route, "order.paid.early")
    assert not is_known_by_both(route, "order.sent")
