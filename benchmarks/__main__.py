"""``python -m benchmarks [NAME ...] [--quick]``: run from the checkout; see README.md beside this file."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import ALONE, CASES
from benchmarks.cases.case import Alone, Bench
from benchmarks.contestants import has_port
from benchmarks.processes import MeasuringError
from benchmarks.report import Section, goals, table
from benchmarks.servers import GATHERING_MILLISECONDS, Servers, start_servers
from benchmarks.sizes import Sizes
from benchmarks.topics import NotConfirmedError
from engine.compiled import how_compiled
from engine.errors import PointsmanError

FAILED = 1
QUICK, SMOKE = 0.1, 0.0
ROUNDS = 3
SMOKED_AT_ONCE = 4
"""What is measured then means nothing anyway, and starting up is mostly waiting."""


def main() -> int:
    options = _options()
    rounds = options.rounds or (1 if options.quick or options.smoke else ROUNDS)
    scale = SMOKE if options.smoke else QUICK if options.quick else options.scale
    at_once = SMOKED_AT_ONCE if options.smoke else 1
    names = [name for name in CASES if name in options.names] or [*CASES]
    sizes = Sizes.scaled(scale, rounds)
    try:
        if ALONE.keys() >= set(names):
            document = asyncio.run(_run_alone(names, sizes, scale))
        else:
            with start_servers(0 if options.smoke else GATHERING_MILLISECONDS) as servers:
                document = asyncio.run(_run(servers, names, sizes, scale, at_once))
    except PointsmanError as error:
        print(error, file=sys.stderr)
        return FAILED
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if document["cases"].keys() == set(names) else FAILED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all without any")
    parser.add_argument("--scale", type=float, default=1.0, help="all sizes by this factor [default: 1]")
    parser.add_argument("--rounds", type=int, help=f"how often, by turns [default: {ROUNDS}]")
    parser.add_argument("--quick", action="store_true", help=f"a scale of {QUICK} and one round")
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes: does all of it still work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - CASES.keys()):
        parser.error(f"there is no case {unknown[0]}; there are {', '.join(CASES)}")
    return options


Measure = Callable[[], Awaitable[Section]]


async def _run_alone(names: list[str], sizes: Sizes, scale: float) -> dict[str, Any]:
    bench = Alone(sizes=sizes)
    cases: dict[str, Measure] = {name: partial(ALONE[name], bench) for name in names}
    return await _report(bench, cases, _about(sizes, scale), at_once=1)


async def _run(
    servers: Servers, names: list[str], sizes: Sizes, scale: float, at_once: int
) -> dict[str, Any]:
    await servers.prepare()
    try:
        bench = Bench(servers=servers, sizes=sizes)
        about = _about(sizes, scale) | await servers.describe()
        about["engine"] = f"as `pointsman run` starts it, metrics {'on' if has_port() else 'not there yet'}"
        cases: dict[str, Measure] = {name: partial(CASES[name], bench) for name in names}
        return await _report(bench, cases, about, at_once)
    finally:
        await servers.close()


async def _report(
    bench: Alone, cases: Mapping[str, Measure], about: dict[str, str], at_once: int
) -> dict[str, Any]:
    print("\n".join(["# Benchmarks", "", *table(("", ""), about.items()), ""]), flush=True)
    sections = await _measure(bench, cases, at_once)
    print(goals(sections.values()))
    return {"about": about, "cases": {name: one.as_json() for name, one in sections.items()}}


async def _measure(bench: Alone, cases: Mapping[str, Measure], at_once: int) -> dict[str, Section]:
    """The cases in their order, each told of when it is done; without those that could not be measured."""
    turns = asyncio.Semaphore(at_once)

    async def one(name: str, measure: Measure) -> Section | None:
        async with turns:
            bench.tell(name)
            try:
                return await measure()
            except (MeasuringError, NotConfirmedError) as error:
                print(f"{name} was not measured: {error}", file=sys.stderr, flush=True)
                return None

    tasks = {name: asyncio.create_task(one(name, measure)) for name, measure in cases.items()}
    sections: dict[str, Section] = {}
    try:
        for name, task in tasks.items():
            if (section := await task) is not None:
                sections[name] = section
                print(section.markdown(), flush=True)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    return sections


def _about(sizes: Sizes, scale: float) -> dict[str, str]:
    load = os.getloadavg()[0]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, load {load:.1f} before we began",
        "Python": platform.python_version(),
        "hot path": how_compiled() or "not compiled",
        "scale": f"{scale:g}, {sizes.rounds} round{'' if sizes.rounds == 1 else 's'}",
    }


if __name__ == "__main__":
    sys.exit(main())
