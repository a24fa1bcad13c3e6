"""What the log says of user code that raised: the calls that led there, once an attempt, and no flood of it."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.executor import Ended, LostError
from engine.cli.logs import JsonLines, Lines
from engine.limits import EngineLimits
from engine.raised import KINDS_MAX, OTHERS, SELDOM_SECONDS, FailedAttempts, Seldom, Trace
from engine.routing import Loaded, make_routes
from engine.steady import Steady
from engine.steps.executors import Executors
from engine.steps.going import Going
from engine.steps.making import Making
from engine.steps.outcomes import Outcomes
from engine.steps.pulse import Pulse
from engine.steps.steps import Steps
from engine.store.values import BegunExecution
from statemachines.context import Context
from statemachines.handlers import ask
from statemachines.machine import compile_pipeline
from statemachines.outcome import Refused
from statemachines.places import FRAMES_MAX, raised_by
from statemachines.testkit import given
from tests.charging import AwayError, CardRefusedError, Noted, Placed, charging_pipeline
from tests.unit.test_telling import SECRET

LOGGER = "pointsman.engine"
BEGUN = BegunExecution(1, 1, "o1", 0, 7, 1, 0, 1, 0, "charge", 1, "", b"")


def inner(number: str) -> None:
    raise ValueError(f"{number} is no card")


def outer(number: str) -> None:
    inner(number)


def error_of(function: Any, *arguments: Any) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it raises
        return error
    raise AssertionError("it raised nothing")


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_not_the_user_s_is_left_out_of_the_calls() -> None:
    def guard(_context: Any, _event: Any) -> bool:
        outer(SECRET)
        return True

    failed: Any = error_of(ask, guard, "guard", Context(), None)
    assert failed.raised.name == "ValueError"
    assert [frame.function for frame in failed.raised.frames] == ["guard", "outer", "inner"]
    assert {frame.file for frame in failed.raised.frames} == {__file__}
    of_json = raised_by(error_of(json.loads, "{"))
    assert [frame.function for frame in of_json.frames] == ["error_of"]


def test_of_very_many_calls_the_innermost_are_told() -> None:
    def deep(left: int) -> None:
        deep(left - 1) if left else inner("4")

    frames = raised_by(error_of(deep, 100)).frames
    assert len(frames) == FRAMES_MAX
    assert [frame.function for frame in frames[-2:]] == ["deep", "inner"]


def test_the_lines_of_the_code_are_shown_and_what_was_said_only_where_that_is_asked_for() -> None:
    trace = Trace.of(error_of(outer, SECRET))
    without, with_it = trace.text(with_messages=False), trace.text(with_messages=True)
    assert without.splitlines()[0] == "Traceback, without what is not yours (most recent call last):"
    assert "    inner(number)\n" in without
    assert f'  File "{__file__}", line ' in without
    assert without.splitlines()[-1] == "ValueError"
    assert SECRET not in without
    assert with_it.splitlines()[-1] == f"ValueError: {SECRET} is no card"


def test_what_it_comes_from_is_told_before_it() -> None:
    def convert() -> None:
        try:
            outer(SECRET)
        except ValueError as error:
            raise LookupError("gone") from error

    def group() -> None:
        raise ExceptionGroup("several", [ValueError("4"), KeyError("x")])

    text = Trace.of(error_of(convert)).text(with_messages=True)
    assert text.index("is no card") < text.index("which led to:") < text.index("LookupError: gone")
    text = Trace.of(error_of(group)).text(with_messages=False)
    assert text.index("ValueError") < text.index("ExceptionGroup")


def test_a_text_that_cannot_be_had_and_causes_in_a_circle_are_no_trouble() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def odd() -> None:
        raise OddError

    error = error_of(odd)
    error.__cause__ = other = ValueError()
    other.__cause__ = error
    assert "(its message cannot be shown)" in Trace.of(error).text(with_messages=True)


def test_what_never_came_to_user_code_has_no_calls() -> None:
    trace = Trace.of(TimeoutError("it was not done within 30 s"))
    assert trace.text(with_messages=False) == ""
    assert trace.text(with_messages=True) == "it was not done within 30 s"


def test_of_one_kind_one_is_told_in_a_while_and_the_others_are_counted() -> None:
    seconds = Seconds()
    seldom = Seldom(seconds)
    assert [seldom.may(kind) for kind in ("a", "a", "b", "a")] == [True, False, True, False]
    assert list(seldom.over()) == []
    seconds.now += SELDOM_SECONDS
    assert seldom.may("a")
    assert list(seldom.over()) == []
    seconds.now += SELDOM_SECONDS
    assert list(seldom.over()) == [("a", 2)]
    assert list(seldom.over()) == []


def test_so_many_kinds_are_told_apart_and_all_others_are_one_kind() -> None:
    seconds = Seconds()
    seldom = Seldom(seconds)
    assert all(seldom.may(kind) for kind in range(KINDS_MAX + 1))
    assert [seldom.may(kind) for kind in (0, KINDS_MAX, KINDS_MAX + 1, KINDS_MAX + 2)] == [False] * 4
    seconds.now += SELDOM_SECONDS
    assert list(seldom.over()) == [(0, 1), (OTHERS, 3)]
    assert seldom.may(KINDS_MAX)


def test_what_was_not_told_can_be_told_before_its_time_and_makes_no_more_lines() -> None:
    seconds = Seconds()
    seldom = Seldom(seconds)
    assert [seldom.may(kind) for kind in ("a", "a", "b")] == [True, False, True]
    assert list(seldom.left()) == [("a", 1)]
    assert list(seldom.left()) == []
    assert not seldom.may("a")
    seconds.now += SELDOM_SECONDS
    assert list(seldom.over()) == [("a", 1)]


# Attempts at steps.


class Engine:
    """What became of attempts at the step ``charge``, and what the log says of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, LOGGER)
        self._caplog = caplog
        self.seconds = Seconds()
        self.failed = FailedAttempts(self.seconds)
        self.outcomes = Outcomes(lambda: datetime(2026, 3, 1, tzinfo=UTC), self.failed)
        [topic] = make_routes([Loaded(compile_pipeline(charging_pipeline()), 1, 1)], {}).values()
        self.outcomes.load(topic.routes)

    def fail(self, attempt: int, ended: Ended, run: str = "o1") -> None:
        self.outcomes.failure(BEGUN._replace(key=run, attempt=attempt), ended)

    def said(self) -> list[tuple[str, str]]:
        return [(one.levelname, one.getMessage()) for one in self._caplog.records]


