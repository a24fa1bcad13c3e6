"""What fails in runs of charts, and how they deal with it."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Event, Failed, Pipeline
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.unit.careful import Careful, Go, Ping


def test_what_fails_on_the_way_of_a_circle_is_told() -> None:
    flow = failing_pipeline(handled=True)
    flow.states[0].always(to="second", when=broken_always)
    case = given(flow).when(Go())
    case.then_refused(Reason.NEVER_SETTLES, saying="broken_always raised KeyError")


def broken_always(careful: Careful, event: Event) -> bool:
    del event
    raise KeyError(len(careful.notes))


@pytest.mark.parametrize("where", ["output", "guard"])
def test_a_guard_or_an_output_that_fails_is_undone_too(where: str) -> None:
    def broken(careful: Careful, _event: Event) -> Any:
        careful.notes.append("half done")
        raise LookupError(where)

    flow = Pipeline("undone", Careful, topics=["careful"])
    around = flow.state("around", initial=True)
    first = around.state("first", initial=True)
    last = around.state("last", final=True, output=broken if where == "output" else None)
    first.on(Ping, to=last, when=broken if where == "guard" else None)
    flow.on(Failed, do=lambda careful, _event: careful.notes.append("handled"))
    flow.start(Go, lambda _event: Careful())
    given(flow, Go(), Ping()).then(context={"notes": ["handled"]})


def failing_pipeline(*, handled: bool, guard: bool = False) -> Pipeline[Careful]:
    flow = Pipeline("careful", Careful, topics=["careful"])
    first, second = flow.state("first", initial=True), flow.state("second")
    flow.start(Go, lambda _event: Careful())
    first.entry(lambda careful, _event: careful.notes.append("entry"))
    if guard:
        first.on(Ping, to=second, when=broken_guard)
    else:
        first.on(Ping, to=second, do=broken_action)
    if handled:
        flow.on(Failed, do=lambda careful, event: careful.notes.append(event.handler))
    return flow


def broken_action(careful: Careful, event: Ping) -> None:
    careful.notes.append("half done")
    raise LookupError(f"no {event.count}")


def broken_guard(careful: Careful, event: Ping) -> bool:
    raise LookupError(f"no {event.count} in {careful.notes}")


def test_a_failure_that_is_dealt_with_keeps_the_rest_of_the_move() -> None:
    case = given(failing_pipeline(handled=True), Go()).when(Ping())
    case.then(state="second", context={"notes": ["entry", "broken_action"]})


def test_a_failure_that_nothing_takes_refuses_the_event_and_keeps_nothing() -> None:
    case = given(failing_pipeline(handled=False), Go())
    case.when(Ping()).then_refused(Reason.ACTION_FAILED, saying="LookupError: no 0", holds=True)
    assert case.state == "first"


def test_a_failure_on_the_way_to_the_end_is_taken_by_nothing_and_keeps_nothing() -> None:
    flow = failing_pipeline(handled=True)
    flow.states[1].on(Ping, to=flow.state("over", final=True), do=broken_action)
    case = given(flow, Go(), Ping()).when(Ping())
    case.then_refused(Reason.ACTION_FAILED, saying="LookupError: no 0", holds=True)
    assert (case.state, case.context.notes) == ("second", ["entry", "broken_action"])


def test_a_guard_that_fails_does_not_hold_and_can_be_dealt_with() -> None:
    case = given(failing_pipeline(handled=True, guard=True), Go()).when(Ping())
    case.then(state="first", context={"notes": ["entry", "broken_guard"]})
    case = given(failing_pipeline(handled=False, guard=True), Go())
    case.when(Ping()).then_refused(Reason.GUARD_FAILED, saying="LookupError", holds=True)


def test_a_context_that_does_not_survive_is_a_failure_of_the_handler_that_left_it() -> None:
    flow = failing_pipeline(handled=True)
    flow.on(Go, do=leave_nonsense)
    case = given(flow, Go()).when(Go())
    case.then(state="first", context={"notes": ["entry", "leave_nonsense"]})


def leave_nonsense(careful: Careful, event: Event) -> None:
    del event
    careful.__dict__["notes"] = object()
