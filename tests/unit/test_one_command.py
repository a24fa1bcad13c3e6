"""The one command of the tests: what it says of steps that it does not know, and of what cannot run."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("required", ["", "kafka"])
def test_what_cannot_run_is_named_with_what_it_needs_and_is_a_failure_where_it_is_required(
    tmp_path: Path, required: str
) -> None:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("POINTSMAN_", "PYTEST_"))
    }
    # Neither Java and Maven, nor a Docker engine, nor a server of somebody's.
    nothing = {
        "PATH": str(tmp_path),
        "JAVA_HOME": "",
        "DOCKER_HOST": f"unix://{tmp_path}/none",
        "CI": "",
        "POINTSMAN_REQUIRE": required,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEEDS_KAFKA],
        cwd=command.ROOT,
        env=kept | nothing,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    told = [line for line in done.stdout.splitlines() if command.NOT_RUN.match(line)]
    if required:
        assert (done.returncode, told) == (1, []), done.stdout
        assert "kafka is required (by POINTSMAN_REQUIRE or CI)" in done.stdout
    else:
        [line] = told
        assert done.returncode == 0, done.stdout
        assert line.startswith("1 test not run: ")
        assert line.endswith("Tests take the address of a server of yours from POINTSMAN_TEST_KAFKA.")
