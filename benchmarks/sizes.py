"""How large each case is; the figures of the README are those of the full sizes."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONS = 8
"""Of the topic that is read."""
BATCH_RECORDS = 2_000
"""Of the engine, by default, and of the baseline."""
CACHE_RUNS_MIN = 2 * BATCH_RECORDS
"""The engine refuses a smaller cache."""
CACHE_RUNS_DEFAULT = 50_000
STEPS_AT_ONCE = 100
"""Of the step that has a limit."""
LIVE_RUNS_MIN = 10_500
"""A fifth of them is more than one batch."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured, and how often."""

    rounds: int
    orders: int
    """W1a, and what one and two processes share."""
    open_orders: int
    open_orders_cache: int
    ledgers: int
    ledger_events: int
    live_runs: int
    live_cache: int
    backlog: int
    """Events waiting for the live runs; then ten times as many."""
    timers: int
    """Runs that wait for a time that is far away."""
    timers_per_second: int
    """That fall due while others wait."""
    deferred: int
    """Events that come before their runs."""
    dbos_runs: int
    """Sagas of the library that is compared."""
    limited_steps: int
    """That wait for a step which may be done 100 times at once."""
    held_steps: int
    """That go on when the engine is killed."""
    latency_seconds: float
    warm_up_seconds: float
    core_turns: int
    """Of each library in a round: short ones, so that what else the machine does falls on neighbours alike."""
    core_seconds: float
    """Of each turn, of CPU."""

    @classmethod
    def scaled(cls, scale: float, rounds: int) -> Sizes:
        """All sizes by the same factor, as far as their lower bounds allow; 1 is the full size."""
        live_runs = max(LIVE_RUNS_MIN, round(500_000 * scale))
        return cls(
            rounds=rounds,
            orders=max(1_000, round(40_000 * scale)),
            open_orders=max(CACHE_RUNS_MIN + 500, round(200_000 * scale)),
            open_orders_cache=max(CACHE_RUNS_MIN, round(20_000 * scale)),
            ledgers=40,
            ledger_events=max(120, round(5_000 * scale)),
            live_runs=live_runs,
            live_cache=max(CACHE_RUNS_MIN, live_runs // 10),
            backlog=live_runs // 5,
            timers=max(5_000, round(1_000_000 * scale)),
            timers_per_second=max(300, round(3_000 * min(1.0, scale * 20))),
            deferred=max(BATCH_RECORDS + 500, round(10_000 * scale)),
            dbos_runs=max(60, round(4_000 * scale)),
            limited_steps=max(1_000, round(10_000 * scale)),
            held_steps=max(1_000, round(100_000 * scale)),
            latency_seconds=max(1.0, 20.0 * min(1.0, scale * 5)),
            warm_up_seconds=max(0.5, 3.0 * min(1.0, scale * 5)),
            core_turns=max(2, round(20 * min(1.0, scale * 5))),
            core_seconds=max(0.01, 0.15 * min(1.0, scale * 5)),
        )
