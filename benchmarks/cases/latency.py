"""From the time when an event was to be sent to its commit, with events coming at a steady rate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.cases.case import Bench, now
from benchmarks.contestants import BASELINE, ENGINE, Contestant, Job, started
from benchmarks.events import PHASES, WAVE, order_steps, orders
from benchmarks.measuring import count_rows, median_ratio, run_fresh
from benchmarks.processes import MeasuringError, begin, end, watch
from benchmarks.report import Figure, Section
from benchmarks.servers import Servers

LOAD = 0.3
"""Of what the baseline can do."""
GOAL = 1.5
FIRST_ORDERS = 200
"""Moved before the clock starts, so that connections, groups and statements are there."""
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
LATENCIES = """
select percentile_cont(array[0.5, 0.99]) within group (order by latency) as found, count(*) as count from (
    select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 - $1
        - extract(epoch from (convert_from({payload}, 'UTF8')::json ->> 'time')::timestamptz)::float8 as latency,
        extract(epoch from (convert_from({payload}, 'UTF8')::json ->> 'time')::timestamptz) as due
    from {table}
) as rows where due >= $2
"""
FLUSHES = """
select coalesce(sum(fsyncs), 0)::float8 as number, coalesce(sum(fsync_time), 0)::float8 as milliseconds
from pg_stat_io where object = 'wal'
"""
HEADER = ("", "p50 ms", "p99 ms", "rounds (p50/p99)", "mean flush ms", "sender late p99 ms")


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one run, in milliseconds."""

    p50: float
    p99: float
    flush: float
    """What it took, on average, to bring the log to disk, which the time of a commit does not contain."""
    late: float


async def latency(bench: Bench) -> Section:
    capacity = bench.baseline_per_second or await capacity_of_baseline(bench)
    rate = capacity * LOAD
    found: dict[str, list[Latency]] = {"baseline": [], "engine": []}
    for contestant in (BASELINE, ENGINE):
        # Not counted: a new broker compiles what it does for each of them while it does that first.
        await run_at(bench, contestant, rate)
    for number in range(bench.sizes.rounds):
        for contestant in (BASELINE, ENGINE):
            one = await run_at(bench, contestant, rate)
            found[contestant.name].append(one)
            bench.tell(f"  round {number + 1}, {contestant.name}: p50 {one.p50:.1f} ms, p99 {one.p99:.1f} ms")
    p50 = {name: median(one.p50 for one in runs) for name, runs in found.items()}
    p99 = {name: median(one.p99 for one in runs) for name, runs in found.items()}
    ours, theirs = found["engine"], found["baseline"]
    ratio_p50 = median_ratio((one.p50 for one in ours), (one.p50 for one in theirs))
    ratio_p99 = median_ratio((one.p99 for one in ours), (one.p99 for one in theirs))
    rows = [
        (
            *(name, f"{p50[name]:.1f}", f"{p99[name]:.1f}"),
            ", ".join(f"{one.p50:.1f}/{one.p99:.1f}" for one in runs),
            f"{median(one.flush for one in runs):.2f}",
            f"{max(one.late for one in runs):.1f}",
        )
        for name, runs in found.items()
    ]
    return Section(
        "latency",
        f"{rate:,.0f} events/s, {LOAD:.0%} of the baseline's {capacity:,.0f}, for {bench.sizes.latency_seconds:.0f} s",
        HEADER,
        rows,
        [
            Figure("p50, engine / baseline", ratio_p50, "at most", GOAL),
            Figure("p99, engine / baseline", ratio_p99, "at most", GOAL),
        ],
        [f"Engine / baseline: p50 {ratio_p50:.2f}, p99 {ratio_p99:.2f}."],
        {
            "events_per_second": round(rate),
            "milliseconds": {
                name: [{"p50": one.p50, "p99": one.p99, "mean_flush": one.flush} for one in runs]
                for name, runs in found.items()
            },
        },
    )


async def capacity_of_baseline(bench: Bench) -> float:
    """Its transitions a second on W1a."""
    topic, events = await bench.fill("capacity", orders(bench.sizes.orders, now()))
    outcome = await run_fresh(BASELINE, bench.servers, Job(topic), events)
    bench.tell(f"  the baseline's throughput: {outcome.per_second:,.0f}/s")
    return outcome.per_second


async def run_at(bench: Bench, contestant: Contestant, rate: float) -> Latency:
    """So many events a second, on a new database."""
    servers, sizes = bench.servers, bench.sizes
    topic, first = await bench.fill("latency", orders(FIRST_ORDERS, now()))
    seconds = sizes.warm_up_seconds + sizes.latency_seconds
    steps = list(order_steps(max(1, round(rate * seconds / len(PHASES))), WAVE, first=FIRST_ORDERS))
    database = await contestant.new_database(servers)
    try:
        async with started(contestant, servers, database, Job(topic, until_idle=False)) as processes:
            await begin(processes)
            watching = asyncio.create_task(watch(processes, seconds + 2 * PATIENCE_SECONDS))
            try:
                await until_rows(servers, database, contestant, first, watching)
                flushes = await _flushes(servers)
                since = time.time() + sizes.warm_up_seconds
                sent, late = await asyncio.to_thread(servers.topics.feed, topic, steps, rate)
                await until_rows(servers, database, contestant, first + sent, watching)
                number, milliseconds = (b - a for a, b in zip(flushes, await _flushes(servers), strict=True))
            finally:
                watching.cancel()
                await asyncio.wait([watching])
            await end(processes)
        p50, p99 = await _percentiles(servers, database, contestant, since)
    finally:
        await servers.drop_database(database)
    late.sort()
    return Latency(p50, p99, milliseconds / max(1, number), late[len(late) * 99 // 100] * 1000)


async def until_rows(
    servers: Servers, database: str, contestant: Contestant, rows: int, watching: asyncio.Task[None]
) -> None:
    """Wait until its log has so many rows. Raises MeasuringError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := await count_rows(servers, database, contestant)) < rows and not watching.done():
        if time.monotonic() > deadline:
            raise MeasuringError(
                f"{contestant.name} applied {found} of {rows} events in {PATIENCE_SECONDS:.0f} s"
            )
        await asyncio.sleep(POLL_SECONDS)
    if watching.done():
        watching.result()
        raise MeasuringError(f"{contestant.name} ended by itself, with {found} of {rows} events applied")


async def _flushes(servers: Servers) -> tuple[float, float]:
    async with servers.connected("postgres") as connection:
        row = await connection.fetchrow(FLUSHES)
    assert row is not None
    return row["number"], row["milliseconds"]


async def _percentiles(
    servers: Servers, database: str, contestant: Contestant, since: float
) -> tuple[float, float]:
    log = contestant.log
    async with servers.connected(database) as connection:
        row = await connection.fetchrow(
            LATENCIES.format(table=log.table, payload=log.payload), servers.clock_ahead, since
        )
    assert row is not None
    if not row["count"]:
        raise MeasuringError(f"{contestant.name} applied nothing after the first seconds")
    p50, p99 = row["found"]
    return p50 * 1000, p99 * 1000
