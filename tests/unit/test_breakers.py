"""Breakers: when they open and close, and how many attempts they let begin."""

from __future__ import annotations

import logging
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import orjson
import pytest

from engine.limits import EngineLimits
from engine.steps.breakers import TRIALS_MAX, Breakers, Circuit, Heard, State
from engine.steps.rooms import Rooms, Taken
from statemachines import Breaker, Call, Context, Pipeline, Retry
from statemachines.step import Step

AT = datetime(2026, 3, 1, tzinfo=UTC)
PAYMENTS = Breaker("payments", failures=3, within=timedelta(seconds=10), open_for=timedelta(seconds=60))
DOWN = OSError("down")
NOTHING = Taken({}, 0, 0)


class Time:
    now = 100.0

    def clock(self) -> datetime:
        return AT + timedelta(seconds=self.now)


@pytest.fixture
def time() -> Iterator[Time]:
    made = Time()
    with mock.patch("engine.steps.breakers.time", types.SimpleNamespace(monotonic=lambda: made.now)):
        yield made


@pytest.fixture
def circuit(time: Time) -> Circuit:
    return Circuit(PAYMENTS, time.clock)


def opened(circuit: Circuit) -> Circuit:
    for number in range(PAYMENTS.failures):
        circuit.hear(number, Heard.ILL, DOWN)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row(circuit: Circuit) -> None:
    assert [circuit.hear(one, Heard.ILL, DOWN) for one in (1, 2)] == [False, False]
    assert (circuit.state, circuit.room(7), circuit.failures) == (State.CLOSED, 7, 2)
    assert circuit.hear(3, Heard.ILL, DOWN)
    assert (circuit.state, circuit.room(7), circuit.error) == (State.OPEN, 0, "OSError: down")


@pytest.mark.parametrize(("between", "state"), [(Heard.WELL, State.CLOSED), (Heard.NOTHING, State.OPEN)])
def test_a_success_in_between_is_the_end_of_the_row(circuit: Circuit, between: Heard, state: State) -> None:
    for heard in (Heard.ILL, Heard.ILL, between, Heard.ILL):
        circuit.hear(1, heard, DOWN)
    assert circuit.state is state


def test_failures_that_lie_too_far_apart_do_not_open_it(circuit: Circuit, time: Time) -> None:
    for _ in range(10):
        circuit.hear(1, Heard.ILL, DOWN)
        time.now += 5
    assert (circuit.state, circuit.failures) == (State.CLOSED, 1)
    for _ in range(2):
        circuit.hear(1, Heard.ILL, DOWN)
    assert circuit.state is State.OPEN


