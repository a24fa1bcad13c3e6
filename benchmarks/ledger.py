"""What the steps that are measured have done, as the world outside knows it: a file of lines, one for each call.

BENCHMARK_LEDGER names the file; without it nothing is written. A line is the step, the run's key, the idempotency key,
the time, and ``ends`` where a step that lasts is over. BENCHMARK_GATE names a file that lets steps end once it is
there; without it they take a moment.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from statemachines import Call

LEDGER = "BENCHMARK_LEDGER"
GATE = "BENCHMARK_GATE"
ENDS = "ends"
MOMENT_SECONDS = 0.02
GATE_LOOK_SECONDS = 0.2
REFUSED_ONE_IN = 10

_tasks: set[asyncio.Task[None]] = set()


def write(call: Call, *, ends: bool = False) -> None:
    """Note a call."""
    file = _file()
    if file is not None:
        end = f" {ENDS}" if ends else ""
        os.write(file, f"{call.step} {call.key} {call.idempotency_key} {time.time():.6f}{end}\n".encode())


def is_refused(key: str) -> bool:
    """Whether the carrier refuses this order."""
    return int(key.rpartition("-")[2]) % REFUSED_ONE_IN == 0


async def may_end() -> None:
    """Return once steps may end."""
    gate = os.environ.get(GATE)
    if gate is None:
        await asyncio.sleep(MOMENT_SECONDS)
    else:
        await _opened(gate).wait()


@functools.cache
def _file() -> int | None:
    path = os.environ.get(LEDGER)
    return None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


@functools.cache
def _opened(gate: str) -> asyncio.Event:
    """Set once the file is there; one looks for all."""
    opened = asyncio.Event()

    async def look() -> None:
        while not await asyncio.to_thread(Path(gate).exists):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(GATE_LOOK_SECONDS)
        opened.set()

    _tasks.add(asyncio.create_task(look()))
    return opened


@dataclass(frozen=True, slots=True)
class Line:
    """A call, or its end."""

    step: str
    run: str
    key: str
    ends: bool
    at: float = 0.0
    """Seconds since 1970."""


def read(path: Path) -> list[Line]:
    """All lines so far."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [_line(*line.split(" ")) for line in whole]


def _line(step: str, run: str, key: str, at: str, end: str = "") -> Line:
    return Line(step, run, key, end == ENDS, float(at))


def count(path: Path) -> int:
    """How many lines there are."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wrong_sagas(lines: Iterable[Line], orders: Iterable[int]) -> list[str]:
    """What is not as it must be, in sentences: each order has all three steps done once; refused ones are undone."""
    by_run: dict[str, list[str]] = defaultdict(list)
    keys: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        by_run[line.run].append(line.step)
        keys[line.run].add(line.key)
    wrong = []
    for order in orders:
        run = f"order-{order}"
        done = by_run.pop(run, [])
        expected = ["charge", "reserve", "ship", *(["release", "refund"] if is_refused(run) else [])]
        if done != expected:
            wrong.append(f"{run} has done {' '.join(done) or 'nothing'}, and not {' '.join(expected)}")
        elif len(keys[run]) != len(expected):
            wrong.append(f"{run} has done {len(expected)} steps under {len(keys[run])} keys")
    return wrong


def most_at_once(lines: Iterable[Line]) -> int:
    """How many calls went on at once at most."""
    going = most = 0
    for line in lines:
        going += -1 if line.ends else 1
        most = max(most, going)
    return most


def under_two_keys(lines: Iterable[Line]) -> list[str]:
    """Runs of which a step was done under more than one key."""
    counts = Counter((step, run) for step, run, _ in {(one.step, one.run, one.key) for one in lines})
    return sorted(run for (_, run), number in counts.items() if number > 1)
