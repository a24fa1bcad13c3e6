"""What steps do to the loop that they run in: how long they keep it, what tasks they leave, and that they fork."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.executor import Ended, Running, Work
from connectors.looping import BEAT, FORKED_CODE, NUMBER, SINCE
from engine.awaiting import Watch
from engine.steps.executors import ByClass, Executors
from statemachines import Call, Context, Pipeline
from tests.simulated import in_virtual_time
from tests.yard import Haul, Yard, YardExecutor

REPOSITORY = Path(__file__).parents[2]
SECONDS = 60.0
EXECUTION = 7


class Watched(Executors):
    """Executors whose loop is watched."""

    def __init__(self, described: ByClass | None = None) -> None:
        self.beat = [0] * BEAT
        super().__init__(described, self.beat)

    @property
    def seen(self) -> tuple[int, bool]:
        """The execution that the loop was busy with last, and whether it still is."""
        return self.beat[NUMBER], bool(self.beat[SINCE])

    def begin(self, function: Callable[[Any, Any], Any]) -> Running:
        step: Any = Pipeline("any", Context).step()(function)
        return self.start(Work(step, (Context(), Call("k", 1, "o1", "work")), "k", 1, number=EXECUTION))


async def end_of(running: Running) -> Ended:
    async with asyncio.timeout(SECONDS):
        await asyncio.wait({running.released})
    return running.ended.result()


async def lives(work: Callable[[], Awaitable[Any]]) -> Ended:
    """How an attempt ends that does this."""

    async def function(_order: Any, _call: Call) -> Any:
        return await work()

    return await end_of(Watched().begin(function))


async def test_which_step_keeps_the_loop_busy_is_seen_while_it_lasts() -> None:
    seen: list[tuple[int, bool]] = []
    times: set[int] = set()

    async def part() -> None:
        seen.append(known.seen)

    async def work(_order: Any, _call: Call) -> None:
        for _ in range(2):
            seen.append(known.seen)
            times.add(known.beat[SINCE])
            await asyncio.sleep(0)
        await asyncio.create_task(part())

    known = Watched()
    running = known.begin(work)
    assert known.seen == (0, False), "it has not begun yet"
    await asyncio.sleep(0)
    assert known.seen == (EXECUTION, False), "it waits"
    await end_of(running)
    assert seen == [(EXECUTION, True)] * 3
    assert len(times) == 2, "each stretch is another one"
    assert known.seen == (EXECUTION, False)


async def test_so_is_a_function_that_only_says_what_is_to_be_done_where_it_is_asked_again() -> None:
    seen: list[tuple[int, bool]] = []

    def says(_order: Any, _call: Call) -> Haul[int]:
        seen.append(known.seen)
        return Haul("a")

    known = Watched({Haul: YardExecutor(Yard())})
    step: Any = Pipeline("any", Context).step()(says)
    await end_of(known.attach(Work(step, (Context(), None), "k", 1, number=EXECUTION)))
    assert seen == [(EXECUTION, True)]
    assert known.seen == (EXECUTION, False)


def test_tasks_that_an_attempt_leaves_behind_are_named_once_and_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    async def deeper() -> None:
        await asyncio.sleep(60)
        done.append("deeper")

    async def leaks() -> None:
        asyncio.create_task(deeper(), name="below")  # noqa: RUF006 - on purpose
        await asyncio.sleep(60)

    async def work(_order: Any, _call: Call) -> int:
        asyncio.create_task(leaks(), name="leak")  # noqa: RUF006 - on purpose
        await asyncio.sleep(1)
        return 5

    async def live() -> float:
        began, known = asyncio.get_running_loop().time(), Watched()
        for _ in range(3):
            assert await end_of(known.begin(work)) == Ended(5)
        seconds = asyncio.get_running_loop().time() - began
        await asyncio.sleep(120)
        return seconds

    assert in_virtual_time(live) == pytest.approx(3, abs=0.01), "they are not waited for"
    assert done == ["deeper"] * 3
    [said] = caplog.messages
    assert said.startswith("an attempt at the step work is over, and 2 tasks that it has made go on (below: ")
    assert "deeper, leak: " in said


def test_what_is_made_in_a_context_of_its_own_outlives_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[asyncio.Task[None]] = []

    async def opens() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(3_600)))

    async def work() -> None:
        await asyncio.create_task(opens(), context=contextvars.Context())

    async def live() -> bool:
        await lives(work)
        await asyncio.sleep(1)
        [task] = kept
        return task.done()

    assert not in_virtual_time(live)
    assert caplog.messages == []


def test_a_client_that_an_attempt_has_used_first_looks_on_for_others() -> None:
    taken: set[int] = set()

    class Postgres:
        async def fetch(self, _sql: str, numbers: list[int]) -> list[dict[str, int]]:
            return [{"id": one} for one in numbers if one not in taken]

        async def close(self, **_how: Any) -> None: ...

        def terminate(self) -> None: ...

    async def opens() -> Any:
        return Postgres()

    async def live() -> bool:
        watch = Watch(opens)
        running = Watched().begin(asking(watch))
        await asyncio.sleep(0.1)
        other = asyncio.create_task(watch.command(2, SECONDS))
        await end_of(running)
        taken.add(2)
        found = await other
        await watch.close()
        return found

    def asking(watch: Watch) -> Callable[[Any, Any], Awaitable[None]]:
        async def asks(_order: Any, _call: Call) -> None:
            await watch.command(1, 1.0)

        return asks

    assert in_virtual_time(live)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt()])
async def test_what_a_task_of_a_step_raises_does_not_end_the_engine(raised: BaseException) -> None:
    async def raises() -> None:
        raise raised

    async def waits() -> None:
        await asyncio.gather(raises())

    async def leaves() -> int:
        task = asyncio.create_task(raises())
        await asyncio.wait({task})
        return 5 if isinstance(task.exception(), RuntimeError) else 0

    ended = await lives(waits)
    assert str(ended.error) == (
        f"a task of the step function raised {raised!r}, which ends the task and nothing else"
    )
    assert await lives(leaves) == Ended(5)


async def test_a_task_that_was_cancelled_before_it_began_is_nobodys_mistake() -> None:
    async def never() -> None:
        raise AssertionError("it does not begin")

    async def work() -> None:
        task = asyncio.create_task(never())
        task.cancel()
        await asyncio.wait({task})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await lives(work) == Ended()
        gc.collect()


@pytest.mark.parametrize(
    ("how", "code", "printed"),
    [
        pytest.param("returns", FORKED_CODE, [], id="it would go back into the loop"),
        pytest.param("waits", FORKED_CODE, [], id="the same, by waiting"),
        pytest.param("in_task", FORKED_CODE, [], id="in a task of the step"),
        pytest.param("in_thread", FORKED_CODE, [], id="in a thread"),
        pytest.param("describes", FORKED_CODE, [], id="where it only says what is to be done"),
        pytest.param("execs", 3, ["exec"], id="it becomes another program"),
        pytest.param("prepares", 4, ["prepared"], id="subprocess, with a function called before the program"),
        pytest.param("subprocess", 5, ["subprocess"], id="subprocess"),
        pytest.param("multiprocessing", 6, ["multiprocessing"], id="multiprocessing, by a fork"),
    ],
)
def test_what_a_step_forks_off_does_not_go_on_as_the_engine(how: str, code: int, printed: list[str]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.forking", how]
    ran = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert ran.returncode == 0, ran
    assert ran.stdout.split() == [*printed, f"child:{code}", "engine"], "the engine goes on, and nobody else"
    assert ("which a step has forked off, is ended" in ran.stderr) is (code == FORKED_CODE)
