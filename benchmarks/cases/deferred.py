"""Events that come before their runs: deferred, and taken when the runs start."""

from __future__ import annotations

from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import ENGINE, Job
from benchmarks.events import orders, phases
from benchmarks.measuring import as_json, ratio_of_rates
from benchmarks.report import Figure, Section
from engine.log import Kind

GOAL = 0.5


async def deferred(bench: Bench) -> Section:
    """W1a with as many orders; and the second event of each order before the first of any."""
    count = bench.sizes.deferred
    topic, events = await bench.fill("in-order", orders(count, now()))
    second, first = phases(count, now(), range(count, 2 * count)), phases(count, now(), range(count))
    early, _ = await bench.fill("early", [*second, *first])
    found = await bench.alternate(
        {
            "in order": bench.fresh(ENGINE, Job(topic), events),
            "early": bench.fresh(
                ENGINE,
                Job(early, "orders_early"),
                2 * count,
                f"kind in ({int(Kind.STARTED)}, {int(Kind.MOVED_DEFERRED)})",
            ),
        }
    )
    ratio = ratio_of_rates(found["early"], found["in order"])
    return Section(
        "deferred",
        f"{count:,} events that come before their runs, and then these start; W1a with as many orders beside it",
        HEADER,
        outcome_rows(found),
        [Figure("early / in order", ratio, "at least", GOAL)],
        [
            (
                f"Early / in order: {ratio:.2f}. The rows that say that an event was deferred do not count as "
                "transitions; the time that they took does."
            )
        ],
        {"runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()}},
    )
