"""The two that are compared: the engine as ``pointsman run`` starts it, and the consumer written by hand."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from benchmarks import baseline
from benchmarks.ledger import GATE, LEDGER
from benchmarks.processes import MeasuringError, Process, ProcessError
from benchmarks.servers import ENGINE_ROLE, TEMPLATE, Servers
from benchmarks.sizes import CACHE_RUNS_DEFAULT
from engine.services.process import tail

PIPELINES = Path(__file__).with_name("pipelines.py")
POINTSMAN = Path(sys.executable).with_name("pointsman")
GROUP = "benchmark"
"""Of each database its own: the homes of runs are shared within one."""

Pipeline = Literal[
    "orders",
    "orders_publishing",
    "orders_chart",
    "orders_early",
    "orders_saga",
    "orders_limited",
    "orders_held",
    "ledgers",
]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run."""

    topic: str
    pipeline: Pipeline = "orders"
    cache: int = CACHE_RUNS_DEFAULT
    processes: int = 1
    until_idle: bool = True
    out: str = ""
    """The topic that is published to, if any."""
    namespace: str = "default"
    """Where relays of different databases publish, each must have one of its own: all databases are copies of one."""
    reminders: str = ""
    """The topic of the pipeline with timers, if that is run beside the other one."""
    ledger: Path | None = None
    """Where steps note what they do, if they are to."""
    gate: Path | None = None
    """The file without which steps that last do not end; None: they take a moment."""
    instance: str = ""
    """The engine's name, if it is to have one."""
    steps_at_once: int | None = None
    """The engine's limit, if it is to be another than by default."""


@dataclass(frozen=True, slots=True)
class Log:
    """Where a contestant keeps the events that it has applied, one row each."""

    table: str
    payload: str


class Contestant(Protocol):
    """One of the two."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def log(self) -> Log:
        """Where its events are."""

    async def new_database(self, servers: Servers) -> str:
        """An empty one, with its schema."""

    def start(self, servers: Servers, database: str, job: Job) -> list[Process]:
        """Its processes."""


class Engine:
    """As in production: the engine's role, validation, the relay, and metrics where ``run`` has a port for them."""

    name = "engine"
    log = Log("pointsman.events", "payload")

    async def new_database(self, servers: Servers) -> str:
        return await servers.new_database(TEMPLATE)

    def start(self, servers: Servers, database: str, job: Job) -> list[Process]:
        command = [
            *(str(POINTSMAN), "run", f"{PIPELINES}:{job.pipeline}"),
            *([f"{PIPELINES}:reminders"] if job.reminders else []),
            *("--postgres", servers.postgres.dsn(ENGINE_ROLE, database), "--kafka", servers.kafka),
            *("--group", f"{GROUP}-{database}", "--log-format", "text"),
            *(["--until-idle"] if job.until_idle else []),
            *(["--instance", job.instance] if job.instance else []),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
        environment |= {"BENCHMARK_TOPIC": job.topic, "BENCHMARK_OUT": job.out}
        environment |= {"BENCHMARK_REMINDERS": job.reminders or "reminders"}
        environment |= {"POINTSMAN_NAMESPACE": job.namespace}
        environment |= {"POINTSMAN_LIMIT_CACHE_RUNS_MAX": str(job.cache)}
        if job.ledger is not None:
            environment |= {LEDGER: str(job.ledger)}
        if job.gate is not None:
            environment |= {GATE: str(job.gate)}
        if job.steps_at_once is not None:
            environment |= {"POINTSMAN_LIMIT_STEPS_AT_ONCE_MAX": str(job.steps_at_once)}
        return [
            Process(
                f"engine {number + 1}",
                [*command, *(["--port", "0"] if has_port() else [])],
                environment,
                servers.folder / f"{database}-engine-{number}.log",
                waits=False,
            )
            for number in range(job.processes)
        ]


class Baseline:
    """See ``benchmarks.baseline``."""

    name = "baseline"
    log = Log("ev", "data")

    async def new_database(self, servers: Servers) -> str:
        database = await servers.new_database()
        async with servers.connected(database) as connection:
            await connection.execute(baseline.SCHEMA)
        return database

    def start(self, servers: Servers, database: str, job: Job) -> list[Process]:
        assert job.pipeline != "orders_publishing", "the baseline publishes nothing"
        command = [
            *(sys.executable, "-m", "benchmarks.baseline"),
            *("--postgres", servers.postgres.dsn(database=database), "--kafka", servers.kafka),
            *("--topic", job.topic, "--cache", str(job.cache), "--workers", str(job.processes)),
            *(["--ledgers"] if job.pipeline == "ledgers" else []),
            *(["--until-idle"] if job.until_idle else []),
        ]
        return [
            Process(
                f"baseline {number + 1}",
                [*command, "--worker", str(number)],
                os.environ,
                servers.folder / f"{database}-baseline-{number}.log",
                waits=True,
            )
            for number in range(job.processes)
        ]


ENGINE = Engine()
BASELINE = Baseline()


@functools.cache
def has_port() -> bool:
    """Whether ``pointsman run`` shows metrics on a port."""
    done = subprocess.run([POINTSMAN, "run", "--help"], capture_output=True, text=True, check=True)
    return "--port" in done.stdout


@contextlib.asynccontextmanager
async def started(
    contestant: Contestant, servers: Servers, database: str, job: Job
) -> AsyncIterator[list[Process]]:
    """Its processes, ended afterwards whatever happens."""
    processes = contestant.start(servers, database, job)
    try:
        yield processes
    except ProcessError:
        raise
    except MeasuringError as error:
        said = "\n".join(tail(one.log) for one in processes)
        raise MeasuringError(f"{error}. The end of what it said:\n{said}") from error
    finally:
        for one in processes:
            one.close()
