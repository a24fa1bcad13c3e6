"""The one command of the tests: what it says of steps that it does not know, and of what cannot run."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

import tests.__main__ as command


def ask(monkeypatch: pytest.MonkeyPatch, *names: str) -> tuple[int, list[list[str]]]:
    """Call it with names of steps; its exit code, and what it has run."""
    ran: list[list[str]] = []

    def run(words: list[str], *_: object, **__: object) -> command.Ended:
        ran.append(words)
        return command.Ended(0, [], 0.0)

    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(sys, "argv", ["tests", *names])
    return command.main(), ran


def test_nothing_is_run_where_a_step_is_named_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, "lint", "typos", "unit") == (2, [])
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "No such steps: typos, unit. There are lint, format, layers, types, tests, demo. Nothing was run.\n",
    )


def test_the_steps_that_are_named_are_run_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = dict(command.STEPS)
    assert ask(monkeypatch, "types", "lint") == (0, [steps["lint"], steps["types"]])


NEEDS_KAFKA = "tests/integration/test_publisher.py::test_many_are_published_in_order"
NEEDS_DOCKER = "tests/integration/test_image.py"
OTHER_PYTHONS = "tests/unit/test_canonical.py::test_hashes_are_equal_on_other_versions_of_python"


def run_one(test: str, environment: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run one test by itself, with variables of ours alone; and the lines of what could not run."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("POINTSMAN_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=command.ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done, [line for line in done.stdout.splitlines() if command.NOT_RUN.match(line)]


@pytest.mark.parametrize("required", ["", "kafka"])
def test_what_cannot_run_is_named_with_what_it_needs_and_is_a_failure_where_it_is_required(
    tmp_path: Path, required: str
) -> None:
    # Neither Java and Maven, nor a Docker engine, nor a server of somebody's.
    nothing = {
        "PATH": str(tmp_path),
        "JAVA_HOME": "",
        "DOCKER_HOST": f"unix://{tmp_path}/none",
        "CI": "",
        "POINTSMAN_REQUIRE": required,
    }
    done, told = run_one(NEEDS_KAFKA, nothing)
    if required:
        assert (done.returncode, told) == (1, []), done.stdout
        assert "kafka is required (by POINTSMAN_REQUIRE or CI)" in done.stdout
    else:
        [line] = told
        assert done.returncode == 0, done.stdout
        assert line.startswith("1 test not run: ")
        assert line.endswith("Tests take the address of a server of yours from POINTSMAN_TEST_KAFKA.")


def test_that_no_image_can_be_built_is_named_and_nowhere_a_failure(tmp_path: Path) -> None:
    nothing = {"DOCKER_HOST": f"unix://{tmp_path}/none", "CI": "true", "POINTSMAN_REQUIRE": "postgres,kafka"}
    done, told = run_one(NEEDS_DOCKER, nothing)
    assert done.returncode == 0, done.stdout
    [line] = told
    assert (
        line == "2 tests not run: no image is built and no compose file read, since no Docker engine answers."
    )


def test_another_python_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    python = tmp_path / ".pyenv/versions/3.12.1/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho \"No module named 'pydantic'\" >&2\nexit 1\n")
    python.chmod(0o700)
    done, [told] = run_one(OTHER_PYTHONS, {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    assert told == (
        f"1 test not run: {python} has not what pipelines need. Tests take interpreters that have it from "
        "POINTSMAN_TEST_PYTHONS."
    )


def test_it_fails_where_it_must_be_done_in_time_and_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SECONDS_MAX", 0.0)
    monkeypatch.setenv("CI", "")
    assert ask(monkeypatch, "lint")[0] == 0
    monkeypatch.setenv("CI", "true")
    assert ask(monkeypatch, "lint")[0] == 1
    said = capsys.readouterr().out
    assert "== lint: not begun, the time is over\nfailed: lint, all of it within 0 s\n" in said


ENDLESS = """
exec 9> "$0"
trap "" TERM
sleep 1000 &
echo begun
while :; do wait; done
"""


def test_a_step_that_is_not_done_in_time_is_ended_with_all_that_it_has_begun_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    there = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(command, "STEPS", (("lint", ["sh", "-c", ENDLESS, str(held)]),))
    monkeypatch.setattr(command, "SECONDS_MAX", 3.0)
    monkeypatch.setattr(command, "END_SECONDS", 0.1)
    monkeypatch.setattr(sys, "argv", ["tests", "lint"])
    monkeypatch.setenv("CI", "true")
    assert command.main() == 1
    begun, *told = capsys.readouterr().out.splitlines()[1:]
    assert (begun, told[1:]) == ("begun", ["failed: lint, all of it within 3 s", "0 passed, 2 failed"])
    assert told[0].startswith("== lint: not done in time, and ended, ")
    # Whoever still ran would hold it.
    assert select.select([there], [], [], 30.0)[0] == [there]
    assert os.read(there, 1) == b""
    os.close(there)
