"""Very many runs that wait for a step which may be done 100 times at once: they wait as rows, and not in memory.

Beside it, the same engine has as many runs, of which only 100 ask for the step, and the others for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from benchmarks import ledger
from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import ENGINE, Job
from benchmarks.events import Keyed, order_event
from benchmarks.measuring import Outcome, as_json, run_through
from benchmarks.processes import MeasuringError
from benchmarks.report import Figure, Section
from benchmarks.sizes import CACHE_RUNS_MIN, STEPS_AT_ONCE

PEAK_GOAL = 1.1
PLACED, CHARGED = 0, 1
"""What begins an order that asks for the step, and one that rests."""
ASKED = """
select r.key, e.at from pointsman.events e join pointsman.runs r on r.id = e.run
where e.sequence = 1 and e.type = 'order.placed'
"""


@dataclass(frozen=True, slots=True)
class Waited:
    """One run of the engine."""

    outcome: Outcome
    most_at_once: int


async def limited(bench: Bench) -> Section:
    """As many runs, of which as many ask for the step as may at once, and then all, by turns."""
    many, few = bench.sizes.limited_steps, STEPS_AT_ONCE
    found: dict[str, list[Waited]] = {}
    topics = {
        f"{asking:,}": (asking, (await bench.fill(f"limited-{asking}", _begun(many, asking, now())))[0])
        for asking in (few, many)
    }
    for _ in range(bench.sizes.rounds):
        for name, (asking, topic) in topics.items():
            found.setdefault(name, []).append(await _run_and_check(bench, topic, many, asking))
    few_peak, many_peak = (
        median(one.outcome.peak_bytes for one in found[name]) for name in (f"{few:,}", f"{many:,}")
    )
    most = max(one.most_at_once for one in found[f"{many:,}"])
    return Section(
        "limited",
        f"{many:,} runs that wait for a step of which {STEPS_AT_ONCE} go on at once",
        HEADER,
        outcome_rows({name: [one.outcome for one in waited] for name, waited in found.items()}),
        [
            Figure("peak with many / with few", many_peak / few_peak, "at most", PEAK_GOAL),
            Figure("most at once", most, "at most", STEPS_AT_ONCE),
        ],
        [f"At most {most} went on at once, and they began in the order in which they were asked for."],
        {
            "runs": {name: [as_json(one.outcome) for one in waited] for name, waited in found.items()},
            "most_at_once": most,
        },
    )


def _begun(count: int, asking: int, time: str) -> Iterator[Keyed]:
    """The beginnings of so many orders, the last ones of which ask for the step."""
    for order in range(count):
        yield order_event(order, PLACED if order >= count - asking else CHARGED, time)


async def _run_and_check(bench: Bench, topic: str, count: int, asking: int) -> Waited:
    servers = bench.servers
    database = await ENGINE.new_database(servers)
    written = servers.folder / f"{database}.ledger"
    job = replace(Job(topic, "orders_limited", cache=CACHE_RUNS_MIN), ledger=written)
    try:
        # Each was begun, and of those that asked for it the step was done.
        outcome = await run_through(ENGINE, servers, database, job, count + asking)
        async with servers.connected(database) as connection:
            asked = {row["key"]: row["at"].timestamp() for row in await connection.fetch(ASKED)}
    finally:
        await servers.drop_database(database)
    lines = ledger.read(written)
    check(lines, asked)
    most = ledger.most_at_once(lines)
    bench.tell(
        f"  {asking:,} of {count:,} runs ask: at most {most} at once, peak {outcome.peak_bytes / 1e6:.0f} MB"
    )
    return Waited(outcome, most)


def check(lines: list[ledger.Line], asked: dict[str, float]) -> None:
    """Raises MeasuringError where not each was done once, or one began before one that was asked for earlier."""
    begun = [line.run for line in lines if not line.ends]
    ended = [line.run for line in lines if line.ends]
    if not sorted(begun) == sorted(ended) == sorted(asked):
        raise MeasuringError(f"{len(begun)} steps began and {len(ended)} ended, of {len(asked)} runs")
    for before, after in pairwise(begun):
        if asked[before] > asked[after]:
            raise MeasuringError(
                f"the step of {before} began before that of {after}, which was asked for earlier"
            )
