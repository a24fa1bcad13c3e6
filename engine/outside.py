"""An engine seen from outside: health, metrics, and what is looked up for them, as far as anybody wants it.

Metrics go to whoever asks the engine's port, and to an OpenTelemetry SDK if the process was started with one. With
neither, nothing of this is loaded and the engine is given ``engine.observing.Silent``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.source import Partition
from engine.assembly import EngineSettings
from engine.engine import Engine
from engine.observing import Observer, together
from engine.relay import Relay
from engine.session.claims import Claim

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

    from engine.metrics import Metrics

log = logging.getLogger("pointsman.engine")

TURN_SECONDS_MAX = 120.0
"""How long the engine's loop may take for one turn; it waits for nothing that long, not even for hanging services."""


@dataclass(slots=True)
class Outside:
    """What answers are taken from; ``show`` it the engine once there is one."""

    observer: Observer
    metrics: list[Metrics] = field(default_factory=list)
    engine: Engine | None = None
    relay: Relay | None = None

    def show(self, engine: Engine, relay: Relay) -> None:
        """From now on it is about these."""
        self.engine, self.relay = engine, relay
        for one in self.metrics:
            one.outbox_depth = relay.depth
            one.breakers = engine.steps.breakers.are_open

    def alive(self) -> list[str]:
        """Why this engine should be restarted."""
        turned_at = None if self.engine is None else self.engine.turned_at
        if turned_at is None or time.monotonic() - turned_at <= TURN_SECONDS_MAX:
            return []
        return [f"The engine's loop has not turned for {time.monotonic() - turned_at:.0f} s."]

    def ready(self) -> list[str]:
        """Why this engine does not serve what is its own."""
        if self.engine is None or self.relay is None:
            return ["The engine is starting."]
        halted = self.relay.halted
        return self.engine.troubles() + ([halted] if halted else [])

    def claims(self) -> Mapping[Partition, Claim]:
        """The partitions that are read."""
        if self.engine is None or self.engine.session is None or not self.engine.ready:
            return {}
        return self.engine.session.claims


@contextlib.asynccontextmanager
async def seen_from_outside(settings: EngineSettings, observer: Observer | None) -> AsyncIterator[Outside]:
    """While this lasts, an engine can be seen; ``observer`` is told as well.

    Raises:
        UsageError: the port cannot be had.
    """
    observers = [] if observer is None else [observer]
    async with contextlib.AsyncExitStack() as stack:
        metrics = [*_for_sdk()]
        registry = None
        if settings.listen is not None:
            own, registry, provider = _for_prometheus(settings)
            stack.callback(provider.shutdown)
            metrics.append(own)
        outside = Outside(together([*observers, *metrics]), metrics)
        if settings.listen is not None and registry is not None:
            await _serve(stack, outside, settings.listen, registry)
        if metrics:
            await _look_up(stack, outside, settings)
        yield outside


async def _serve(
    stack: contextlib.AsyncExitStack, outside: Outside, listen: tuple[str, int], registry: CollectorRegistry
) -> None:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415 - loaded where it is wanted

    from engine.health import Answers, HealthServer  # noqa: PLC0415 - as above

    answers = Answers(outside.alive, outside.ready, lambda: (generate_latest(registry), CONTENT_TYPE_LATEST))
    server = await HealthServer.start(*listen, answers)
    stack.push_async_callback(server.close)
    log.info("health and metrics at %s", server.url)


async def _look_up(stack: contextlib.AsyncExitStack, outside: Outside, settings: EngineSettings) -> None:
    from engine.lookups import look_up_for  # noqa: PLC0415 - loaded only where it is wanted

    task = asyncio.create_task(
        look_up_for(outside.metrics, settings.kafka, settings.postgres, settings.namespace, outside.claims),
        name="lookups",
    )

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)


def _for_sdk() -> list[Metrics]:
    """Metrics for the SDK that the process was started with, if it was."""
    from opentelemetry.metrics import get_meter_provider  # noqa: PLC0415 - loaded only where an engine runs

    provider = get_meter_provider()
    if type(provider).__module__.startswith("opentelemetry.metrics"):
        # The API's own, which only stands for one that may come later.
        return []
    from engine.metrics import Metrics  # noqa: PLC0415 - loaded only where it is wanted

    return [Metrics(provider)]


def _for_prometheus(settings: EngineSettings) -> tuple[Metrics, CollectorRegistry, MeterProvider]:
    """Metrics of our own, and where they are collected, with those of the process beside them."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415 - only where it is wanted
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
    from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector  # noqa: PLC0415 - as above

    from engine.metrics import Metrics  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    resource = Resource.create(
        {
            "service.name": "pointsman",
            "pointsman.namespace": settings.namespace,
            "pointsman.group": settings.group_name,
        }
    )
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    return Metrics(provider), registry, provider
