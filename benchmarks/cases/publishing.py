"""What it costs to publish an event in each transition, until its readers have it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from statistics import median

from benchmarks.cases.case import HEADER, Bench, now, outcome_rows
from benchmarks.contestants import ENGINE, Job
from benchmarks.events import orders
from benchmarks.measuring import Outcome, as_json, ratio_of_rates, run_through
from benchmarks.processes import MeasuringError
from benchmarks.report import Figure, Section
from benchmarks.servers import Servers

GOAL = 0.6
POLL_SECONDS = 0.05


async def publishing(bench: Bench) -> Section:
    topic, events = await bench.fill("publishing", orders(bench.sizes.orders, now()))
    without, publish = Job(topic), Job(topic, "orders_publishing")
    waits: list[float] = []

    async def publishing_run() -> Outcome:
        outcome, wait = await _run(bench.servers, publish, events)
        waits.append(wait)
        return outcome

    found = await bench.alternate(
        {"nothing": bench.fresh(ENGINE, without, events), "one event each": publishing_run}
    )
    ratio = ratio_of_rates(found["one event each"], found["nothing"])
    return Section(
        "publishing",
        "the engine on W1a, publishing nothing and one event in each transition",
        HEADER,
        outcome_rows(found),
        [Figure("publishing / not", ratio, "at least", GOAL)],
        [
            (
                f"Publishing / not: {ratio:.2f}. The last event could be read with read_committed "
                f"{median(waits):.2f} s after the last commit in Postgres, which is within the time that counts."
            )
        ],
        {
            "seconds_from_last_commit_to_readable": [round(one, 3) for one in waits],
            "runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()},
        },
    )


async def _run(servers: Servers, job: Job, expected: int) -> tuple[Outcome, float]:
    """A run whose end is when all that it published can be read; and how long that is after the last commit."""
    topic = await asyncio.to_thread(servers.topics.make, "publishing-out")
    job = replace(job, out=topic, namespace=topic)
    database = await ENGINE.new_database(servers)
    reading = asyncio.create_task(_record_ends(servers, topic))
    try:
        outcome = await run_through(ENGINE, servers, database, job, expected)
        await asyncio.sleep(2 * POLL_SECONDS)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        await servers.drop_database(database)
    ends = reading.result()
    readable = next(moment for moment, end in ends if end == ends[-1][1])
    ids = await asyncio.to_thread(servers.topics.committed_ids, topic)
    if len(ids) != expected or len(set(ids)) != expected:
        raise MeasuringError(
            f"{expected} events were to be published; {len(ids)} can be read, {len(set(ids))} different ones"
        )
    span = replace(outcome.span, last=max(readable, outcome.span.last))
    return replace(outcome, per_second=span.per_second, span=span), readable - outcome.span.last


async def _record_ends(servers: Servers, topic: str) -> list[tuple[float, int]]:
    """(time, how far can be read), until it is cancelled."""
    found: list[tuple[float, int]] = []
    try:
        while True:
            end = await asyncio.to_thread(servers.topics.readable_end, topic)
            found.append((time.time(), end))
            await asyncio.sleep(POLL_SECONDS)
    except asyncio.CancelledError:
        return found
