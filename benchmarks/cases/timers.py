"""Timers that fall due beside other work, while many more wait for a time that is far away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import Any

from benchmarks.cases.case import Bench, now
from benchmarks.contestants import ENGINE, Job, started
from benchmarks.events import orders
from benchmarks.measuring import median_ratio
from benchmarks.preparing import start_reminders
from benchmarks.processes import MeasuringError, Process, begin, end, watch
from benchmarks.report import Figure, Section, shown
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from engine.homes import HOMES
from engine.log import Kind

TOGETHER_GOAL = 0.9
LATE_GOAL = 250
MEGABYTES_GOAL = 300
FAR_SECONDS = 30 * 86_400
FIRST_ORDERS = 200
"""Applied before the rest is put into the topic, so that the engine is at work, and late with no timer."""
COUNTED = 1 / 3
"""Of the time that the other work takes, at least; what is done while the topic is filled does not count else."""
START_SECONDS = 4.0
"""The engine is started so long before the first timer falls due."""
STARTING_SLACK = 3.0
"""Starting the runs whose timers fall due may take so many times as long for each as starting the others took."""
LONGER = 2.0
"""Timers fall due for so many times as long as the other work takes alone, ..."""
SETTLE_SECONDS = 5.0
"""So long it is waited at most until no timer is late."""
SLACK_SECONDS = 25.0
"""... and so much longer: the machine may be slow to start the engine and to fill the topic."""
POLL_SECONDS = 0.25
PATIENCE_SECONDS = 120.0
APPLIED = "select coalesce(sum(position), 0)::bigint from pointsman.positions where topic = $1"
LEFT = """
select exists (
    select from pointsman.runs
    where pipeline = (select id from pointsman.pipelines where name = 'reminder')
        and pointsman.home_of(key) = any ($1::smallint[]) and wake_at <= $2 and wake_at is not null and held = 0
)
"""
ALL_HOMES = list(range(HOMES))
NOT_LATE = timedelta(seconds=0.5)
LAST = """
select extract(epoch from max(pg_xact_commit_timestamp(xmin)))::float8 from pointsman.events
where definition = (
    select d.id from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline where p.name = 'order'
)
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


class LateError(MeasuringError):
    """It was not so in time."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one run, from when all other work was in the topic to its last commit."""

    seconds: float
    whole_seconds: float
    """From when filling the topic began."""
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
    reminders = await asyncio.to_thread(servers.topics.make, "reminders")
    template = await ENGINE.new_database(servers)
    found: dict[str, list[Measured]] = {"alone": [], "beside timers": []}
    try:
        far = time.time() + FAR_SECONDS
        began = time.monotonic()
        await start_reminders(servers, template, reminders, (far + n / 3_000 for n in range(waiting)))
        each = (time.monotonic() - began) / waiting * STARTING_SLACK
        async with servers.connected(template) as connection:
            await connection.execute("vacuum analyze")
        bench.tell(f"  {waiting:,} runs wait for their timers")
        for number in range(bench.sizes.rounds):
            alone = await _alone(bench)
            beside = await _beside(bench, reminders, template, alone, each)
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


async def _alone(bench: Bench) -> Measured:
    database = await ENGINE.new_database(bench.servers)
    try:
        return await _measure(bench, database, "", None)
    finally:
        await bench.servers.drop_database(database)


async def _beside(
    bench: Bench, reminders: str, template: str, alone: Measured, starting_seconds_each: float
) -> Measured:
    servers, per_second = bench.servers, bench.sizes.timers_per_second
    database = await servers.new_database(template)
    try:
        number = round(per_second * (LONGER * alone.whole_seconds + START_SECONDS + SLACK_SECONDS))
        first = time.time() + START_SECONDS + number * starting_seconds_each
        dues = (first + index / per_second for index in range(number))
        await start_reminders(servers, database, reminders, dues, bench.sizes.timers)
        await asyncio.sleep(max(0.0, first - START_SECONDS - time.time()))
        return await _measure(bench, database, reminders, first + number / per_second)
    finally:
        await servers.drop_database(database)


async def _measure(bench: Bench, database: str, reminders: str, timers_until: float | None) -> Measured:
    """Let the engine work until all events were applied, and all timers fired that fell due by then."""
    servers, timed = bench.servers, timers_until is not None
    topic, first = await bench.fill("timers", orders(FIRST_ORDERS, now()))
    job = Job(topic, until_idle=False, reminders=reminders)
    async with started(ENGINE, servers, database, job) as processes:
        await begin(processes)
        watching = asyncio.create_task(watch(processes, 4 * PATIENCE_SECONDS))
        until = partial(_until, servers, database, watching)
        try:
            await until(APPLIED, lambda: (topic,), first)
            if timed:
                # Where that is never so, the figures will tell.
                with contextlib.suppress(LateError):
                    late = partial(until, patience_seconds=SETTLE_SECONDS)
                    await late(LEFT, lambda: (ALL_HOMES, datetime.now(UTC) - NOT_LATE), False)
            filling = time.time()
            rest = orders(bench.sizes.orders, now(), first=FIRST_ORDERS)
            events = first + await asyncio.to_thread(servers.topics.fill, topic, rest)
            filled = time.time()
            await until(APPLIED, lambda: (topic,), events)
            async with servers.connected(database) as connection:
                last = await connection.fetchval(LAST)
            if timers_until is not None:
                if timers_until < last:
                    raise MeasuringError("the timers were all due before the other work was done")
                await until(LEFT, lambda: (ALL_HOMES, datetime.fromtimestamp(last, UTC)), False)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        await end(processes)
        since = min(filled + servers.clock_ahead, last - COUNTED * (last - servers.clock_ahead - filling))
        return await _read(servers, database, (filling, since, last), processes, timed=timed)


async def _read(
    servers: Servers,
    database: str,
    moments: tuple[float, float, float],
    processes: Sequence[Process],
    *,
    timed: bool,
) -> Measured:
    began, since, last = moments
    ahead, fired = servers.clock_ahead, int(Kind.FIRED)
    async with servers.connected(database) as connection:
        counts = await connection.fetchrow(WITHIN, since, last, fired)
        late = await connection.fetchrow(LATENESS, since, last, fired) if timed else None
    assert counts is not None
    if late is not None and not late["count"]:
        raise MeasuringError("no timer fell due while the other work was done")
    number = counts["moves"] + counts["fired"]
    cpu = sum(one.cpu_between(since - ahead, last - ahead) for one in processes)
    return Measured(
        last - since,
        last - ahead - began,
        counts["moves"],
        counts["fired"],
        cpu / number * 1e6,
        max(one.peak_bytes for one in processes),
        () if late is None else tuple((one - ahead) * 1_000 for one in late["found"]),
    )


async def _until(
    servers: Servers,
    database: str,
    watching: asyncio.Task[None],
    query: str,
    values: Callable[[], tuple[Any, ...]],
    wanted: object,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    deadline = time.monotonic() + patience_seconds
    async with servers.connected(database) as connection:
        while (found := await connection.fetchval(query, *values())) != wanted:
            if watching.done():
                watching.result()
                raise MeasuringError("the engine ended by itself")
            if time.monotonic() > deadline:
                raise LateError(f"after {patience_seconds:.0f} s {query!r} is {found}, and not {wanted}")
            await asyncio.sleep(POLL_SECONDS)


def _section(found: dict[str, list[Measured]], sizes: Sizes) -> Section:
    beside = found["beside timers"]
    together = median_ratio((one.per_second for one in beside), (one.per_second for one in found["alone"]))
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
