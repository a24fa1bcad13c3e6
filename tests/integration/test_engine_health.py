"""An engine on real services, seen over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from connectors.kafka.settings import KafkaSettings
from engine import lookups, outbox
from engine.assembly import EngineSettings
from engine.limits import EngineLimits
from engine.metrics import ATTEMPTS, BREAKERS, CATALOGUE
from engine.relay.limits import RelayLimits
from engine.relay.turn import try_turn
from engine.running import Running, run
from statemachines.machine import compile_pipeline
from tests.proxy import FaultProxy
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import publish, stuck_on, value

REPOSITORY = Path(__file__).parents[2]
SECONDS = 60.0


@dataclass(slots=True)
class Seen:
    """A running engine, and where it answers."""

    url: str
    session: aiohttp.ClientSession
    running: asyncio.Task[Any]

    async def ready(self) -> tuple[int, list[str]]:
        async with self.session.get(self.url + "/readyz") as answer:
            body = await answer.json()
            assert body["ok"] is (answer.status == 200)
            return answer.status, body["reasons"]

    async def metrics(self) -> dict[str, float]:
        async with self.session.get(self.url + "/metrics") as answer:
            assert answer.status == 200
            lines = (await answer.text()).splitlines()
        return {
            name: float(number) for name, number in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    async def until_ready(self, status: int, reason: str = "") -> None:
        await self.until(
            self.ready, lambda told: told[0] == status and any(reason in one for one in told[1] or [""])
        )

    async def until_metrics(self, **wanted: float) -> dict[str, float]:
        told: dict[str, float] = await self.until(
            self.metrics, lambda told: all(told.get(name) == number for name, number in wanted.items())
        )
        return told

    async def until(self, ask: Any, holds: Any) -> Any:
        deadline = time.monotonic() + SECONDS
        while not holds(answer := await ask()):
            assert time.monotonic() < deadline, answer
            if self.running.done():
                self.running.result()
            await asyncio.sleep(0.05)
        return answer


@contextlib.asynccontextmanager
async def seen(
    caplog: pytest.LogCaptureFixture, kafka: Kafka, postgres: str, topic: str, **limits: Any
) -> AsyncIterator[Seen]:
    """An engine that reads cases; stopped in the end."""
    settings = EngineSettings(
        postgres,
        KafkaSettings(kafka.bootstrap),
        namespace=topic,
        limits=EngineLimits(reconnect_seconds_max=0.5, **limits),
        listen=("127.0.0.1", 0),
    )
    stop: list[Running] = []
    flow = stuck_on(topic)
    flow.after(timedelta(milliseconds=1))
    machine = compile_pipeline(flow, namespace=topic)
    with caplog.at_level("INFO", "pointsman.engine"):
        running = asyncio.create_task(run(settings, [machine], began=stop.append))
        async with aiohttp.ClientSession() as session:
            try:
                yield Seen(await address(caplog, running), session, running)
            finally:
                for one in stop:
                    one.stop()
                if not stop:
                    running.cancel()
                await running


async def address(caplog: pytest.LogCaptureFixture, running: asyncio.Task[Any]) -> str:
    deadline = time.monotonic() + SECONDS
    while not (found := re.search(r"health and metrics at (\S+)", caplog.text)):
        assert time.monotonic() < deadline
        if running.done():
            running.result()
        await asyncio.sleep(0.02)
    return found[1]


async def test_an_engine_tells_what_it_did(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kafka: Kafka,
    topic: TopicFactory,
    database: Database,
) -> None:
    monkeypatch.setattr(lookups, "LOOKUP_SECONDS", 0.1)
    name = await topic("cases")
    invalid = value("case.searched", "a")
    await publish(kafka.bootstrap, name, value("case.opened", "a"), invalid, b"{", value("case.opened", "b"))
    async with seen(caplog, kafka, database.engine_dsn, name) as engine:
        await engine.until_ready(200)
        async with engine.session.get(engine.url + "/healthz") as answer:
            assert answer.status == 200
        told = await engine.until_metrics(
            **{
                "pointsman_records_consumed_total": 4,
                'pointsman_transitions_total{pipeline="stuck"}': 2,
                'pointsman_timers_fired_total{pipeline="stuck"}': 1,
                'pointsman_dispositions_total{disposition="started",pipeline="stuck"}': 2,
                'pointsman_dispositions_total{disposition="dead-lettered",pipeline="stuck"}': 2,
                'pointsman_dead_letters_total{reason="invalid data"}': 1,
                'pointsman_dead_letters_total{reason="unreadable"}': 1,
                'pointsman_runs_held{pipeline="stuck"}': 1,
                'pointsman_runs_paused{pipeline="stuck"}': 0,
                f'pointsman_lag{{partition="0",topic="{name}"}}': 0,
                "pointsman_partitions_assigned": 1,
                "pointsman_partitions_paused": 0,
                "pointsman_outbox_depth": 0,
            }
        )
    exported = {re.split(r"[{ ]", one)[0] for one in told}
    # It has no steps, whose attempts are told of by step, and nothing that they depend on.
    for metric in {*CATALOGUE} - {ATTEMPTS, BREAKERS}:
        assert any(one.startswith(metric.name.replace(".", "_")) for one in exported), metric.name
    dead = [record for record in caplog.records if record.getMessage().startswith("dead letter")]
    assert [
        (one.getMessage(), vars(one).get("run"), vars(one)["offset"]) for one in sorted(dead, key=_offset)
    ] == [
        ("dead letter; its run is held", "a", 1),
        ("dead letter", None, 2),
    ]


@contextlib.asynccontextmanager
async def turn_taken(database: Database, namespace: str) -> AsyncIterator[None]:
    """Nobody publishes what the engines of a namespace commit; how long that lasts, they cannot see."""
    holder = await asyncpg.connect(database.owner_dsn)
    try:
        lane = await outbox.lane_for(holder, namespace, 0)
        assert await try_turn(holder, lane, RelayLimits())
        yield
    finally:
        await holder.close()


async def test_an_outbox_that_is_full_and_what_is_not_read_meanwhile_are_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kafka: Kafka,
    topic: TopicFactory,
    database: Database,
) -> None:
    monkeypatch.setattr(lookups, "LOOKUP_SECONDS", 0.1)
    name = await topic("cases")
    lag = f'pointsman_lag{{partition="0",topic="{name}"}}'
    async with contextlib.AsyncExitStack() as stack:
        turn = await stack.enter_async_context(contextlib.AsyncExitStack())
        await turn.enter_async_context(turn_taken(database, name))
        engine = await stack.enter_async_context(
            seen(caplog, kafka, database.engine_dsn, name, outbox_rows_max=1)
        )
        for unreadable in (1, 2):
            await publish(kafka.bootstrap, name, b"{")
            await engine.until_metrics(pointsman_outbox_depth=unreadable)
        await engine.until_metrics(pointsman_partitions_paused=1)
        await publish(kafka.bootstrap, name, value("case.opened", "a"), value("case.opened", "b"))
        await engine.until_metrics(**{lag: 2, "pointsman_records_consumed_total": 2})
        await turn.aclose()
        told = {lag: 0, "pointsman_outbox_depth": 0, "pointsman_partitions_paused": 0}
        await engine.until_metrics(**told, pointsman_records_consumed_total=4)


def _offset(record: Any) -> int:
    return int(record.offset)


async def test_an_engine_is_not_ready_while_postgres_is_away_and_ready_when_it_is_back(
    caplog: pytest.LogCaptureFixture, kafka: Kafka, topic: TopicFactory, database: Database
) -> None:
    name = await topic("cases")
    port = urlsplit(database.engine_dsn).port
    assert port is not None
    async with (
        FaultProxy(port) as proxy,
        seen(caplog, kafka, database.engine_dsn.replace(f":{port}/", f":{proxy.port}/"), name) as engine,
    ):
        await engine.until_ready(200)
        proxy.refuse(True)
        proxy.cut()
        await engine.until_ready(503, "Postgres is away")
        proxy.refuse(False)
        await engine.until_ready(200)


async def test_an_engine_is_not_ready_while_a_partition_waits_for_a_person(
    caplog: pytest.LogCaptureFixture, kafka: Kafka, topic: TopicFactory, database: Database
) -> None:
    name = await topic("cases", partitions=2)
    async with seen(caplog, kafka, database.engine_dsn, name) as engine:
        await engine.until_ready(200)
    connection = await asyncpg.connect(database.owner_dsn)
    await connection.execute("update pointsman.positions set position = 1000 where partition = 1")
    await connection.close()
    caplog.clear()
    async with seen(caplog, kafka, database.engine_dsn, name) as engine:
        await engine.until_ready(503, f"pointsman positions set {name} 1 POSITION --group=")
        await engine.until_metrics(pointsman_partitions_paused=1, pointsman_partitions_assigned=2)


def test_a_port_in_use_ends_the_command_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "engine.cli", "run", "tests.stuck:stuck", "--port", port),
                *("--postgres", "postgresql://nobody@127.0.0.1:1/nothing", "--kafka", "127.0.0.1:1"),
            ],
            cwd=REPOSITORY,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    assert ended.returncode == 2, ended.stderr
    assert f"port {port} of 127.0.0.1: another program uses it" in ended.stderr
    assert "Traceback" not in ended.stderr
