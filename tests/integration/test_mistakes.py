"""Mistakes of which sagas die elsewhere: each of them, made in a copy of the code, is caught by a suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
COPIED = ("pyproject.toml", "connectors", "engine", "statemachines", "tests")
SECONDS_MAX = 120.0
FAILED = 1
"""What pytest ends with where tests have failed, and not for any other reason."""


class Mistake(NamedTuple):
    """What is written instead of a line, and which suite is to see it."""

    file: str
    line: str
    instead: str
    suite: str


MISTAKES = {
    "what undoes a step is known once it was done, and not before it begins": Mistake(
        "statemachines/undoing.py",
        "    made = row if how == ENDED else 0\n",
        "    if how != ENDED:\n        return ()\n    made = row\n",
        "tests/unit/test_compensations.py",
    ),
    "a step is undone beside an attempt at it": Mistake(
        "statemachines/undoing.py",
        "    if any(not one.of for one in waits) or (waits and not room):\n",
        "    if waits and not room and any(one.of for one in waits):\n",
        "tests/unit/test_compensations_stopped.py",
    ),
    "how many attempts were made is not durable": Mistake(
        "statemachines/ending.py",
        "            attempt=execution.attempt + 1, again=",
        "            attempt=execution.attempt, again=",
        "tests/unit/test_steps_ended.py",
    ),
    "what became of an execution counts though it is over": Mistake(
        "statemachines/ending.py",
        "    if execution is None or run.status != _RUNNING:\n",
        "    if execution is None and run.status == _RUNNING:\n"
        "        return offer(machine, run, occurrence, memory)\n"
        "    if execution is None or run.status != _RUNNING:\n",
        "tests/unit/test_steps_ended.py",
    ),
    "the second attempt is given the context as it is by then": Mistake(
        "engine/store/sql/shared.sql",
        "        where e.run = b.run and e.sequence <= b.sequence and e.context <> ''\n",
        "        where e.run = b.run and e.context <> ''\n",
        "tests/contract/test_store_steps.py",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", MISTAKES)
def test_a_suite_catches_it(what: str, tmp_path: Path) -> None:
    mistake = MISTAKES[what]
    for name in COPIED:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    file = tmp_path / mistake.file
    written = file.read_text()
    assert written.count(mistake.line) == 1, f"{mistake.file} has this line once: {mistake.line}"
    file.write_text(written.replace(mistake.line, mistake.instead))
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mistake.suite),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == FAILED, done.stdout.decode()[-2_000:]
