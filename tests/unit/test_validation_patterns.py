"""Mistakes with classes whose types are patterns, and transitions that a pattern leaves nothing for."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Event, Failed
from statemachines.validation import find_mistakes
from tests.unit.charted import parallel
from tests.unit.mistaken import Flow, build, no, right, state_of, the_mistake, yes

AnyOrder = Event.named("order.*")
Paid = Event.named("order.paid")
Everything = Event.named("*")


def taking(*events: type[Event], when: Any = None) -> Flow:
    flow = right()
    for event in events:
        state_of(flow, "open").on(event, when=when)
    return flow


@pytest.mark.parametrize("kind", ["order.*", "*", "a.b.*", "done.*", "done.state.*", "error.*"])
def test_a_pattern_is_right_whether_or_not_a_type_is_known_that_it_takes(kind: str) -> None:
    assert find_mistakes(taking(Event.named(kind))) == []


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("order*", "order"),
        ("*.paid", "order"),
        ("order.*.late", "order"),
        ("a.**", "a"),
        (".*", "order"),
        ("**", "order"),
    ],
)
def test_an_asterisk_elsewhere_is_a_mistake(kind: str, prefix: str) -> None:
    mistake = the_mistake(taking(Event.named(kind)))
    assert f"the event type {kind!r} of " in mistake.message
    assert mistake.message.endswith("has a '*' where none may be")
    assert mistake.cure == (
        f"Write '{prefix}.*' for {prefix!r} and all types below it, '*' for all types, or no '*' at all"
    )


@pytest.mark.parametrize("kind", ["ObjectCreated:*", "order-*", "a.b/*"])
def test_where_no_dot_tells_parts_apart_no_pattern_is_offered(kind: str) -> None:
    mistake = the_mistake(taking(Event.named(kind)))
    assert mistake.message.endswith("has a '*' where none may be")
    assert mistake.cure.startswith("A pattern stands for whole parts between dots: name each of the types;")


def test_a_pattern_starts_no_run() -> None:
    flow = right()
    flow.start(AnyOrder, build)
    mistake = the_mistake(flow)
    assert mistake.message == "'order.*' stands for many types of events, and cannot start a run"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AnyOrder, Paid),
        (Everything, Paid),
        (Everything, AnyOrder),
        (AnyOrder, Event.named("order.paid.*")),
        (AnyOrder, Event.named("order")),
        (Event.named("error.*"), Failed),
    ],
)
def test_what_a_pattern_without_a_guard_takes_comes_to_no_later_transition(
    first: type[Event], second: type[Event]
) -> None:
    mistake = the_mistake(taking(first, second))
    assert f"this transition on {second.event_type()!r} in 'open' never fires" in mistake.message
    assert mistake.message.endswith(f"comes first and takes {first.event_type()!r}, and has no guard")
    guarded = the_mistake(taking(first, second, when=yes))
    assert guarded.message.endswith(f"takes {first.event_type()!r}, and has the same guard yes")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Paid, AnyOrder),
        (AnyOrder, Everything),
        (AnyOrder, Event.named("orders.x")),
        (Everything, Failed),
        (Everything, Event.named("error.*")),
        (Event.named("order.paid.*"), AnyOrder),
    ],
)
def test_what_a_pattern_leaves_something_for_may_fire(first: type[Event], second: type[Event]) -> None:
    assert find_mistakes(taking(first, second)) == []


def test_a_pattern_with_a_guard_leaves_something_for_later_transitions() -> None:
    flow = taking(AnyOrder, when=no)
    state_of(flow, "open").on(Paid, when=yes)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("inside", "outside", "narrow", "never"),
    [
        (AnyOrder, Paid, None, True),
        (Everything, Paid, None, True),
        (AnyOrder, Event.named("order.paid.*"), None, True),
        (AnyOrder, Paid, Event.named("order.sent"), True),
        (Paid, AnyOrder, None, False),
        (AnyOrder, Everything, None, False),
        (AnyOrder, Paid, Paid, False),
        (AnyOrder, Event.named("order.paid.*"), Event.named("order.paid.late"), False),
    ],
)
def test_a_pattern_further_inside_another_region_leaves_nothing_for_what_it_takes(
    inside: type[Event], outside: type[Event], narrow: type[Event] | None, *, never: bool
) -> None:
    flow = parallel()
    if narrow is not None:
        # It leaves no state, so that it is in conflict with nothing.
        state_of(flow, "right-on").on(narrow, when=yes)
    state_of(flow, "right").on(inside, to="right-on")
    state_of(flow, "both").on(outside, to="done")
    found = [one.message for one in find_mistakes(flow) if "never fires" in one.message]
    assert any(repr(outside.event_type()) in one for one in found) == never


def test_patterns_in_two_regions_that_leave_something_for_it_leave_it_for_a_transition_around_them() -> None:
    flow = parallel()
    for side in ("left", "right"):
        state_of(flow, side).on(Paid, to=f"{side}-on")
    state_of(flow, "both").on(AnyOrder, to="done")
    assert find_mistakes(flow) == []


def test_a_class_without_the_fields_of_a_pattern_that_takes_it_is_a_warning() -> None:
    class Wide(Event, type="order.*"):
        order: str

    class Bare(Event, type="order.bare"):
        pass

    class Full(Wide, type="order.full"):
        pass

    flow = right()
    state_of(flow, "open").on(Bare, when=yes)
    state_of(flow, "open").on(Full, when=yes)
    state_of(flow, "open").on(Wide, when=no)
    mistake = the_mistake(flow, "warning")
    assert mistake.message == (
        "this transition on 'order.*' is also given Bare, for 'order.bare', which has no 'order' as Wide has"
    )
    assert mistake.cure == "Make Bare a subclass of Wide, or look at event.meta.type first"


@pytest.mark.parametrize("junk", [5, b"order.*", object()])
def test_what_is_no_text_is_a_mistake_beside_patterns(junk: Any) -> None:
    class Odd(Event):
        pass

    Odd.__event_type__ = junk
    flow = taking(Everything, AnyOrder, Odd, Odd, when=yes)
    flow.start(Odd, build)
    assert any("is not text" in one.message for one in find_mistakes(flow))
