"""What becomes of attempts whose executors raise, or answer what they should not, where they are asked about them."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from datetime import timedelta
from typing import Any

import orjson
import pytest

from connectors.executor import CancelledError, Ended, LostError, Over, Running, Work
from engine.limits import EngineLimits
from engine.steps import executors as executors_module
from engine.steps.attempts import Attempt
from engine.steps.executors import Executors
from engine.steps.guarded import Guarded, NoAttemptError
from engine.steps.steps import LOOK_AFTER_SECONDS
from statemachines import Call, Context, Described, Pipeline
from statemachines.machine import compile_pipeline
from statemachines.run import Status
from tests.feeding import event
from tests.simulated import Simulated, in_virtual_time
from tests.unit.test_executors import end_of, hauls, step_of, work_of
from tests.yard import TOPIC, CalledOff, Haul, Load, Ordered, Yard, YardExecutor, hauling

LIMITS = EngineLimits(step_cancel_seconds=1.0)


class Broken:
    """An attempt of an executor that raises wherever it is asked anything."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Any] = loop.create_future()
        self.released: asyncio.Future[Any] = loop.create_future()
        self.told_to_end = 0

    @property
    def can_stop(self) -> bool:
        raise OSError("the cluster is away")

    @property
    def stop_seconds(self) -> float:
        raise OSError("the cluster is away")

    @property
    def gone_on_seconds(self) -> float:
        raise OSError("the cluster is away")

    def cancel(self) -> None:
        self.told_to_end += 1
        raise OSError("the cluster is away")


class Gives(YardExecutor):
    """An executor that returns this of each attempt."""

    def __init__(self, given: Any, yard: Yard | None = None) -> None:
        super().__init__(yard or Yard())
        self._given = given

    def start(self, work: Work) -> Running:
        given: Running = self._given
        return given

    async def attach(self, work: Work) -> Running | None:
        await super().attach(work)
        given: Running = self._given
        return given


def test_what_cannot_be_told_to_end_is_told_of_in_time_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def seconds_until_told(*, stops: bool) -> tuple[float, Ended, Attempt]:
        loop = asyncio.get_running_loop()
        step = step_of(hauls, timeout=None if stops else timedelta(seconds=5))
        began = loop.time()
        attempt = Attempt(step, Executors({Haul: Gives(Broken())}).start(work_of(hauls)), LIMITS)
        if stops:
            attempt.stop()
        ended = await attempt.ended
        return round(loop.time() - began, 2), ended, attempt

    seconds, ended, attempt = in_virtual_time(lambda: seconds_until_told(stops=False))
    assert (seconds, ended.timed_out, str(ended.error)) == (6.0, True, "it was not done within 5 s")
    assert not attempt.released.done(), "it keeps its place"
    seconds, ended, _ = in_virtual_time(lambda: seconds_until_told(stops=True))
    assert (seconds, ended.lost) == (1.0, True)
    said = "an attempt at the step hauls cannot be told to end (Broken raised OSError: the cluster is away"
    assert said in caplog.text
    assert "an attempt at the step hauls does not say its stop_seconds (Broken raised OSError" in caplog.text


class Endless(Broken):
    """An attempt that says this of each of its times, and never ends."""

    can_stop = True
    stop_seconds = gone_on_seconds = 0.0

    def __init__(self, said: float) -> None:
        super().__init__()
        self.stop_seconds = self.gone_on_seconds = said

    def cancel(self) -> None:
        self.told_to_end += 1


@pytest.mark.parametrize("said", [math.inf, -math.inf, math.nan, -3600.0])
def test_a_time_that_is_none_counts_as_not_said(said: float, caplog: pytest.LogCaptureFixture) -> None:
    async def seconds_until_told() -> float:
        loop, step = asyncio.get_running_loop(), step_of(hauls, timeout=timedelta(seconds=5))
        began = loop.time()
        attempt = Attempt(step, Executors({Haul: Gives(Endless(said))}).start(work_of(hauls)), LIMITS)
        async with asyncio.timeout(1_000):
            assert (await attempt.ended).timed_out
        return round(loop.time() - began, 2)

    assert in_virtual_time(seconds_until_told) == 6.0
    wrong = f"does not say its gone_on_seconds (Endless raised ValueError: it says {said:g}, and 0 is taken"
    assert wrong in caplog.text


