"""What happens to some orders, act by act: events, engines that end, and what people ask.

Two engines share what there is. Each keeps what it remembers of runs that the other one moves, and its draft while the
other one commits; it ends at any time, in order or not, and the next one of its name may have other code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from connectors.source import Partition, RawRecord
from engine import reading
from engine.errors import PointsmanError
from engine.homes import HOMES
from engine.limits import EngineLimits
from engine.store.connecting import Connection
from tests.feeding import TOPIC, event, feed
from tests.operators import WHO, WHY
from tests.property.deliveries import BAD, KEYS, RENAMES, Outside, orders
from tests.property.interleaving import Engine, Still
from tests.property.waiting import MINUTE
from tests.services import Database

ENGINES = 2
"""Each has a partition."""
LIMITS = EngineLimits(inbox_token_seconds=0.05, step_poll_seconds=60, step_stop_seconds=0.01)
MOVES = (Engine.work, Engine.work, Engine.take_commands, Engine.extend_due, Engine.advance)
LOADED = ([1], [1, 2], [1, 2], [2])
"""Which versions the next engine has."""
RESULTS = (b'"by hand"', b"null", b"7")
EVENTS = {
    "placed": 5, "noted": 5, "suspended": 1, "resumed": 2, "undone": 1, "redone": 1, "called_off": 0.5, "unknown": 0.2,
}  # fmt: skip
"""How likely each is."""
RUNS = "select key from pointsman.runs where pipeline in (select id from pointsman.pipelines where namespace = $1) and "
HELD, OPEN = "held <> 0 order by key", "status = 1 and held = 0 order by key"
TOKENS = "select token from pointsman.tokens where namespace = $1 order by token"
SAID: Any = {"who": WHO, "why": WHY}


@dataclass(repr=False)
class Acts:
    """All acts, and what was done."""

    database: Database
    connection: Connection
    namespace: str
    outside: Outside
    draw: Random
    stack: contextlib.AsyncExitStack
    clock: Still = field(default_factory=Still)
    log: list[list[RawRecord]] = field(default_factory=lambda: [[] for _ in range(ENGINES)])
    """What there is to be read, by partition."""
    engines: list[Engine] = field(default_factory=list)
    asked: list[reading.AskedOfRun] = field(default_factory=list)
    asked_of_letters: list[reading.Asked] = field(default_factory=list)

    async def go_on(self, number: int) -> None:
        """So many acts, each beside a move of an engine: in some trials much of one, and none of another."""
        weights = [weight * self.draw.choice([0, 1, 1, 2]) for weight in ACTS.values()]
        for act in self.draw.choices(list(ACTS), weights, k=number):
            number, chance = self.draw.randrange(ENGINES), self.draw.random()
            if chance < 0.3:
                await self.read(number, 1 - number if chance < 0.02 else number)
            else:
                await self.draw.choice(MOVES)(self.engines[number])
            await tried(act(self))

    async def read(self, number: int, partition: int) -> None:
        """Have an engine step the next records of a partition."""
        some = self.log[partition], Partition(TOPIC, partition), self.draw.randint(1, 5)
        await self.engines[number].read(*some)

    async def begin(self, number: int, versions: list[int]) -> None:
        """Begin an engine of this number; the one that there is ends."""
        if number < len(self.engines):
            await self.engines[number].end(in_order=self.draw.choice([True, False]))
        more: Any = {"namespace": self.namespace, "clock": self.clock, "limits": LIMITS}
        fed = feed(self.database, *map(orders, versions), **more, instance=f"engine-{number}")
        engine = Engine(await self.stack.enter_async_context(fed))
        await engine.begin(range(number, HOMES, ENGINES))
        self.engines[number : number + 1] = [engine]

    async def begin_another(self) -> None:
        await self.begin(self.draw.randrange(ENGINES), self.draw.choice(LOADED))

    def event(self) -> tuple[str, str, dict[str, Any]]:
        """Its type, key and data."""
        draw, key = self.draw, self.draw.choice(KEYS)
        data: dict[str, Any] = {"order": key}
        match kind := draw.choices([*EVENTS], [*EVENTS.values()])[0]:
            case "placed":
                data |= {"tenant": draw.choice("xy"), "strict": draw.choice([True, False])}
            case "noted":
                data["number"] = draw.choice([1, 1, 2, 2, 3, 3, BAD, 5, "none"])
        return f"order.{kind}", key, data

    async def publish(self) -> None:
        for _ in range(self.draw.choice([1, 1, 2, 5])):
            event_type, key, data = self.event()
            partition = KEYS.index(key) % ENGINES
            log = self.log[partition]
            one = event(event_type, data, id=f"{partition} {len(log)}", topic=TOPIC, partition=partition)
            again = self.draw.choice(log) if log and self.draw.random() < 0.05 else one
            log.append(again._replace(offset=len(log)))

    async def pass_time(self) -> None:
        self.clock.now += MINUTE * self.draw.choice([0.1, 0.5, 1, 1, 3, 20])
        self.outside.gate.set()
        self.outside.gate.clear()

    async def tokens(self) -> list[str]:
        """Of what goes on outside."""
        return [row["token"] for row in await self.connection.fetch(TOKENS, self.namespace)]

    async def runs(self, where: str) -> list[str]:
        """Their keys."""
        return [row["key"] for row in await self.connection.fetch(RUNS + where, self.namespace)]

    async def ask(self, ask: Callable[..., Awaitable[reading.AskedOfRun]], *what: Any, **more: Any) -> None:
        """Ask this, and remember that it was asked."""
        self.asked.append(await ask(self.connection, self.namespace, *what, **SAID, **more))

    async def of_run(self, what: str, key: str) -> None:
        """Ask this of a run."""
        result = self.draw.choice(RESULTS) if what == "resolve" else None
        await self.ask(reading.ask_of_run, what, "order", key, result=result)

    async def of_some_run(self) -> None:
        what = self.draw.choice(["pause", "resume", "resume", "cancel", "retry", "retry", "skip", "resolve"])
        if runs := await self.runs(OPEN if what in ("pause", "cancel") else HELD):
            await self.of_run(what, self.draw.choice(runs))

    async def send(self, event_type: str, key: str, data: Any, **more: bool) -> None:
        """Send an event to an order."""
        what = "order", key, event_type, orjson.dumps(data)
        await self.ask(reading.ask_send, *what, event_id=f"sent {len(self.asked)}", **more)

    async def send_some(self) -> None:
        event_type, key, data = self.event()
        begins = event_type == "order.placed" and self.draw.random() < 0.5
        await self.send(event_type, key, data, begins=begins)

    async def complete(self, token: str, result: bytes | None) -> None:
        """Say that a step was done, or without a result that it failed."""
        error = "it is lost" if result is None else None
        await self.ask(reading.ask_complete, token, result=result, error=error, seconds=0)

    async def complete_some(self) -> None:
        if tokens := await self.tokens():
            await self.complete(self.draw.choice(tokens), self.draw.choice((*RESULTS, None)))

    async def letters(self) -> list[int]:
        """Those that are open."""
        found = await reading.list_dead_letters(self.connection, self.namespace, status="open", limit=0)
        return [one.id for one in found if one.reason != "step failed"]

    async def decide(self, ask: Callable[..., Awaitable[reading.Asked]], letter: int) -> None:
        """Have a dead letter be redriven or dropped."""
        self.asked_of_letters.append(await ask(self.connection, self.namespace, [letter], **SAID))

    async def decide_some(self) -> None:
        if letters := await self.letters():
            ask = self.draw.choice([reading.ask_redrive, reading.ask_drop])
            await self.decide(ask, self.draw.choice(letters))

    async def of_pipeline(self) -> None:
        await self.ask(reading.ask_of_pipeline, self.draw.choice(["pause", "resume", "resume"]), "order")

    async def map_runs(self) -> None:
        """Have runs of version 1 go on by version 2."""
        given = self.connection, self.namespace, "order"
        chosen = await reading.choose_to_map(*given, 1, 2, RENAMES)
        self.asked += await reading.ask_to_map(*given, chosen, 1, 2, RENAMES, **SAID)


async def tried(asking: Coroutine[Any, Any, None]) -> None:
    """Ask, if that may be asked."""
    with contextlib.suppress(PointsmanError):
        await asking


ACTS: dict[Callable[[Acts], Coroutine[Any, Any, None]], float] = {
    Acts.publish: 5, Acts.pass_time: 3, Acts.of_some_run: 2, Acts.send_some: 1,
    Acts.complete_some: 2, Acts.decide_some: 1, Acts.of_pipeline: 0.5, Acts.map_runs: 0.5, Acts.begin_another: 1,
}  # fmt: skip
"""How likely each is."""
