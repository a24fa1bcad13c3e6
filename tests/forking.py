"""Steps that fork: ``python -m tests.forking HOW`` has one attempt be made, and says how its child ended."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from typing import Any

from connectors.executor import Work
from engine.steps.executors import Executors
from statemachines import Call, Context, Pipeline
from tests.yard import Haul, Yard, YardExecutor


def fork() -> int:
    """The number of the child; 0 in the child."""
    sys.stdout.flush()
    return os.fork()


def ended(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def program(word: str, code: int) -> list[str]:
    return [sys.executable, "-c", f"print({word!r}); raise SystemExit({code})"]


async def returns(_order: Context, _call: Call) -> int:
    child = fork()
    return ended(child) if child else 0


async def waits(_order: Context, _call: Call) -> int:
    child = fork()
    if not child:
        await asyncio.sleep(0)
    return ended(child)


async def in_task(_order: Context, _call: Call) -> int:
    async def part() -> int:
        child = fork()
        return ended(child) if child else 0

    return await asyncio.create_task(part())


def in_thread(_order: Context, _call: Call) -> int:
    child = fork()
    return ended(child) if child else 0


def describes(_order: Context, _call: Call) -> Haul[int]:
    child = fork()
    if child:
        sys.stdout.write(f"child:{ended(child)} ")
    return Haul("a")


async def execs(_order: Context, _call: Call) -> int:
    child = fork()
    if not child:
        os.execv(sys.executable, program("exec", 3))
    return ended(child)


async def prepares(_order: Context, _call: Call) -> int:
    made = subprocess.Popen(program("prepared", 4), preexec_fn=os.getpid)  # noqa: ASYNC220, PLW1509 - as a step may
    return made.wait()


async def by_subprocess(_order: Context, _call: Call) -> int:
    return subprocess.Popen(program("subprocess", 5)).wait()  # noqa: ASYNC220 - as a step may


def say_and_end() -> None:
    sys.stdout.write("multiprocessing\n")
    sys.stdout.flush()
    sys.exit(6)


async def by_multiprocessing(_order: Context, _call: Call) -> int:
    child = multiprocessing.get_context("fork").Process(target=say_and_end)
    child.start()
    child.join()
    return child.exitcode or 0


FUNCTIONS: dict[str, Any] = {
    "returns": returns,
    "waits": waits,
    "in_task": in_task,
    "in_thread": in_thread,
    "describes": describes,
    "execs": execs,
    "prepares": prepares,
    "subprocess": by_subprocess,
    "multiprocessing": by_multiprocessing,
}


async def main(how: str) -> None:
    step: Any = Pipeline("any", Context).step()(FUNCTIONS[how])
    running = Executors({Haul: YardExecutor(Yard())}).start(
        Work(step, (Context(), Call("k", 1, "o1", "work")), "k", 1, number=1)
    )
    if how != "describes":
        await asyncio.wait({running.ended})
        sys.stdout.write(f"child:{running.ended.result().result} ")
    sys.stdout.write("engine\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
