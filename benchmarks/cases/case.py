"""What all cases share."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.contestants import Contestant, Job
from benchmarks.events import Keyed, moment
from benchmarks.measuring import Outcome, median_rate, run_fresh
from benchmarks.report import shown
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes

Runs = Mapping[str, Callable[[], Awaitable[Outcome]]]
"""What runs by turns, by name."""


@dataclass(slots=True, kw_only=True)
class Alone:
    """How much to measure, of what needs no servers."""

    sizes: Sizes
    began: float = field(default_factory=time.monotonic)

    def tell(self, line: str) -> None:
        """How far we are, for whoever waits."""
        print(f"[{time.monotonic() - self.began:7.1f} s] {line}", file=sys.stderr, flush=True)


@dataclass(slots=True, kw_only=True)
class Bench(Alone):
    """Where and how much to measure."""

    servers: Servers
    baseline_per_second: float | None = None
    """On W1a with one process, once it was measured."""
    bytes_by_relation: dict[str, int] | None = None
    """Of the engine after W1a, once it was measured."""

    async def fill(self, name: str, events: Iterable[Keyed]) -> tuple[str, int]:
        """A new topic with these events waiting in it, and their number."""
        topic = await asyncio.to_thread(self.servers.topics.make, name)
        return topic, await asyncio.to_thread(self.servers.topics.fill, topic, events)

    async def alternate(self, runs: Runs) -> dict[str, list[Outcome]]:
        """All of these by turns, as many rounds as the sizes say."""
        found: dict[str, list[Outcome]] = {name: [] for name in runs}
        for number in range(self.sizes.rounds):
            for name, run in runs.items():
                outcome = await run()
                found[name].append(outcome)
                self.tell(
                    f"  round {number + 1}, {name}: {outcome.per_second:,.0f}/s, "
                    f"{outcome.cpu_microseconds:.1f} us of CPU each, peak {outcome.peak_bytes / 1e6:.0f} MB"
                )
        return found

    def fresh(
        self, contestant: Contestant, job: Job, expected: int, counted: str = "true"
    ) -> Callable[[], Awaitable[Outcome]]:
        """A run on a database of its own."""
        return lambda: run_fresh(contestant, self.servers, job, expected, counted=counted)


def now() -> str:
    """The time for events that wait."""
    return moment(time.time())


HEADER = ("", "transitions/s, median", "rounds", "CPU us each", "rows a commit", "peak MB")


def outcome_rows(found: Mapping[str, Sequence[Outcome]]) -> list[tuple[str, ...]]:
    """Rows under ``HEADER``."""
    return [
        (
            name,
            shown(median_rate(outcomes)),
            ", ".join(shown(one.per_second) for one in outcomes),
            f"{median(one.cpu_microseconds for one in outcomes):.1f}",
            shown(median(one.span.rows / one.span.commits for one in outcomes)),
            f"{max(one.peak_bytes for one in outcomes) / 1e6:.0f}",
        )
        for name, outcomes in found.items()
    ]
