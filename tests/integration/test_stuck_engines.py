"""Handlers that never return: the engine is ended, and in the end the record is out of the way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from engine.reading import replay, verify
from engine.store.connecting import Connection
from statemachines.machine import compile_pipeline
from tests.services import Database, Kafka, TopicFactory
from tests.stuck import OFFSET, late_on, publish, value

REPOSITORY = Path(__file__).parents[2]
SECONDS_MAX = "1"
ENGINE_SECONDS = 180.0
"""For a whole life of an engine, on a machine that has other things to do."""
NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"


async def run_engine(
    kafka: Kafka,
    topic: str,
    database: Database,
    *options: str,
    module: str = "tests.stuck:stuck",
    enough: str = "",
) -> tuple[int, str]:
    """Run the command until it ends; returns its exit code and what it said.

    Where ``enough``, a question to Postgres, has an answer, it is told to stop.
    """
    environment = {
        **os.environ,
        "STUCK_TOPIC": topic,
        # The relay keeps its progress in Kafka by namespace, and other tests are there, too.
        "POINTSMAN_NAMESPACE": topic,
        "POINTSMAN_KAFKA": kafka.bootstrap,
        "POINTSMAN_POSTGRES": database.engine_dsn,
        "POINTSMAN_LIMIT_HANDLER_SECONDS_MAX": SECONDS_MAX,
        "POINTSMAN_INSTANCE": "one",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine.cli", "run", module, "--log-format", "json", *options),
        stderr=subprocess.PIPE,
        env=environment,
        cwd=REPOSITORY,
    )
    try:
        async with asyncio.timeout(ENGINE_SECONDS):
            ended = asyncio.create_task(process.communicate())
            while enough and not ended.done() and not await ask(database, enough):
                await asyncio.wait({ended}, timeout=0.1)
            if enough and not ended.done():
                process.terminate()
            _, said = await ended
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode()


async def ask(database: Database, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def last_words(said: str) -> dict[str, object]:
    """What the watchdog said."""
    [line] = [line for line in said.splitlines() if "pointsman.watchdog" in line]
    words: dict[str, object] = json.loads(line)
    return words


@pytest.mark.parametrize(
    ("record", "handler"),
    [
        pytest.param(value("case.looped", "a"), "loops", id="a loop"),
        pytest.param(
            value("case.searched", "a", text="a" * 40 + "b"),
            "searches",
            id="a regular expression that holds the lock",
        ),
        pytest.param(value("case.checked", "a"), "is_known", id="the validation of an event"),
    ],
)
async def test_a_record_that_ended_two_engines_is_a_dead_letter_for_the_third(
    kafka: Kafka, topic: TopicFactory, database: Database, record: bytes, handler: str
) -> None:
    name = await topic("cases")
    await publish(kafka.bootstrap, name, value("case.opened", "a"), record, value("case.opened", "b"))
    for strike in (1, 2):
        code, said = await run_engine(kafka, name, database)
        assert code == -signal.SIGKILL, said
        words = last_words(said)
        assert (words["topic"], words["partition"], words["offset"]) == (name, "0", 1)
        assert re.match(rf"{handler} \(.*tests/stuck\.py:\d+\)$", str(words["handler"]))
        assert f"so far: {strike};" in str(words["message"])
        assert await ask(database, 'select "offset", strikes from pointsman.strikes') == [(1, strike)]
    code, said = await run_engine(kafka, name, database, "--until-idle")
    assert code == 0, said
    [(reason, error, offset, key)] = await ask(
        database, 'select reason, error, "offset", key from pointsman.dead_letters'
    )
    assert (reason, offset, key) == ("handler never returned", 1, "a")
    assert str(error).startswith(f"{handler} (")
    assert await ask(database, "select key, held > 0 from pointsman.runs order by key") == [
        ("a", True),
        ("b", False),
    ]
    assert await ask(database, "select * from pointsman.strikes") == []


LATE = "tests.stuck:late"
LETTER = "select d.reason, d.type, r.key, r.held from pointsman.dead_letters d join pointsman.runs r on r.id = d.run"


@pytest.mark.parametrize(
    ("records", "what", "letter", "said"),
    [
        pytest.param(
            [value("case.opened", "a"), value("case.put", "a")],
            "a timer, or an event that the run has sent to itself, of the late 'a'",
            ("handler never returned", "after.opened.1", "a"),
            ["early"],
            id="a timer, with another one of the same row before it, and a deferred event that waits on",
        ),
        pytest.param(
            [value("case.opened", "a"), value("case.put", "a"), value("case.looped", "a")],
            "an event that was deferred of a run that is not durable yet",
            ("handler never returned", "case.put", "a"),
            [],
            id="an event that was deferred",
        ),
        pytest.param(
            [
                *(value("case.opened", "a-other"), value("case.looped", "a-other")),
                *(value("case.opened", "a"), value("case.looped", "a"), value("case.wanted", "a")),
            ],
            "an event that a run has sent to another one",
            ("handler never returned", "case.asked", "a-other"),
            [],
            id="an event that another run has sent",
        ),
    ],
)
async def test_what_a_run_takes_by_itself_is_a_dead_letter_too_after_it_has_ended_two_engines(
    kafka: Kafka,
    topic: TopicFactory,
    database: Database,
    reader: Connection,
    records: list[bytes],
    what: str,
    letter: tuple[str, ...],
    said: list[str],
) -> None:
    name = await topic("cases")
    await publish(kafka.bootstrap, name, *records)
    for strike in (1, 2):
        code, spoken = await run_engine(kafka, name, database, module=LATE)
        assert code == -signal.SIGKILL, spoken
        words = last_words(spoken)
        assert re.match(r"loops_late \(.*tests/stuck\.py:\d+\)$", str(words["handler"]))
        assert re.search(rf" on {what}, so the engine is ended; nothing of the event", str(words["message"]))
        assert f"so far: {strike};" in str(words["message"])
    code, spoken = await run_engine(kafka, name, database, module=LATE, enough=LETTER)
    assert code == 0, spoken
    reason, kind, key, held = (await ask(database, LETTER))[0]
    assert (reason, kind, key) == letter
    assert held, "it holds its run"
    [(said_so_far,)] = await ask(
        database,
        f"select convert_from(context, 'UTF8')::jsonb -> 'said' from pointsman.runs where key = '{letter[2]}'",
    )
    assert json.loads(str(said_so_far)) == said
    assert await ask(database, "select * from pointsman.strikes") == []
    assert (await verify(reader, name)).is_clean
    replayed = await replay(reader, name, [compile_pipeline(late_on(name), namespace=name)])
    assert replayed.is_equal, replayed


BROKEN = "select key from pointsman.runs where configuration = 'broken'"


@pytest.mark.parametrize(
    ("pipeline", "step", "where"),
    [
        pytest.param(
            "spinning",
            "loops_in_step",
            r"spins \(.*tests/stuck\.py:\d+\), called by loops_in_step \(.*:\d+\)$",
            id="an async step",
        ),
        pytest.param(
            "saying",
            "loops_saying",
            r"spins \(.*\), called by loops_saying \(.*\)$",
            id="a function that says what is to be done",
        ),
        pytest.param("strange", "does", r"is_known \(.*\)", id="the input of a step"),
    ],
)
async def test_a_step_that_keeps_the_loop_ends_as_many_engines_as_it_has_attempts(
    kafka: Kafka,
    topic: TopicFactory,
    database: Database,
    reader: Connection,
    pipeline: str,
    step: str,
    where: str,
) -> None:
    name = await topic("cases")
    await publish(kafka.bootstrap, name, value("case.opened", "a"))
    module = f"tests.stuck:{pipeline}"
    for attempt in (1, 2):
        code, spoken = await run_engine(kafka, name, database, module=module)
        assert code == -signal.SIGKILL, spoken
        words = last_words(spoken)
        told = {field: words[field] for field in ("pipeline", "key", "step", "attempt")}
        assert told == {"pipeline": pipeline, "key": "a", "step": step, "attempt": attempt}
        assert str(words["message"]).startswith(
            f"The step {step} of the {pipeline} 'a' has kept the engine's loop busy for 1 s, so the engine is ended. "
            f"Attempt {attempt} is lost with it, and counts. It is in "
        )
        assert re.match(where, str(words["handler"]))
    code, spoken = await run_engine(kafka, name, database, module=module, enough=BROKEN)
    assert code == 0, spoken
    assert await ask(database, "select type from pointsman.events order by sequence") == [
        ("case.opened",),
        (f"tried.step.{step}",),
        (f"failed.step.{step}",),
    ]
    assert (await verify(reader, name)).is_clean


async def test_an_engine_is_not_ended_in_a_redriven_record_for_ever(
    kafka: Kafka, topic: TopicFactory, database: Database
) -> None:
    name = await topic("cases")
    await publish(kafka.bootstrap, name, value("case.slept", "a"), value("case.opened", "a"))
    code, said = await run_engine(kafka, name, database, "--until-idle")
    assert code == 0, said
    assert await ask(database, "select reason from pointsman.dead_letters") == [("no run",)]
    redrive = ["dead-letters", "redrive", "--all", "--wait", "0", "--reason", "put back"]
    environment = {**os.environ, "POINTSMAN_POSTGRES": database.engine_dsn, "POINTSMAN_NAMESPACE": name}
    asked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "engine.cli", *redrive],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        timeout=ENGINE_SECONDS,
    )
    assert asked.returncode == 1, asked
    for _ in range(2):
        code, said = await run_engine(kafka, name, database, "--until-idle")
        assert code == -signal.SIGKILL, said
        assert last_words(said)["offset"] == 0
    code, said = await run_engine(kafka, name, database, "--until-idle")
    assert code == 0, said
    assert await ask(database, "select reason, status from pointsman.dead_letters order by id") == [
        ("no run", "redriven"),
        ("handler never returned", "open"),
    ]


class Busy:
    """A process that is watched, and busy as ``tests.stuck.be_busy`` says."""

    def __init__(self, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.stuck", NOBODY, SECONDS_MAX],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{line}\n"

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def hang(self) -> str:
        """Let it hang, and return what is said when it is dead."""
        _, said = self.process.communicate("\n", timeout=ENGINE_SECONDS)
        return said

    def until_stopped(self) -> None:
        until(lambda: state(self.process.pid) == "T")

    def children(self) -> list[int]:
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(child) for thread in threads for child in thread.read_text().split()]


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.fixture
def busy() -> Iterator[Busy]:
    """Busy with its first record, and stopped; it may take 1 s for one, and there is no Postgres."""
    one = Busy()
    one.expect("busy")
    one.until_stopped()
    yield one
    one.process.kill()
    one.process.communicate()


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def test_an_engine_that_was_stopped_for_long_is_not_ended_when_it_goes_on(busy: Busy) -> None:
    # Passing time is what this is about: three times what a record may take.
    time.sleep(3.0)
    busy.go_on()
    busy.expect("rested")
    assert f"offset {OFFSET + 1}," in busy.hang(), "afterwards it is watched as before"


def test_without_postgres_the_engine_is_ended_all_the_same_and_told_that_it_was_not_counted(
    busy: Busy,
) -> None:
    busy.go_on()
    busy.expect("rested")
    said = busy.hang()
    assert f"orders/3, offset {OFFSET + 1}," in said
    assert "could not be counted against the record: Postgres cannot be reached" in said
    assert busy.process.returncode == -signal.SIGKILL


def test_a_watchdog_ends_with_its_engine(busy: Busy) -> None:
    [watchdog] = busy.children()
    assert state(watchdog)
    busy.process.kill()
    until(lambda: not state(watchdog))


def test_a_watchdog_that_ended_is_replaced(busy: Busy) -> None:
    [watchdog] = busy.children()
    busy.go_on()
    busy.expect("rested")
    os.kill(watchdog, signal.SIGKILL)
    until(lambda: busy.children() not in ([], [watchdog]))
    assert "has not returned within 1 s" in busy.hang()


def test_a_watchdog_is_not_ended_by_what_is_meant_for_the_engine(busy: Busy) -> None:
    [watchdog] = busy.children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(watchdog, number)
    busy.go_on()
    busy.expect("rested")
    assert busy.children() == [watchdog]
    assert "has not returned within 1 s" in busy.hang()


def test_the_first_process_of_a_container_is_ended_too() -> None:
    # Nobody can kill it from within, and it cannot be stopped, either.
    apart = ("unshare", "--pid", "--fork", "--mount-proc")
    try:
        subprocess.run([*apart, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user cannot have a process tree of its own: {error}")
    one = Busy(*apart)
    one.expect("busy")
    one.expect("rested")
    assert "has not returned within 1 s" in one.hang()
    assert one.process.returncode == signal.SIGUSR2
