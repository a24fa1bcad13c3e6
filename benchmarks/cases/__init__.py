"""What is measured, by name, in the order in which it is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from benchmarks.cases import latency, memory, publishing, throughput
from benchmarks.cases.case import Bench
from benchmarks.report import Section

CASES: Mapping[str, Callable[[Bench], Awaitable[Section]]] = {
    "w1a": throughput.w1a,
    "w1b": throughput.w1b,
    "w1c": throughput.w1c,
    "two": throughput.two,
    "bytes": throughput.size,
    "latency": latency.latency,
    "memory": memory.memory,
    "publishing": publishing.publishing,
}
