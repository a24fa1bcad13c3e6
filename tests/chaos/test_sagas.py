"""Sagas under fire: engines, Postgres and Kafka are killed, and the service that does the work misbehaves.

What was done outside is in the service's own ledger. The seed is printed; `POINTSMAN_CHAOS_SEED` gives it back, for the
same sales, the same mischief of the service and the same order of faults. The long form:
`pytest -s -m long tests/chaos/test_sagas.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson
import pytest

from connectors.encode import encode_structured
from engine.errors import PointsmanError
from engine.limits import EngineLimits
from engine.reading.operating import ask_of_run
from engine.services.apache_kafka import ApacheKafka
from engine.services.postgres import EmbeddedPostgres
from engine.store.connecting import connect
from tests.chaos import checks
from tests.chaos.faults import Faults
from tests.chaos.sales import ATTEMPT, SALES, TILL, UNDOES
from tests.chaos.script import EVENT_HEADERS
from tests.chaos.slots import AWAY, REPOSITORY, Silence, until, within
from tests.chaos.stage import Stage, stage
from tests.chaos.till import DONE, FENCED, NOTHING, REFUSED, UNDONE
from tests.integration.test_kafka_source import producing
from tests.proxy import When

log = logging.getLogger("chaos")

_AWAY = (PointsmanError, *AWAY)
CALLED_OFF = 0.15
"""Of all sales, so many are called off."""
LIMITS = {"batch_records_max": 50, "cache_runs_max": 200}
LAG_SECONDS = 1.0
"""So much later than for its engine an attempt begins for itself, at most, where that is not frozen in between."""
GIVEN_UP_SECONDS = ATTEMPT.total_seconds() + EngineLimits().step_cancel_seconds - LAG_SECONDS
MODULE = "tests.chaos.sales:flow"


@dataclass(frozen=True, slots=True)
class Form:
    """How much of everything."""

    sales: int
    """At least: they come until there were enough faults."""
    quotas: dict[str, int]
    pause_seconds_max: float
    rest_seconds: float


SHORT = Form(
    sales=120,
    quotas={
        "kill": 3,
        "kill in an open transaction": 1,
        "cut at commit: in_flight": 1,
        "terminate in an open transaction": 1,
        "stopped in order": 1,
        "postgres immediate": 1,
        "zombie": 1,
    },
    pause_seconds_max=1.0,
    rest_seconds=240,
)
SHORT_SECONDS = 240.0
"""Of the short form, with servers that run already."""
LONG = Form(
    sales=1_500,
    quotas={
        "kill": 30,
        "kill in an open transaction": 10,
        "cut at commit: before": 3,
        "cut at commit: in_flight": 3,
        "cut at commit: after": 3,
        "terminate in an open transaction": 3,
        "stopped in order": 6,
        "postgres immediate": 4,
        "kafka killed": 2,
        "zombie": 4,
    },
    pause_seconds_max=2.0,
    rest_seconds=240,
)


class Call(NamedTuple):
    """A row of the ledger."""

    number: int
    step: str
    sale: str
    key: str
    undoes: str
    attempt: int
    engine: int
    began: float
    what: str
    at: float


async def test_whatever_is_killed_each_sale_is_sent_or_undone_and_nothing_is_done_twice(
    restartable_postgres: EmbeddedPostgres,
    restartable_kafka: ApacheKafka,
    empty_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with within(SHORT_SECONDS):
        await _survive(SHORT, restartable_postgres, restartable_kafka, empty_database, tmp_path, monkeypatch)


@pytest.mark.long
async def test_the_same_for_minutes_with_thousands_of_sales(
    restartable_postgres: EmbeddedPostgres,
    restartable_kafka: ApacheKafka,
    empty_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await _survive(LONG, restartable_postgres, restartable_kafka, empty_database, tmp_path, monkeypatch)


async def _survive(
    form: Form,
    postgres: EmbeddedPostgres,
    kafka: ApacheKafka,
    outside: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = int(os.environ.get("POINTSMAN_CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"seed: POINTSMAN_CHAOS_SEED={seed}; logs of the engines: {folder}")
    suffix, chance = f"-{seed}", random.Random(seed)
    async with (
        _till(outside, seed) as address,
        stage(postgres, kafka, folder, suffix, ["a", "b"], LIMITS, {SALES: 4}, [MODULE]) as scene,
    ):
        scene.reads = [SALES]
        monkeypatch.setenv(TILL, address)
        faults = Faults(scene.world, random.Random(seed), scene.slots, postgres, kafka)
        for slot in scene.slots:
            slot.instance = slot.name
            await slot.start()
        directing = asyncio.create_task(_direct(form, faults, scene, random.Random(seed)))
        feeding = asyncio.create_task(_feed(form, scene, chance, directing))
        calling = asyncio.create_task(_cancel(scene, random.Random(seed)))
        try:
            await directing
            sales = await feeding
            calling.cancel()
            await until(partial(_all_ended, scene, sales), form.rest_seconds, "all sales ended", 0.5)
            ends = await scene.at_rest(form.rest_seconds)
        finally:
            for task in (directing, feeding, calling):
                task.cancel()
            await asyncio.gather(directing, feeding, calling, return_exceptions=True)
            print(f"faults: {dict(faults.counts)}; starts: { {one.name: one.starts for one in scene.slots} }")
        for slot in scene.slots:
            await slot.stop()
        assert not scene.surprises, "\n".join(scene.surprises)
        ledger = await _ledger(outside)
        await _check(scene, ledger)
        check_what_came_after(ledger, [silence for slot in scene.slots for silence in slot.silences])
        await checks.check_positions(scene.world, ends)
        _tell(ledger)
        missed = {
            name: faults.counts[name] for name, quota in form.quotas.items() if faults.counts[name] < quota
        }
        assert not missed, f"faults that did not happen often enough: {missed}"


@contextlib.asynccontextmanager
async def _till(dsn: str, seed: int) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.till", dsn, str(seed)),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


async def _feed(form: Form, scene: Stage, chance: random.Random, directing: asyncio.Task[None]) -> int:
    """Sales over the time of the faults, some of which are called off a little later; returns how many."""
    topic = scene.topics(SALES)[0]
    pending: list[tuple[int, str]] = []
    async with producing(scene.world.kafka) as producer:

        async def tell(kind: str, sale: str, **data: object) -> None:
            written = orjson.dumps({"sale": sale, **data})
            value = encode_structured(id=f"{kind}-{sale}", source="/test", type=f"sale.{kind}", data=written)
            await producer.send_and_wait(topic, value, key=sale.encode(), headers=EVENT_HEADERS)

        number = 0
        while number < form.sales or not directing.done():
            sale = f"s{number}"
            await tell("placed", sale, parcels=chance.randrange(1, 4), refused=is_refused(sale))
            if chance.random() < CALLED_OFF:
                pending.append((number + chance.randrange(30), sale))
            for one in [one for one in pending if one[0] <= number]:
                pending.remove(one)
                await tell("called_off", one[1])
            number += 1
            await asyncio.sleep(chance.uniform(0, 0.4))
        for _, sale in pending:
            await tell("called_off", sale)
    return number


def is_refused(sale: str) -> bool:
    """Whether the carrier refuses it: one in ten."""
    return sale.endswith("0")


async def _cancel(scene: Stage, chance: random.Random) -> None:
    """Operators cancel sales that go on, at random moments, until they are told to stop."""
    while True:
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        with contextlib.suppress(*_AWAY):
            rows = await scene.world.ask(
                "select key from pointsman.runs where status = 1 order by started desc limit 20"
            )
            if rows:
                dsn = scene.world.engine_dsn.format(port=scene.world.postgres_port)
                connection = await connect(dsn, for_engine=False)
                try:
                    key = chance.choice(rows)[0]
                    namespace = scene.world.namespace
                    await ask_of_run(connection, namespace, "cancel", "sale", key, who="me", why="by chance")
                finally:
                    await connection.close()


async def _direct(form: Form, faults: Faults, scene: Stage, chance: random.Random) -> None:
    for slot in scene.slots:
        await slot.said("partitions: ", 240)
    while lacking := [name for name, quota in form.quotas.items() if faults.counts[name] < quota]:
        name = chance.choice(lacking)
        log.info("fault: %s", name)
        await _fault(name, faults)()
        await asyncio.sleep(chance.uniform(0, form.pause_seconds_max))


def _fault(name: str, faults: Faults) -> Callable[[], Awaitable[None]]:
    known: dict[str, Callable[[], Awaitable[None]]] = {
        "kill": partial(faults.kill, aimed=False),
        "kill in an open transaction": partial(faults.kill, aimed=True),
        "cut at commit: before": partial(faults.cut_commit, When.BEFORE),
        "cut at commit: in_flight": partial(faults.cut_commit, When.IN_FLIGHT),
        "cut at commit: after": partial(faults.cut_commit, When.AFTER),
        "terminate in an open transaction": faults.terminate,
        "stopped in order": faults.restart_in_order,
        "postgres immediate": faults.crash_postgres,
        "kafka killed": faults.kill_kafka,
        "zombie": partial(faults.zombie, aimed=False),
    }
    return known[name]


async def _all_ended(scene: Stage, sales: int) -> bool:
    assert not scene.surprises, "\n".join(scene.surprises)
    rows = await scene.world.ask(
        "select count(*) filter (where configuration in ('sent', 'cancelled')) as ended, "
        "(select count(*) from pointsman.executions) as going from pointsman.runs"
    )
    return bool(rows[0]["ended"] == sales and rows[0]["going"] == 0)


async def _ledger(dsn: str) -> list[Call]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("select * from calls order by number")
        return [Call(*row) for row in rows]
    finally:
        await connection.close()


async def _check(scene: Stage, ledger: list[Call]) -> None:
    world = scene.world
    rows = await checks.check_chains(world)
    await checks.check_by_command(world, "verify")
    await checks.check_by_command(world, "replay", MODULE)
    assert await world.ask("select 1 from pointsman.dead_letters") == []
    runs = {
        row["key"]: row for row in await world.ask("select key, configuration, context from pointsman.runs")
    }
    by_sale: dict[str, list[Call]] = defaultdict(list)
    for call in ledger:
        by_sale[call.sale].append(call)
    for sale, run in runs.items():
        context = orjson.loads(run["context"])
        check_sale(by_sale[sale], run["configuration"], context["parcels"])
        if is_refused(sale):
            assert run["configuration"] == "cancelled"
    ended = Counter(run["configuration"] for run in runs.values())
    assert ended["sent"]
    assert ended["cancelled"]
    print(f"checked: {dict(ended)}, {sum(map(len, rows.values()))} log rows, {len(ledger)} calls outside")


def check_sale(calls: list[Call], state: str, parcels: int) -> None:
    """What was done outside for one sale stands if it was sent; if it was cancelled, all of it was undone."""
    shown = "\n".join(map(str, calls))
    keys: dict[str, dict[str, None]] = defaultdict(dict)
    for call in calls:
        keys[call.step][call.key] = None
    done = [call for call in calls if call.what == DONE]
    undone = [call.undoes for call in calls if call.what == UNDONE]
    compensations = [call for call in calls if call.undoes]
    assert len(keys["charge"]) <= 1, f"one key for the one execution:\n{shown}"
    assert len(keys["reserve"]) <= parcels, f"a key for each parcel at most:\n{shown}"
    assert len(keys["send"]) <= 1, f"one key for the one execution:\n{shown}"
    assert len({call.key for call in done}) == len(done), "the service itself does nothing twice"
    if state == "sent":
        assert Counter(call.step for call in done) == {"charge": 1, "reserve": parcels, "send": 1}, shown
        assert not compensations, shown
        return
    owed = [call.key for call in done if call.step in UNDOES.values()]
    assert undone == owed[::-1], f"all that was done is undone, once, and in reverse order:\n{shown}"
    # What an engine was killed over before it had asked the service is looked for there, and not found.
    of = {call.key: call.undoes for call in compensations}
    assert len(of) == len(set(of.values())), f"one key for each compensation:\n{shown}"


def check_what_came_after(ledger: list[Call], silences: list[Silence]) -> None:
    """What comes after its compensation is of an engine that was killed or frozen, or of an attempt without time."""
    undone: dict[str, Call] = {}
    for call in ledger:
        if call.what in (UNDONE, NOTHING):
            undone.setdefault(call.undoes, call)
        if call.what == FENCED:
            is_of_silent = any(
                one.process == call.engine and one.since <= call.at and call.began - LAG_SECONDS <= one.until
                for one in silences
            )
            by = undone[call.key]
            assert is_of_silent or by.at - call.began > GIVEN_UP_SECONDS, f"{call} came after {by}"


@pytest.mark.parametrize(
    ("undone_at", "silence", "is_right"),
    [
        (10.4, None, False),
        (12.1, None, True),
        (10.4, Silence(7, 10.2), True),
        (10.4, Silence(7, 10.2, 10.3), True),
        (10.4, Silence(8, 10.2), False),
        (10.4, Silence(7, 1.0, 9.9), True),
        (10.4, Silence(7, 1.0, 8.9), False),
        (10.4, Silence(7, 10.6), False),
    ],
)
def test_what_comes_after_its_compensation_has_a_reason(
    undone_at: float, silence: Silence | None, *, is_right: bool
) -> None:
    ledger = [
        Call(1, "refund", "s1", "k2", "k1", 1, 8, undone_at - 0.1, NOTHING, undone_at),
        Call(2, "refund", "s1", "k2", "k1", 2, 8, 20.0, NOTHING, 20.0),
        Call(3, "charge", "s1", "k1", "", 1, 7, 10.0, FENCED, max(undone_at, 10.5)),
    ]
    with contextlib.nullcontext() if is_right else pytest.raises(AssertionError, match="came after"):
        check_what_came_after(ledger, [] if silence is None else [silence])


def _tell(ledger: list[Call]) -> None:
    print(f"  the service: {dict(Counter(call.what for call in ledger))}")
    attempts = Counter(min(call.attempt, 5) for call in ledger)
    print(f"  attempts {dict(sorted(attempts.items()))} (5: more), of compensations:")
    undoing = Counter(call.what for call in ledger if call.undoes)
    print(f"  {dict(undoing)}")
    for what in (DONE, REFUSED, UNDONE, NOTHING):
        assert any(call.what == what for call in ledger), f"nothing was {what}: it proves less than it should"
    fenced = [call for call in ledger if call.what == FENCED]
    print(f"  calls that came after their compensation: {len(fenced)}")
