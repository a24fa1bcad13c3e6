"""Steps that take no time: runs that are started by an event, and then go through three of them."""

from __future__ import annotations

from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import ENGINE, Job
from benchmarks.events import orders, phases
from benchmarks.measuring import as_json, median_rate
from benchmarks.report import Figure, Section

GOAL = 0.6
STEPS = 3


async def steps(bench: Bench) -> Section:
    """W1a with as many orders beside it: here each is one event, and a row for the end of each of its steps."""
    count = bench.sizes.orders
    topic, events = await bench.fill("all-events", orders(count, now()))
    placed, _ = await bench.fill("placed", phases(count, now(), range(count)))
    found = await bench.alternate(
        {
            "events": bench.fresh(ENGINE, Job(topic), events),
            "steps": bench.fresh(ENGINE, Job(placed, "orders_steps"), count * (1 + STEPS)),
        }
    )
    ratio = median_rate(found["steps"]) / median_rate(found["events"])
    return Section(
        "steps",
        f"{count:,} orders of {STEPS} steps that take no time; W1a with as many orders beside it",
        HEADER,
        outcome_rows(found),
        [Figure("steps / events", ratio, "at least", GOAL)],
        [f"Steps / events: {ratio:.2f}. A transition is a row of the log; attempts are none."],
        {"runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()}},
    )
