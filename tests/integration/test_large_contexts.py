"""Runs with large contexts, on a real Postgres: however many of them move at a time, a commit takes only so much."""

from __future__ import annotations

from datetime import timedelta

import pytest

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.observing import Silent
from engine.session.session import TAKEN_AT_ONCE
from statemachines import Call, Context, Event, Pipeline
from tests.chaos.lived import lived
from tests.chaos.parcels import PARCELS
from tests.feeding import event, feed
from tests.services import Database

RUNS = 400
CONTEXT_BYTES = 10_000
LIMIT_BYTES = 1_000_000
OVER_BYTES = 2.2 * CONTEXT_BYTES * TAKEN_AT_ONCE
"""What is in a commit beyond its limit at most: its last portion, each of whose contexts is in a row of the log, and is
what its run is then."""


class Case(Context):
    text: str


class Opened(Event, type="case.opened", key="case"):
    case: str


class Nothing(Context):
    pass


class Weighing(Silent):
    """What each commit came to: how many rows of the log, and bytes in all."""

    def __init__(self) -> None:
        self.commits: list[tuple[int, int]] = []

    def committed(self, batch: Batch, seconds: float) -> None:
        commit = batch.commit
        came_to = sum(map(len, commit.rows)) + sum(len(run.context) for _, run in commit.changed)
        if commit.rows:
            self.commits.append((len(commit.rows), came_to))

    def is_within_limits(self) -> bool:
        return max(size for _, size in self.commits) <= LIMIT_BYTES + OVER_BYTES


def grow(case: Case, _: object) -> None:
    case.text += "."


async def look(_: Case, call: Call) -> Nothing:
    return Nothing()


def cases(*, by: str) -> Pipeline[Case]:
    flow = Pipeline("cases", Case, version=1, topics=[PARCELS])
    closed = flow.state("closed", final=True)
    if by == "timer":
        opened = flow.state("opened", initial=True)
        opened.after(timedelta(seconds=1), to=closed, do=grow)
    else:
        looked = flow.step(look)
        opened = flow.state("opened", initial=True, run=looked)
        opened.on(looked.done, to=closed, do=grow)
    flow.start(Opened, lambda _: Case(text="x" * CONTEXT_BYTES))
    return flow


@pytest.mark.parametrize("by", ["timer", "step"])
async def test_what_runs_do_by_themselves_at_the_same_time_is_in_commits_of_their_size(
    database: Database, by: str
) -> None:
    def opened(number: int) -> RawRecord:
        return event("case.opened", {"case": f"c{number}"}, topic=PARCELS)

    flow, weighing = cases(by=by), Weighing()
    async with feed(database, flow) as feeding:
        for first in range(0, RUNS, 50):
            await feeding.records(*(opened(number) for number in range(first, first + 50)))
    async with lived(database, flow=flow, observer=weighing, batch_bytes_max=LIMIT_BYTES) as one:
        await one.moves(2 * RUNS)
    assert sum(rows for rows, _ in weighing.commits) == RUNS
    assert weighing.is_within_limits(), weighing.commits
