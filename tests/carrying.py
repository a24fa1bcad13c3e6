"""Loads that are carried by processes which outlive engines, for engines that are killed.

Topic, desk and folder are named by the environment, since each test has its own.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from statemachines import Call, Context, Done, Event, Pipeline, Retry, exponential
from tests import worker
from tests.lasting import Lasting, LastingExecutor

MODULE = "tests.carrying:carrying"
EXECUTORS = "tests.carrying:EXECUTORS_BY_CLASS"
DESK = "CARRYING_DESK"
FOLDER = "CARRYING_FOLDER"


class Ordered(Event, type="load.ordered", key="load"):
    load: str


class Load(Context):
    tons: int = 0


def begin(event: Ordered) -> Load:
    return Load()


def carry(load: Load, call: Call) -> Lasting[int]:
    words = sys.executable, "-I", "-S", str(worker.__file__), os.environ[DESK], f"{call.key}/{call.attempt}"
    return Lasting(words)


def keep(load: Load, got: Done[int]) -> None:
    load.tons = got.result


def carrying_on(topic: str) -> Pipeline[Load]:
    """Carries loads from a topic."""
    flow = Pipeline("carrying", Load, topics=[topic])
    carries = flow.step(timeout=timedelta(minutes=5), retry=Retry(wait=exponential(0.1, 0.1)))(carry)
    going = flow.state("carrying", initial=True, run=carries)
    flow.start(Ordered, begin)
    going.on(carries.done, to=flow.state("there", final=True), do=keep)
    flow.on_failure(to=flow.state("failed", final=True))
    return flow


if "TIMED_TOPIC" in os.environ:
    carrying = carrying_on(os.environ["TIMED_TOPIC"])
    EXECUTORS_BY_CLASS = {Lasting: LastingExecutor(Path(os.environ[FOLDER]))}
