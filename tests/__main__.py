"""The one command of the tests: what a newcomer runs, and what CI runs. ``python -m tests``

Lint, types and layers, then every suite, on a real Postgres and a real Apache Kafka where they can be had, then the
demo. What cannot run on a machine is skipped and named at the end; where ``CI=true`` or
``POINTSMAN_REQUIRE=kafka,postgres`` says that it must be there, its absence is a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PYTHON = sys.executable
NOT_RUN = re.compile(r"^\d+ tests? not run: .*")

BY_FILE = ["--dist", "loadfile", "--no-loadscope-reorder"]
"""In the order that ``conftest.py`` gives them, which begins with the longest."""
STEPS: tuple[tuple[str, list[str]], ...] = (
    ("lint", [str(BIN / "ruff"), "check", "."]),
    ("format", [str(BIN / "ruff"), "format", "--check", "."]),
    ("layers", [str(BIN / "lint-imports")]),
    ("types", [str(BIN / "mypy")]),
    # Most tests wait for servers, so three files at a time cost little more than one.
    ("tests", [PYTHON, "-m", "pytest", "-q", "--durations=15", "-n", "3", *BY_FILE]),
    ("demo", [str(BIN / "pointsman"), "demo"]),
)


def main() -> int:
    """Run every step, also after one has failed, and say which did."""
    only = sys.argv[1:]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Hundreds of processes are started: what one has compiled is there for the others.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    passed: list[str] = []
    failed: list[str] = []
    not_run: list[str] = []
    for name, command in STEPS:
        if only and name not in only:
            continue
        print(f"== {name}", flush=True)
        began = time.monotonic()
        code, lines = _run(command, environment)
        (passed if code == 0 else failed).append(name)
        not_run += [line for line in lines if NOT_RUN.match(line)]
        print(
            f"== {name}: {'ok' if code == 0 else f'failed ({code})'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if failed:
        print(f"failed: {', '.join(failed)}")
    for line in not_run:
        print(line)
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, list[str]]:
    """Run a command, show what it says as it says it, and keep its last lines."""
    last: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = [*last[-49:], line.rstrip("\n")]
    return process.returncode, last


if __name__ == "__main__":
    sys.exit(main())