def test_once_its_time_is_over_one_attempt_is_tried(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 59.9
    assert circuit.room(7) == 0
    time.now += 0.1
    assert (circuit.state, circuit.room(7), circuit.room(0)) == (State.HALF_OPEN, 1, 0)
    circuit.begin(70)
    assert (circuit.state, circuit.room(7)) == (State.HALF_OPEN, 0)


def test_it_closes_by_its_success_and_counts_anew(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 60
    circuit.begin(70)
    assert not circuit.hear(2, Heard.WELL), "one that began before it opened"
    assert circuit.room(7) == 0
    assert circuit.hear(70, Heard.WELL)
    assert (circuit.state, circuit.room(7), circuit.failures, circuit.error) == (State.CLOSED, 7, 0, "")
    assert not circuit.hear(71, Heard.ILL, DOWN)


def test_it_is_open_for_as_long_again_by_its_failure(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 70
    circuit.begin(70)
    assert circuit.hear(70, Heard.ILL, KeyError("k"))
    assert (circuit.state, circuit.error) == (State.OPEN, "KeyError: 'k'")
    time.now += 59
    assert circuit.room(7) == 0
    time.now += 1
    assert circuit.room(7) == 1


def test_another_one_is_tried_where_it_says_nothing(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 60
    circuit.begin(70)
    assert not circuit.hear(70, Heard.NOTHING)
    assert circuit.room(7) == 1


def test_another_one_is_tried_where_it_does_not_end(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 60
    circuit.begin(70)
    time.now += 59
    assert circuit.room(7) == 0
    time.now += 1
    assert (circuit.state, circuit.room(7)) == (State.HALF_OPEN, 1)
    circuit.begin(71)
    assert circuit.room(7) == 0
    assert circuit.hear(70, Heard.WELL), "it was let through, too"
    assert circuit.is_closed


def test_one_with_a_timeout_is_waited_for_until_that_is_over(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 60
    circuit.begin(70, timedelta(minutes=5))
    time.now += 299
    assert circuit.room(7) == 0
    time.now += 1
    assert circuit.room(7) == 1


def test_of_very_many_that_do_not_end_the_last_decide(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    for number in range(TRIALS_MAX + 1):
        time.now += 60
        circuit.begin(number)
    assert not circuit.hear(0, Heard.WELL)
    assert circuit.hear(1, Heard.WELL)


def test_what_fails_outside_opens_it_though_it_was_handed_over_well(circuit: Circuit) -> None:
    for number in range(PAYMENTS.failures):
        assert circuit.is_closed
        circuit.hear(number, Heard.HANDED_OVER)
        circuit.hear(number, Heard.ILL, DOWN, outside=True)
    assert circuit.state is State.OPEN


def test_what_was_opened_outside_is_closed_by_what_is_completed(circuit: Circuit, time: Time) -> None:
    for number in range(PAYMENTS.failures):
        circuit.hear(number, Heard.ILL, DOWN, outside=True)
    time.now += 60
    circuit.begin(70)
    assert not circuit.hear(70, Heard.HANDED_OVER)
    assert (circuit.state, circuit.room(7)) == (State.HALF_OPEN, 0)
    assert circuit.hear(70, Heard.ILL, DOWN, outside=True)
    assert circuit.state is State.OPEN
    time.now += 60
    circuit.begin(71)
    assert not circuit.hear(71, Heard.HANDED_OVER)
    assert circuit.hear(71, Heard.WELL, outside=True)
    assert circuit.is_closed


def test_handing_over_is_a_success_where_that_is_what_had_failed(circuit: Circuit, time: Time) -> None:
    for heard in (Heard.ILL, Heard.ILL, Heard.HANDED_OVER, Heard.ILL):
        circuit.hear(1, heard, DOWN)
    assert (circuit.state, circuit.failures) == (State.CLOSED, 1)
    opened(circuit)
    time.now += 60
    circuit.begin(70)
    assert circuit.hear(70, Heard.HANDED_OVER)
    assert circuit.is_closed


def test_what_ends_while_it_is_open_neither_opens_nor_closes_it(circuit: Circuit, time: Time) -> None:
    opened(circuit)
    time.now += 30
    assert not circuit.hear(8, Heard.ILL, DOWN)
    assert not circuit.hear(9, Heard.WELL)
    time.now += 30
    assert circuit.state is State.HALF_OPEN


@pytest.mark.parametrize(
    ("on", "unless", "error", "counts"),
    [
        (None, (), DOWN, True),
        (None, OSError, DOWN, False),
        (None, (), SystemExit(), True),
        (OSError, (), DOWN, True),
        (OSError, (), TimeoutError(), True),
        ((KeyError, OSError), (), KeyError(), True),
        (KeyError, (), DOWN, False),
        (OSError, OSError, DOWN, True),
    ],
)
def test_the_errors_that_count_can_be_chosen(
    on: Any, unless: Any, error: BaseException, counts: bool
) -> None:
    assert Breaker("any", on=on).counts(error, unless) == counts


def work(_context: Context, _call: Call) -> int:
    return 1


def steps_with(*breakers: Breaker | None) -> dict[tuple[int, str], Step[Any, Any]]:
    flow: Pipeline[Any] = Pipeline("any", Context)
    made = [flow.step(breaker=one, retry=Retry(), at_once=5)(work) for one in breakers]
    return {(1, f"step-{number}"): one for number, one in enumerate(made)}


def breakers_of(steps: dict[tuple[int, str], Step[Any, Any]], time: Time) -> Breakers:
    made = Breakers(time.clock)
    made.load(
        ("shop", name, step.bounds.breaker)
        for (_, name), step in steps.items()
        if step.bounds.breaker is not None
    )
    return made


def test_steps_that_share_one_wait_together_and_others_do_not(time: Time) -> None:
    steps = steps_with(PAYMENTS, PAYMENTS, None, Breaker("mail"))
    breakers = breakers_of(steps, time)
    rooms = Rooms(EngineLimits(), breakers)
    assert rooms.free(steps, NOTHING) == dict.fromkeys(steps, 5)
    circuit = breakers.of(PAYMENTS)
    assert circuit is not None
    opened(circuit)
    assert breakers.are_open() == {"payments": True, "mail": False}
    assert sorted(rooms.free(steps, NOTHING)) == [(1, "step-2"), (1, "step-3")]
    time.now += 60
    tried = []
    for _ in range(8):
        free = rooms.free(steps, NOTHING)
        tried += [(name, room) for (_, name), room in free.items() if name in ("step-0", "step-1")]
    assert len(tried) == 8, "one of them each time"
    assert set(tried) == {("step-0", 1), ("step-1", 1)}, "and each has its turn"
    circuit.begin(70)
    assert sorted(rooms.free(steps, NOTHING)) == [(1, "step-2"), (1, "step-3")]
    assert breakers.are_open() == {"payments": True, "mail": False}


def test_one_that_waits_takes_no_share_from_the_others(time: Time) -> None:
    steps = steps_with(PAYMENTS, None)
    breakers = breakers_of(steps, time)
    circuit = breakers.of(PAYMENTS)
    assert circuit is not None
    opened(circuit)
    rooms = Rooms(EngineLimits(steps_at_once_max=4), breakers)
    shares = [rooms.free(steps, NOTHING) for _ in range(2)]
    assert {(1, "step-1"): 4} in shares


def test_they_outlive_a_session_and_go_with_their_steps(time: Time) -> None:
    steps = steps_with(PAYMENTS)
    breakers = breakers_of(steps, time)
    circuit = breakers.of(PAYMENTS)
    assert circuit is not None
    opened(circuit)
    breakers.load([("shop", "charge", PAYMENTS)])
    assert breakers.of(PAYMENTS) is circuit
    assert circuit.steps == {("shop", "charge")}
    breakers.load([])
    assert breakers.of(PAYMENTS) is None
    assert (breakers.as_json(), breakers.are_open()) == (b"", {})


def test_who_says_something_else_of_one_is_told(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    breakers = Breakers(time.clock)
    breakers.load([("shop", "charge", PAYMENTS), ("mail", "send", Breaker("payments", failures=9))])
    assert "the step send of mail says of the breaker payments something else" in caplog.text
    circuit = breakers.of(PAYMENTS)
    assert circuit is not None
    assert circuit.breaker is PAYMENTS


def test_what_is_told_of_them(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            return "a\0b" * 100

    caplog.set_level(logging.INFO)
    breakers = breakers_of(steps_with(PAYMENTS), time)
    circuit = breakers.of(PAYMENTS)
    assert circuit is not None
    circuit.hear(1, Heard.ILL, DOWN)
    [closed] = orjson.loads(breakers.as_json())
    assert (closed["state"], closed["failures"], closed["failures_max"], closed["until"]) == (
        "closed",
        1,
        3,
        None,
    )
    for number in range(3):
        circuit.hear(number, Heard.ILL, OddError())
    [told] = orjson.loads(breakers.as_json())
    assert told["error"].startswith("OddError: a\\x00ba\\x00b")
    assert len(told["error"]) == 200
    since, until = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
    assert (since, until) == (time.clock(), time.clock() + timedelta(seconds=60))
    assert told["steps"] == [["shop", "step-0"]]
    time.now += 60
    circuit.begin(7)
    circuit.hear(7, Heard.WELL)
    assert "the breaker payments is open (OddError: " in caplog.text
    assert "for 1 min no attempt of its steps begins" in caplog.text
    assert "the breaker payments has closed" in caplog.text


def test_an_error_that_cannot_be_shown_opens_one_all_the_same(circuit: Circuit) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    for number in range(3):
        circuit.hear(number, Heard.ILL, SilentError())
    assert circuit.error == "SilentError: (its message cannot be shown)"
