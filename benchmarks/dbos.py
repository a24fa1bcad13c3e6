"""DBOS as a contestant: the same saga, on a database of its own, in a Python that has it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ledger
from benchmarks.processes import MeasuringError
from benchmarks.servers import Servers

PROGRAM = Path(__file__).with_name("dbos_saga.py")
PYTHON = "BENCHMARK_DBOS_PYTHON"
MISSING = (
    "DBOS is not installed, so that it is not compared: pip install -e '.[benchmarks]', or name a Python that has it "
    f"with {PYTHON}."
)
RUNS_PER_SECOND_MIN = 5
SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of it."""

    runs: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.runs / self.seconds


def python_with_dbos(environ: Mapping[str, str] = os.environ) -> str | None:
    """The Python to run it with; None where it is not installed."""
    if named := environ.get(PYTHON):
        return named
    return sys.executable if importlib.util.find_spec("dbos") is not None else None


async def run_sagas(servers: Servers, python: str, runs: int) -> Ran:
    """So many sagas, and as many before them that do not count as go on at once. Raises MeasuringError."""
    database = await servers.new_database()
    written = servers.folder / f"{database}-dbos.ledger"
    words = ("--postgres", servers.postgres.dsn(database=database), "--ledger", str(written))
    process = await asyncio.create_subprocess_exec(
        *(python, "-P", str(PROGRAM), *words, "--count", str(runs)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX + 2 * runs / RUNS_PER_SECOND_MIN):
            said, complained = await process.communicate(b"go\n")
    except TimeoutError:
        raise MeasuringError(f"DBOS was not done with {runs} sagas in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await servers.drop_database(database)
    if process.returncode:
        raise MeasuringError(f"DBOS failed. The end of what it said:\n{complained.decode()[-2_000:]}")
    began, ended, shipped, undone = said.decode().splitlines()[-1].split()
    _check(ledger.read(written), runs, int(shipped), int(undone))
    return Ran(runs, float(ended) - float(began))


def _check(lines: list[ledger.Line], runs: int, shipped: int, undone: int) -> None:
    refused = sum(ledger.is_refused(f"order-{order}") for order in range(runs))
    if (shipped, undone) != (runs - refused, refused):
        raise MeasuringError(f"DBOS shipped {shipped} orders and undid {undone}, of {runs}")
    if wrong := ledger.wrong_sagas(lines, range(runs)):
        raise MeasuringError(f"DBOS: {wrong[0]}, and {len(wrong) - 1} more")
