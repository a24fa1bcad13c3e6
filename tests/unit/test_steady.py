"""The clock of steps: it goes by what the store's clock has said, and by the seconds since."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from engine import steady
from engine.steady import Steady

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
Pass = Callable[[float], float]


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Lets seconds pass; returns what the time is then."""
    now = 100.0

    def pass_by(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    monkeypatch.setattr(steady, "time", SimpleNamespace(monotonic=lambda: now))
    return pass_by


def seconds(clock: Steady) -> float:
    return (clock() - AT).total_seconds()


def test_until_the_store_has_said_something_it_is_what_the_machine_said(passing: Pass) -> None:
    clock = Steady(lambda: AT)
    passing(5)
    assert seconds(clock) == 5


@pytest.mark.parametrize("wrong", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
def test_what_the_machine_said_is_worth_nothing_then(wrong: timedelta, passing: Pass) -> None:
    clock = Steady(lambda: AT + wrong)
    asked = passing(1)
    passing(0.25)
    clock.hear(AT, asked)
    assert 0 <= seconds(clock) <= 0.25
    before = seconds(clock)
    passing(2)
    assert seconds(clock) == before + 2


def test_an_answer_that_took_long_sets_nothing_wrong(passing: Pass) -> None:
    clock = Steady(lambda: AT)
    asked = passing(1)
    passing(60)
    clock.hear(AT + timedelta(seconds=2), asked)
    assert seconds(clock) == 61


def test_time_that_passed_while_the_machine_slept_is_made_up_for(passing: Pass) -> None:
    clock = Steady(lambda: AT)
    asked = passing(2)
    clock.hear(AT + timedelta(seconds=600), asked)
    assert seconds(clock) == 600