@pytest.fixture
def engine(caplog: pytest.LogCaptureFixture) -> Engine:
    return Engine(caplog)


def test_each_attempt_that_raised_is_told_with_its_run_and_the_calls_that_led_there(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ended = Ended(error=error_of(outer, SECRET))
    for attempt in (1, 3):
        engine.fail(attempt, ended)
    assert engine.said() == [
        ("WARNING", "an attempt at the step raised; it is tried again"),
        ("ERROR", "an attempt at the step raised; it has failed for good"),
    ]
    said = json.loads(JsonLines().format(caplog.records[0]))
    known = {name: said[name] for name in ("pipeline", "run", "step", "attempt", "error")}
    assert known == {
        "pipeline": "charging",
        "run": "o1",
        "step": "charge",
        "attempt": 1,
        "error": "ValueError",
    }
    assert "    inner(number)\n" in said["traceback"]
    assert SECRET not in json.dumps(said)
    line = Lines(with_messages=True).format(caplog.records[0])
    assert (
        "warning: an attempt at the step raised; it is tried again pipeline=charging run=o1 step=charge"
        in line
    )
    assert line.endswith(f"ValueError: {SECRET} is no card")


def test_a_failure_that_the_pipeline_has_a_transition_for_is_no_error(engine: Engine) -> None:
    engine.fail(1, Ended(error=CardRefusedError("no money")))
    assert engine.said() == [("INFO", "an attempt at the step raised; it has failed for good")]


def test_an_attempt_that_is_tried_again_is_warned_of_whatever_it_raised(engine: Engine) -> None:
    _, step = engine.outcomes.meant(BEGUN)
    step.failed_with(AwayError)
    engine.fail(1, Ended(error=AwayError("no answer")))
    engine.fail(3, Ended(error=AwayError("no answer")))
    assert [level for level, _ in engine.said()] == ["WARNING", "INFO"]


def test_attempts_that_timed_out_or_were_lost_are_told_too(engine: Engine) -> None:
    engine.fail(1, Ended(error=TimeoutError("it was not done within 30 s"), timed_out=True))
    engine.fail(1, Ended(error=LostError("gone"), lost=True))
    assert [said for _, said in engine.said()] == [
        "an attempt at the step timed out (it was not done within 30 s); it is tried again",
        "an attempt at the step was lost; it is tried again",
    ]


def test_a_service_that_is_away_makes_no_flood(engine: Engine) -> None:
    for number in range(1_000):
        engine.fail(1, Ended(error=OSError("away")), f"o{number}")
        engine.fail(3, Ended(error=OSError("away")), f"o{number}")
    assert len(engine.said()) == 2
    engine.failed.tell_rest()
    assert len(engine.said()) == 2
    engine.seconds.now += SELDOM_SECONDS
    engine.failed.tell_rest()
    engine.failed.tell_rest()
    assert engine.said()[2:] == [
        ("WARNING", "999 more attempts failed like that one"),
        ("ERROR", "999 more attempts failed like that one"),
    ]


def test_very_many_kinds_of_failures_make_no_flood(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(KINDS_MAX + 100):
        engine.fail(1, Ended(error=type(f"E{number}Error", (Exception,), {})()))
    assert len(engine.said()) == KINDS_MAX + 1
    engine.seconds.now += SELDOM_SECONDS
    engine.failed.tell_rest()
    assert engine.said()[KINDS_MAX + 1 :] == [
        ("WARNING", "99 more attempts failed, each in one of very many ways")
    ]


def test_what_a_step_returned_that_cannot_be_kept_has_no_calls_of_the_engine(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.outcomes.success(BEGUN, object())
    [said] = caplog.records
    assert said.trace.text(with_messages=False) == ""  # type: ignore[attr-defined]  # it is of the record's own
    assert "which does not survive being stored" in said.trace.text(with_messages=True)  # type: ignore[attr-defined]


async def test_what_a_context_says_to_its_reader_has_no_calls_of_the_engine(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    making = Making(EngineLimits(), lambda: datetime(2026, 3, 1, tzinfo=UTC), Executors())
    making.outcomes = engine.outcomes
    making.begin(BEGUN._replace(input=b"no context"))
    [said] = caplog.records
    assert said.trace.text(with_messages=False) == ""  # type: ignore[attr-defined]  # it is of the record's own


async def test_steps_that_end_tell_at_once_how_many_attempts_have_failed_like_others(engine: Engine) -> None:
    steps = Steps(EngineLimits(), Steady(lambda: datetime(2026, 3, 1, tzinfo=UTC)))
    steps._making.failed = engine.failed
    for number in range(3):
        engine.fail(1, Ended(error=OSError("away")), f"o{number}")
    for _ in range(2):
        await steps.close()
    assert engine.said()[1:] == [("WARNING", "2 more attempts failed like that one")]


@pytest.mark.parametrize(("error", "lost", "lines"), [(OSError("away"), False, 1), (LostError("x"), True, 0)])
def test_what_raised_once_its_state_was_left_is_told_and_what_was_stopped_is_not(
    error: Exception, lost: bool, lines: int, engine: Engine
) -> None:
    making = Making(EngineLimits(), lambda: datetime(2026, 3, 1, tzinfo=UTC), Executors())
    making.outcomes = engine.outcomes
    _, step = engine.outcomes.meant(BEGUN)
    attempt: Any = None
    going = Going(BEGUN, step, attempt, Pulse(), takes_thread=False, stopping=True)
    making._tell(going, Ended(error=error, lost=lost))
    assert engine.said() == [("WARNING", "an attempt at the step raised; its state was left by then")] * lines


# Guards and actions.


def test_what_an_action_raised_comes_with_the_dead_letter() -> None:
    flow = charging_pipeline()
    next(one for one in flow.states if one.initial).on(Noted, do=lambda _order, event: outer(event.word))
    case = given(flow, Placed(order="o1")).when(Noted(order="o1", word=SECRET))
    outcome = case.outcome
    assert isinstance(outcome, Refused)
    assert outcome.raised is not None
    assert [frame.function for frame in outcome.raised.frames] == ["<lambda>", "outer", "inner"]
    assert SECRET not in repr(outcome.raised)
