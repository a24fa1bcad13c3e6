"""The engine's memory with many live runs, and what a backlog ten times as long changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import median

from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import BASELINE, ENGINE, Contestant, Job
from benchmarks.events import phases
from benchmarks.measuring import Outcome, as_json, ratio_of_rates, run_fresh, run_through
from benchmarks.report import Figure, Section

MEGABYTES_GOAL = 250
CHANGE_GOAL = 0.1
LONGER = 10


async def memory(bench: Bench) -> Section:
    """Start all runs on one database for each contestant; then let copies of it work off the backlogs."""
    servers, sizes = bench.servers, bench.sizes
    live, short, long = sizes.live_runs, sizes.backlog, sizes.backlog * LONGER
    topic, _ = await bench.fill("memory", phases(live, now(), range(live)))
    job = Job(topic, cache=sizes.live_cache)
    databases = {one.name: await one.new_database(servers) for one in (BASELINE, ENGINE)}
    found: dict[str, list[Outcome]] = {}
    try:
        for one in (BASELINE, ENGINE):
            outcome = await run_through(one, servers, databases[one.name], job, live)
            bench.tell(f"  {live:,} runs started by the {one.name}: peak {outcome.peak_bytes / 1e6:.0f} MB")
        for start, stop in ((0, short), (short, long)):
            more = phases(live, now(), range(live + start, live + stop))
            await asyncio.to_thread(servers.topics.fill, topic, more)
            found |= await bench.alternate(
                {
                    f"{one.name}, {stop:,}": _on_copy(bench, one, databases[one.name], job, stop)
                    for one in (BASELINE, ENGINE)
                }
            )
    finally:
        for name in databases.values():
            await servers.drop_database(name)
    return _section(found, live, sizes.live_cache, short, long)


def _on_copy(
    bench: Bench, contestant: Contestant, database: str, job: Job, expected: int
) -> Callable[[], Awaitable[Outcome]]:
    return lambda: run_fresh(contestant, bench.servers, job, expected, template=database)


def _section(found: dict[str, list[Outcome]], live: int, cache: int, short: int, long: int) -> Section:
    peak = {
        length: median(one.peak_bytes for one in found[f"engine, {length:,}"]) for length in (short, long)
    }
    ratio = {
        length: ratio_of_rates(found[f"engine, {length:,}"], found[f"baseline, {length:,}"])
        for length in (short, long)
    }
    largest = max(one.peak_bytes for name in found if name.startswith("engine") for one in found[name])
    return Section(
        "memory",
        f"{live:,} live runs, a cache of {cache:,} for both; {short:,} events waiting, then {long:,}",
        HEADER,
        outcome_rows(found),
        [
            Figure("engine's peak", largest / 1e6, "at most", MEGABYTES_GOAL, "MB"),
            Figure(
                "change of its peak, tenfold backlog",
                abs(peak[long] / peak[short] - 1),
                "at most",
                CHANGE_GOAL,
            ),
            Figure(
                "change of engine / baseline", abs(ratio[long] / ratio[short] - 1), "at most", CHANGE_GOAL
            ),
        ],
        [
            (
                f"Engine / baseline: {ratio[short]:.2f}, tenfold {ratio[long]:.2f}. The engine's peak: "
                f"{peak[short] / 1e6:.0f} MB, tenfold {peak[long] / 1e6:.0f} MB (VmHWM of its process)."
            )
        ],
        {"runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()}},
    )
