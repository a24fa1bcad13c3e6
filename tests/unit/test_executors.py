"""Which executor does the work of a step, and what becomes of functions and executors that do not what they should."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from pydantic import BaseModel

from connectors.commands import CommandExecutor
from connectors.executor import CancelledError, Ended, LostError, Over, Running, Work
from connectors.functions import FunctionExecutor
from connectors.kafka.settings import KafkaSettings
from connectors.looping import BLOCKS_SECONDS
from engine.assembly import EngineSettings, assemble
from engine.cli.definitions import load_executors
from engine.errors import UsageError
from engine.limits import EngineLimits
from engine.steps.attempts import Attempt
from engine.steps.executors import Executors, check_executors, check_mapping
from statemachines import Call, Command, Context, Described, Pipeline
from statemachines.loading import LoadError
from statemachines.machine import compile_pipeline
from statemachines.results import ResultError
from statemachines.step import Step
from tests.simulated import in_virtual_time
from tests.yard import Haul, Yard, YardExecutor, hauling

LIMITS = EngineLimits(step_cancel_seconds=1.0)
SECONDS = 60.0
ARGUMENTS = Context(), Call("k", 1, "o1", "work")


class Further(Haul[int]):
    """A kind of it."""


class Strange(Described[int]):
    """Nobody knows what this is."""


def step_of(function: Callable[[Any, Any], Any], **settings: Any) -> Step[Any, Any]:
    made: Step[Any, Any] = Pipeline("any", Context).step(**settings)(function)
    return made


def work_of(function: Callable[[Any, Any], Any]) -> Work:
    return Work(step_of(function), ARGUMENTS, "k", 1)


async def end_of(running: Running) -> Ended:
    async with asyncio.timeout(SECONDS):
        await asyncio.wait({running.released})
    return running.ended.result()


def does(_order: Any, _call: Call) -> int:
    return 3


async def waits(_order: Any, _call: Call) -> int:
    return 4


def runs(_order: Any, _call: Call) -> Command[int]:
    return Command(["no-such-command"], result=int)


def hauls(_order: Any, _call: Call) -> Haul[int]:
    return Haul("a")


def hauls_further(_order: Any, _call: Call) -> Further:
    return Further("a")


def is_strange(_order: Any, _call: Call) -> Strange:
    return Strange()


async def test_who_does_the_work_is_said_by_what_the_function_returns() -> None:
    given = YardExecutor(Yard())
    known = Executors({Haul: given})
    assert isinstance(known.of(step_of(does)), FunctionExecutor)
    assert isinstance(known.of(step_of(waits)), FunctionExecutor)
    assert isinstance(known.of(step_of(runs)), CommandExecutor)
    assert known.of(step_of(hauls)) is given
    assert known.of(step_of(hauls_further)) is given, "one of the class above does it"
    assert known.of(step_of(is_strange)) is None
    assert Executors({Command: given}).of(step_of(runs)) is given
    assert await end_of(known.start(work_of(does))) == Ended(3)
    assert await end_of(known.start(work_of(waits))) == Ended(4)
    assert "'no-such-command' cannot be started" in str((await end_of(known.start(work_of(runs)))).error)


async def test_what_the_function_says_is_what_the_executor_is_given() -> None:
    yard = Yard()
    running = Executors({Haul: YardExecutor(yard)}).start(work_of(hauls))
    assert (yard.job.work.described, yard.job.work.name) == (Haul("a"), "k/1")
    yard.job.end(Ended(5))
    assert await end_of(running) == Ended(5)


@pytest.mark.parametrize("raised", [KeyError("x"), SystemExit(3), KeyboardInterrupt()])
async def test_a_function_that_raises_instead_of_saying_what_is_to_be_done_has_failed(
    raised: BaseException,
) -> None:
    def fails(_order: Any, _call: Call) -> Haul[int]:
        raise raised

    ended = await end_of(Executors({Haul: YardExecutor(Yard())}).start(work_of(fails)))
    assert ended == Ended(error=raised)


@pytest.mark.parametrize("returned", [None, 5, Command(["x"])])
async def test_a_function_that_says_something_else_has_failed_for_good(returned: Any) -> None:
    def says(_order: Any, _call: Call) -> Haul[int]:
        wrong: Haul[int] = returned
        return wrong

    yard = Yard()
    ended = await end_of(Executors({Haul: YardExecutor(yard)}).start(work_of(says)))
    assert (type(ended.error), ended.final) == (ResultError, True)
    assert f"says returned {returned!r}, and not what is to be done, as Haul says it" in str(ended.error)
    assert yard.jobs == {}


class Size(BaseModel):
    width: int


def without_result(path: Path) -> Command[Any]:
    return Command(["touch", str(path)])


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Command[Size], "comes to Size by its annotation. Say what its output is with result=Size"),
        (Command[int], "comes to int by its annotation. Say what its output is with result=int"),
        (
            Command[list[int]],
            "comes to list[int] by its annotation. Say what its output is with result=TypeAdapter(list[int])",
        ),
    ],
)
async def test_a_command_that_does_not_say_what_its_output_is_does_not_begin_in_vain(
    tmp_path: Path, annotation: Any, said: str
) -> None:
    def measures(_order: Any, _call: Call) -> Any:
        return without_result(tmp_path / "begun")

    measures.__annotations__["return"] = annotation
    ended = await end_of(Executors().start(work_of(measures)))
    assert (type(ended.error), ended.final, ended.lost) == (ResultError, True, False)
    assert said in str(ended.error)
    assert "measures returned a Command that does not say what its output is" in str(ended.error)
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("annotation", [Command[None], Command[Size | None], Command[Any]])
async def test_a_command_whose_step_may_come_to_nothing_need_not_say_what_its_output_is(
    tmp_path: Path, annotation: Any
) -> None:
    def measures(_order: Any, _call: Call) -> Any:
        return without_result(tmp_path / "begun")

    measures.__annotations__["return"] = annotation
    assert await end_of(Executors().start(work_of(measures))) == Ended(None)
    assert (tmp_path / "begun").exists()


async def test_a_function_that_takes_long_to_say_it_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def thinks(_order: Any, _call: Call) -> Haul[int]:
        time.sleep(BLOCKS_SECONDS)
        return Haul("a")

    Executors({Haul: YardExecutor(Yard())}).start(work_of(thinks))
    [said] = caplog.messages
    assert re.match(r"the step thinks of the run 'o1' kept the engine's loop busy for \d+\.\d seconds", said)
    assert "such a function only says what is to be done" in said
    caplog.clear()
    # As on a machine that is never so busy that a moment takes as long.
    with mock.patch("engine.steps.executors.time", SimpleNamespace(perf_counter=lambda: 0.0)):
        Executors({Haul: YardExecutor(Yard())}).start(work_of(hauls))
    assert caplog.messages == []


async def test_an_async_function_that_keeps_the_loop_busy_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def computes(_order: Any, _call: Call) -> int:
        time.sleep(BLOCKS_SECONDS)  # noqa: ASYNC251 - on purpose
        return 1

    assert await end_of(Executors().start(work_of(computes))) == Ended(1)
    [said] = caplog.messages
    assert "the step computes of the run 'o1' kept the engine's loop busy" in said
    assert "belongs into a plain function" in said


async def test_so_is_one_whose_task_does(caplog: pytest.LogCaptureFixture) -> None:
    async def computes() -> None:
        time.sleep(BLOCKS_SECONDS)  # noqa: ASYNC251 - on purpose

    async def gathers(_order: Any, _call: Call) -> None:
        await asyncio.gather(computes(), asyncio.sleep(0))

    assert await end_of(Executors().start(work_of(gathers))) == Ended()
    [said] = caplog.messages
    assert said.startswith("the step gathers of the run 'o1' kept the engine's loop busy for ")


async def test_what_a_decorator_makes_of_an_async_function_is_awaited_whatever_it_is() -> None:
    @functools.wraps(waits)
    def as_future(order: Any, call: Call) -> asyncio.Future[int]:
        return asyncio.ensure_future(waits(order, call))

    assert await end_of(Executors().start(work_of(as_future))) == Ended(4)


async def test_a_function_that_is_leaving_by_itself_is_cancelled_all_the_same() -> None:
    leaving = asyncio.Event()

    async def charges(_order: Any, _call: Call) -> None:
        async with asyncio.timeout(0):
            try:
                await asyncio.Event().wait()
            finally:
                leaving.set()
                await asyncio.Event().wait()

    running = Executors().start(work_of(charges))
    await asyncio.wait_for(leaving.wait(), SECONDS)
    running.cancel()
    assert isinstance((await end_of(running)).error, CancelledError)


async def test_an_executor_that_raises_is_how_the_attempt_ended() -> None:
    class Broken(YardExecutor):
        def start(self, work: Work) -> Running:
            raise RuntimeError("broken")

        async def close(self) -> None:
            raise RuntimeError("broken, too")

    known = Executors({Haul: Broken(Yard())})
    ended = await end_of(known.start(work_of(hauls)))
    assert (str(ended.error), ended.final) == ("broken", False)
    await known.close()


async def test_all_executors_hear_that_the_engine_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(YardExecutor):
        async def close(self) -> None:
            raise RuntimeError("broken")

    class Other(Described[int]): ...

    last = YardExecutor(Yard())
    await Executors({Haul: Broken(Yard()), Other: last}).close()
    assert last.is_closed
    [said] = caplog.messages
    assert said.startswith("Broken did not end in good order (it raised RuntimeError: broken")


async def test_what_is_looked_for_in_vain_is_lost() -> None:
    running = Executors({Haul: YardExecutor(Yard())}).attach(work_of(hauls))
    ended = await end_of(running)
    assert (type(ended.error), ended.lost) == (LostError, True)

    def fails(_order: Any, _call: Call) -> Haul[int]:
        raise KeyError("x")

    ended = await end_of(Executors({Haul: YardExecutor(Yard())}).attach(work_of(fails)))
    assert (type(ended.error), ended.lost) == (KeyError, True)


async def test_what_is_cancelled_before_it_was_found_is_cancelled_then() -> None:
    yard = Yard()
    known = Executors({Haul: YardExecutor(yard)})
    known.start(work_of(hauls))
    running = known.attach(work_of(hauls))
    running.cancel()
    assert (running.can_stop, yard.job.told_to_end) == (True, 0)
    assert isinstance((await end_of(running)).error, CancelledError)
    assert yard.job.told_to_end == 1


async def test_nothing_is_looked_for_once_the_engine_ends() -> None:
    yard = Yard(away=1_000)
    known = Executors({Haul: YardExecutor(yard)})
    running = known.attach(work_of(hauls))
    await yard.until(1)
    await known.close()
    await asyncio.wait({running.looking}, timeout=SECONDS)
    assert running.looking.cancelled()
    assert not running.ended.done()


def test_a_step_whose_work_nobody_does_is_refused_before_anything_begins() -> None:
    machine = compile_pipeline(hauling())
    check_executors([machine], Executors({Haul: YardExecutor(Yard())}))
    with pytest.raises(UsageError) as raised:
        check_executors([machine], Executors())
    said = str(raised.value)
    assert "nobody does the work of the step 'haul': it returns Haul, and no executor of that" in said
    assert "nobody does the work of the step 'bring_back'" in said
    assert "--executors MODULE:NAME" in said


async def test_an_engine_with_such_a_step_does_not_start() -> None:
    settings = EngineSettings("postgresql://nobody@nowhere/none", KafkaSettings("nowhere:9092"))
    with pytest.raises(UsageError, match="nobody does the work of the step 'haul'"):
        await assemble(settings, [compile_pipeline(hauling())])


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (5, "shop:X is 5, and no dict of executors by the class of described work"),
        ({int: None}, "shop:X has <class 'int'>, which is no class of described work"),
        ({Haul: YardExecutor}, "for Haul, which is a class, and no object of it"),
        ({Haul: SimpleNamespace(keeps=True, start=1)}, "for Haul, which has no attach, close, as"),
    ],
)
def test_what_is_named_has_to_be_executors(given: Any, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        check_mapping("shop:X", given)
    fine = {Haul: YardExecutor(Yard())}
    assert check_mapping("shop:X", fine) is fine


def test_executors_are_named_by_module_and_variable(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "works.py"
    file.write_text(
        "from tests.yard import Haul, Yard, YardExecutor\nALL = {Haul: YardExecutor(Yard())}\nX = 5\n"
    )
    loaded = load_executors(f"{file}:ALL")
    assert loaded is not None
    assert [*loaded] == [Haul]
    assert load_executors(None) is None
    with pytest.raises(UsageError, match=r"works\.py:X is 5"):
        load_executors(f"{file}:X")
    with pytest.raises(LoadError, match="names no variable: write MODULE:NAME"):
        load_executors(str(file))
    with pytest.raises(LoadError, match=r"There is no 'ALLE' in .*Did you mean 'ALL'"):
        load_executors(f"{file}:ALLE")


class Lingering(Over):
    """It has ended, and something of it goes on."""

    stop_seconds = 3.0

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended)
        self.released = asyncio.get_running_loop().create_future()
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_one_that_is_stopped_is_told_of_once_nothing_of_it_goes_on_or_its_time_is_over() -> None:
    async def seconds_until_told(released_after: float) -> tuple[float, Ended]:
        loop = asyncio.get_running_loop()
        running = Lingering(Ended())
        running.ended = loop.create_future()
        attempt = Attempt(step_of(hauls), running, LIMITS)
        attempt.stop()
        loop.call_later(0.5, running.ended.set_result, Ended(7))
        loop.call_later(released_after, running.released.set_result, None)
        began = loop.time()
        ended = await attempt.ended
        assert running.cancelled == 1
        return round(loop.time() - began, 2), ended

    assert in_virtual_time(lambda: seconds_until_told(2.0)) == (2.0, Ended(7))
    # The three seconds that it may take, and the engine's own.
    assert in_virtual_time(lambda: seconds_until_told(9.0)) == (4.0, Ended(7))


def test_one_that_has_ended_keeps_its_place_until_nothing_of_it_goes_on() -> None:
    async def live() -> None:
        running = Lingering(Ended(7))
        attempt = Attempt(step_of(hauls, timeout=timedelta(seconds=5)), running, LIMITS)
        assert await attempt.ended == Ended(7)
        await asyncio.sleep(100)
        assert not attempt.released.done()
        running.released.set_result(None)
        await asyncio.sleep(0)
        assert attempt.released.done()

    in_virtual_time(live)


class Heard:
    """Who is told of an attempt."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.released = 0
        self.attempt: Attempt | None = None

    def listen_to(self, running: Running) -> None:
        self.attempt = Attempt(step_of(hauls), running, LIMITS, on_end=self.hear, on_release=self.release)

    def hear(self, ended: Ended) -> None:
        self.ended.append(ended)

    def release(self) -> None:
        self.released += 1