async def test_what_nobody_waits_for_any_more_and_cannot_be_told_so_is_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Broken()
    attempt = Attempt(step_of(hauls), Executors({Haul: Gives(broken)}).start(work_of(hauls)), LIMITS)
    caplog.clear()
    attempt.cancel()
    attempt.cancel()
    assert broken.told_to_end == 2
    [said] = caplog.messages
    assert "cannot be told to end" in said


def carting() -> Pipeline[Load]:
    """As hauling, and nothing is to be brought back."""
    flow = Pipeline("carting", Load, topics=[TOPIC])

    @flow.step()
    def cart(load: Load, call: Call) -> Haul[int]:
        return Haul(call.key)

    def begin(event: Ordered) -> Load:
        return Load()

    going = flow.state("carting", initial=True, run=cart)
    there, off = flow.state("carted", final=True), flow.state("called-off", final=True)
    flow.start(Ordered, begin)
    going.on(cart.done, to=there)
    flow.on(CalledOff, to=off)
    return flow


def test_an_engine_tells_it_again_every_second_until_that_does_not_raise() -> None:
    yard = Yard()
    world = Simulated(compile_pipeline(carting()), TOPIC, executors={Haul: YardExecutor(yard)})
    told: list[float] = []

    def check() -> None:
        if yard.jobs:
            told.append(world.seconds())
            if len(told) < 5:
                raise ConnectionError("the yard does not answer")

    yard.check = check
    world.source.append(event("haul.ordered", {"load": "l1"}, topic=TOPIC))
    world.source.append(event("haul.called_off", {"load": "l1"}, topic=TOPIC), after=3.0)
    world.live(lambda: bool(yard.jobs) and yard.job.ended is not None)
    assert yard.job.told_to_end == 1
    assert len(told) == 5
    assert all(later - sooner >= LOOK_AFTER_SECONDS for sooner, later in itertools.pairwise(told[1:]))


def test_what_a_run_leaves_while_no_engine_is_there_is_told_to_end_by_the_next_one() -> None:
    for seed in range(40):
        yard = Yard()
        draw = random.Random(seed)
        world = Simulated(
            compile_pipeline(carting()),
            TOPIC,
            instance="one",
            draw=draw,
            executors={Haul: YardExecutor(yard)},
        )
        world.source.append(event("haul.ordered", {"load": "l1"}, topic=TOPIC))
        world.source.append(event("haul.called_off", {"load": "l1"}, topic=TOPIC), after=1.0)
        world.crash_after(1.0)

        def is_over(yard: Yard = yard) -> bool:
            return bool(yard.jobs) and yard.job.ended is not None

        world.live(is_over)
        assert (world.deaths, yard.job.told_to_end, yard.looked_for) == (1, 1, ["cart/1"]), seed


async def test_what_was_told_to_end_is_not_told_again() -> None:
    yard = Yard()
    known = Executors({Haul: YardExecutor(yard)})
    running = known.start(work_of(hauls))
    yard.job.heeds = False
    running.cancel()
    running.cancel()
    assert yard.job.told_to_end == 1


@pytest.mark.parametrize("given", [None, 5, Context(), Running])
async def test_what_is_no_attempt_is_lost_and_not_tried_again(given: Any) -> None:
    ended = await end_of(Executors({Haul: Gives(given)}).start(work_of(hauls)))
    assert (type(ended.error), ended.lost, ended.final) == (NoAttemptError, True, True)
    assert "and no Running with the futures ended and released" in str(ended.error)


async def test_where_what_is_found_is_no_attempt_it_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executors_module, "ASK_AGAIN_SECONDS", 0.01)
    yard = Yard()
    known = Executors({Haul: Gives(5, yard)})
    running = known.attach(work_of(hauls))
    await yard.until(2)
    assert not running.ended.done()
    assert "cannot be looked for (Gives raised NoAttemptError" in caplog.text
    await known.close()


