"""What becomes of runs that operators cancel, by the pipeline alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import Field

from engine.steps.executions import given_up
from statemachines import Cancelled, Context, Event, OrderBy, Pipeline, Send, has_tag
from statemachines.diagram import to_mermaid
from statemachines.machine import compile_pipeline
from statemachines.memory import read_memory
from statemachines.outcome import Moved, Reason
from statemachines.patterns import overlaps
from statemachines.run import Status
from statemachines.testkit import given
from statemachines.validation import find_mistakes
from statemachines.way import Passage, Rows, find_way
from tests.parcel import BROKEN, Arrived, CalledBack, Packed, Returned, Sent, parcel
from tests.unit.scoped import Journey
from tests.unit.undoing import memory_of, note_type


class Opened(Event, type="case.opened", key="case"):
    case: str
    number: int = 0


class Case(Context):
    seen: list[str] = Field(default_factory=list)


def see(case: Case, event: Event) -> None:
    case.seen.append(event.meta.type)


def test_a_run_goes_where_its_pipeline_says_by_the_ordinary_way() -> None:
    case = given(parcel(), Packed(parcel="p1"))
    case.when_cancelled(who="ana", why="it is lost").then(
        state="called_back",
        context={"notes": ["left the house", "ana: it is lost", "on its way back"]},
        publishes=[CalledBack(parcel="p1", why="it is lost")],
        ended=False,
    )
    case.when(Returned(parcel="p1")).then(state="back", ended=True)
    assert case.run is not None
    assert case.run.status == Status.COMPLETED


def test_what_a_state_says_comes_first() -> None:
    case = given(parcel(), Packed(parcel="p1"), Sent(parcel="p1"), Arrived(parcel="p1"))
    case.when_cancelled(who="ana").then(state="handed_over", ended=False)
    assert case.context.notes[-1] == "ana came too late"


def test_without_a_transition_a_run_ends_where_it_is_and_nothing_of_it_falls_due() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    late = flow.state("late", final=True)
    opened.exit(see)
    flow.start(Opened, lambda _: Case())
    opened.after(timedelta(days=1), to=late)
    flow.policy(Opened, order_by=OrderBy("number"))
    case = given(flow, Opened(case="c1", number=7))
    case.when_cancelled().then(state="opened", context={"seen": []}, publishes=[], ended=True)
    assert case.run is not None
    assert case.run.status == Status.CANCELLED
    case.later(timedelta(days=2))
    assert case.followed == []
    case.when(Opened(case="c1", number=8)).then_refused(Reason.CLOSED, saying="the run ended in opened")
    with pytest.raises(AssertionError, match="has ended"):
        case.when_cancelled()


def test_what_is_deferred_meets_the_policy_for_ended_runs_and_a_start_begins_the_next_generation() -> None:
    flow = Pipeline("case", Case, topics=["cases"], closed="restart")
    flow.state("opened", initial=True)
    flow.start(Opened, lambda _: Case())
    case = given(flow, Opened(case="c1"))
    case.when(Opened(case="c1", number=2)).then_deferred()
    case.when_cancelled()
    assert case.run is not None
    assert (case.run.generation, case.state, case.run.status) == (1, "opened", Status.RUNNING)


def test_what_fails_refuses_the_cancellation_and_holds_the_run() -> None:
    case = given(parcel(), Packed(parcel="p1"))
    BROKEN.add("p1")
    try:
        case.when_cancelled()
    finally:
        BROKEN.clear()
    case.then_refused(Reason.ACTION_FAILED, saying="the carrier does not answer", holds=True)
    case.when_cancelled().then(state="called_back")
    assert case.run is not None
    assert case.run.held == 0


def test_a_final_target_completes_the_run_and_has_its_output() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    flow.state("opened", initial=True)
    gone = flow.state("gone", final=True, output=lambda _case, event: event.why)
    flow.start(Opened, lambda _: Case())
    flow.on_cancel(to=gone, do=see)
    case = given(flow, Opened(case="c1")).when_cancelled(why="enough").then(state="gone", ended=True)
    assert (case.output, case.context.seen) == ("enough", ["cancel.run"])
    assert case.run is not None
    assert case.run.status == Status.COMPLETED


def test_all_regions_are_left_unless_a_state_in_one_takes_it() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    work = flow.state("work", initial=True)
    left, right = work.region("left"), work.region("right")
    one, two = left.state("one", initial=True), left.state("two")
    right.state("three", initial=True, tags=["safe"])
    gone = flow.state("gone", final=True)
    flow.start(Opened, lambda _: Case())
    one.on(Cancelled, to=two, when=has_tag("safe"))
    two.exit(see)
    flow.on_cancel(to=gone)
    case = (
        given(flow, Opened(case="c1")).when_cancelled().then(state="work left two right three", ended=False)
    )
    case.when_cancelled().then(state="gone", ended=True, context={"seen": ["cancel.run"]})


@pytest.mark.parametrize("pattern", ["*", "cancel.*", "cancel.run.*"])
def test_no_pattern_takes_it_and_no_topic_has_it(pattern: str) -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    flow.start(Opened, lambda _: Case())
    opened.on(Event.named(pattern), do=see)
    case = given(flow, Opened(case="c1")).when_cancelled().then(state="opened", context={"seen": []})
    assert case.run is not None
    assert case.run.status == Status.CANCELLED
    gone = flow.state("gone", final=True)
    opened.on(Cancelled, to=gone)
    machine = compile_pipeline(flow)
    assert not overlaps(pattern, "cancel.run")
    assert "cancel.run" not in machine.events
    assert "cancel.run.now" in machine.events
    given(flow, Opened(case="c1")).when_cancelled().then(state="gone")


def test_a_pipeline_that_is_flat_stays_so_with_a_way_for_cancelled_runs() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    gone = flow.state("gone", final=True)
    flow.start(Opened, lambda _: Case())
    opened.on(Opened, to=gone)
    flow.on_cancel(to=gone, do=see)
    assert compile_pipeline(flow).flat
    case = (
        given(flow, Opened(case="c1")).when_cancelled().then(state="gone", context={"seen": ["cancel.run"]})
    )
    assert isinstance(case.outcome, Moved)
    assert "opened --> gone: cancel.run" in to_mermaid(flow)


def test_what_a_run_sends_when_it_is_cancelled_to_itself_is_gone_with_it() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    flow.start(
        Opened, lambda _: Case(), do=lambda _case, _event: Send(Opened(case="c1"), after=timedelta(hours=1))
    )
    opened.on(Opened, do=see)
    case = given(flow, Opened(case="c1")).when_cancelled()
    case.later(timedelta(hours=2))
    assert case.followed == []


def test_the_next_generation_begins_anew_and_its_timers_count_from_its_first_row() -> None:
    flow = Pipeline("case", Case, topics=["cases"], closed="restart")
    opened = flow.state("opened", initial=True)
    late = flow.state("late", final=True)
    flow.start(Opened, lambda _: Case())
    opened.after(timedelta(days=1), to=late)
    case = given(flow, Opened(case="c1")).when_cancelled().when(Opened(case="c1"))
    assert case.run is not None
    (timer,) = read_memory(case.run.memory).delayed
    assert (case.run.generation, timer.sequence) == (1, 1)


def test_what_leaves_a_gap_after_a_run_was_cancelled_meets_the_policy_for_ended_runs() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    flow.start(Opened, lambda _: Case())
    opened.on(Opened, do=see)
    flow.policy(Opened, order_by=OrderBy("number", contiguous=True, first=1))
    case = given(flow, Opened(case="c1", number=1)).when_cancelled()
    case.when(Opened(case="c1", number=5)).then_refused(Reason.CLOSED)


def test_a_pattern_in_another_region_does_not_keep_a_state_from_taking_it() -> None:
    flow = Pipeline("case", Case, topics=["cases"])
    work = flow.state("work", initial=True)
    left, right = work.region("left"), work.region("right")
    one, three = left.state("one", initial=True), right.state("three", initial=True)
    four, gone = right.state("four"), flow.state("gone", final=True)
    flow.start(Opened, lambda _: Case())
    one.on(Event.named("*"), to=gone)
    three.on(Cancelled, to=four)
    assert [one.message for one in find_mistakes(flow)] == []
    given(flow, Opened(case="c1")).when_cancelled().then(state="work left one right four")


def test_what_had_failed_for_good_begins_anew_where_its_state_is_not_left() -> None:
    made = Journey()
    made.asking.on(Cancelled, do=note_type)
    case = made.begun()
    was = memory_of(case)
    assert case.run is not None
    memory = given_up(case.run.memory, was.executions[1], unknown=False)
    case.run = case.run._replace(memory=memory, held=2)
    case.when_cancelled().then(state="wide travel trip lodging papers asking")
    room, visa = memory_of(case).executions
    assert room == was.executions[0]
    assert visa == was.executions[1]._replace(attempt=2, since=1)


def test_a_step_that_had_failed_for_good_is_heard_of_no_more_where_its_state_is_left() -> None:
    made = Journey()
    made.flow.on_cancel(to=made.ended, compensate=True)
    case = made.begun().step_done(made.room, 1)
    assert case.run is not None
    for one in memory_of(case).executions:
        case.run = case.run._replace(memory=given_up(case.run.memory, one, unknown=False), held=3)
    case.when_cancelled().then(state="$compensating").then_runs(made.leave_room)
    case.undone(made.leave_room).then(state="ended", ended=True)


def test_a_way_is_not_explained_by_a_cancellation_that_was_none() -> None:
    rows = Rows()
    rows.add_row(2)
    way = find_way(compile_pipeline(parcel()), [(Passage("parcel.noted", "packed", "called_back"), rows)])
    assert (way.unexplained.times, way.moves) == (1, {})


def test_mistakes_are_found() -> None:
    class Mine(Cancelled):
        pass

    class Other(Event, type="cancel.run"):
        pass

    flow = Pipeline("case", Case, topics=["cases"])
    opened = flow.state("opened", initial=True)
    flow.start(Opened, lambda _: Case())
    flow.start(Cancelled, lambda _: Case())
    opened.on(Mine)
    opened.on(Other, do=see)
    flow.on_cancel(to="nowhere")
    flow.policy(Cancelled, closed="ignore")
    found = " ".join(one.message for one in find_mistakes(flow))
    for said in (
        "Mine is a subclass of Cancelled, and no such event is ever raised",
        "the event type 'cancel.run' of Other is one that only",
        "the event 'cancel.run' comes from inside of a run, and cannot start one",
        "nowhere",
    ):
        assert said in found
