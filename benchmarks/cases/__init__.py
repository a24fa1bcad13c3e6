"""What is measured, by name, in the order in which it is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from benchmarks.cases import (
    begun,
    core,
    deferred,
    latency,
    limited,
    memory,
    publishing,
    recovery,
    sagas,
    throughput,
    timers,
)
from benchmarks.cases.case import Alone, Bench
from benchmarks.report import Section

ALONE: Mapping[str, Callable[[Alone], Awaitable[Section]]] = {"core": core.core}
"""Those that need no servers."""
CASES: Mapping[str, Callable[[Bench], Awaitable[Section]]] = {
    **ALONE,
    "w1a": throughput.w1a,
    "w1b": throughput.w1b,
    "w1c": throughput.w1c,
    "chart": throughput.chart,
    "two": throughput.two,
    "bytes": throughput.size,
    "latency": latency.latency,
    "memory": memory.memory,
    "publishing": publishing.publishing,
    "deferred": deferred.deferred,
    "timers": timers.timers,
    "w2": sagas.w2,
    "begun": begun.begun,
    "limited": limited.limited,
    "recovery": recovery.recovery,
}
