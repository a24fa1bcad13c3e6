"""The steps of a run as its rows tell them, and the words for that: without a store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from engine.cli.working import compensation_words, print_steps, step_words
from engine.log import Kind, LogRow, fold
from engine.publications import asked_effects
from engine.reading.explain import step_words as sentences
from engine.reading.heard import Heard, heard_of
from engine.reading.rows import Folded
from engine.reading.working import StepView, Working
from statemachines.effects import Asked
from statemachines.events import Address
from statemachines.memory import Execution, Memory, Owed, microseconds_of, write_memory
from statemachines.run import Run

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = microseconds_of(AT + timedelta(minutes=1))
RUN = Address("default", "shop", "o1", 0, 0)
CHARGE = Execution(1, 0, "charge", "charging")
REFUND = Execution(3, 1, "refund", "$compensating", of="1.0", made=2)
OWED = Owed(1, 0, "charge", 2)
UNDOES = {"charge": "refund"}


class Log:
    """The rows of a run, each a second after the one before."""

    def __init__(self) -> None:
        self.working = Working(RUN, UNDOES)
        self.heard: list[Heard | None] = []
        self._run: Run | None = None
        self._number = 0

    def row(
        self,
        event_type: str,
        memory: Memory | None = None,
        kind: Kind = Kind.FIRED,
        effects: bytes = b"",
        **data: Any,
    ) -> Log:
        self._number += 1
        number, written = self._number, b"" if memory is None else write_memory(memory)
        payload = orjson.dumps({"data": data})
        at = AT + timedelta(seconds=number)
        row = LogRow(
            5, None, None, at, number, 0, 1, kind, 1, b"", event_type, "charging", f"e{number}", effects, b"",
            written, payload, b"",
        )  # fmt: skip
        before, self._run = self._run, fold(self._run, row, key="o1")
        self.heard.append(self.working.take(Folded(before, row, self._run)))
        return self

    def step(self, going: Iterable[tuple[int, int]] = ()) -> StepView:
        [found] = self.working.steps([*going])
        return found

    def compensation(self, going: Iterable[tuple[int, int]] = ()) -> tuple[str, int, int | None]:
        found = self.step(going).compensation
        assert found is not None
        return found.status, found.attempts, None if found.ended is None else found.ended.sequence


def asked() -> Log:
    return Log().row("order.placed", Memory(executions=(CHARGE,)), Kind.STARTED)


def done() -> Log:
    return asked().row("done.step.charge", Memory(owed=(OWED,)), execution="1.0", attempt=1, data={"id": "c"})


def undoing() -> Log:
    return done().row(
        "order.cancelled", Memory((), executions=(REFUND,), owed=(OWED,), undoing=1), Kind.MOVED
    )


def test_a_step_waits_for_its_turn_goes_on_and_is_tried_again() -> None:
    log = asked()
    assert (log.step().status, log.step().attempts, log.step().again) == ("waiting", 0, None)
    assert (log.step([(1, 0)]).status, log.step([(1, 0)]).attempts) == ("going", 1)
    assert log.step([(2, 0)]).status == "waiting"
    assert log.step().of.idempotency_key == RUN._replace(sequence=1).id_of_asked(0)
    again = CHARGE._replace(attempt=2, again=LATER, error="OSError: away")
    said: dict[str, Any] = {"execution": "1.0", "attempt": 1, "error": "OSError", "message": "away"}
    said["again"] = LATER
    log.row("tried.step.charge", Memory(executions=(again,)), Kind.PASSED, **said)
    waits = log.step()
    assert (waits.status, waits.attempts, waits.again) == ("waiting", 1, AT + timedelta(minutes=1))
    assert (waits.error, waits.outcome) == ("OSError: away", None)
    assert (log.step([(1, 0)]).again, log.step([(1, 0)]).attempts) == (None, 2)
    heard = log.heard[1]
    assert heard is not None
    assert heard.words() == (
        "attempt 1 of charge failed (OSError: away), and is tried again from 2026-03-01T12:01:00Z on"
    )
    assert (
        heard.words(5)
        == "attempt 1 of charge failed (OSEr…), and is tried again from 2026-03-01T12:01:00Z on"
    )


def test_what_was_done_is_owed_until_it_is_undone_and_no_more_once_the_run_has_ended() -> None:
    log = done()
    assert (log.step().status, log.step().result, log.compensation()) == (
        "done",
        {"id": "c"},
        ("owed", 0, None),
    )
    log.row("order.shipped", Memory(), Kind.MOVED)
    assert (log.step().status, log.compensation()) == ("done", ("none", 0, None))
    log = undoing()
    assert (log.compensation(), log.compensation([(3, 1)])) == (("waiting", 0, None), ("going", 1, None))
    log.row("done.step.refund", Memory(), execution="3.1", attempt=1, data=None)
    assert log.compensation() == ("undone", 1, 4)
    heard = log.heard[-1]
    assert heard is not None
    assert (heard.undoes and heard.undoes.name, heard.words()) == (
        "charge",
        "attempt 1 of refund, which undoes charge, was done",
    )


def test_a_compensation_that_is_given_up_failed_until_a_redrive_takes_it() -> None:
    log = undoing()
    left = Memory(executions=(REFUND._replace(again=-1),), owed=(OWED,), undoing=1)
    said: dict[str, Any] = {
        "execution": "3.1",
        "attempt": 1,
        "error": "OSError",
        "message": "no",
        "attempts": 1,
    }
    log.row("failed.step.refund", left, Kind.HELD_FIRED, **said)
    assert log.compensation() == ("failed", 1, 4)
    log.row("pointsman.redrive", None, Kind.RELEASED)
    log.row("failed.step.refund", left, Kind.HELD_FIRED, **said)
    assert log.compensation() == ("failed", 1, 6)
    log = undoing()
    log.row("done.step.refund", left, Kind.HELD_FIRED, execution="3.1", attempt=1)
    assert log.compensation() == ("failed", 1, 4), (
        "what was done and not taken has undone nothing as the run knows"
    )


@pytest.mark.parametrize(
    ("event_type", "said", "outcome", "attempts", "words"),
    [
        ("stopped.step.charge", {"how": "never"}, "not begun", 0, "it was not begun"),
        ("stopped.step.charge", {"how": "ended", "data": 7}, "done", 1, "it was done all the same"),
        ("stopped.step.charge", {"how": "failed"}, "failed", 1, "it failed"),
        ("stopped.step.charge", {"how": "unknown"}, "unknown", 1, "what it did is not known"),
        ("stopped.step.charge", {"how": 7}, "unknown", 1, "what it did is not known"),
        ("done.step.charge", {"data": 7}, "done", 1, "it was done all the same"),
        ("tried.step.charge", {"error": "OSError", "again": LATER}, "failed", 1, "it failed"),
    ],
)
def test_a_step_whose_state_was_left_waits_to_be_heard_of(
    event_type: str, said: dict[str, Any], outcome: str, attempts: int, words: str
) -> None:
    log = asked().row("order.cancelled", Memory(executions=(CHARGE._replace(stopping=1),)), Kind.MOVED)
    assert (log.step().status, log.step().stopping) == ("waiting", True)
    assert step_words(log.step()) == "to be stopped: to be heard of"
    assert step_words(log.step([(1, 0)])) == "to be stopped: attempt 1 goes on"
    assert sentences.stands(log.step()) == "Its state was left, and the run waits to hear what became of it."
    log.row(event_type, Memory(), Kind.PASSED, execution="1.0", attempt=1, **said)
    found = log.step()
    assert (found.status, found.outcome, found.attempts, found.stopping) == (
        "stopped",
        outcome,
        attempts,
        False,
    )
    assert found.result == said.get("data")
    assert step_words(found) == f"stopped (row 3): {words}"


TIMED_OUT: dict[str, Any] = {"execution": "1.0", "attempt": 1, "error": "TimeoutError", "message": "slow"}
UNKNOWN = CHARGE._replace(attempt=2, again=LATER, error="TimeoutError: slow", unknown=1)
OUTSIDE = CHARGE._replace(token="t-1")


def test_what_may_have_been_done_is_told_as_to_be_undone_with_the_run() -> None:
    said = "refund: to be undone if the run is: what was done is not known"
    tried = asked().row("tried.step.charge", Memory(executions=(UNKNOWN,)), Kind.PASSED, **TIMED_OUT)
    outside = asked().row("waits.step.charge", Memory(executions=(OUTSIDE,)), Kind.PASSED, execution="1.0")
    over = Memory(executions=(UNKNOWN._replace(again=-1),))
    stuck = asked().row("failed.step.charge.timed_out", over, Kind.HELD_FIRED, **TIMED_OUT)
    for log in (tried, outside, stuck):
        found = log.step().compensation
        assert found is not None
        assert (found.status, compensation_words(found)) == ("unknown", said)
        assert sentences.undoing(found) == (
            "It is not known what was done of it: the compensation refund is to undo it if the run is undone."
        )
    raised = CHARGE._replace(attempt=2, again=LATER, error="OSError: away")
    log = asked().row("tried.step.charge", Memory(executions=(raised,)), Kind.PASSED, **TIMED_OUT)
    assert log.compensation() == ("none", 0, None)


def test_what_was_not_begun_again_is_not_told_as_if_it_never_was() -> None:
    log = asked().row("tried.step.charge", Memory(executions=(UNKNOWN,)), Kind.PASSED, **TIMED_OUT)
    log.row("order.cancelled", Memory(executions=(UNKNOWN._replace(stopping=1),)), Kind.MOVED)
    assert log.compensation() == ("unknown", 0, None)
    left = Memory(owed=(OWED._replace(made=0),))
    log.row("stopped.step.charge", left, Kind.PASSED, execution="1.0", attempt=2, how="never")
    assert step_words(log.step()) == "stopped (row 4): it was not begun again"
    assert log.compensation() == ("owed", 0, None)


def test_a_step_that_nobody_asks_after_has_left_with_its_state() -> None:
    log = asked().row("order.cancelled", Memory(), Kind.MOVED)
    assert (log.step().status, log.step().outcome, log.step().attempts) == ("stopped", "left", 0)
    assert step_words(log.step()) == "stopped (row 2): nobody asks what it did"
    assert (
        sentences.stands(log.step()) == "Its state was left in row 2 (2026-03-01T12:00:02Z), which ended it."
    )


def test_failures_are_told_by_how_they_failed() -> None:
    told: dict[str, Any] = {"execution": "1.0", "attempt": 2, "attempts": 2}
    slow = asked().row("failed.step.charge.timed_out", Memory(), error="TimeoutError", message="slow", **told)
    lost = asked().row("failed.step.charge", Memory(), error="LostError", message="gone", lost=True, **told)
    refused = asked().row("failed.step.charge.Refused", Memory(), error="Refused", message="no", **told)
    assert [step_words(log.step()) for log in (slow, lost, refused)] == [
        "timed out (row 2)",
        "failed: lost with its engine (row 2)",
        "failed (row 2)",
    ]
    assert [log.step().attempts for log in (slow, lost, refused)] == [2, 2, 2]
    [said] = [heard.words() for heard in lost.heard if heard is not None]
    assert said == "attempt 2 of charge was lost with its engine (LostError: gone), and is not tried again"


def test_an_attempt_that_was_cut_as_its_engine_was_stopped_is_told_so() -> None:
    again = CHARGE._replace(attempt=2, again=LATER, error="LostError: the engine was stopped", since=1)
    said: dict[str, Any] = {"execution": "1.0", "attempt": 1, "error": "LostError", "lost": True}
    said |= {"message": "the engine was stopped", "stopped": True, "again": LATER}
    log = asked().row("tried.step.charge", Memory(executions=(again,)), Kind.PASSED, **said)
    assert (log.step().attempts, log.step().error) == (1, "LostError: the engine was stopped")
    heard = log.heard[1]
    assert heard is not None
    assert heard.outcome == "cut short"
    assert heard.words() == (
        "attempt 1 of charge does not count, for the engine was stopped, "
        "and is tried again from 2026-03-01T12:01:00Z on"
    )
    log = asked().row("order.cancelled", Memory(executions=(CHARGE._replace(stopping=1),)), Kind.MOVED)
    log.row("tried.step.charge", Memory(), Kind.PASSED, **said)
    assert step_words(log.step()) == "stopped (row 3): the engine was stopped"


def test_a_result_behind_a_hold_is_no_end_yet() -> None:
    log = asked().row("order.noted", None, Kind.HELD)
    log.row("done.step.charge", None, Kind.WAITED, execution="1.0", attempt=1, data=7)
    found = log.step([(1, 0)])
    assert (found.status, found.behind, found.attempts, found.result) == ("waiting", 3, 1, None)
    assert step_words(found) == "ended, and waits behind the hold of the run (row 3)"
    log.row("pointsman.drop", None, Kind.RELEASED)
    log.row(
        "done.step.charge", Memory(owed=(OWED,)), Kind.MOVED_AFTER_WAIT, execution="1.0", attempt=1, data=7
    )
    assert (log.step().status, log.step().behind, log.step().result) == ("done", None, 7)


def test_rows_that_were_tampered_with_are_shown_as_far_as_they_can_be() -> None:
    for payload in (b"", b"7", b"[]", b'{"data":7}', b'{"data":{"execution":"x.y"}}'):
        assert heard_of("done.step.charge", payload, Memory(), RUN) is None
    payload = b'{"data":{"execution":"1.0","attempt":"x","again":99999999999999999999999}}'
    heard = heard_of("tried.step.charge", payload, Memory(executions=(CHARGE,)), RUN)
    assert heard is not None
    assert (heard.attempt, heard.again, heard.error) == (1, None, None)
    stranger = heard_of("done.step.charge", b'{"data":{"execution":"4.2"}}', Memory(), RUN)
    assert stranger is not None
    assert (stranger.of.name, stranger.of.execution) == ("charge", "4.2")
    assert heard_of("order.placed", b'{"data":{"execution":"1.0"}}', Memory(), RUN) is None


def test_of_very_many_steps_the_last_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_steps([])
    assert capsys.readouterr().out == ""
    print_steps([asked().step()] * 60)
    out, err = capsys.readouterr()
    assert out.count("charging") == 50
    assert err == "The last 50 of 60 steps; --json has all of them.\n"


def test_why_a_result_is_void_names_what_came_before_it() -> None:
    left = sentences.Ender(2, AT, "order.cancelled", "e2")
    assert sentences.why_void(left, "key/1/done") == (
        "order.cancelled 'e2' had ended it by leaving its state, in row 2 (2026-03-01T12:00:00Z)"
    )
    by_other = sentences.Ender(2, AT, "done.step.charge", "key/2/done")
    assert sentences.why_void(by_other, "key/1") == (
        "done.step.charge 'key/2/done' had said that it was done, in row 2 (2026-03-01T12:00:00Z)"
    )
    assert "came before it" in sentences.why_void(by_other._replace(type="tried.step.charge"), "key/1")
    assert sentences.why_void(None, "key/1") == ""


def test_what_was_settled_is_told_with_the_row_that_did() -> None:
    effects = asked_effects(b"", (Asked("settle", "charge", id="1.0"),), RUN._replace(sequence=3))
    log = done().row("order.shipped", Memory(), Kind.MOVED, effects)
    assert log.compensation() == ("settled", 0, 3)
    found = log.step().compensation
    assert found is not None
    assert compensation_words(found) == "refund: settled (row 3)"
    assert sentences.undoing(found) == (
        "It was settled in row 3 (2026-03-01T12:00:03Z): it is not undone any more."
    )
    # What a run owes no more since it has ended was not settled.
    assert done().row("order.shipped", Memory(), Kind.MOVED).compensation() == ("none", 0, None)
