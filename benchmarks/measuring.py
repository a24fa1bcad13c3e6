"""What a run comes to: read from Postgres, which notes the time of each commit, for engine and baseline alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.contestants import Contestant, Job, started
from benchmarks.processes import MeasuringError, begin, watch
from benchmarks.servers import Servers

COMMITS = """
select extract(epoch from at)::float8 as at, count from (
    select pg_xact_commit_timestamp(xmin) as at, count(*) filter (where {counted}) as count from {table} group by xmin
) as commits where extract(epoch from at) >= $1 order by at
"""
SECONDS_MAX = 120.0
EVENTS_PER_SECOND_MIN = 500
"""Slower than that, something is wrong, and a run is given up."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the first commit to the last, by our clock; the first one's rows came before it, so they do not count."""

    first: float
    last: float
    commits: int
    rows: int
    counted: int

    @property
    def per_second(self) -> float:
        return self.counted / (self.last - self.first)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one contestant."""

    per_second: float
    cpu_microseconds: float
    """Of its own processes, for each transition."""
    peak_bytes: int
    """Of the largest of its processes."""
    span: Span
    cpu_by_process: tuple[float, ...]


async def span_of(
    servers: Servers, database: str, contestant: Contestant, since: float, counted: str = "true"
) -> Span:
    """The commits since a time of ours, and their rows of which ``counted`` is true.

    Raises MeasuringError where there is only one.
    """
    async with servers.connected(database) as connection:
        commits = COMMITS.format(table=contestant.log.table, counted=counted)
        found = await connection.fetch(commits, since + servers.clock_ahead)
    if len(found) < 2:
        raise MeasuringError(
            f"{contestant.name} made {len(found)} commits, which is no span of time: take a larger --scale"
        )
    rows = sum(row["count"] for row in found)
    ahead = servers.clock_ahead
    return Span(found[0]["at"] - ahead, found[-1]["at"] - ahead, len(found), rows, rows - found[0]["count"])


async def run_through(
    contestant: Contestant,
    servers: Servers,
    database: str,
    job: Job,
    expected: int,
    counted: str = "true",
) -> Outcome:
    """Let a contestant work off what waits in the topic. Rows of its log of which ``counted`` is true are transitions.

    Raises:
        MeasuringError: it did not make as many transitions as expected.
        ProcessError: it failed.
    """
    since = time.time()
    async with started(contestant, servers, database, job) as processes:
        await begin(processes)
        await watch(processes, SECONDS_MAX + expected / EVENTS_PER_SECOND_MIN)
        span = await span_of(servers, database, contestant, since, counted)
        cpu = tuple(one.cpu_between(span.first, span.last) for one in processes)
        peak = max(one.peak_bytes for one in processes)
    if span.rows != expected:
        raise MeasuringError(f"{contestant.name} made {span.rows} transitions, and not {expected}")
    return Outcome(span.per_second, sum(cpu) / span.counted * 1e6, peak, span, cpu)


async def run_fresh(
    contestant: Contestant,
    servers: Servers,
    job: Job,
    expected: int,
    template: str | None = None,
    counted: str = "true",
) -> Outcome:
    """The same on a database of its own, empty or a copy, which is dropped afterwards."""
    database = await (
        contestant.new_database(servers) if template is None else servers.new_database(template)
    )
    try:
        return await run_through(contestant, servers, database, job, expected, counted)
    finally:
        await servers.drop_database(database)


async def count_rows(servers: Servers, database: str, contestant: Contestant) -> int:
    async with servers.connected(database) as connection:
        return int(await connection.fetchval(f"select count(*) from {contestant.log.table}"))


def median_rate(outcomes: Sequence[Outcome]) -> float:
    return median(one.per_second for one in outcomes)


def median_ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median of the ratios of neighbours: how fast the machine is differs more from one round to the next."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def ratio_of_rates(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> float:
    """The same of how many transitions a second they make."""
    return median_ratio((one.per_second for one in ours), (one.per_second for one in theirs))


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "transitions_per_second": round(outcome.per_second),
        "cpu_microseconds_per_transition": round(outcome.cpu_microseconds, 2),
        "peak_resident_bytes": outcome.peak_bytes,
        "transitions": outcome.span.rows,
        "commits": outcome.span.commits,
        "seconds": round(outcome.span.last - outcome.span.first, 3),
        "cpu_seconds_by_process": [round(one, 2) for one in outcome.cpu_by_process],
    }
