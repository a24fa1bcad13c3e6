"""From the time when an event was to be sent to the first line of the step that it asks for, at a steady rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from benchmarks import ledger
from benchmarks.cases.case import Bench, now
from benchmarks.cases.latency import (
    FIRST_ORDERS,
    LOAD,
    PATIENCE_SECONDS,
    Latency,
    capacity_of_baseline,
    run_at,
    until_rows,
)
from benchmarks.cases.sagas import rows_of
from benchmarks.contestants import BASELINE, ENGINE, Job, started
from benchmarks.events import phases
from benchmarks.measuring import median_ratio, run_fresh
from benchmarks.processes import MeasuringError, begin, end, watch
from benchmarks.report import Figure, Section

P50_GOAL, P99_GOAL = 1.5, 2.0
DUE = """
select r.key, extract(epoch from (convert_from(e.payload, 'UTF8')::json ->> 'time')::timestamptz)::float8 as due
from pointsman.events e join pointsman.runs r on r.id = e.run where e.sequence = 1
"""
HEADER = ("", "p50 ms", "p99 ms", "rounds (p50/p99)", "sender late p99 ms")


@dataclass(frozen=True, slots=True)
class Begun:
    """Of one run, in milliseconds."""

    p50: float
    p99: float
    late: float


async def begun(bench: Bench) -> Section:
    """Sagas at 30 % of what the engine makes of them; beside them the baseline, at 30 % of its own throughput."""
    capacity = bench.baseline_per_second or await capacity_of_baseline(bench)
    sagas = await _capacity(bench)
    theirs: list[Latency] = []
    ours: list[Begun] = []
    for number in range(bench.sizes.rounds):
        theirs.append(await run_at(bench, BASELINE, capacity * LOAD))
        ours.append(await _run(bench, sagas * LOAD))
        bench.tell(
            f"  round {number + 1}: the baseline's commits p50 {theirs[-1].p50:.1f} ms, p99 {theirs[-1].p99:.1f} ms; "
            f"the engine's steps p50 {ours[-1].p50:.1f} ms, p99 {ours[-1].p99:.1f} ms"
        )
    found: dict[str, Sequence[Begun | Latency]] = {
        "baseline, to the commit": theirs,
        "engine, to the step": ours,
    }
    p50 = median_ratio((one.p50 for one in ours), (one.p50 for one in theirs))
    p99 = median_ratio((one.p99 for one in ours), (one.p99 for one in theirs))
    return Section(
        "begun",
        f"{sagas * LOAD:,.0f} sagas/s, {LOAD:.0%} of the engine's {sagas:,.0f}, for "
        f"{bench.sizes.latency_seconds:.0f} s: from sending to the first line of the first step",
        HEADER,
        [
            (
                name,
                f"{median(one.p50 for one in runs):.1f}",
                f"{median(one.p99 for one in runs):.1f}",
                ", ".join(f"{one.p50:.1f}/{one.p99:.1f}" for one in runs),
                f"{max(one.late for one in runs):.1f}",
            )
            for name, runs in found.items()
        ],
        [
            Figure("p50, to the step / to the baseline's commit", p50, "at most", P50_GOAL),
            Figure("p99, to the step / to the baseline's commit", p99, "at most", P99_GOAL),
        ],
        [f"The baseline's rate is {capacity * LOAD:,.0f} events/s, {LOAD:.0%} of its {capacity:,.0f}."],
        {
            "sagas_per_second": round(sagas * LOAD, 1),
            "milliseconds": {
                name: [{"p50": one.p50, "p99": one.p99} for one in runs] for name, runs in found.items()
            },
        },
    )


async def _capacity(bench: Bench) -> float:
    """How many sagas the engine makes in a second of those that wait."""
    count = bench.sizes.orders
    topic, _ = await bench.fill("sagas-capacity", phases(count, now(), range(count)))
    outcome = await run_fresh(ENGINE, bench.servers, Job(topic, "orders_saga"), rows_of(range(count)))
    per_second = outcome.per_second * count / rows_of(range(count))
    bench.tell(f"  the engine makes {per_second:,.0f} sagas a second")
    return per_second


async def _run(bench: Bench, rate: float) -> Begun:
    servers, sizes = bench.servers, bench.sizes
    topic, first = await bench.fill("begun", phases(FIRST_ORDERS, now(), range(FIRST_ORDERS)))
    seconds = sizes.warm_up_seconds + sizes.latency_seconds
    orders = range(first, first + max(1, round(rate * seconds)))
    database = await ENGINE.new_database(servers)
    written = servers.folder / f"{database}.ledger"
    job = replace(Job(topic, "orders_saga", until_idle=False), ledger=written)
    try:
        async with started(ENGINE, servers, database, job) as processes:
            await begin(processes)
            watching = asyncio.create_task(watch(processes, seconds + 2 * PATIENCE_SECONDS))
            try:
                await until_rows(servers, database, ENGINE, rows_of(range(first)), watching)
                since = time.time() + sizes.warm_up_seconds
                steps = [(order, 0) for order in orders]
                sent, late = await asyncio.to_thread(servers.topics.feed, topic, steps, rate)
                await until_rows(servers, database, ENGINE, rows_of(range(first + sent)), watching)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
            await end(processes)
        async with servers.connected(database) as connection:
            due = {row["key"]: row["due"] for row in await connection.fetch(DUE)}
    finally:
        await servers.drop_database(database)
    p50, p99 = latencies(ledger.read(written), due, since)
    late.sort()
    return Begun(p50, p99, late[len(late) * 99 // 100] * 1000)


def latencies(lines: list[ledger.Line], due: Mapping[str, float], since: float) -> tuple[float, float]:
    """p50 and p99 in milliseconds, of the first steps of runs whose events were due since then.

    Raises MeasuringError where one of them did not begin, or there are too few.
    """
    begun_at = {line.run: line.at for line in reversed(lines) if line.step == "charge"}
    if missing := due.keys() - begun_at.keys():
        raise MeasuringError(f"the step of {min(missing)} never began, and {len(missing) - 1} others did not")
    found = [begun_at[run] - at for run, at in due.items() if at >= since]
    if len(found) < 2:
        raise MeasuringError(f"{len(found)} steps began after the first seconds: take a larger --scale")
    hundredths = quantiles(found, n=100, method="inclusive")
    return hundredths[49] * 1000, hundredths[98] * 1000