class Ends(BaseException):
    """What is no Exception, and not known to anybody."""


@pytest.mark.parametrize("raised", [asyncio.CancelledError, Ends, KeyboardInterrupt, SystemExit])
async def test_whatever_is_raised_where_it_is_looked_for_it_is_looked_for_again(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executors_module, "ASK_AGAIN_SECONDS", 0.01)
    yard = Yard()

    class Raises(YardExecutor):
        asked = 0

        async def attach(self, work: Work) -> Running | None:
            self.asked += 1
            if self.asked == 1:
                raise raised
            return await super().attach(work)

    known = Executors({Haul: Raises(yard)})
    known.start(work_of(hauls))
    running = known.attach(work_of(hauls))
    async with asyncio.timeout(10):
        await running.found
    assert f"cannot be looked for (Raises raised {raised.__name__}" in caplog.text
    await known.close()


async def test_all_hear_that_the_engine_ends_whatever_one_of_them_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raises(YardExecutor):
        async def close(self) -> None:
            raise asyncio.CancelledError

    class Other(Described[int]): ...

    last = YardExecutor(Yard())
    await Executors({Haul: Raises(Yard()), Other: last}).close()
    assert last.is_closed
    assert "Raises did not end in good order (it raised CancelledError" in caplog.text


def guarded_of(broken: Broken) -> Guarded:
    guarded = Guarded(step_of(hauls))
    guarded.take(broken)
    return guarded


async def test_who_says_what_became_of_it_in_another_way_does_not_know() -> None:
    one, two, three, four = (Broken() for _ in range(4))
    guarded = [guarded_of(broken) for broken in (one, two, three, four)]
    one.ended.set_exception(OSError("the cluster is away"))
    two.ended.set_result(7)
    four.ended.cancel()
    for broken in (one, two, three, four):
        broken.released.set_result(None)
    ended = [await end_of(running) for running in guarded[:3]]
    assert [(type(each.error), each.lost) for each in ended] == [
        (OSError, True),
        (LostError, True),
        (LostError, True),
    ]
    assert "says what became of it by something of the class int, and not by an Ended" in str(ended[1].error)
    assert "does not say what became of it" in str(ended[2].error)
    # One that was cancelled says no more than that.
    attempt = Attempt(step_of(hauls), guarded[3], LIMITS)
    assert isinstance((await attempt.ended).error, CancelledError)


@pytest.mark.parametrize("error", ["quota exceeded", 5, OSError, ()])
async def test_an_error_that_is_no_exception_does_not_say_what_became_of_it(error: Any) -> None:
    ended = await end_of(Executors({Haul: Gives(Over(Ended(error=error)))}).start(work_of(hauls)))
    assert (type(ended.error), ended.lost) == (LostError, True)
    kind = type(error).__name__
    said = f"says that it failed by something of the class {kind}, and not by an exception"
    assert said in str(ended.error)


class Refusing(YardExecutor):
    """An executor whose attempts fail with this; each is noted."""

    def __init__(self, error: Any) -> None:
        super().__init__(Yard())
        self._error = error
        self.started: list[int] = []

    def start(self, work: Work) -> Running:
        self.started.append(work.attempt)
        return Over(Ended(error=self._error))


def test_a_run_whose_attempts_fail_with_no_exception_goes_on_as_where_they_are_lost() -> None:
    refusing = Refusing("quota exceeded")
    world = Simulated(compile_pipeline(hauling()), TOPIC, executors={Haul: refusing})
    world.source.append(event("haul.ordered", {"load": "l1"}, topic=TOPIC))
    world.live(lambda: any(run.status == Status.COMPLETED for _, run in world.tables.runs.values()))
    assert refusing.started == [1, 2, 3]
    [(_, run)] = world.tables.runs.values()
    assert orjson.loads(run.context)["notes"] == [
        "LostError: its executor says that it failed by something of the class str, and not by an exception"
    ]


async def test_what_it_returned_is_told_also_where_all_is_over_at_once() -> None:
    broken = Broken()
    running = guarded_of(broken)
    broken.released.set_result(None)
    broken.ended.set_result(Ended(7))
    assert await end_of(running) == Ended(7)
