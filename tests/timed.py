"""Orders that lapse unless they are paid in time, and engines that run them: in this process, or in one to be killed.

The topic is named by the environment (``TIMED_TOPIC``), since each test has one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import Field

from connectors.encode import encode_structured
from connectors.kafka.settings import KafkaSettings
from connectors.source import Membership
from engine.assembly import EngineSettings, assemble
from engine.engine import Engine
from engine.homes import homes_topic
from engine.limits import EngineLimits
from engine.topics import prepare_topics
from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.effects import Out, Send
from statemachines.events import Event
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until

REPOSITORY = Path(__file__).parents[1]


class Placed(Event, type="order.placed", key="order"):
    order: str
    seconds: float = 3_600
    """To pay within."""


class Paid(Event, type="order.paid", key="order"):
    order: str


class Packed(Event, type="order.packed", key="order"):
    order: str


class Noted(Event, type="order.noted", key="order"):
    order: str
    number: int = 0


class Shipped(Event, type="order.shipped", key="order"):
    order: str


class Sold(Event, type="book.sold", key="book"):
    """Sent by an order to the book."""

    book: str
    order: str


class Order(Context):
    order: str
    seconds: float
    seen: list[str] = Field(default_factory=list)


class Book(Context):
    orders: list[str] = Field(default_factory=list)


def place(event: Placed) -> Order:
    return Order(order=event.order, seconds=event.seconds)


def see(word: str) -> Callable[[Order, Event], None]:
    def seen(order: Order, _: Event) -> None:
        order.seen.append(word)

    return seen


def note(order: Order, event: Noted) -> None:
    order.seen.append(f"noted {event.number}")


def pay_within(order: Order) -> timedelta:
    return timedelta(seconds=order.seconds)


def sell(order: Order, _: Shipped) -> Out:
    return Send(Sold(book="all", order=order.order), to="all", pipeline="book")


def add(book: Book, event: Sold) -> None:
    book.orders.append(event.order)


def orders_on(topic: str) -> Pipeline[Order]:
    """Placed, paid, packed and shipped, or lapsed; what comes too early waits, also for its order."""
    flow = Pipeline("order", Order, topics=[topic], no_run="defer")
    placed = flow.state("placed", initial=True)
    paid = flow.state("paid")
    packed = flow.state("packed")
    shipped = flow.state("shipped", final=True)
    lapsed = flow.state("lapsed", final=True)
    flow.start(Placed, place, do=see("placed"))
    placed.on(Paid, to=paid, do=see("paid"))
    placed.after(pay_within, to=lapsed, do=see("lapsed"))
    paid.on(Packed, to=packed, do=see("packed"))
    packed.on(Noted, do=note)
    packed.on(Shipped, to=shipped, do=sell)
    return flow


def book_on(topic: str) -> Pipeline[Book]:
    """What was sold; its runs begin by themselves."""
    flow = Pipeline("book", Book, topics=[topic], no_run="start")
    open_ = flow.state("open", initial=True)
    open_.on(Sold, do=add)
    return flow


orders = orders_on(os.environ.get("TIMED_TOPIC", "orders"))


def told(kind: str, order: str, **data: Any) -> bytes:
    """An event as it stands in a record, with headers as ``publish`` of ``tests.stuck`` sends them."""
    number = data.get("number", 0)
    return encode_structured(
        id=f"{kind}-{order}-{number}",
        source="/orders",
        type=f"order.{kind}",
        data=json.dumps({"order": order, **data}).encode(),
    )


@dataclass(slots=True)
class Clock:
    """Real time, and so much more or less."""

    shift: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


@dataclass(frozen=True, slots=True)
class World:
    """Where engines work, and what they run."""

    postgres: str
    owner: str
    kafka: KafkaSettings
    namespace: str
    limits: dict[str, float] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def engine(
        self,
        *pipelines: Pipeline[Any],
        clock: Clock | None = None,
        group: str | None = None,
        membership: Membership | None = None,
    ) -> AsyncIterator[Engine]:
        """An engine in this process, without a relay, until the end of the block."""
        machines = [compile_pipeline(one, namespace=self.namespace) for one in pipelines]
        limits: dict[str, Any] = {**self.limits}
        settings = EngineSettings(
            self.postgres, self.kafka, self.namespace, group, limits=EngineLimits(**limits), strict=False
        )
        await prepare_topics(self.kafka, machines, homes_topic(self.namespace))
        parts = (await assemble(settings, machines))._parts
        parts = replace(parts, clock=clock or Clock(), membership=membership or parts.membership)
        engine = Engine(parts)
        running = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            engine.stop()
            await asyncio.wait([running])
        running.result()

    async def process(
        self, topic: str, name: str, module: str = "tests.timed:orders", **more: str
    ) -> asyncio.subprocess.Process:
        """``pointsman run`` of the orders, until it is killed; ``name`` is its static membership."""
        environment = {
            **os.environ,
            "TIMED_TOPIC": topic,
            "POINTSMAN_NAMESPACE": self.namespace,
            "POINTSMAN_KAFKA": self.kafka.bootstrap,
            "POINTSMAN_POSTGRES": self.postgres,
            "POINTSMAN_INSTANCE": name,
            **more,
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.cli", "run", module),
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=REPOSITORY,
        )

    async def ask(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.owner)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    async def states(self, pipeline: str = "") -> dict[str, str]:
        """The states of all runs, or of those of a pipeline, by key."""
        sql = "select r.key, r.configuration from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline "
        found: dict[str, str] = dict(await self.ask(f"{sql} where $1 in ('', p.name)", pipeline))
        return found

    async def seen(self) -> dict[str, list[str]]:
        """What orders have seen, by key."""
        sql = (
            "select r.key, convert_from(r.context, 'UTF8') from pointsman.runs r join pointsman.pipelines p "
        )
        rows = await self.ask(sql + "on p.id = r.pipeline where p.name = 'order' and r.context <> ''")
        return {key: json.loads(context)["seen"] for key, context in rows}

    async def come_to(self, expected: dict[str, str], seconds: float = 180, pipeline: str = "") -> float:
        """Wait until runs are in these states; returns the seconds that it took."""

        async def are() -> bool:
            return (await self.states(pipeline)).items() >= expected.items()

        return await until(are, seconds, f"{expected}, but {await self.states(pipeline)}", 0.05)


async def kill(process: asyncio.subprocess.Process) -> None:
    """As the end of its machine would."""
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


def in_state(state: str, keys: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(keys, state)
