"""Timers that fall due beside other work, while many more wait for a time that is far away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.cases.case import Bench, now
from benchmarks.contestants import ENGINE, Job, started
from benchmarks.events import orders
from benchmarks.preparing import start_reminders
from benchmarks.processes import MeasuringError, Process, begin, end, watch
from benchmarks.report import Figure, Section, shown
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from engine.log import Kind

TOGETHER_GOAL = 0.9
LATE_GOAL = 250
MEGABYTES_GOAL = 300
FAR_SECONDS = 30 * 86_400
WARM_UP_SECONDS = 1.0
"""From the first commit of the other work, or a third of it all where that is less: not measured."""
START_SECONDS = 3.0
"""The engine is started so long before the first timer falls due."""
STARTING_SECONDS_EACH = 300e-6
"""Enough to start a run whose timer will fall due."""
LONGER = 2.0
"""Timers fall due for so many times as long as the other work takes alone, ..."""
SLACK_SECONDS = 8.0
"""... and so much longer: the machine may be slow to start the engine."""
POLL_SECONDS = 0.25
PATIENCE_SECONDS = 120.0
APPLIED = "select coalesce(sum(position), 0)::bigint from pointsman.positions where topic = $1"
LEFT = """
select exists (
    select from pointsman.runs where pointsman.home_of(key) = any ($1::smallint[]) and wake_at <= $2 and held = 0
        and wake_at is not null
)
"""
SPAN = """
select extract(epoch from min(at))::float8 as first, extract(epoch from max(at))::float8 as last from (
    select distinct pg_xact_commit_timestamp(xmin) as at from pointsman.events
    where definition = (
        select d.id from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline where p.name = 'order'
    )
) as commits
"""
WITHIN = """
select count(*) filter (where kind <> $3) as moves, count(*) filter (where kind = $3) as fired from (
    select kind, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at from pointsman.events
) as rows where at > $1 and at <= $2
"""
LATENESS = """
select percentile_cont(array[0.5, 0.99, 1]) within group (order by at - due) as found, count(*) as count from (
    select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at,
        extract(epoch from (convert_from(payload, 'UTF8')::json ->> 'time')::timestamptz)::float8 as due
    from pointsman.events where kind = $3
) as fired where due > $1 and due <= $2
"""
HEADER = (
    *("", "transitions/s, median", "rounds", "of that timers/s", "CPU us each", "peak MB"),
    *("late p50 ms", "p99 ms", "most ms"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one run, between the end of its warm-up and the last commit of the other work."""

    seconds: float
    whole_seconds: float
    """The warm-up, too."""
    moves: int
    fired: int
    cpu_microseconds: float
    peak_bytes: int
    late: tuple[float, ...]
    """p50, p99 and the most, in milliseconds; empty without timers."""

    @property
    def per_second(self) -> float:
        return (self.moves + self.fired) / self.seconds


async def timers(bench: Bench) -> Section:
    """The other work alone, on an empty database; then beside timers, on one where many wait."""
    servers, waiting = bench.servers, bench.sizes.timers
    topic, events = await bench.fill("timers", orders(bench.sizes.orders, now()))
    reminders = await asyncio.to_thread(servers.topics.make, "reminders")
    template = await ENGINE.new_database(servers)
    found: dict[str, list[Measured]] = {"alone": [], "beside timers": []}
    try:
        far = time.time() + FAR_SECONDS
        await start_reminders(servers, template, reminders, (far + n / 3_000 for n in range(waiting)))
        async with servers.connected(template) as connection:
            await connection.execute("vacuum analyze")
        bench.tell(f"  {waiting:,} runs wait for their timers")
        job = Job(topic, until_idle=False)
        for number in range(bench.sizes.rounds):
            alone = await _alone(servers, job, events)
            beside = await _beside(bench, replace(job, reminders=reminders), events, template, alone)
            for name, one in zip(found, (alone, beside), strict=True):
                found[name].append(one)
                late = f", p99 {one.late[1]:.0f} ms late" if one.late else ""
                bench.tell(
                    f"  round {number + 1}, {name}: {one.per_second:,.0f}/s{late}, "
                    f"{one.cpu_microseconds:.1f} us of CPU each, peak {one.peak_bytes / 1e6:.0f} MB"
                )
    finally:
        await servers.drop_database(template)
    return _section(found, bench.sizes)


async def _alone(servers: Servers, job: Job, events: int) -> Measured:
    database = await ENGINE.new_database(servers)
    try:
        return await _measure(servers, database, job, events, None)
    finally:
        await servers.drop_database(database)


async def _beside(bench: Bench, job: Job, events: int, template: str, alone: Measured) -> Measured:
    servers, per_second = bench.servers, bench.sizes.timers_per_second
    database = await servers.new_database(template)
    try:
        number = round(per_second * (LONGER * alone.whole_seconds + START_SECONDS + SLACK_SECONDS))
        first = time.time() + START_SECONDS + number * STARTING_SECONDS_EACH
        dues = (first + index / per_second for index in range(number))
        await start_reminders(servers, database, job.reminders, dues, bench.sizes.timers)
        await asyncio.sleep(max(0.0, first - START_SECONDS - time.time()))
        return await _measure(servers, database, job, events, first + number / per_second)
    finally:
        await servers.drop_database(database)


