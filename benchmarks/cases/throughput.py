"""Transitions a second, of events that wait, from the first commit to the last; and bytes a transition."""

from __future__ import annotations

from statistics import mean

from benchmarks.cases.case import HEADER, Bench, Runs, now, outcome_rows
from benchmarks.contestants import BASELINE, ENGINE, Job
from benchmarks.events import PHASES, ledgers, orders
from benchmarks.measuring import Outcome, as_json, median_rate, ratio_of_rates, run_through
from benchmarks.report import Figure, Section

RATIO_GOAL = 0.6
TWO_PROCESSES_GOAL = 1.5
CHART_GOAL = 0.6
BYTES_GOAL = 560
SIZES = """
select regexp_replace(coalesce(owner.relname, c.relname), '_[0-9]{6}', '') as relation, c.relkind::text as kind,
    sum(pg_relation_size(c.oid) + pg_relation_size(c.oid, 'fsm') + pg_relation_size(c.oid, 'vm'))::bigint as bytes
from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_class owner on owner.reltoastrelid = c.oid
where n.nspname in ('pointsman', 'pg_toast') and c.relkind in ('r', 'i', 't')
    and coalesce(owner.relnamespace, c.relnamespace) = 'pointsman'::regnamespace
group by 1, 2 order by bytes desc
"""
KINDS = {"r": "table", "i": "index", "t": "TOAST"}
SHOWN_FROM_BYTES = 1.0


async def w1a(bench: Bench) -> Section:
    count = bench.sizes.orders
    topic, events = await bench.fill("w1a", orders(count, now()))
    job = Job(topic)
    runs = {
        BASELINE.name: bench.fresh(BASELINE, job, events),
        ENGINE.name: lambda: _run_and_weigh(bench, job, events),
    }
    section = await _compare(bench, "w1a", f"{count:,} orders, phase by phase", runs, RATIO_GOAL)
    bench.baseline_per_second = section.detail["medians"]["baseline"]
    return section


async def w1b(bench: Bench) -> Section:
    count, cache = bench.sizes.open_orders, bench.sizes.open_orders_cache
    topic, events = await bench.fill("w1b", orders(count, now()))
    title = f"{count:,} open orders, a cache of {cache:,} for both"
    return await _compare(bench, "w1b", title, _both(bench, Job(topic, cache=cache), events), RATIO_GOAL)


async def w1c(bench: Bench) -> Section:
    count, length = bench.sizes.ledgers, bench.sizes.ledger_events
    made, expected = ledgers(count, length, now())
    topic, _ = await bench.fill("w1c", made)
    title = f"{count} runs of {length:,} events each, {len(made) - expected:,} more of them doubled"
    return await _compare(bench, "w1c", title, _both(bench, Job(topic, "ledgers"), expected), None)


async def chart(bench: Bench) -> Section:
    topic, events = await bench.fill("chart", orders(bench.sizes.orders, now()))
    found = await bench.alternate(
        {
            "flat": bench.fresh(ENGINE, Job(topic), events),
            "chart": bench.fresh(ENGINE, Job(topic, "orders_chart"), events),
        }
    )
    ratio = ratio_of_rates(found["chart"], found["flat"])
    return Section(
        "chart",
        "the engine on W1a, with a flat pipeline and with one that has two regions in a state",
        HEADER,
        outcome_rows(found),
        [Figure("chart / flat", ratio, "at least", CHART_GOAL)],
        [f"Chart / flat: {ratio:.2f}."],
        {"runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()}},
    )


async def two(bench: Bench) -> Section:
    topic, events = await bench.fill("two", orders(bench.sizes.orders, now()))
    found = await bench.alternate(
        {
            f"{contestant.name}, {processes}": bench.fresh(
                contestant, Job(topic, processes=processes), events
            )
            for processes in (1, 2)
            for contestant in (BASELINE, ENGINE)
        }
    )

    def ratio(one: str, other: str) -> float:
        return ratio_of_rates(found[one], found[other])

    gain = ratio("engine, 2", "engine, 1")
    return Section(
        "two",
        "one and two processes on W1a",
        HEADER,
        outcome_rows(found),
        [Figure("two engines / one", gain, "at least", TWO_PROCESSES_GOAL)],
        [
            (
                f"Two of one: engine {gain:.2f}, baseline {ratio('baseline, 2', 'baseline, 1'):.2f}. "
                f"Engine of baseline: {ratio('engine, 1', 'baseline, 1'):.2f} with one process, "
                f"{ratio('engine, 2', 'baseline, 2'):.2f} with two."
            )
        ],
        {"runs": {name: [as_json(one) for one in outcomes] for name, outcomes in found.items()}},
    )


async def size(bench: Bench) -> Section:
    count = bench.sizes.orders
    events = count * len(PHASES)
    if bench.bytes_by_relation is None:
        topic, _ = await bench.fill("bytes", orders(count, now()))
        await _run_and_weigh(bench, Job(topic), events)
    sizes = bench.bytes_by_relation
    assert sizes is not None, "it was just measured"
    each = {name: total / events for name, total in sizes.items()}
    total = sum(each.values())
    own = mean(len(value) for _, value in orders(count, now()))
    large = {name: part for name, part in each.items() if part >= SHOWN_FROM_BYTES}
    large["all others"] = total - sum(large.values())
    rows = [(name, f"{part:.1f}") for name, part in large.items()]
    rows += [("together", f"{total:.1f}"), ("of that the event itself", f"{own:.1f}")]
    return Section(
        "bytes",
        f"bytes a transition after VACUUM, {count:,} orders of W1a",
        ("relation", "bytes"),
        rows,
        [Figure("bytes a transition", total, "at most", BYTES_GOAL)],
        detail={"by_relation": {name: round(part, 2) for name, part in each.items()}, "event": round(own, 1)},
    )


def _both(bench: Bench, job: Job, expected: int) -> Runs:
    return {one.name: bench.fresh(one, job, expected) for one in (BASELINE, ENGINE)}


async def _compare(bench: Bench, name: str, title: str, runs: Runs, goal: float | None) -> Section:
    found = await bench.alternate(runs)
    medians = {contestant: median_rate(outcomes) for contestant, outcomes in found.items()}
    ratio = ratio_of_rates(found["engine"], found["baseline"])
    return Section(
        name,
        title,
        HEADER,
        outcome_rows(found),
        [] if goal is None else [Figure("engine / baseline", ratio, "at least", goal)],
        [f"Engine / baseline: {ratio:.2f}."],
        {
            "ratio": round(ratio, 4),
            "medians": medians,
            "runs": {one: [as_json(outcome) for outcome in outcomes] for one, outcomes in found.items()},
        },
    )


async def _run_and_weigh(bench: Bench, job: Job, expected: int) -> Outcome:
    """A run of the engine on a database of its own, which is weighed before it is dropped."""
    servers = bench.servers
    database = await ENGINE.new_database(servers)
    try:
        outcome = await run_through(ENGINE, servers, database, job, expected)
        async with servers.connected(database) as connection:
            await connection.execute("vacuum")
            rows = await connection.fetch(SIZES)
    finally:
        await servers.drop_database(database)
    bench.bytes_by_relation = {f"{row['relation']} ({KINDS[row['kind']]})": row["bytes"] for row in rows}
    return outcome
