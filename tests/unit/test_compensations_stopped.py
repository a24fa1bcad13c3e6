"""Steps whose states are left while they go on: the run waits to hear of those that can be undone."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines.effects import Asked
from statemachines.events import is_result
from statemachines.memory import Execution, Memory, Owed, read_memory, write_memory
from statemachines.outcome import Ignored, Moved, Reason
from statemachines.outcome import Refused as DeadLetter
from statemachines.results import done_event, failed_event, stopped_event, tried_event
from statemachines.testkit import Case, given
from statemachines.undoing import HOWS, how_ended
from tests.unit.undoing import OK, Again, Cancelled, Noted, Placed, Returned, Trade, doing, memory_of
from tests.unit.working import ends

STOPPING = Execution(1, 0, "charge", "charging", stopping=1)


def left(made: Trade, **more: Any) -> Case[Any]:
    """A run that has left ``charging`` for ``open``, as it is without undoing, with this of its step."""
    made.flow.on(Noted.named("left"), to=made.open)
    case = given(made.flow, Placed())
    assert case.run is not None
    before = memory_of(case)
    changed = before._replace(executions=(before.executions[0]._replace(**more),))
    case.run = case.run._replace(memory=write_memory(changed))
    return case.when(Noted.named("left")()).then(state="open")


def test_a_step_that_can_be_undone_stays_until_the_run_hears_of_it() -> None:
    case = left(Trade())
    assert memory_of(case) == Memory(executions=(STOPPING,))
    assert case.sent == [Asked("stop", "charge", id="1.0", number=0)]
    case.then_runs_nothing().then_owes()
    assert case.stopping == (STOPPING,)


def test_any_other_is_dropped_as_ever() -> None:
    made = Trade()
    case = given(made.flow, Placed()).step_done(made.charge, OK).step_done(made.pack, 3).when(Again())
    assert [one.step for one in memory_of(case).executions] == ["charge"]
    assert case.sent[0] == Asked("stop", "tell", id="3.0", number=0)


def test_it_is_asked_to_stop_once() -> None:
    made = Trade()
    case = given(made.flow, Placed()).when(Again())
    assert [(one.id, one.stopping) for one in memory_of(case).executions] == [("1.0", 1), ("2.1", 0)]
    case.when(Again())
    assert case.sent == [Asked("stop", "charge", id="2.1"), Asked("step", "charge", number=1)]
    assert [(one.id, one.stopping) for one in memory_of(case).executions] == [
        ("1.0", 1),
        ("2.1", 1),
        ("3.1", 0),
    ]


@pytest.mark.parametrize(
    ("how", "more", "on_error", "owed"),
    [
        ("never", {}, False, None),
        ("never", {}, True, None),
        ("never", {"attempt": 2}, False, None),
        ("never", {"attempt": 2}, True, 0),
        ("never", {"attempt": 2, "unknown": 1}, False, 0),
        ("failed", {}, False, None),
        ("failed", {}, True, 0),
        ("failed", {"attempt": 2, "unknown": 1}, False, 0),
        ("ended", {}, False, 3),
        ("ended", {"attempt": 2, "unknown": 1}, False, 3),
        ("unknown", {}, False, 0),
        ("nonsense", {}, False, 0),
    ],
)
def test_what_is_owed_depends_on_what_became_of_it(
    how: str, more: Any, *, on_error: bool, owed: int | None
) -> None:
    made = Trade(on_error=on_error)
    case = left(made, **more)
    [stopping] = memory_of(case).executions
    outcome = ends(case, *stopped_event(made.charge, stopping, how, OK))
    owes = () if owed is None else (Owed(1, 0, "charge", owed),)
    assert outcome == Ignored(Reason.STOPPED, memory=write_memory(Memory(owed=owes)))
    assert Reason.STOPPED.value == "its state was left"


@pytest.mark.parametrize(
    ("kind", "owed"),
    [("done", 3), ("failed", None), ("lost", 0), ("late", 0), ("tried", None), ("tried lost", 0)],
)
def test_how_it_ended_by_itself_counts_as_well(kind: str, owed: int | None) -> None:
    made = Trade()
    case = left(made)
    [stopping] = memory_of(case).executions
    error = KeyError("k")
    event = {
        "done": lambda: done_event(made.charge, stopping, 1, OK),
        "failed": lambda: failed_event(made.charge, stopping, error, attempts=1),
        "lost": lambda: failed_event(made.charge, stopping, error, lost=True, attempts=1),
        "late": lambda: failed_event(made.charge, stopping, "late", timed_out=True, attempts=1),
        "tried": lambda: tried_event(made.charge, stopping, error, again=7),
        "tried lost": lambda: tried_event(made.charge, stopping, error, lost=True, again=7),
    }[kind]()
    owes = () if owed is None else (Owed(1, 0, "charge", owed),)
    assert ends(case, *event) == Ignored(Reason.STOPPED, memory=write_memory(Memory(owed=owes)))


def test_no_transition_is_asked_about_what_was_stopped() -> None:
    made = Trade()
    made.flow.on_failure(to=made.cancelled)
    case = left(made).step_stopped(made.charge, "ended", OK)
    case.then_ignored(Reason.STOPPED).then_owes(made.charge)
    assert case.state == "open"


@pytest.mark.parametrize("how", ["never", "failed", "unknown"])
def test_what_another_attempt_says_is_void_unless_it_was_done(how: str) -> None:
    made = Trade()
    case = left(made, attempt=2)
    first = STOPPING
    assert ends(case, *stopped_event(made.charge, first, how)) == Ignored(Reason.VOID)
    done = ends(case, *stopped_event(made.charge, first, "ended", OK))
    assert isinstance(done, Ignored)
    assert read_memory(done.memory or b"").owed == (Owed(1, 0, "charge", 3),)


def test_what_was_not_stopped_or_is_over_is_void() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    stopped = stopped_event(made.charge, doing(case), "unknown")
    assert ends(case, *stopped) == Ignored(Reason.VOID)
    case = left(Trade())
    case.step_stopped(made.charge, "never")
    assert ends(case, *stopped) == Ignored(Reason.VOID)


def test_a_run_that_ends_waits_for_nothing() -> None:
    made = Trade()
    made.open.on(Noted, to=made.over)
    case = left(made).when(Noted()).then(state="over", ended=True)
    assert memory_of(case) == Memory()
    assert case.sent == []
    stopped = stopped_event(made.charge, STOPPING, "ended", OK)
    assert ends(case, *stopped) == Ignored(Reason.VOID)


def test_one_that_failed_for_good_is_not_waited_for() -> None:
    for unknown, owes in ((0, ()), (1, (Owed(1, 0, "charge", 0),))):
        case = left(Trade(), again=-1, unknown=unknown)
        assert memory_of(case) == Memory(owed=owes)


def test_a_run_is_undone_where_a_step_had_failed_for_good() -> None:
    made = Trade()
    case = given(made.flow, Placed())
    assert case.run is not None
    over = memory_of(case).executions[0]._replace(again=-1)
    case.run = case.run._replace(memory=write_memory(Memory(executions=(over,))))
    case.when(Cancelled()).then(state="cancelled", ended=True)


# While the run is undone.


def test_nothing_is_undone_before_the_run_has_heard_of_all() -> None:
    made = Trade()
    case = given(made.flow, Placed()).when(Again()).step_done(made.charge, OK).when(Cancelled())
    case.then(state="$compensating").then_runs_nothing().then_owes(made.charge)
    assert [one.step for one in case.stopping] == ["charge", "pack"]
    case.step_stopped(made.pack, "ended", 7).then_ignored(Reason.STOPPED).then_runs_nothing()
    case.then_owes(made.pack, made.charge)
    case.step_stopped(made.charge, "unknown")
    case.then(state="$compensating").then_runs(made.refund).then_owes(made.charge, made.pack, made.charge)
    assert (doing(case).of, doing(case).made) == ("1.0", 0)
    assert case.sent == [Asked("step", "refund", id="1.0", number=0)]
    case.undone(made.refund).then_runs(made.unpack)
    assert (doing(case).of, doing(case).made) == ("3.0", 5)
    case.undone(made.unpack).undone(made.refund).then(state="cancelled", ended=True)


def test_where_nothing_was_done_the_run_goes_on_as_soon_as_it_has_heard() -> None:
    made = Trade()
    case = given(made.flow, Placed()).when(Returned()).then(state="$compensating").then_runs_nothing()
    case.step_stopped(made.charge, "never").then(state="open")
    assert case.context.said == ["order.returned", "done.compensation"]
    case = given(made.flow, Placed()).when(Cancelled())
    outcome = ends(case, *stopped_event(made.charge, case.stopping[0], "failed"))
    assert outcome == Moved(False, "cancelled", 2, None, (), b"{}")


def test_one_that_went_on_since_the_run_was_undone_before_is_undone_with_the_next() -> None:
    made = Trade()
    case = given(made.flow, Placed()).step_done(made.charge, OK).when(Returned())
    case.step_stopped(made.pack, "never").undone(made.refund).when(Again()).when(Again())
    case.step_stopped(made.charge, "ended", OK).then_ignored(Reason.STOPPED)
    case.then_owes(made.charge).then_runs(made.charge).when(Cancelled())
    case.step_stopped(made.charge, "failed").then_runs(made.refund)
    case.undone(made.refund).then(state="cancelled", ended=True)


def test_what_fails_on_the_way_on_holds_the_run() -> None:
    made = Trade()

    def fail(_order: Any, _event: Any) -> None:
        raise KeyError("no")

    made.open.entry(fail)
    case = given(made.flow, Placed()).when(Returned())
    case.step_stopped(made.charge, "never").then_refused(Reason.ACTION_FAILED, holds=True)
    assert isinstance(case.outcome, DeadLetter)
    assert len(case.stopping) == 1


# The events.


def test_what_became_of_a_stopped_step_is_a_result() -> None:
    made = Trade()
    event_type, data = stopped_event(made.charge, STOPPING._replace(attempt=2), "ended", OK)
    assert (event_type, is_result(event_type)) == ("stopped.step.charge", True)
    assert data == {"execution": "1.0", "attempt": 2, "how": "ended", "data": {"id": "c-1"}}
    _, data = stopped_event(made.charge, STOPPING, "never", OK)
    assert data == {"execution": "1.0", "attempt": 1, "how": "never"}


@pytest.mark.parametrize(
    ("event_type", "said", "how"),
    [
        ("done.step.a", {}, "ended"),
        ("failed.step.a", {}, "failed"),
        ("failed.step.a.KeyError", {"lost": False}, "failed"),
        ("failed.step.a", {"lost": True}, "unknown"),
        ("failed.step.a.timed_out", {}, "unknown"),
        ("failed.step.a.timed_out", {"raised": True}, "failed"),
        ("failed.step.a.timed_out", {"raised": 1}, "unknown"),
        ("failed.step.a.timed_out", {"raised": True, "lost": True}, "unknown"),
        ("tried.step.a", {}, "failed"),
        ("tried.step.a", {"lost": True}, "unknown"),
        *((f"stopped.step.{how}", {"how": how}, how) for how in HOWS),
        ("stopped.step.a", {"how": 5}, "unknown"),
        ("stopped.step.a", {}, "unknown"),
    ],
)
def test_events_say_what_became_of_an_execution(event_type: str, said: Any, how: str) -> None:
    assert how_ended(event_type, said, "a") == how


def test_a_step_of_a_name_like_an_end_is_not_taken_for_it() -> None:
    assert how_ended("failed.step.timed_out", {}, "timed_out") == "failed"
    assert how_ended("failed.step.timed_out.timed_out", {}, "timed_out") == "unknown"
