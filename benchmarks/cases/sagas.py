"""W2: sagas of three steps that take no time, of which one in ten is refused at the third, and two steps are undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import dbos, ledger
from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import ENGINE, Job
from benchmarks.events import orders, phases
from benchmarks.measuring import Outcome, as_json, median_rate, ratio_of_rates, run_through
from benchmarks.processes import MeasuringError
from benchmarks.report import Figure, Section, shown

EVENTS_GOAL = 0.6
DBOS_GOAL = 40.0
ROWS_SHIPPED = 4
"""It was placed, and three steps were done."""
ROWS_UNDONE = 6
"""It was placed, two steps were done, one failed, and two were undone."""
ENDS = "select configuration, status, count(*) from pointsman.runs group by 1, 2"
COMPLETED = 2


def rows_of(orders: Iterable[int]) -> int:
    """How many transitions the sagas of these orders are."""
    return sum(ROWS_UNDONE if ledger.is_refused(f"order-{order}") else ROWS_SHIPPED for order in orders)


async def w2(bench: Bench) -> Section:
    """W1a with as many orders beside it, and the same saga on DBOS where that is installed."""
    count = bench.sizes.orders
    topic, events = await bench.fill("all-events", orders(count, now()))
    placed, _ = await bench.fill("placed", phases(count, now(), range(count)))
    rows = rows_of(range(count))
    found = await bench.alternate(
        {
            "events": bench.fresh(ENGINE, Job(topic), events),
            "sagas": lambda: _run_and_check(bench, Job(placed, "orders_saga"), count, rows),
        }
    )
    ratio = ratio_of_rates(found["sagas"], found["events"])
    runs_per_second = median_rate(found["sagas"]) * count / rows
    others = await _others(bench)
    figures = [Figure("saga / events, transitions", ratio, "at least", EVENTS_GOAL)]
    runs_a_second = f"{shown(runs_per_second)} runs a second"
    notes = [
        f"Sagas / events: {ratio:.2f}; {runs_a_second}. A transition is a row of the log; attempts are none."
    ]
    if others:
        theirs = median(one.per_second for one in others)
        figures.append(Figure("saga / DBOS, runs", runs_per_second / theirs, "at least", DBOS_GOAL))
        each = ", ".join(shown(one.per_second) for one in others)
        notes.append(
            f"DBOS makes {shown(theirs)} runs a second ({each}), of {others[0].runs:,} in each round; "
            f"ours / DBOS: {runs_per_second / theirs:.1f}."
        )
    else:
        notes.append(dbos.MISSING)
    return Section(
        "w2",
        f"{count:,} sagas of three steps that take no time, one in ten refused at the third; W1a beside them",
        HEADER,
        outcome_rows(found),
        figures,
        notes,
        {
            "runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()},
            "runs_per_second": round(runs_per_second, 1),
            "dbos_runs_per_second": [round(one.per_second, 1) for one in others],
        },
    )


async def _others(bench: Bench) -> list[dbos.Ran]:
    python = dbos.python_with_dbos()
    if python is None:
        return []
    found = []
    for number in range(bench.sizes.rounds):
        ran = await dbos.run_sagas(bench.servers, python, bench.sizes.dbos_runs)
        bench.tell(f"  round {number + 1}, DBOS: {ran.per_second:,.1f} runs/s")
        found.append(ran)
    return found


async def _run_and_check(bench: Bench, job: Job, count: int, rows: int) -> Outcome:
    """A run on a database of its own, after which each order must have ended as it should, also outside."""
    servers = bench.servers
    database = await ENGINE.new_database(servers)
    written = servers.folder / f"{database}.ledger"
    try:
        outcome = await run_through(ENGINE, servers, database, replace(job, ledger=written), rows)
        async with servers.connected(database) as connection:
            ends = {
                (row["configuration"], row["status"]): row["count"] for row in await connection.fetch(ENDS)
            }
    finally:
        await servers.drop_database(database)
    check(ends, written, count)
    return outcome


def check(ends: dict[tuple[str, int], int], written: Path, count: int) -> None:
    """Raises MeasuringError where a run did not end where it should, or the ledger has anything else."""
    expected = Counter(
        ("undone" if ledger.is_refused(f"order-{order}") else "shipped", COMPLETED) for order in range(count)
    )
    if ends != expected:
        raise MeasuringError(f"runs ended as {ends}, and not as {dict(expected)}")
    if wrong := ledger.wrong_sagas(ledger.read(written), range(count)):
        raise MeasuringError(f"the ledger says: {wrong[0]}, and {len(wrong) - 1} more such sentences")
