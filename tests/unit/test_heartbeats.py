"""Heartbeats of attempts: what may be said by them, and what becomes of an attempt that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.executor import Ended, Work
from connectors.functions import FunctionExecutor
from engine.limits import EngineLimits
from engine.steps.attempts import Attempt
from engine.steps.pulse import Pulse
from statemachines import Call, Context, Pipeline
from statemachines.call import read_progress
from statemachines.limits import PROGRESS_BYTES_MAX
from statemachines.step import Step
from tests.simulated import in_virtual_time

LIMITS = EngineLimits(step_cancel_seconds=1.0)
SECONDS = 60.0


def heard(progress: Any) -> Any:
    pulse = Pulse()
    Call("k", 1, "o1", "load", beat=pulse.beat).heartbeat(progress)
    return read_progress(pulse.progress)


class Page(BaseModel):
    number: int


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (7, 7),
        ("a\0b", "a\0b"),
        ([1, None], [1, None]),
        ({"page": 2**70}, {"page": 2**70}),
        (Page(number=3), {"number": 3}),
    ],
)
def test_progress_is_anything_that_json_has_words_for(said: Any, kept: Any) -> None:
    assert heard(said) == kept


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (object(), "what load says of its progress cannot be kept"),
        (float("nan"), "what load says of its progress cannot be kept"),
        ("\ud800", "what load says of its progress cannot be kept"),
        ("x" * PROGRESS_BYTES_MAX, f"takes {PROGRESS_BYTES_MAX + 2} bytes, of {PROGRESS_BYTES_MAX} allowed"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(said: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        heard(said)


def test_without_progress_what_was_said_last_stays() -> None:
    pulse = Pulse(b"5")
    call = Call("k", 1, "o1", "load", beat=pulse.beat)
    call.heartbeat()
    assert pulse.progress == b"5"
    call.heartbeat(0)
    assert pulse.progress == b"0"


def test_what_an_attempt_says_that_is_over_counts_for_nothing() -> None:
    pulse = Pulse(b"5")
    pulse.is_over = True
    Call("k", 1, "o1", "load", beat=pulse.beat).heartbeat(6)
    assert pulse.progress == b"5"


def test_a_unit_test_needs_nobody_to_hear_it() -> None:
    call = Call("k", 1, "o1", "load", progress=[1])
    call.heartbeat(5)
    assert call.progress == [1]
    assert call != Call("k", 1, "o1", "load")
    assert call == Call("k", 1, "o1", "load", progress=[1], beat=Pulse().beat)
    assert hash(call) == hash(Call("k", 1, "o1", "load", progress=[1]))


def step_of(function: Callable[[Context, Call], Any], **settings: Any) -> Step[Any, Any]:
    made: Step[Any, Any] = Pipeline("any", Context).step(**settings)(function)
    return made


async def attempt_of(
    function: Callable[[Call], Awaitable[Any]], left_seconds: float | None = None, **settings: Any
) -> tuple[Ended, float]:
    """What becomes of it, and after how many seconds."""

    async def work(_context: Context, call: Call) -> Any:
        return await function(call)

    step, pulse, began = step_of(work, **settings), Pulse(), asyncio.get_running_loop().time()
    arguments = Context(), Call("k", 1, "o1", "load", beat=pulse.beat)
    running = FunctionExecutor().start(Work(step, arguments, "k", 1))
    attempt = Attempt(step, running, LIMITS, pulse, left_seconds)
    return await attempt.ended, round(asyncio.get_running_loop().time() - began, 2)


def live(*given: Any, **settings: Any) -> tuple[Ended, float]:
    return in_virtual_time(lambda: attempt_of(*given, **settings))


async def beats(call: Call, *pauses: float) -> str:
    for pause in pauses:
        await asyncio.sleep(pause)
        call.heartbeat()
    return "done"


def test_an_attempt_that_is_silent_for_too_long_is_over_and_one_that_is_not_goes_on() -> None:
    heartbeat = timedelta(seconds=10)
    ended, seconds = live(lambda call: beats(call, 9, 9, 9, 9, 9), heartbeat=heartbeat)
    assert (ended.result, seconds) == ("done", 45)
    ended, seconds = live(lambda call: beats(call, 9, 11, 1), heartbeat=heartbeat)
    assert (ended.timed_out, ended.final, seconds) == (True, False, 19)
    assert str(ended.error) == ("nothing was heard of it for 10 s: it is to call call.heartbeat() more often")
    # Without a limit it may be silent.
    assert live(lambda call: beats(call, 1_000))[0].result == "done"


def test_a_heartbeat_gives_no_more_time_than_the_timeout_does() -> None:
    settings = {"heartbeat": timedelta(seconds=5), "timeout": timedelta(seconds=12)}
    ended, seconds = live(lambda call: beats(call, 4, 4, 4, 4), **settings)
    assert (str(ended.error), seconds) == ("it was not done within 12 s", 12)


def test_an_attempt_has_no_more_time_than_is_left_for_all_together() -> None:
    settings = {"within": timedelta(minutes=1), "timeout": timedelta(seconds=30)}
    ended, seconds = live(lambda call: beats(call, 60), 20.0, **settings)
    assert (str(ended.error), seconds) == ("all attempts together were not done within 1 min", 20)
    assert (ended.timed_out, ended.final) == (True, True)
    ended, seconds = live(lambda call: beats(call, 60), 40.0, **settings)
    assert (str(ended.error), seconds, ended.final) == ("it was not done within 30 s", 30, False)


def test_one_that_ends_in_time_wakes_nobody_later() -> None:
    async def both() -> tuple[Ended, float]:
        answer = await attempt_of(lambda call: beats(call, 1), heartbeat=timedelta(seconds=5))
        await asyncio.sleep(100)
        return answer

    assert in_virtual_time(both)[0].result == "done"


async def test_a_thread_is_heard_and_is_over_where_it_is_silent() -> None:
    pulse, begun, silent = Pulse(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(_context: Context, call: Call) -> None:
        call.heartbeat({"rows": 5})
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(silent.wait(), loop).result(SECONDS)

    step = step_of(work, heartbeat=timedelta(seconds=0.05))
    arguments = Context(), Call("k", 1, "o1", "load", beat=pulse.beat)
    attempt = Attempt(step, FunctionExecutor().start(Work(step, arguments, "k", 1)), LIMITS, pulse)
    await asyncio.wait_for(begun.wait(), SECONDS)
    ended = await asyncio.wait_for(attempt.ended, SECONDS)
    assert ended.timed_out
    assert pulse.progress == b'{"rows":5}'
    assert not attempt.released.done()
    silent.set()
    await asyncio.wait_for(attempt.released, SECONDS)
