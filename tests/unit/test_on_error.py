"""A pipeline that goes on after failures: what failed is undone, and the rest of the move is kept."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import Field

from statemachines import Context, Event, Failed, Pipeline, Publish, Raise
from statemachines.canonical import canonical_bytes
from statemachines.limits import MICROSTEPS_MAX
from statemachines.machine import compile_pipeline
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.unit.mistaken import Begun, Ended, right, the_mistake


class Go(Event, type="go"):
    pass


class Careful(Context):
    notes: list[str] = Field(default_factory=list)


def failing(name: str) -> Any:
    def fail(careful: Careful, _event: Event) -> None:
        careful.notes.append(f"half of {name}")
        raise LookupError(name)

    return fail


def note(careful: Careful, _event: Event) -> Publish:
    careful.notes.append("noted")
    return Publish("out", Go())


def going_on(**settings: Any) -> tuple[Pipeline[Careful], Any, Any]:
    flow = Pipeline("careful", Careful, topics=["careful"], **{"on_error": "ignore", **settings})
    first, last = flow.state("first", initial=True), flow.state("last", final=True)
    flow.start(Begun, lambda _event: Careful())
    return flow, first, last


def test_a_failed_action_of_a_flat_pipeline_is_undone_and_its_transition_taken() -> None:
    flow, first, last = going_on()
    first.on(Go, to=last, do=failing("action"))
    assert not compile_pipeline(flow).flat
    given(flow, Begun(name="n"), Go()).then(state="last", ended=True, context={"notes": []}, publishes=[])


def test_each_failed_function_is_undone_alone() -> None:
    flow, first, last = going_on()
    box = flow.state("box")
    box.entry(failing("entry"))
    box.entry(note)
    box.exit(failing("exit"))
    box.state("in", initial=True).on(Go, to="out", do=note)
    box.state("out", final=True, output=failing("output"))
    first.on(Go, to=box, do=failing("action"))
    box.on(box.done, to=last, do=note)
    case = given(flow, Begun(name="n")).when(Go())
    case.then(state="box in", context={"notes": ["noted"]}, publishes=[Go()])
    case.when(Go()).then(ended=True, context={"notes": ["noted"] * 3}, publishes=[Go(), Go()])


def test_where_a_transition_takes_the_failure_it_is_dealt_with() -> None:
    flow, first, last = going_on()
    first.on(Go, do=failing("action"))
    first.on(Failed, to=last)
    given(flow, Begun(name="n"), Go()).then(ended=True, context={"notes": []})


def test_an_event_of_which_only_the_guard_failed_was_not_taken() -> None:
    flow, first, last = going_on()
    first.on(Go, to=last, when=failing("guard"))
    case = given(flow, Begun(name="n")).when(Go())
    case.then_deferred(Reason.UNEXPECTED)
    first.on(Go, do=note)
    given(flow, Begun(name="n"), Go()).then(state="first", context={"notes": ["noted"]})


def test_a_guard_of_an_eventless_transition_that_fails_is_asked_once_for_each_change() -> None:
    flow, first, last = going_on()
    asked: list[Event] = []

    def fail(_careful: Careful, event: Event) -> bool:
        asked.append(event)
        raise LookupError("on purpose")

    first.always(to=last, when=fail)
    first.on(Go, do=lambda _careful, _event: Raise(Event.named("unknown")()))
    case = given(flow, Begun(name="n"))
    asked.clear()
    case.when(Go()).then(state="first")
    assert len(asked) == 2 * 2  # after Go, and after what it raises; the test kit steps twice


def test_a_guard_that_fails_on_failures_never_settles() -> None:
    flow, first, last = going_on()
    first.on(Go, to=last, when=failing("guard"))
    first.on(Failed, to=last, when=failing("another guard"))
    case = given(flow, Begun(name="n")).when(Go())
    case.then_refused(
        Reason.NEVER_SETTLES,
        saying=f"more than {MICROSTEPS_MAX} functions fail one after the other",
        holds=True,
    )


def test_a_failed_start_function_is_refused_and_a_failed_start_action_is_not() -> None:
    def build(_event: Event) -> Careful:
        raise LookupError("on purpose")

    flow, first, last = going_on()
    first.on(Go, to=last)
    flow.start(Ended, build)
    given(flow).when(Ended(name="n")).then_refused(Reason.ACTION_FAILED, saying="on purpose", holds=False)
    flow.starts.clear()
    flow.start(Ended, lambda _event: Careful(), do=failing("start"))
    given(flow, Ended(name="n")).then(state="first", context={"notes": []})


@pytest.mark.parametrize("on_error", ["refuse", "ignore"])
def test_by_default_a_failure_refuses_the_event(on_error: Any) -> None:
    flow, first, last = going_on(on_error=on_error)
    first.entry(lambda _careful, _event: None)
    first.on(Go, to=last, do=failing("action"))
    case = given(flow, Begun(name="n")).when(Go())
    if on_error == "ignore":
        case.then(ended=True)
    else:
        case.then_refused(Reason.ACTION_FAILED, saying="LookupError: action", holds=True)


def test_the_canonical_form_says_it_where_it_is_not_the_default() -> None:
    assert "on_error" not in orjson.loads(canonical_bytes(right()))["policies"]
    assert orjson.loads(canonical_bytes(right(on_error="ignore")))["policies"]["on_error"] == "ignore"


def test_what_is_no_policy_is_a_mistake() -> None:
    mistake = the_mistake(right(on_error="ignor"))
    assert (mistake.message, mistake.cure) == ("on_error='ignor' is no policy", "Did you mean 'ignore'?")