async def _measure(
    servers: Servers, database: str, job: Job, events: int, timers_until: float | None
) -> Measured:
    """Let the engine work until all events were applied, and all timers fired that fell due by then."""
    async with started(ENGINE, servers, database, job) as processes:
        await begin(processes)
        watching = asyncio.create_task(watch(processes, 2 * PATIENCE_SECONDS + events / 500))
        try:
            await _until(servers, database, watching, APPLIED, (job.topic,), events)
            async with servers.connected(database) as connection:
                span = await connection.fetchrow(SPAN)
            assert span is not None
            if timers_until is not None:
                if timers_until < span["last"]:
                    raise MeasuringError("the timers were all due before the other work was done")
                due = await _time(servers, database, span["last"])
                await _until(servers, database, watching, LEFT, (list(range(16)), due), False)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        await end(processes)
        return await _read(
            servers, database, span["first"], span["last"], processes, timers_until is not None
        )


async def _read(
    servers: Servers, database: str, first: float, last: float, processes: Sequence[Process], timed: bool
) -> Measured:
    since, fired = first + min(WARM_UP_SECONDS, (last - first) / 3), int(Kind.FIRED)
    async with servers.connected(database) as connection:
        counts = await connection.fetchrow(WITHIN, since, last, fired)
        late = await connection.fetchrow(LATENESS, since, last, fired) if timed else None
    assert counts is not None
    if late is not None and not late["count"]:
        raise MeasuringError("no timer fell due while the other work was done")
    ahead = servers.clock_ahead
    cpu = sum(one.cpu_between(since - ahead, last - ahead) for one in processes)
    return Measured(
        last - since,
        last - first,
        counts["moves"],
        counts["fired"],
        cpu / (counts["moves"] + counts["fired"]) * 1e6,
        max(one.peak_bytes for one in processes),
        () if late is None else tuple((one - ahead) * 1_000 for one in late["found"]),
    )


async def _until(
    servers: Servers,
    database: str,
    watching: asyncio.Task[None],
    query: str,
    values: tuple[Any, ...],
    wanted: Any,
) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with servers.connected(database) as connection:
        while (found := await connection.fetchval(query, *values)) != wanted:
            if watching.done():
                watching.result()
                raise MeasuringError("the engine ended by itself")
            if time.monotonic() > deadline:
                raise MeasuringError(f"after {PATIENCE_SECONDS:.0f} s {query!r} is {found}, and not {wanted}")
            await asyncio.sleep(POLL_SECONDS)


async def _time(servers: Servers, database: str, seconds: float) -> Any:
    async with servers.connected(database) as connection:
        return await connection.fetchval("select to_timestamp($1::float8)", seconds)


def _section(found: dict[str, list[Measured]], sizes: Sizes) -> Section:
    rates = {name: median(one.per_second for one in runs) for name, runs in found.items()}
    beside = found["beside timers"]
    together = rates["beside timers"] / rates["alone"]
    late = median(one.late[1] for one in beside)
    peak = max(one.peak_bytes for one in beside) / 1e6
    return Section(
        "timers",
        f"{sizes.timers:,} timers wait, {sizes.timers_per_second:,} a second fall due beside {sizes.orders:,} orders",
        HEADER,
        [_row(name, runs) for name, runs in found.items()],
        [
            Figure("with timers / alone", together, "at least", TOGETHER_GOAL),
            Figure("p99 of lateness", late, "at most", LATE_GOAL, "ms"),
            Figure("engine's peak", peak, "at most", MEGABYTES_GOAL, "MB"),
        ],
        [f"Transitions and timers together / transitions alone: {together:.2f}."],
        {
            "runs": {
                name: [
                    {
                        "transitions_per_second": round(one.per_second),
                        "timers_per_second": round(one.fired / one.seconds),
                        "cpu_microseconds_per_transition": round(one.cpu_microseconds, 2),
                        "peak_resident_bytes": one.peak_bytes,
                        "late_milliseconds": [round(each, 1) for each in one.late],
                    }
                    for one in runs
                ]
                for name, runs in found.items()
            }
        },
    )


def _row(name: str, runs: Sequence[Measured]) -> tuple[str, ...]:
    late = [median(each) for each in zip(*(one.late for one in runs), strict=True)]
    return (
        name,
        shown(median(one.per_second for one in runs)),
        ", ".join(shown(one.per_second) for one in runs),
        shown(median(one.fired / one.seconds for one in runs)),
        f"{median(one.cpu_microseconds for one in runs):.1f}",
        f"{max(one.peak_bytes for one in runs) / 1e6:.0f}",
        *([f"{one:.0f}" for one in late] or ["", "", ""]),
    )
