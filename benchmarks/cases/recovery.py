"""An engine that is killed while steps of very many runs go on, and one of the same name after it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import ledger
from benchmarks.cases.case import Bench, now
from benchmarks.contestants import ENGINE, Job, started
from benchmarks.events import phases
from benchmarks.processes import MeasuringError, begin, end, watch
from benchmarks.report import Figure, Section, shown
from benchmarks.servers import Servers

FIRST_COMMIT_GOAL = 2.0
ALL_AGAIN_GOAL = 60.0
ROOM = 1_000
"""The engine may do so many more at once than there are."""
SECONDS_MAX = 120.0
RUNS_PER_SECOND_MIN = 500
LOOK_SECONDS = 0.2
FIRST_COMMIT = """
select extract(epoch from min(at))::float8
from (select pg_xact_commit_timestamp(xmin) as at from pointsman.events) as commits
where extract(epoch from at) >= $1
"""
SHIPPED = "select count(*) from pointsman.runs where configuration = 'shipped' and status = 2"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one kill; in seconds from the start of the second engine."""

    first_commit: float
    all_again: float
    peak_bytes: int


async def recovery(bench: Bench) -> Section:
    """Killed when all steps go on; measured from the start of the next engine on."""
    count = bench.sizes.held_steps
    topic, _ = await bench.fill("held", phases(count, now(), range(count)))
    found = []
    for number in range(bench.sizes.rounds):
        one = await _kill_and_recover(bench.servers, topic, count)
        bench.tell(
            f"  round {number + 1}: first commit after {one.first_commit:.2f} s, all again after "
            f"{one.all_again:.1f} s, peak {one.peak_bytes / 1e6:.0f} MB"
        )
        found.append(one)
    return Section(
        "recovery",
        f"SIGKILL while the steps of {count:,} runs go on, and an engine of the same name started at once",
        ("round", "first commit s", "all again s", "peak MB"),
        [
            (
                str(number),
                f"{one.first_commit:.2f}",
                f"{one.all_again:.1f}",
                shown(one.peak_bytes / 1e6),
            )
            for number, one in enumerate(found, 1)
        ],
        [
            Figure(
                "first commit", median(one.first_commit for one in found), "at most", FIRST_COMMIT_GOAL, "s"
            ),
            Figure("all again", median(one.all_again for one in found), "at most", ALL_AGAIN_GOAL, "s"),
        ],
        ["Each step was begun twice, under one key, and ended once, by the ledger that it writes into."],
        {
            "runs": [
                {
                    "first_commit_seconds": round(one.first_commit, 3),
                    "all_again_seconds": round(one.all_again, 3),
                    "peak_resident_bytes": one.peak_bytes,
                }
                for one in found
            ]
        },
    )


async def _kill_and_recover(servers: Servers, topic: str, count: int) -> Recovered:
    database = await ENGINE.new_database(servers)
    written, gate = (servers.folder / f"{database}.{name}" for name in ("ledger", "gate"))
    job = Job(
        topic,
        "orders_held",
        until_idle=False,
        ledger=written,
        gate=gate,
        instance="held",
        steps_at_once=count + ROOM,
    )
    patience = SECONDS_MAX + count / RUNS_PER_SECOND_MIN
    try:
        async with started(ENGINE, servers, database, job) as processes:
            await begin(processes)
            await watch(processes, patience, lambda: ledger.count(written) >= count)
            for one in processes:
                one.close()
        since = time.time()
        async with started(ENGINE, servers, database, job) as processes:
            await begin(processes)
            await watch(processes, patience, lambda: ledger.count(written) >= 2 * count)
            all_again = time.time() - since
            gate.touch()
            await _until_shipped(servers, database, count, patience)
            peak = max(one.peak_bytes for one in processes)
            await end(processes)
        async with servers.connected(database) as connection:
            committed = await connection.fetchval(FIRST_COMMIT, since + servers.clock_ahead)
    finally:
        await servers.drop_database(database)
    check(written, count)
    return Recovered(committed - servers.clock_ahead - since, all_again, peak)


async def _until_shipped(servers: Servers, database: str, count: int, seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    async with servers.connected(database) as connection:
        while (shipped := await connection.fetchval(SHIPPED)) < count:
            if time.monotonic() > deadline:
                raise MeasuringError(f"{shipped} of {count} runs are shipped after {seconds_max:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)


def check(written: Path, count: int) -> None:
    """Raises MeasuringError where a step was done under two keys, or not begun twice and ended once."""
    lines = ledger.read(written)
    if twice := ledger.under_two_keys(lines):
        raise MeasuringError(f"{len(twice)} runs have done their step under two keys, {twice[0]} among them")
    calls = Counter((line.run, line.ends) for line in lines)
    expected = {
        (f"order-{order}", ends): 1 if ends else 2 for order in range(count) for ends in (False, True)
    }
    if calls != expected:
        different = [key for key in expected.keys() | calls.keys() if calls[key] != expected.get(key, 0)]
        run, ends = min(different)
        raise MeasuringError(
            f"the step of {run} {'ended' if ends else 'began'} {calls[run, ends]} times, and {len(different) - 1} more "
            "are not as they should be"
        )
