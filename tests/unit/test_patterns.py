"""Transitions on patterns of event types: what they take, as what it comes, and what is kept of types that come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import Field

from connectors.publisher import Draft, EventRefusedError, Publisher
from statemachines import Context, Event, Failed, Pipeline, Publish, Raise
from statemachines.interpreter import step
from statemachines.limits import TYPES_KEPT_MAX
from statemachines.machine import Machine, compile_pipeline
from statemachines.outcome import Deferred, Moved, Outcome, Reason, Refused
from statemachines.patterns import (
    ANY,
    FAILURE,
    Names,
    covers,
    is_pattern,
    narrowing,
    overlaps,
    takes,
    takes_failures,
)
from statemachines.testkit import Case, given
from tests.unit.machines import begun, occurrence


class Placed(Event, type="order.placed", key="order"):
    order: str


class AnyOrder(Event, type="order.*", key="order"):
    order: str


class Paid(AnyOrder, type="order.paid"):
    amount: int = 1


class Everything(Event, type="*"):
    pass


Late = AnyOrder.named("order.paid.late")
Bare = AnyOrder.named("order")
Beside = Event.named("orders.x")


class Order(Context):
    seen: list[str] = Field(default_factory=list)


def see(word: str = "") -> Any:
    def seen(order: Order, event: Event) -> None:
        order.seen.append(" ".join(filter(None, [word, type(event).__name__, event.meta.type])))

    return seen


def orders(*, flat: bool = True) -> tuple[Pipeline[Order], Any]:
    flow = Pipeline("orders", Order, topics=["orders"])
    state = flow.state("open", initial=True)
    flow.state("done", final=True)
    flow.start(Placed, lambda _event: Order())
    state.on(Event.named("close"), to="done")
    if not flat:
        state.exit(lambda _order, _event: None)
    return flow, state


def after(flow: Pipeline[Order], *events: Event) -> Case[Order]:
    return given(flow, Placed(order="o1"), *events)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        (
            "order.*",
            {"order", "order.paid", "order.paid.late", "order.paid.*"},
            {"orders", "orders.x", "*", "o"},
        ),
        ("*", {"order", "order.*", "error", "error.x", "done.state.x"}, {"error.execution", "error.*"}),
        ("order.paid", {"order.paid"}, {"order.paid.late", "order.*", "order"}),
    ],
)
def test_what_a_type_or_pattern_stands_for(pattern: str, taken: set[str], left: set[str]) -> None:
    assert {one for one in taken | left if covers(pattern, one)} == taken


NAMES = st.sampled_from(
    [ANY, "a", "a.*", "a.b", "a.b.*", "ab.*", FAILURE, "error.*", f"{FAILURE}.*", "a.b.c"]
)
TYPES = ["a", "a.b", "a.b.c", "a.b.c.d", "ab", "ab.c", "b", FAILURE, f"{FAILURE}.x", "error", "error.x"]


@for_any(NAMES, NAMES)
def test_one_name_covers_another_if_it_takes_each_type_that_the_other_takes(one: str, other: str) -> None:
    taken = {kind for kind in TYPES if covers(one, kind)}
    others = {kind for kind in TYPES if covers(other, kind)}
    assert covers(one, other) == (others <= taken)
    assert overlaps(one, other) == bool(others & taken)
    assert takes_failures(one) == (FAILURE in taken)


@for_any(st.sets(NAMES), st.sampled_from(TYPES))
def test_all_that_is_to_know_of_a_type_is_known_of_the_name_it_goes_by(names: set[str], kind: str) -> None:
    name = Names(names).of(kind)
    assert {one for one in names if covers(one, kind)} == (
        set() if name is None else {one for one in names if takes(one, name)}
    )


def test_the_most_specific_pattern_comes_first() -> None:
    assert list(narrowing("a.b.c")) == ["a.b.c.*", "a.b.*", "a.*", "*"]
    assert not is_pattern("a.b")


@pytest.mark.parametrize("flat", [True, False])
def test_a_pattern_takes_whole_dotted_parts_and_the_type_itself(*, flat: bool) -> None:
    flow, state = orders(flat=flat)
    state.on(AnyOrder, do=see())
    assert compile_pipeline(flow).flat == flat
    case = after(flow, Paid(order="o1"), Late(order="o1"), Bare(order="o1"))
    case.then(context={"seen": ["AnyOrder order.paid", "AnyOrder order.paid.late", "AnyOrder order"]})
    case.when(Beside()).then_deferred(Reason.UNEXPECTED)


@pytest.mark.parametrize("flat", [True, False])
def test_an_event_comes_as_the_class_that_names_its_type_whichever_transition_takes_it(*, flat: bool) -> None:
    flow, state = orders(flat=flat)
    state.on(Everything, when=lambda _order, event: event.meta.type == "noise", do=see("any"))
    state.on(AnyOrder, when=lambda order, _event: len(order.seen) < 9, do=see("pattern"))
    state.on(Paid, do=see("never"))
    case = after(flow, Event.named("noise")(), Paid(order="o1"), Late(order="o1"))
    case.then(
        context={
            "seen": ["any Everything noise", "pattern Paid order.paid", "pattern AnyOrder order.paid.late"]
        }
    )


@pytest.mark.parametrize("flat", [True, False])
def test_the_order_in_the_file_decides_and_not_how_specific_a_type_is(*, flat: bool) -> None:
    flow, state = orders(flat=flat)
    state.on(Everything, do=see("first"), when=lambda order, _event: not order.seen)
    state.on(Paid, do=see("second"), when=lambda order, _event: len(order.seen) < 2)
    state.on(AnyOrder, do=see("third"), when=lambda order, _event: len(order.seen) < 3)
    flow.on(Paid, do=see("pipeline"))
    case = after(flow, Paid(order="o1"), Paid(order="o1"), Paid(order="o1"))
    case.then(context={"seen": ["first Paid order.paid", "second Paid order.paid", "third Paid order.paid"]})


def test_data_is_validated_and_the_key_found_by_the_class_of_the_pattern() -> None:
    flow, state = orders()
    state.on(AnyOrder, do=see())
    case = after(flow)
    with pytest.raises(AssertionError, match="the event is for the run 'o2', not for 'o1'"):
        case.when(Late(order="o2"))

    class Numbered(Event, type="order.paid"):
        order: str = "o1"

    case.when(Numbered()).then(context={"seen": ["AnyOrder order.paid"]})

    class Strange(Event, type="order.strange", key="order"):
        order: str = "o1"

    class Strict(AnyOrder, type="order.strange.*"):
        weight: int

    flow, state = orders()
    state.on(Strict, do=see())
    state.on(AnyOrder)
    after(flow).when(Strange()).then_refused(Reason.INVALID, saying="weight")


class Go(Event, type="go"):
    fails: bool = False


def raising(order: Order, event: Go) -> Raise:
    order.seen.append("went")
    if event.fails:
        raise LookupError("on purpose")
    return Raise(Paid(order="inside"))


def test_a_pattern_takes_what_is_raised_inside_as_what_it_was_raised() -> None:
    flow, state = orders()
    state.on(Go, do=raising)
    state.on(AnyOrder, do=see())
    after(flow, Go()).then(context={"seen": ["went", "Paid order.paid"]})


def test_a_pattern_takes_that_a_state_is_done() -> None:
    flow, state = orders()
    box = flow.state("box")
    box.state("in", initial=True).on(Go, to="out")
    box.state("out", final=True)
    state.on(Go, to=box)
    box.on(Event.named("done.*"), to="done", do=see())
    after(flow, Go(), Go()).then(ended=True, context={"seen": ["Done done.state.box"]})


@pytest.mark.parametrize(
    ("kind", "taken"), [("*", False), ("error.*", True), ("error.execution.*", True), ("e.*", False)]
)
def test_only_a_pattern_that_names_error_takes_a_failure(kind: str, *, taken: bool) -> None:
    flow, state = orders()
    state.on(Go, do=raising)
    state.on(Event.named(kind), do=see())
    case = after(flow).when(Go(fails=True))
    if taken:
        case.then(context={"seen": ["Failed error.execution"]})
    else:
        case.then_refused(Reason.ACTION_FAILED, saying="on purpose")


def test_a_failure_that_is_named_elsewhere_passes_by_the_pattern_for_everything() -> None:
    flow, state = orders()
    state.on(Go, do=raising)
    state.on(Everything, do=see("any"))
    flow.on(Failed, do=see("named"))
    after(flow, Go(fails=True)).then(context={"seen": ["named Failed error.execution"]})


@pytest.mark.parametrize("kind", ["done.state.open", "error.execution"])
def test_what_only_runs_raise_is_of_an_unknown_type_from_outside(kind: str) -> None:
    flow, state = orders()
    state.on(Everything, do=see())
    state.on(Event.named("error.*"), do=see())
    machine = compile_pipeline(flow)
    assert kind not in machine.events
    assert machine.validators.get(kind) is None
    assert machine.events["other"] is Everything
    assert "order.placed" in list(machine.events)


def test_an_event_that_came_by_a_pattern_is_published_as_what_it_is() -> None:
    flow, state = orders()
    state.on(AnyOrder, do=lambda _order, event: Publish("out", event))
    after(flow, Late(order="o1")).then(publishes=[Publish("out", Late(order="o1"))])


@pytest.mark.parametrize("effect", [lambda event: Publish("out", event), Raise])
def test_an_event_of_no_one_type_is_not_sent_on(effect: Any) -> None:
    flow, state = orders()
    state.on(Go, do=lambda _order, _event: effect(AnyOrder(order="o1")))
    state.on(AnyOrder)
    case = after(flow).when(Go())
    case.then_refused(Reason.ACTION_FAILED, saying="AnyOrder stands for all of 'order.*'")
    with pytest.raises(AssertionError, match=r"make it of AnyOrder\.named\('the\.type'\)"):
        case.when(AnyOrder(order="o1"))


def test_a_publisher_refuses_an_event_of_no_one_type() -> None:
    publisher: Any = Publisher.__new__(Publisher)
    publisher._topic = "orders"
    with pytest.raises(EventRefusedError, match="AnyOrder stands for all of"):
        publisher._outgoing(Draft(AnyOrder(order="o1")))


def taken_by(machine: Machine, kind: str) -> Outcome:
    event = machine.events[kind].model_construct(order="acme")
    return step(machine, begun(machine, Placed(order="acme")), occurrence(event, kind))


@pytest.mark.parametrize("flat", [True, False])
def test_what_is_kept_of_types_that_come_is_bounded(monkeypatch: pytest.MonkeyPatch, *, flat: bool) -> None:
    assert TYPES_KEPT_MAX == 10_000
    monkeypatch.setattr("statemachines.patterns.TYPES_KEPT_MAX", 50)
    flow, state = orders(flat=flat)
    state.on(AnyOrder, do=see())
    machine = compile_pipeline(flow)
    for number in range(200):
        assert isinstance(taken_by(machine, f"order.{number}"), Moved)
        assert f"other.{number}" not in machine.events
    patterns = machine.microsteps.chart.patterns
    assert patterns is not None
    assert len(patterns._found) <= 50
    assert {name for _, name in (*machine.microsteps._lanes, *machine.microsteps._certain)} <= {"", "order.*"}


def test_a_machine_without_patterns_looks_types_up_in_plain_tables() -> None:
    flow, state = orders()
    state.on(Paid, do=see())
    machine = compile_pipeline(flow)
    assert machine.microsteps.chart.patterns is None
    assert [type(one) for one in (machine.events, machine.validators, *machine.table.values())] == [dict] * 4


LINES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from(["*", "order.*", "order.paid", "order.paid.*", "order", "orders.*"]),
        st.sampled_from([None, "open", "other"]),
        st.integers(0, 3),
    ),
    max_size=6,
)
SENT = st.sampled_from(["order", "order.paid", "order.paid.late", "orders.x", "orders", "x"])


@settings(max_examples=150, deadline=None)
@for_any(LINES, st.lists(SENT, max_size=6))
def test_the_table_of_a_flat_machine_says_what_the_chart_says(lines: Any, sent: list[str]) -> None:
    flow, state = orders()
    flow.state("other")
    classes: dict[str, Any] = {}
    for of_pipeline, kind, to, least in lines:
        source: Any = flow if of_pipeline else state
        event = classes.setdefault(kind, Event.named(kind))
        source.on(event, to=to, when=lambda order, _event, n=least: len(order.seen) >= n, do=see(f"{least}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("statemachines.machine.check", lambda _pipeline: None)
        table = compile_pipeline(flow)
    chart = replace(table, flat=False)
    run = begun(table, Placed(order="acme"))
    for kind in sent:
        event_class = table.events.get(kind, Event.named(kind))
        one, other = (
            step(machine, run, occurrence(event_class.model_construct(), kind)) for machine in (table, chart)
        )
        assert one == other
        if isinstance(one, Moved):
            run = run._replace(configuration=one.configuration, context=one.context or run.context)
        else:
            assert isinstance(one, Deferred | Refused)
