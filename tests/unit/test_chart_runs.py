"""Runs of charts: what they do beyond the algorithm, which ``tests/property/test_charts.py`` holds them to."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from statemachines import Context, Event, Failed, Pipeline, Publish, Raise
from statemachines.effects import Publication
from statemachines.interpreter import step
from statemachines.limits import EFFECTS_MAX, MICROSTEPS_MAX, RAISED_MAX
from statemachines.machine import compile_pipeline
from statemachines.memory import read_memory
from statemachines.outcome import Deferred, Reason, Refused
from statemachines.testkit import Case, given
from tests.incident import (
    Entered,
    Escalated,
    Incident,
    Mended,
    Reported,
    Resumed,
    Suspended,
    Taken,
    Told,
    incident_pipeline,
)
from tests.unit.careful import Careful, Go, Ping

BEGUN = "active repair queued customer waiting"
AT_WORK = "active repair work looking customer waiting"


class Count(Context):
    count: int = 0


def count(counted: Count, _event: Event) -> None:
    counted.count += 1


def counting(**settings: Any) -> tuple[Pipeline[Count], Any]:
    """A flat pipeline with one state, and that state."""
    flow = Pipeline("counting", Count, topics=["counts"], **settings)
    only = flow.state("only", initial=True)
    flow.start(Go, lambda _event: Count())
    return flow, only


def incident(*events: Event, severity: int = 3) -> Case[Incident]:
    return given(incident_pipeline(), Reported(incident="i", severity=severity), *events)


def test_what_is_raised_at_the_start_is_taken_in_the_same_move() -> None:
    ordinary = incident()
    ordinary.then(state=BEGUN, context={"owner": ""})
    severe = given(incident_pipeline()).when(Reported(incident="i", severity=1))
    severe.then(state=AT_WORK, context={"owner": "on call for i", "notes": ["entered work"]})
    assert severe.run is not None
    assert severe.run.sequence == 1


def test_a_run_may_begin_in_several_regions() -> None:
    flow: Pipeline[Count] = Pipeline("beginning", Count, topics=["counts"])
    both = flow.state("both", initial=True)
    regions = [both.region(name) for name in ("left", "right", "middle")]
    first = [region.state(f"{region.name}-1", initial=True) for region in regions]
    second = [region.state(f"{region.name}-2") for region in regions]
    for state in second:
        state.entry(count)
    flow.start(Go, lambda _event: Count(), to=[second[1], second[0]], do=count)
    for at, state in enumerate(first):
        state.on(Ping, to=second[at])
    case = given(flow, Go())
    case.then(state="both left left-2 right right-2 middle middle-1", context={"count": 3})
    case.when(Ping()).then(state="both left left-2 right right-2 middle middle-2", context={"count": 4})


def test_effects_leave_in_the_order_of_what_was_done() -> None:
    case = incident().when(Taken(incident="i", by="ada"))
    case.then(state=AT_WORK, publishes=[Escalated(to="ada"), Entered(state="work")])


def test_a_history_is_kept_with_the_run() -> None:
    case = incident(Taken(incident="i", by="ada"), Taken(incident="i", by="eve"), Suspended(incident="i"))
    case.then(state="suspended")
    assert case.run is not None
    assert case.run.configuration == "suspended  back 1 fixing"
    case.when(Resumed(incident="i")).then(state="active repair work fixing customer waiting")


def test_a_state_that_is_done_says_what_its_final_state_returns() -> None:
    case = incident(Taken(incident="i", by="ada"), Mended(incident="i"))
    case.then(state="active repair repaired customer waiting", context={"repaired": {"by": "ada"}})


def test_a_guard_may_ask_for_the_state_of_another_region() -> None:
    case = incident(Taken(incident="i", by="ada"), Told(incident="i"))
    case.then(state=AT_WORK, context={"notes": ["entered work", "too early"]})
    case.when(Mended(incident="i"), Told(incident="i")).then(state="closed", ended=True)


def test_what_fails_is_undone_and_can_be_dealt_with() -> None:
    case = incident(Taken(incident="i", by="ada"), Taken(incident="i", by="nobody"))
    # The transition goes on, as the text says.
    case.then(state="active repair work fixing customer waiting", publishes=[])
    case.then(context={"owner": "ada", "notes": ["entered work", "assign failed"]})


def test_an_event_that_nothing_takes_is_unexpected_and_says_where_the_run_was() -> None:
    case = incident()
    case.when(Mended(incident="i")).then_deferred(Reason.UNEXPECTED)
    assert isinstance(case.outcome, Deferred)
    assert case.outcome.why == f"{BEGUN} has no transition for it"


def test_a_raise_in_a_flat_pipeline_is_taken_in_the_same_move() -> None:
    flow, only = counting()
    only.on(Go, do=lambda _count, _event: Raise(Ping(count=1)))
    only.on(Ping, do=count_up)
    case = given(flow, Go())
    case.when(Go()).then(context={"count": 1})
    assert case.run is not None
    assert case.run.sequence == 2


def count_up(count: Count, event: Ping) -> list[Publish | Raise]:
    count.count += event.count
    return [Publish("out", Ping(count=count.count))]


def test_a_flat_pipeline_may_raise_at_its_start_and_beside_what_it_publishes() -> None:
    flow = Pipeline("starting", Count, topics=["counts"])
    flow.state("only", initial=True).on(Ping, do=count_up)
    flow.start(
        Go, lambda _event: Count(), do=lambda _count, _event: [Raise(Ping(count=2)), Publish("out", Go())]
    )
    case = given(flow).when(Go())
    case.then(state="only", context={"count": 2}, publishes=[Go(), Ping(count=2)])


def test_what_nothing_takes_of_the_raised_is_gone() -> None:
    flow, only = counting()
    only.on(Go, do=lambda _count, _event: Raise(Ping()))
    given(flow, Go()).when(Go()).then(state="only", publishes=[])


def test_a_raised_event_knows_what_it_came_of() -> None:
    seen: list[tuple[str, str, int]] = []

    def look(count: Count, event: Ping) -> None:
        count.count += 1
        seen.append((event.meta.id, event.meta.envelope.type, event.meta.address.sequence))

    flow, only = counting()
    only.on(Go, do=lambda _count, _event: Raise(Ping()))
    only.on(Ping, do=look)
    given(flow, Go()).when(Go())
    assert set(seen) == {("event-2", "ping", 2)}


def test_a_circle_of_raised_events_is_refused() -> None:
    flow, only = counting()
    only.on(Go, do=lambda _count, _event: Raise(Ping()))
    only.on(Ping, do=lambda _count, _event: Raise(Ping()))
    case = given(flow, Go()).when(Go())
    case.then_refused(Reason.NEVER_SETTLES, saying=f"more than {MICROSTEPS_MAX} transitions", holds=True)


def test_a_circle_of_eventless_transitions_is_refused() -> None:
    flow = Pipeline("circle", Count, topics=["counts"])
    left, right = flow.state("left", initial=True), flow.state("right")
    flow.start(Go, lambda _event: Count())
    left.on(Go, to=right)
    left.always(to=right, when=lambda count, _event: count.count > 0)
    right.always(to=left, do=up)
    case = given(flow, Go()).when(Go())
    case.then_refused(Reason.NEVER_SETTLES, saying="again and again", holds=True)


def up(count: Count, event: Event) -> None:
    del event
    count.count += 1


def test_raised_events_that_nothing_takes_are_no_circle() -> None:
    flow, only = counting()
    only.on(Go, do=lambda _count, _event: [Raise(Ping()) for _ in range(EFFECTS_MAX)])
    given(flow, Go()).when(Go()).then(state="only")


def test_too_many_raised_events_are_refused() -> None:
    flow, only = counting()
    only.on(Go, do=lambda _count, _event: [Raise(Ping()) for _ in range(EFFECTS_MAX)])
    only.on(Ping, do=lambda _count, _event: [Raise(Ping()), Raise(Ping())])
    case = given(flow, Go()).when(Go())
    case.then_refused(Reason.NEVER_SETTLES, saying=f"more than {RAISED_MAX} events")


@pytest.mark.parametrize("event", [Ping, "ping", None, Event(), object()])
@pytest.mark.parametrize("effect", [Raise, lambda event: Publish("out", event)])
def test_what_is_no_event_is_refused_with_the_name_of_the_action(event: Any, effect: Any) -> None:
    def ask(_count: Count, _event: Go) -> Any:
        return effect(event)

    flow, only = counting()
    only.on(Go, do=ask)
    case = given(flow, Go()).when(Go())
    case.then_refused(Reason.ACTION_FAILED, saying="ask: ")
    chart, other = counting()
    other.entry(lambda _count, _event: None)
    other.on(Go, do=ask)
    given(chart, Go()).when(Go()).then_refused(Reason.ACTION_FAILED, saying="ask: ")


@pytest.mark.parametrize("flat", [True, False])
def test_between_two_states_neither_is_active(*, flat: bool) -> None:
    asked: list[tuple[bool, bool]] = []
    flow, only = counting()
    other = flow.state("other")
    if not flat:
        other.entry(lambda _count, _event: None)
    only.on(
        Ping,
        to=other,
        do=lambda _count, event: asked.append((event.meta.is_in(only), event.meta.is_in(other))),
        when=lambda _count, event: event.meta.is_in(only),
    )
    given(flow, Go(), Ping())
    assert set(asked) == {(False, False)}


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
def test_a_parallel_state_is_done_whichever_region_is_the_last(order: str) -> None:
    flow = Pipeline("deep", Count, topics=["counts"])
    outer = flow.state("outer", initial=True)
    first, second = outer.region("first"), outer.region("second")
    regions = {"a": first, "b": second.region("left"), "c": second.region("right")}
    classes = {letter: Event.named(f"end.{letter}") for letter in regions}
    for letter, region in regions.items():
        region.state(f"{letter}1", initial=True).on(classes[letter], to=f"{letter}2")
        region.state(f"{letter}2", final=True)
    outer.on(outer.done, to=flow.state("end", final=True))
    flow.start(Go, lambda _event: Count())
    given(flow, Go(), *(classes[letter]() for letter in order)).then(state="end", ended=True)


def test_a_history_inside_of_what_is_left_leads_to_a_legal_configuration() -> None:
    flow = Pipeline("legal", Count, topics=["counts"])
    outer = flow.state("outer", initial=True)
    region = outer.region("region")
    left, right = region.state("left", initial=True), region.state("right")
    back = outer.history("back", deep=True)
    away = flow.state("away")
    left.on(Ping, to=right)
    right.on(Ping, to=back)
    outer.on(Go, to=away)
    away.on(Go, to=back)
    flow.start(Go, lambda _event: Count())
    for events in ([Ping(), Ping()], [Go(), Go(), Ping(), Ping()], [Ping(), Go(), Go(), Ping()]):
        case = given(flow, Go(), *events)
        assert case.state.split(" ")[:2] == ["outer", "region"]


def test_what_a_final_state_says_is_what_it_was_then() -> None:
    flow = Pipeline("said", Careful, topics=["careful"])
    around = flow.state("around", initial=True)
    first = around.state("first", initial=True)
    last = around.state("last", final=True, output=lambda careful, _event: careful.notes)
    after = flow.state("after")
    first.on(Ping, to=last)
    around.exit(lambda careful, _event: careful.notes.append("later"))
    around.on(around.done, to=after, do=lambda careful, event: careful.notes.append(str(event.data)))
    flow.start(Go, lambda _event: Careful(notes=["then"]))
    given(flow, Go(), Ping()).then(state="after", context={"notes": ["then", "later", "['then']"]})


def test_what_the_final_state_of_a_run_says_is_kept_of_it() -> None:
    flow = Pipeline("said", Careful, topics=["careful"])
    flow.state("first", initial=True).on(Ping, to="last")
    flow.state("last", final=True, output=lambda careful, _event: {"notes": len(careful.notes)})
    flow.start(Go, lambda _event: Careful(notes=["then"]))
    case = given(flow, Go(), Ping())
    assert case.run is not None
    assert read_memory(case.run.memory).output == {"notes": 1}


def test_what_comes_from_inside_of_a_run_is_not_given_to_it_from_outside() -> None:
    with pytest.raises(AssertionError, match="comes from inside of a run"):
        given(incident_pipeline(), Reported(incident="i"), Failed(handler="h", error="e"))


def test_all_that_one_move_publishes_counts_together() -> None:
    flow, only = counting()
    many = [Publish("out", Ping()) for _ in range(EFFECTS_MAX // 2 + 1)]
    only.on(Go, do=lambda _count, _event: [Raise(Ping()), *many])
    only.on(Ping, do=lambda _count, _event: many)
    given(flow, Go()).when(Go()).then_refused(Reason.ACTION_FAILED, saying=f"more than {EFFECTS_MAX} effects")


def test_a_state_that_there_is_not_is_no_guess() -> None:
    flow, only = counting()
    only.on(Ping, when=lambda _count, event: event.meta.is_in("nowhere"))
    case = given(flow, Go()).when(Ping())
    case.then_refused(Reason.GUARD_FAILED, saying="no state 'nowhere'")
    chart = incident_pipeline()
    chart.on(Ping, when=lambda _incident, event: event.meta.is_in("nowhere"))
    given(chart, Reported(incident="i")).when(Ping()).then_refused(
        Reason.GUARD_FAILED, saying="no state 'nowhere'"
    )


@pytest.mark.parametrize("flat", [True, False])
def test_an_event_may_ask_where_its_run_is(*, flat: bool) -> None:
    asked: list[bool] = []
    flow, only = counting()
    if not flat:
        only.entry(lambda _count, _event: None)
    only.on(Ping, do=lambda _count, event: asked.append(event.meta.is_in(only)))
    given(flow, Go()).when(Ping())
    assert set(asked) == {True}


def test_a_run_in_a_state_that_the_definition_lacks_waits_for_it() -> None:
    case = incident()
    assert case.run is not None
    case.run = case.run._replace(configuration="elsewhere")
    case.when(Told(incident="i")).then_refused(Reason.DEFINITION_MISSING, saying="'elsewhere'", holds=True)


def test_what_is_too_large_for_its_topic_is_refused_whatever_takes_failures() -> None:
    def refuse(publication: Publication, event: Event) -> str:
        del event
        return f"publishes too much to {publication.topic!r}"

    machine = compile_pipeline(incident_pipeline())
    case = incident(Taken(incident="i", by="ada"))
    assert case.run is not None
    small = type(machine)(
        **{name: getattr(machine, name) for name in machine.__slots__ if name != "outlet"}, outlet=refuse
    )
    outcome = step(small, case.run, case._occurrence(*case._sent(Taken(incident="i", by="eve")), b"12345678"))
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.TOO_LARGE


def test_a_move_leaves_nothing_for_the_garbage_collector() -> None:
    machine = compile_pipeline(incident_pipeline())
    case = incident()
    sent = case._sent(Taken(incident="i", by="ada"))
    occurrences = [case._occurrence(*sent, bytes([n] * 8)) for n in range(50)]
    step(machine, case.run, occurrences[0])
    gc.collect()
    gc.disable()
    try:
        for occurrence in occurrences:
            step(machine, case.run, occurrence)
        del occurrence
        occurrences.clear()
        assert gc.collect() == 0
    finally:
        gc.enable()