def test_who_is_to_hear_of_an_attempt_hears_each_once_and_nothing_of_one_that_was_cancelled() -> None:
    async def live() -> tuple[Heard, Heard, Heard]:
        done, stopped, cancelled = Heard(), Heard(), Heard()
        done.listen_to(Over(Ended(7)))
        for one in (stopped, cancelled):
            one.listen_to(Lingering(Ended(8)))
            assert one.attempt is not None
        assert stopped.attempt is not None
        assert cancelled.attempt is not None
        cancelled.attempt.cancel()
        assert done.ended == [], "whoever asks for it is not told before that returns"
        await asyncio.sleep(0)
        stopped.attempt.stop()
        await asyncio.sleep(100)
        return done, stopped, cancelled

    done, stopped, cancelled = in_virtual_time(live)
    assert (done.ended, done.released) == ([Ended(7)], 1)
    assert (stopped.ended, stopped.released) == ([Ended(8)], 0)
    assert (cancelled.ended, cancelled.released) == ([], 0)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_attempt_that_is_over_is_not_left_to_the_garbage_collector(is_cancelled: bool) -> None:
    async def live() -> weakref.ref[Heard]:
        heard = Heard()
        heard.listen_to(Over(Ended(7)))
        assert heard.attempt is not None
        if is_cancelled:
            heard.attempt.cancel()
        await asyncio.sleep(1)
        assert heard.released == 1
        return weakref.ref(heard)

    gc.disable()
    try:
        assert in_virtual_time(live)() is None
    finally:
        gc.enable()
