"""Engines as processes: started, frozen, killed, stopped, and watched for ends that nobody asked for."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.chaos.engine_process import UNREACHABLE
from tests.proxy import FaultProxy

STOP_SECONDS = 10.0
START_SECONDS = 120.0
POLL_SECONDS = 0.02
WRONG = re.compile(
    r"Traceback \(most|^[0-9:]{8} (error|critical): (?!an attempt at |[0-9]+ more attempts? failed)"
    r"|has stopped:|Task exception was never"
)
"""What no engine is to say; that attempts at steps fail is part of it, with the calls that led there."""
NOISE = "Future exception was never retrieved"
"""asyncpg's own, of a connection that broke while nobody waited for it."""
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What is raised where Postgres is away, or goes away just then."""
REPOSITORY = Path(__file__).parents[2]


async def until(
    condition: Callable[[], Awaitable[object]], seconds: float, what: str, poll_seconds: float = POLL_SECONDS
) -> float:
    """Wait for a condition; returns the seconds that it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(poll_seconds)
    return time.monotonic() - began


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Have what is done inside take no longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds, f"it took {took:.0f} s, and may take {seconds:.0f}"


@dataclass(slots=True)
class World:
    """The servers, and where engines find them."""

    kafka: str
    postgres_port: int
    owner_dsn: str
    engine_dsn: str
    """With ``{port}`` in it: each engine comes by a proxy of its own."""
    suffix: str
    folder: Path
    limits: dict[str, int]
    """Of the engines, by name."""
    modules: Sequence[str]
    """Of their pipelines."""

    @property
    def namespace(self) -> str:
        return f"chaos{self.suffix}"

    def environment(self, postgres_port: int) -> dict[str, str]:
        """For ``pointsman`` as the engine's role."""
        return {
            **os.environ,
            "CHAOS_SUFFIX": self.suffix,
            "POINTSMAN_POSTGRES": self.engine_dsn.format(port=postgres_port),
            "POINTSMAN_KAFKA": self.kafka,
            **{f"POINTSMAN_LIMIT_{name.upper()}": str(number) for name, number in self.limits.items()},
            "PYTHONUNBUFFERED": "1",
        }

    async def connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(self.owner_dsn, timeout=5, command_timeout=60)

    async def ask(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of a question to Postgres, asked again while it is away."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connection = await self.connect()
                try:
                    return await connection.fetch(sql, *arguments)
                finally:
                    await connection.close(timeout=5)
            except AWAY:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)


@dataclass(slots=True)
class Silence:
    """A process that was frozen or killed, and when, by ``time.monotonic``."""

    process: int
    since: float
    until: float = math.inf


@dataclass(slots=True, eq=False)
class Slot:
    """A place for an engine, and the proxy through which it reaches Postgres."""

    name: str
    world: World
    proxy: FaultProxy
    instance: str | None = None
    """The static name of the next start; None for a member that comes and goes."""
    starts: int = 0
    process: asyncio.subprocess.Process | None = None
    surprises: list[str] = field(default_factory=list)
    """Ends that nobody asked for."""
    lines: list[str] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _expects_end: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        assert self.process is None, f"engine {self.name} runs already"
        self.starts += 1
        self._expects_end = False
        self.lines.clear()
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.engine_process", "run", *self.world.modules),
            *("--namespace", self.world.namespace, "--log-format", "text"),
            *(("--instance", self.instance) if self.instance else ()),
            cwd=REPOSITORY,
            env=self.world.environment(self.proxy.port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1024 * 1024,
        )
        task = asyncio.create_task(self._watch(self.process), name=f"engine {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def log(self) -> Path:
        return self.world.folder / f"engine-{self.name}.log"

    async def runs(self) -> asyncio.subprocess.Process:
        """The process, once there is one: one that finds a service away at its start ends, and another follows."""

        async def is_there() -> bool:
            return self.process is not None

        await until(is_there, START_SECONDS, f"engine {self.name} started")
        assert self.process is not None
        return self.process

    def send(self, number: int) -> None:
        """Signal the process, unless it has just ended by itself."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def freeze(self) -> None:
        self._be_silent()
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)
        for one in self.silences:
            if self.process is not None and one.process == self.process.pid:
                one.until = min(one.until, time.monotonic())

    async def kill(self) -> None:
        """As a crash of the machine would, for this process."""
        process = await self._end_is_wanted()
        self._be_silent()
        self.send(signal.SIGKILL)
        await self._gone(process)

    async def stop(self) -> float:
        """In order; returns the seconds that it took."""
        process = await self._end_is_wanted()
        began = time.monotonic()
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS + 5):
                await self._gone(process)
        except TimeoutError:
            self.surprises.append(f"engine {self.name} did not stop within {STOP_SECONDS + 5:.0f} s")
            self.send(signal.SIGKILL)
            await self._gone(process)
            return time.monotonic() - began
        took = time.monotonic() - began
        if process.returncode != 0:
            self.surprises.append(f"engine {self.name} ended with {process.returncode} after SIGTERM")
        if took > STOP_SECONDS:
            self.surprises.append(f"engine {self.name} took {took:.1f} s to stop")
        return took

    async def said(self, text: str, seconds: float = START_SECONDS, since: int = 0) -> str:
        """Wait until the engine has said a line with this in it, after so many lines since its start."""
        async with asyncio.timeout(seconds):
            while True:
                self._changed.clear()
                for line in self.lines[since:]:
                    if text in line:
                        return line
                await self._changed.wait()

    async def close(self) -> None:
        if self.process is not None:
            self.thaw()
            await self.kill()
        await asyncio.gather(*self._tasks)

    def backend_ports(self) -> list[int]:
        """The ports from which this engine's connections reach Postgres."""
        found = []
        for connection in tuple(self.proxy._connections):
            name = connection.server.get_extra_info("sockname")
            if name:
                found.append(name[1])
        return found

    async def in_transaction(self) -> bool:
        """Whether the engine's writing connection has a transaction open, with rows changed in it."""
        rows = await self.world.ask(
            "select state, query from pg_stat_activity where client_port = any ($1::int[]) "
            "and application_name = 'pointsman engine, writing' and backend_xid is not null",
            self.backend_ports(),
        )
        return bool(rows)

    def _be_silent(self) -> None:
        if self.process is not None:
            self.silences.append(Silence(self.process.pid, time.monotonic()))

    async def _end_is_wanted(self) -> asyncio.subprocess.Process:
        process = await self.runs()
        self._expects_end = True
        return process

    async def _gone(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()

        async def is_noticed() -> bool:
            return self.process is not process

        await until(is_noticed, STOP_SECONDS, f"the end of engine {self.name} noticed")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("a") as log:
            log.write(f"--- start {self.starts} of {self.name}\n")
            while line := await process.stdout.readline():
                text = line.decode(errors="replace")
                log.write(text)
                log.flush()
                self.lines.append(text)
                self._changed.set()
                around = self.lines[-3:]
                # Each line is looked at once: this loop also carries what the engines say to Postgres.
                if WRONG.search(text) and not any(NOISE in one for one in around):
                    self.surprises.append(f"engine {self.name} said (see {self.log}):\n{''.join(around)}")
        code = await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self.process = None
        if self._expects_end:
            return
        if code != UNREACHABLE:
            tail = "".join(self.lines[-40:])
            self.surprises.append(f"engine {self.name} ended by itself with {code}:\n{tail}")
        await asyncio.sleep(0.2)
        await self.start()
