"""One engine with its relay, as a process to be killed: ``python -m tests.chaos.engine_process``.

Speaks on standard output, a line for each thing that a test may wait for. Ends when standard input does, so
that it does not outlive its test. SIGUSR1 makes it stop itself (SIGSTOP) between the next commit of its relay
in Kafka and the clean-up in Postgres; SIGUSR2 takes that back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

from connectors.kafka.settings import KafkaSettings
from connectors.source import SourceError
from engine.assembly import EngineSettings, assemble
from engine.errors import ServiceUnreachableError
from engine.limits import EngineLimits
from engine.relay import Published, Relay, RelayEvent
from engine.store.contract import StoreUnavailableError
from statemachines.machine import compile_pipeline
from tests.chaos.parcels import PIPELINES

UNREACHABLE = 3


@dataclass(slots=True)
class Freezer:
    """Stops the process between the relay's commit and its clean-up, when asked to."""

    wanted: bool = False

    def on_event(self, event: RelayEvent) -> None:
        if self.wanted and isinstance(event, Published):
            self.wanted = False
            say(f"frozen after row {event.sequence}")
            os.kill(os.getpid(), signal.SIGSTOP)

    def ask(self) -> None:
        self.wanted = True

    def forget(self) -> None:
        self.wanted = False


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


async def main(settings: dict[str, Any]) -> int:
    kafka = KafkaSettings(settings["kafka"])
    freezer = Freezer()
    relay = Relay(settings["postgres"], kafka, settings["namespace"], on_event=freezer.on_event)
    machines = [compile_pipeline(one, namespace=settings["namespace"]) for one in PIPELINES]
    engine_settings = EngineSettings(
        postgres=settings["postgres"],
        kafka=kafka,
        namespace=settings["namespace"],
        instance=settings.get("instance"),
        limits=EngineLimits(**settings.get("limits", {})),
    )
    try:
        engine = await assemble(engine_settings, machines, outbox_depth=relay.depth)
    except (ServiceUnreachableError, SourceError, StoreUnavailableError) as error:
        say(f"unreachable: {error}")
        return UNREACHABLE
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, engine.stop)
    loop.add_signal_handler(signal.SIGUSR1, freezer.ask)
    loop.add_signal_handler(signal.SIGUSR2, freezer.forget)
    relaying = asyncio.create_task(relay.run())
    say("assembled")
    try:
        await engine.run()
    except (ServiceUnreachableError, SourceError) as error:
        say(f"unreachable: {error}")
        return UNREACHABLE
    finally:
        relay.stop()
        await relaying
    return 0


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    threading.Thread(target=end_with_parent, daemon=True).start()
    code = 1
    with contextlib.suppress(KeyboardInterrupt):
        code = asyncio.run(main(json.loads(os.environ["CHAOS_SETTINGS"])))
    say(f"exit {code}")
    sys.exit(code)
