"""Every limit of the engine, named, with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

_Number = TypeVar("_Number", int, float)
OFF_AT_ZERO = frozenset({"handler_seconds_max", "lag_tell_seconds"})
"""Limits that may be 0, which turns off what they limit."""
SILENT_SECONDS = 10.0
"""After so long without a word the attempts of an engine are lost: as long as its membership in the group lasts."""


def _limit(default: _Number, what: str) -> _Number:
    """A limit, with the sentence that `pointsman config --limits` and `pointsman run --help` say of it."""
    limit: _Number = field(default=default, metadata={"what": what})
    return limit


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What bounds the engine's memory and patience, and what happens at each bound."""

    batch_records_max: int = _limit(2_000, "Records in one commit; more wait in the broker.")
    batch_bytes_max: int = _limit(
        16 * 1024 * 1024,
        "Bytes in one commit, of records' values or of what is written for them, whichever are more; a "
        "larger chunk is committed in portions. A record that may hold several events counts for more.",
    )
    fetch_wait_milliseconds: int = _limit(
        100,
        "How long a fetch waits for the first record; what came by then is a batch.",
    )
    cache_runs_max: int = _limit(
        50_000,
        "Hot runs of each pipeline in memory; the least recently moved are dropped and loaded again when "
        "needed.",
    )
    cache_bytes_max: int = _limit(
        256 * 1024 * 1024,
        "Roughly, for all hot runs with their contexts; large contexts lower the number of runs, down to "
        "those of a batch. The pipelines share it equally.",
    )
    outbox_rows_max: int = _limit(
        2_000,
        "Commits that wait to be published; beyond it all partitions are paused until half of it is left.",
    )
    inbox_commands_max: int = _limit(100, "Commands taken up at once; more wait in their table.")
    inbox_poll_seconds: float = _limit(1.0, "How long a command may wait where its notification was lost.")
    inbox_seconds_max: float = _limit(
        2.0,
        "After taking up commands for as long, events have their turn, and the other commands wait in "
        "their table.",
    )
    inbox_token_seconds: float = _limit(
        10.0,
        "How long what a run says of a step of its own waits until its token is known; then nobody knows it.",
    )
    drain_events_max: int = _limit(
        100,
        "Events that waited behind a hold taken up in one commit, if batch_bytes_max allows; then the "
        "next ones.",
    )
    timer_poll_seconds: float = _limit(0.05, "How often it is looked what has fallen due.")
    timer_runs_max: int = _limit(
        1_000,
        "Runs for which something has fallen due, taken up at once; then the next ones.",
    )
    steps_at_once_max: int = _limit(
        2_000,
        "Attempts of steps that go on at once; more wait in their table, in order.",
    )
    step_threads_max: int = _limit(40, "How many of them are plain functions, which have a thread each.")
    step_poll_seconds: float = _limit(
        0.2,
        "How often it is looked which attempts have come due, beside all that is announced.",
    )
    step_cancel_seconds: float = _limit(
        1.0,
        "How long an attempt may take to end once it was cancelled, beside what its executor says that it "
        "takes; then it is told of as timed out all the same. One that can be undone has that long where "
        "it cannot be cancelled, too; and where its state was left, behind what is left of its own time.",
    )
    step_progress_seconds: float = _limit(
        1.0,
        "How often it is written to Postgres how far attempts say that they have come; the last word of "
        "one that fails always is.",
    )
    step_stop_seconds: float = _limit(
        3.0,
        "How long attempts may go on once the engine is to stop; then they are cut short, which does not "
        "count.",
    )
    backlog_seconds_max: float = _limit(
        60.0,
        "How long a partition that does not get on may delay the timers of pipelines that read it; then "
        "that is logged.",
    )
    take_again_seconds: float = _limit(
        5.0,
        "After a partition was lost to another engine; if it is still assigned to this one, it is taken "
        "again then.",
    )
    stop_seconds: float = _limit(
        8.0,
        "After being asked to stop; then what is not committed is left to the next engine.",
    )
    reconnect_seconds_max: float = _limit(10.0, "The longest pause between two attempts to reach a service.")
    lag_tell_seconds: float = _limit(
        5.0,
        "How often Kafka is told, for tools that show lag, how far partitions are applied. 0: never.",
    )
    complain_seconds: float = _limit(60.0, "How often a service that is away is spoken of.")
    handler_seconds_max: float = _limit(
        30.0,
        "How long one record, or a step in the loop at a stretch, may keep the engine busy; then the "
        "watchdog ends it. 0: there is no watchdog. Where it is more than 40, Postgres may end the "
        "transaction that is open meanwhile, which is computed again then.",
    )

    def __post_init__(self) -> None:
        """A cache that is smaller than two batches would forget runs that are not durable yet."""
        if self.cache_runs_max < 2 * self.batch_records_max:
            message = (
                f"cache_runs_max is {self.cache_runs_max}, but runs of two batches must fit: "
                f"give at least {2 * self.batch_records_max}, or smaller batches"
            )
            raise ValueError(message)


def limits_told() -> dict[str, str]:
    """What each limit is, by its name."""
    return {limit.name: limit.metadata["what"] for limit in fields(EngineLimits)}
