"""Trying again: pauses that grow up to a limit, and a service that is away is spoken of once in a while."""

from __future__ import annotations

import asyncio
import logging

import pytest

from engine import backoff as module
from engine.backoff import Backoff
from engine.limits import EngineLimits
from engine.relay.limits import RelayLimits


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_service_that_is_away_is_spoken_of_once_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert EngineLimits().complain_seconds == RelayLimits().complain_seconds == 60
    backoff = Backoff(10, EngineLimits().complain_seconds)
    with caplog.at_level(logging.INFO, "pointsman.engine"):
        for second in range(150):
            clock.now = 1_000.0 + second
            backoff.failed(f"Kafka is away ({second})")
        assert caplog.messages == ["Kafka is away (0)", "Kafka is away (60)", "Kafka is away (120)"]
        backoff.succeeded()
        assert caplog.messages[3:] == ["back after 150 attempts"]
        backoff.succeeded()
        backoff.failed("away again")
        assert caplog.messages[4:] == ["away again"]


async def test_pauses_grow_up_to_a_limit_and_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    at_once = asyncio.timeout

    def timeout(seconds: float) -> asyncio.Timeout:
        waited.append(seconds)
        return at_once(0)

    monkeypatch.setattr("engine.backoff.asyncio.timeout", timeout)
    backoff, stop = Backoff(10, 60), asyncio.Event()
    for _ in range(200):
        backoff.failed("away")
        await backoff.wait(stop)
    assert waited[0] <= 0.1
    assert 5 < max(waited) <= 10
    assert len(set(waited)) > 100, "engines that lost one service together do not come back together"
    backoff.succeeded()
    backoff.failed("away again")
    await backoff.wait(stop)
    assert waited[-1] <= 0.1


def test_a_success_that_does_not_last_does_not_make_pauses_short_again(clock: Clock) -> None:
    backoff = Backoff(10, 60, lasting_seconds=10)

    def attempts(*lasted: float) -> int:
        for seconds in lasted:
            backoff.succeeded()
            clock.now += seconds
            backoff.succeeded()
            backoff.failed("away again")
        return backoff._attempts

    backoff.failed("away")
    assert attempts(1, 9, 0) == 4
    assert attempts(10) == 1
    assert attempts(3) == 2


def test_what_comes_and_goes_is_complained_of_once_in_a_while_and_counted_each_time(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    backoff = Backoff(10, 60, lasting_seconds=10)
    with caplog.at_level("INFO", "pointsman.engine"):
        for second in range(120):
            clock.now = 1_000.0 + second
            backoff.failed(f"away ({second})")
            backoff.succeeded()
    assert caplog.messages == ["away (0)", "back after 1 attempts", "away (60)", "back after 1 attempts"]


async def test_who_begins_anew_after_a_success_does_not_wait() -> None:
    backoff = Backoff(10, 60, lasting_seconds=10)
    backoff.failed("away")
    backoff.succeeded()
    async with asyncio.timeout(0):
        await backoff.wait(asyncio.Event())
