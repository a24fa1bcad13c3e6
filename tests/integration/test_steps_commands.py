"""Steps and compensations whose functions say which command is to be run, on a real Postgres."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

from connectors.source import RawRecord
from engine.limits import EngineLimits
from engine.reading import list_runs, replay, show, verify
from engine.store.connecting import Connection
from statemachines import (
    Call,
    Command,
    CommandError,
    Context,
    Done,
    Event,
    Pipeline,
    Retry,
    StepFailed,
    exponential,
)
from statemachines.machine import compile_pipeline
from tests.feeding import event, feed
from tests.services import Database

TOPIC = "pictures"
LIMITS = EngineLimits(step_poll_seconds=0.01)


class Taken(Event, type="picture.taken", key="picture"):
    picture: str


class Removed(Event, type="picture.removed", key="picture"):
    picture: str


class Size(BaseModel):
    width: int
    key: str

    @field_validator("width")
    @classmethod
    def is_a_width(cls, width: int) -> int:
        if width < 0:
            raise LookupError(width)
        return width


class TooSmallError(Exception):
    pass


class Picture(Context):
    picture: str
    width: int = 0
    key: str = ""
    notes: list[str] = Field(default_factory=list)


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


MEASURES = """
import json, sys
picture, key = json.load(sys.stdin)["picture"], sys.argv[1]
print(json.dumps({"width": len(picture), "key": key}))
"""
FORGETS = "import sys\nopen(sys.argv[1], 'a').write(f'{sys.argv[2]} {sys.argv[3]}\\n')"


def pictures(
    measures: Callable[[Picture, Call], list[str]], forgotten: Path, *, undoes: bool = False, **settings: Any
) -> Pipeline[Picture]:
    flow = Pipeline("pictures", Picture, topics=[TOPIC])
    retry = Retry(attempts=2, wait=exponential(0.01, 0.01), unless=TooSmallError)

    @flow.step(retry=retry, **settings)
    def measure(picture: Picture, call: Call) -> Command[Size]:
        return Command(
            measures(picture, call), send=picture, result=Size, exits={3: TooSmallError}, grace_seconds=0.2
        )

    @measure.compensate()
    def forget(picture: Picture, made: Size | None, call: Call) -> Command[None]:
        width = "-" if made is None else str(made.width)
        return Command(python(FORGETS, str(forgotten), call.of.idempotency_key, width))

    def begin(got: Taken) -> Picture:
        return Picture(picture=got.picture)

    def keep(picture: Picture, got: Done[Size]) -> None:
        picture.width, picture.key = got.result.width, got.result.key

    def say(picture: Picture, failed: StepFailed) -> None:
        picture.notes.append(f"{failed.error} after {failed.attempts}: {failed.message}")

    measuring = flow.state("measuring", initial=True, run=measure)
    measured = flow.state("measured")
    small, broken, late, removed = (
        flow.state(name, final=True) for name in ("small", "broken", "late", "removed")
    )
    flow.start(Taken, begin)
    measuring.on(measure.done, to=measured, do=keep)
    measuring.on(measure.failed_with(TooSmallError), to=small, do=say)
    measuring.on(measure.failed_with(CommandError), to=broken, do=say, compensate=undoes)
    measuring.on(measure.timed_out, to=late, do=say)
    flow.on_failure(to=broken, do=say)
    flow.on(Removed, to=removed, compensate=True)
    return flow


def told(kind: str, picture: str) -> RawRecord:
    return event(f"picture.{kind}", {"picture": picture}, topic=TOPIC)


async def state_of(reader: Connection) -> tuple[str, list[str]]:
    [run] = await list_runs(reader, "default")
    return " ".join(run.configuration), run.context["notes"]


async def test_a_command_is_run_and_undone_by_another(
    database: Database, reader: Connection, tmp_path: Path
) -> None:
    forgotten = tmp_path / "forgotten"
    flow = pictures(lambda _picture, call: python(MEASURES, call.idempotency_key), forgotten)
    async with feed(database, flow, limits=LIMITS) as feeding:
        await feeding.records(told("taken", "abc"))
        await feeding.work()
        [run] = await list_runs(reader, "default")
        assert (run.configuration, run.context["width"]) == (["measured"], 3)
        await feeding.records(told("removed", "abc"))
        await feeding.work()
    assert (await state_of(reader))[0] == "removed"
    assert forgotten.read_text() == f"{run.context['key']} 3\n"
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(flow)])).is_equal


@pytest.mark.parametrize(
    ("text", "state", "said"),
    [
        ("import sys; sys.stderr.write('4 pixels'); sys.exit(3)", "small", "TooSmallError after 1: 4 pixels"),
        ("import sys; sys.exit(5)", "broken", "CommandError after 2: "),
        ("print('no json')", "broken", "CommandOutputError after 1: what "),
        ("import os; os.kill(os.getpid(), 9)", "broken", "CommandError after 2: "),
    ],
)
async def test_how_a_command_fails_is_a_move(
    database: Database, reader: Connection, tmp_path: Path, text: str, state: str, said: str
) -> None:
    flow = pictures(lambda _picture, _call: python(text), tmp_path / "forgotten")
    async with feed(database, flow, limits=LIMITS) as feeding:
        await feeding.records(told("taken", "abc"))
        await feeding.work()
    found, [note] = await state_of(reader)
    assert found == state
    assert note.startswith(said)


@pytest.mark.parametrize(
    ("text", "attempts", "is_undone"),
    [
        ("import sys; sys.exit(5)", 2, False),
        ("import os; os.kill(os.getpid(), 9)", 2, True),
        ("import os; os.kill(os.getpid(), 15)", 2, True),
        ("print('a warning'); print(7)", 1, True),
        ("print('x' * 1_000_001)", 1, True),
        ('print(\'{"width": -1, "key": ""}\')', 1, True),
    ],
)
async def test_what_a_command_did_that_a_signal_ended_or_whose_output_is_no_result_nobody_knows(
    database: Database, reader: Connection, tmp_path: Path, text: str, attempts: int, *, is_undone: bool
) -> None:
    begun, forgotten = tmp_path / "begun", tmp_path / "forgotten"
    begins = "import os, sys\nopen(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n" + text
    flow = pictures(lambda _picture, _call: python(begins, str(begun)), forgotten, undoes=True)
    async with feed(database, flow, limits=LIMITS) as feeding:
        await feeding.records(told("taken", "abc"))
        await feeding.work()
    [run] = await list_runs(reader, "default")
    [step] = (await show(reader, "default", "pictures", "abc")).steps
    assert (run.configuration, len(begun.read_text().split())) == (["broken"], attempts)
    assert forgotten.exists() == is_undone
    if is_undone:
        assert forgotten.read_text() == f"{step.of.idempotency_key} -\n", "it is not known what was made"
    assert step.outcome == "failed", "it was not lost with its engine"
    assert (await verify(reader, "default")).is_clean
    assert (await replay(reader, "default", [compile_pipeline(flow)])).is_equal


BEGINS = "import os, sys, time\nopen(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"


async def test_one_that_takes_too_long_is_ended(
    database: Database, reader: Connection, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    waits = BEGINS + "while True: time.sleep(60)"
    flow = pictures(
        lambda _picture, _call: python(waits, str(begun)),
        tmp_path / "forgotten",
        timeout=timedelta(seconds=3),
    )
    async with feed(database, flow, limits=LIMITS) as feeding:
        await feeding.records(told("taken", "abc"))
        await feeding.work()
    assert await state_of(reader) == ("late", ["TimeoutError after 2: it was not done within 3 s"])
    pids = [int(one) for one in begun.read_text().split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_function_that_fails_to_say_which_command_is_tried_again(
    database: Database, reader: Connection, tmp_path: Path
) -> None:
    def measures(_picture: Picture, call: Call) -> list[str]:
        if call.attempt == 1:
            raise LookupError("which?")
        return python(MEASURES, call.idempotency_key)

    async with feed(database, pictures(measures, tmp_path / "forgotten"), limits=LIMITS) as feeding:
        await feeding.records(told("taken", "abc"))
        await feeding.work()
    assert await state_of(reader) == ("measured", [])
