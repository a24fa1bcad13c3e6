"""A relay in a process of its own, to be killed; it can be told to kill itself where it hurts most."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import uvloop

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink import KafkaSink
from connectors.kafka.sink_limits import SinkLimits
from connectors.kafka.sink_transactions import Transactions
from engine.relay import Published, Relay, RelayEvent, RelayLimits
from engine.relay.turn import try_turn

LIMITS = RelayLimits(
    rows_max=20,
    records_max=400,
    poll_seconds=0.2,
    clean_seconds=0.3,
    silence_seconds=1.5,
    halt_seconds=0.2,
    reconnect_seconds_max=0.5,
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What the process is to do."""

    dsn: str
    bootstrap: str
    namespace: str
    wait_for_turn: bool = True
    """False: start at once, whoever else is at work; then only the sink's fencing keeps order."""
    die_after_publishing: int = 0
    """Kill itself at this transaction: committed in Kafka, and nothing of it in Postgres yet."""
    die_in_commit: int = 0
    """Kill itself at this transaction, while its commit is on the way."""

    def argv(self) -> list[str]:
        """How to start it."""
        return [sys.executable, "-m", "tests.chaos.relay_process", orjson.dumps(asdict(self)).decode()]


def main() -> None:
    """Relay until killed."""
    orders = Orders(**orjson.loads(sys.argv[1]))
    if orders.die_in_commit:
        _die_in_commit(orders.die_in_commit)
    uvloop.run(_relay(orders))


async def _relay(orders: Orders) -> None:
    published = 0

    def on_event(event: RelayEvent) -> None:
        nonlocal published
        if isinstance(event, Published):
            published += 1
            if published == orders.die_after_publishing:
                os.kill(os.getpid(), signal.SIGKILL)

    async def at_once(*_: object) -> bool:
        return True

    sink_limits = SinkLimits(publish_seconds=8, transaction_timeout_seconds=10)
    settings = KafkaSettings(orders.bootstrap)
    relay = Relay(
        orders.dsn,
        lambda store: KafkaSink(settings, orders.namespace, 0, store, sink_limits),
        orders.namespace,
        limits=LIMITS,
        on_event=on_event,
        take_turn=try_turn if orders.wait_for_turn else at_once,
    )
    await relay.run()


def _die_in_commit(number: int) -> None:
    """Kill the process a moment after the request to commit was written to the socket."""
    end = Transactions.end
    commits = 0

    async def fatal_end(self: Transactions, **options: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == number:
            delay = random.choice((0.0, 0.0005, 0.001, 0.002))
            asyncio.get_running_loop().call_later(delay, os.kill, os.getpid(), signal.SIGKILL)
        await end(self, **options)

    Transactions.end = fatal_end  # type: ignore[method-assign]  # only in this process, which dies of it


if __name__ == "__main__":
    main()
