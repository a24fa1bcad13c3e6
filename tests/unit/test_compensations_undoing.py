"""How runs are undone, through the core: what is undone in which order, and where the run goes then."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from statemachines import Compensate, Event, Pipeline, Publish, Raise
from statemachines.effects import Asked
from statemachines.memory import (
    Execution,
    Memory,
    Owed,
    write_memory,
)
from statemachines.outcome import WAITS, Deferred, Ignored, Reason
from statemachines.outcome import Refused as DeadLetter
from statemachines.results import done_event, failed_event, tried_event
from statemachines.run import Status
from statemachines.testkit import given
from tests.unit.undoing import (
    OK,
    Again,
    Cancelled,
    Gone,
    Noted,
    Order,
    Placed,
    Returned,
    Trade,
    doing,
    memory_of,
    note_type,
    packing,
    sent,
)
from tests.unit.working import ends

# Undoing.


def test_a_run_is_undone_in_reverse_order_and_goes_on_then() -> None:
    made = Trade()
    case = sent(made).when(Returned())
    case.then(state="$compensating", context={"said": ["order.returned"]})
    case.then_runs(made.unpack).then_owes(made.pack, made.charge)
    assert doing(case) == Execution(4, 1, "unpack", "$compensating", of="2.0", made=3)
    assert case.sent == [
        Asked("stop", "tell", id="3.0", number=0),
        Asked("step", "unpack", id="2.0", number=1),
    ]
    assert memory_of(case).undoing == 4
    case.undone(made.unpack).then(state="$compensating")
    case.then_runs(made.refund).then_owes(made.charge)
    assert doing(case) == Execution(5, 0, "refund", "$compensating", of="1.0", made=2)
    assert case.sent == [Asked("step", "refund", id="1.0", number=0)]
    case.undone(made.refund)
    case.then(state="open", ended=False, context={"said": ["order.returned", "done.compensation"]})
    assert memory_of(case) == Memory()


def test_a_step_that_was_done_often_is_undone_as_often() -> None:
    made = Trade()
    case = packing(made).step_done(made.pack, 3).when(Again()).step_done(made.charge, OK)
    case.step_done(made.pack, 4)
    case.then_owes(made.pack, made.charge, made.pack, made.charge).when(Cancelled())
    undone = []
    while not case.run or case.run.status == Status.RUNNING:
        undone.append((doing(case).of, doing(case).made))
        case.undone(made.refund if doing(case).step == "refund" else made.unpack)
    assert undone == [("5.0", 6), ("4.1", 5), ("2.0", 3), ("1.0", 2)]
    case.then(state="cancelled", ended=True)


def test_where_nothing_is_owed_the_target_is_entered_at_once() -> None:
    made = Trade()
    made.flow.on_failure(to=made.cancelled)
    made.cancelled.final = False
    case = given(made.flow, Placed()).step_failed(made.charge, KeyError()).when(Returned())
    case.then(state="open", context={"said": ["order.returned", "done.compensation"]})
    assert memory_of(case) == Memory()
    case.when(Returned()).then(state="open")


def test_the_states_are_left_and_the_target_entered_as_always() -> None:
    made = Trade()
    around = made.flow.state("around")
    inner = around.state("inner", initial=True)
    goal = around.state("goal")
    made.sent.exit(lambda order, _event: order.said.append("left"))
    around.entry(lambda order, event: order.said.append(f"around by {event.meta.type}"))
    goal.entry(lambda order, event: order.said.append(f"goal: {event.meta.is_in('$compensating')}"))
    goal.always(to=inner)
    made.flow.on(Gone, to=goal, do=note_type, compensate=True)
    case = sent(made).when(Gone()).undone(made.unpack).undone(made.refund)
    said = ["left", "order.gone", "around by done.compensation", "goal: False"]
    case.then(state="around inner", context={"said": said}).then_runs_nothing()


def test_a_target_that_runs_a_step_asks_for_it_and_may_be_undone_again() -> None:
    made = Trade()
    made.open.run = made.charge
    case = packing(made).when(Returned())
    case.step_stopped(made.pack, "never").undone(made.refund)
    case.then(state="open").then_runs(made.charge).then_owes()
    assert doing(case) == Execution(5, 0, "charge", "open")
    case.step_done(made.charge, OK).then_owes(made.charge)
    case.when(Cancelled()).undone(made.refund).then(state="cancelled", ended=True)


def test_several_targets_are_entered_together() -> None:
    made = Trade()
    wide = made.flow.state("wide")
    goals = []
    for name in ("left", "right"):
        region = wide.region(name)
        region.state(f"{name}-first", initial=True)
        goals.append(region.state(f"{name}-goal"))
    made.flow.on(Event.named("wide"), to=wide)
    made.flow.on(Gone, to=goals, compensate=True)
    case = sent(made).when(Gone()).undone(made.unpack).undone(made.refund)
    case.then(state="wide left left-goal right right-goal")


def test_what_an_action_returns_decides_as_well() -> None:
    made = Trade()

    def perhaps(order: Order, _event: Event) -> Any:
        order.said.append("asked")
        return [Publish("orders-out", Noted()), Compensate()] if len(order.said) > 1 else None

    made.flow.on(Gone, to=made.open, do=perhaps)
    sent(made).when(Gone()).then(state="open", context={"said": ["asked", "order.gone"]})
    case = sent(made).when(Noted(), Gone())
    case.then(state="$compensating", context={"said": ["order.noted", "asked"]}, publishes=[Noted()])
    case.then_runs(made.unpack)
    assert memory_of(case).undoing == len(made.flow.moves) - 1
    case.undone(made.unpack).undone(made.refund).then(state="open")


def test_it_may_be_said_twice() -> None:
    made = Trade()
    made.flow.on(Gone, to=made.open, do=lambda _order, _event: Compensate(), compensate=True)
    sent(made).when(Gone()).then(state="$compensating").then_runs(made.unpack)


def test_all_actions_of_the_move_are_done_before_the_run_is_undone() -> None:
    made = Trade()
    wide = made.flow.state("wide")
    one = wide.region("one").state("in-one", initial=True)
    two = wide.region("two").state("in-two", initial=True)
    three = wide.region("three").state("in-three", initial=True)
    one.on(Gone, do=lambda order, _event: order.said.append("one"))
    three.on(Gone, do=lambda order, _event: order.said.append("three"))
    two.entry(note_type)
    made.flow.on(Gone, to=made.open, do=lambda order, _event: order.said.append("all") or Compensate())  # type: ignore[func-returns-value]
    made.sent.on(Again, to=wide)
    case = sent(made).when(Again()).when(Gone())
    case.then(state="$compensating", context={"said": ["order.again", "one", "all", "three"]})


@pytest.mark.parametrize("where", ["state", "no target", "entry", "exit", "start"])
def test_only_transitions_with_a_target_may_ask(where: str) -> None:
    made = Trade()

    def ask(_order: Order, _event: Event) -> Any:
        return Compensate()

    match where:
        case "state":
            made.charging.on(Gone, do=ask)
        case "no target":
            made.flow.on(Gone, do=ask)
        case "entry":
            made.open.entry(ask)
            made.flow.on(Gone, to=made.open)
        case "exit":
            made.charging.exit(ask)
            made.flow.on(Gone, to=made.open)
        case _:
            made.flow.start(Gone, lambda _event: Order(), do=ask)
            given(made.flow).when(Gone()).then_refused(Reason.ACTION_FAILED, saying="returned Compensate()")
            return
    run = given(made.flow, Placed()).when(Gone())
    run.then_refused(Reason.ACTION_FAILED, saying="which only the action of a transition may that has")


def test_without_any_compensation_nothing_may_be_undone() -> None:
    flow: Pipeline[Order] = Pipeline("plain", Order, topics=["t"])
    flow.state("one", initial=True)
    two = flow.state("two")
    flow.start(Placed, lambda _event: Order())
    flow.on(Gone, to=two, do=lambda _order, _event: Compensate())
    case = given(flow, Placed()).when(Gone())
    case.then_refused(
        Reason.ACTION_FAILED, saying="and no step of the pipeline has a compensation", holds=True
    )


def test_what_the_action_raises_is_taken_where_the_run_is_then() -> None:
    made = Trade()
    made.open.on(Noted, to=made.cancelled)
    made.flow.on(Gone, to=made.open, do=lambda _order, _event: Raise(Noted()), compensate=True)
    sent(made).when(Gone()).undone(made.unpack).undone(made.refund).then(state="open")
    case = given(made.flow, Placed()).step_done(made.charge, OK).when(Returned())
    case.step_stopped(made.pack, "never").undone(made.refund)
    case.when(Gone()).then(state="cancelled", ended=True)


# Failures.


def test_a_failure_may_undo_the_run() -> None:
    made = Trade()
    made.flow.on_failure(to=made.cancelled, compensate=True)
    case = packing(made).step_failed(made.pack, KeyError("k"))
    case.then(state="$compensating").then_runs(made.refund).undone(made.refund)
    case.then(state="cancelled", ended=True)
    given(made.flow, Placed()).step_failed(made.charge, KeyError()).then(state="cancelled", ended=True)


def test_a_step_whose_last_attempt_took_too_long_is_undone_without_what_it_made() -> None:
    made = Trade()
    made.flow.on_failure(to=made.cancelled, compensate=True)
    case = packing(made).step_timed_out(made.pack).then_runs(made.unpack)
    assert (doing(case).of, doing(case).made) == ("2.0", 0)
    case.undone(made.unpack).undone(made.refund).then(ended=True)


def test_the_unknown_come_first_and_the_last_of_them_before_the_others() -> None:
    made = Trade()
    made.flow.on(made.charge.failed, to=made.packing)
    made.flow.on(made.pack.failed, to=made.sent)
    case = given(made.flow, Placed()).step_timed_out(made.charge).step_timed_out(made.pack)
    case.when(Again()).step_done(made.charge, OK).step_done(made.pack, 1)
    assert [one.id for one in memory_of(case).owed] == ["1.0", "2.0", "4.1", "5.0"]
    case.then_owes(made.pack, made.charge, made.pack, made.charge).when(Cancelled())
    assert (doing(case).of, doing(case).made) == ("2.0", 0)
    case.undone(made.unpack)
    assert (doing(case).of, doing(case).made) == ("1.0", 0)
    case.undone(made.refund)
    assert (doing(case).of, doing(case).made) == ("5.0", 6)


def test_a_timer_of_the_pipeline_may_undo_the_run() -> None:
    made = Trade()
    made.flow.after(timedelta(hours=1), to=made.cancelled, compensate=True)
    case = sent(made).later(timedelta(hours=1)).then(state="$compensating").then_runs(made.unpack)
    case.undone(made.unpack).undone(made.refund).then(state="cancelled", ended=True)


def test_a_compensation_that_fails_for_good_holds_the_run_and_nothing_changes() -> None:
    made = Trade()
    case = sent(made).when(Cancelled())
    before = memory_of(case)
    case.undoing_failed(made.unpack, OSError("no network"), attempts=10)
    case.then_refused(Reason.STEP_FAILED, holds=True)
    assert isinstance(case.outcome, DeadLetter)
    assert case.outcome.error == (
        "the compensation unpack failed after 10 attempts, so that pack (2.0) is not undone: OSError: no network"
    )
    assert memory_of(case) == before
    case.then_owes(made.pack, made.charge)
    assert case.undone(made.unpack).outcome is WAITS
    assert case.run is not None
    case.run = case.run._replace(held=0)
    case.undone(made.unpack).undone(made.refund).then(state="cancelled", ended=True)


def test_no_transition_takes_the_failure_of_a_compensation() -> None:
    made = Trade()
    made.flow.on_failure(to=made.open, do=note_type)
    case = sent(made).when(Cancelled())
    case.undoing_failed(made.unpack, KeyError()).then_refused(Reason.STEP_FAILED, holds=True)


def test_a_compensation_is_tried_again_like_a_step() -> None:
    made = Trade()
    case = sent(made).when(Cancelled())
    outcome = ends(case, *tried_event(made.unpack, doing(case), KeyError("k"), again=7, lost=True))
    assert isinstance(outcome, Ignored)
    assert case.run is not None
    case.run = case.run._replace(memory=outcome.memory or b"", sequence=5)
    [again] = memory_of(case).executions
    assert again == Execution(4, 1, "unpack", "$compensating", 2, 7, "KeyError: 'k'", "2.0", 3)
    case.undone(made.unpack).then_runs(made.refund)


def test_what_a_compensation_did_counts_once() -> None:
    made = Trade()
    case = sent(made).when(Cancelled())
    first = doing(case)
    case.undone(made.unpack)
    done = done_event(made.unpack, first, 1, None)
    assert ends(case, *done) == Ignored(Reason.VOID)
    assert ends(case, *failed_event(made.unpack, first, KeyError(), attempts=1)) == Ignored(Reason.VOID)


# What comes meanwhile.


def test_events_meet_policies_while_the_run_is_undone() -> None:
    made = Trade()
    made.flow.policy(Noted, unexpected="ignore")
    case = sent(made).when(Cancelled())
    case.when(Noted()).then_ignored(Reason.UNEXPECTED)
    case.when(Again()).then_deferred()
    assert isinstance(case.outcome, Deferred)
    assert case.outcome.why == "$compensating has no transition for it"
    case.then_runs(made.unpack)


def test_what_would_undo_the_run_again_is_noted_and_changes_nothing() -> None:
    made = Trade(unexpected="dead_letter")
    made.flow.on_failure(to=made.cancelled, compensate=True)
    case = sent(made).when(Returned())
    for event in (Returned(), Cancelled()):
        case.when(event).then_ignored(Reason.UNDOING)
    case.undone(made.unpack).undone(made.refund).then(state="open").then_runs_nothing()
    failed = packing(made).step_failed(made.pack, KeyError("k")).when(Cancelled())
    failed.then_ignored(Reason.UNDOING)


def test_whether_it_would_is_asked_of_the_first_transition_whose_guard_holds() -> None:
    made = Trade()
    made.flow.on(Gone, to=made.over, when=lambda order, _: "odd" in order.said)
    made.flow.on(Gone, to=made.cancelled, when=lambda order, _: "even" in order.said, compensate=True)
    odd = Event.named("order.odd")
    made.flow.on(odd, to=made.cancelled, when=lambda order, _: bool(1 / 0), compensate=True)
    case = sent(made).when(Returned())
    case.when(Gone()).then_deferred()
    for said, outcome in ((["odd", "even"], Deferred), (["even"], Ignored)):
        case.run = case.run and case.run._replace(context=Order(said=said).model_dump_json().encode())
        case.when(Gone())
        assert type(case.outcome) is outcome
    case.when(odd()).then_deferred()


def test_what_only_an_action_would_undo_is_deferred() -> None:
    made = Trade()
    made.flow.on(Gone, to=made.cancelled, do=lambda _order, _event: Compensate())
    sent(made).when(Gone()).then(state="$compensating").when(Gone()).then_deferred()
    sent(made).when(Gone()).when(Cancelled()).then_ignored(Reason.UNDOING)


def test_what_is_deferred_already_waits_on_though_it_would_undo_the_run_again() -> None:
    made = Trade()
    made.flow.on(Gone, to=made.cancelled, when=lambda order, _: bool(order.said), compensate=True)
    case = sent(made).when(Gone()).then_deferred().when(Returned())
    case.undone(made.unpack).undone(made.refund).then(state="cancelled", ended=True)


def test_what_was_deferred_is_taken_once_the_run_is_undone() -> None:
    made = Trade()
    case = sent(made).when(Returned()).when(Noted())
    case.then_deferred()
    case.undone(made.unpack).undone(made.refund).then(state="open")
    assert case.context.said == ["order.returned", "done.compensation", "order.noted"]


def test_a_timer_of_the_pipeline_is_not_taken_while_the_run_is_undone() -> None:
    made = Trade()
    made.flow.after(timedelta(hours=1), to=made.over)
    made.sent.after(timedelta(hours=1), to=made.over)
    case = sent(made).when(Returned())
    assert [one.state for one in memory_of(case).delayed] == [""]
    case.later(timedelta(hours=2)).then_ignored(Reason.UNEXPECTED)
    assert case.state == "$compensating"


def test_a_pattern_takes_nothing_while_the_run_is_undone() -> None:
    made = Trade()
    made.flow.on(Event.named("*"), do=note_type)
    case = sent(made).when(Cancelled()).when(Gone())
    case.then_deferred()
    case.undone(made.unpack).then(state="$compensating")


def test_a_held_run_undoes_nothing() -> None:
    made = Trade()
    case = sent(made).when(Cancelled())
    assert case.run is not None
    case.run = case.run._replace(held=1)
    assert case.undone(made.unpack).outcome is WAITS


def test_what_fails_while_the_target_is_entered_holds_the_run_before_it() -> None:
    made = Trade()

    def fail(_order: Order, _event: Event) -> None:
        raise KeyError("no")

    made.open.entry(fail)
    case = sent(made).when(Returned()).undone(made.unpack)
    case.undone(made.refund).then_refused(Reason.ACTION_FAILED, holds=True)
    assert case.state == "$compensating"
    case.then_owes(made.charge)


def test_a_result_of_a_compensation_that_does_not_fit_holds_the_run() -> None:
    made = Trade()
    case = sent(made).when(Returned())
    event_type, data = done_event(made.unpack, doing(case), 1, None)
    outcome = ends(case, event_type, {**data, "data": 5})
    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, outcome.holds) == (Reason.INVALID, True)


def test_a_definition_without_the_compensation_holds_the_run() -> None:
    made = Trade()
    case = sent(made)
    assert case.run is not None
    memory = memory_of(case)
    case.run = case.run._replace(memory=write_memory(memory._replace(owed=(Owed(1, 0, "other", 2),))))
    case.when(Cancelled()).then_refused(Reason.DEFINITION_MISSING, saying="undo the step 'other'")


def test_a_run_that_is_undone_starts_anew_without_what_was_owed() -> None:
    made = Trade(closed="restart")
    case = sent(made).when(Cancelled()).undone(made.unpack).undone(made.refund).then(ended=True)
    case.when(Placed()).then(state="charging").then_owes()


def test_a_pipeline_without_compensations_remembers_what_it_did() -> None:
    made = Trade()
    made.charge.compensations.clear()
    made.pack.compensations.clear()
    made.flow.moves[:] = [replace(move, compensate=False) for move in made.flow.moves]
    case = sent(made)
    assert memory_of(case) == Memory(executions=(Execution(3, 0, "tell", "sent"),))
    assert "$compensating" not in case.machine.microsteps.chart.numbers
