"""The one command of the tests: what a newcomer runs, and what CI runs. ``python -m tests``

Lint, types and layers, then every suite, on a real Postgres and a real Apache Kafka where they can be had, then the
demo; or only the steps that are named, as in ``python -m tests lint types``. What cannot run on a machine is skipped
and named at the end; where ``CI=true`` or ``POINTSMAN_REQUIRE=kafka,postgres`` says that it must be there, its absence
is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.services import open_kafka

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
    # Most tests wait for servers, so four files at a time cost little more than two.
    ("tests", [PYTHON, "-m", "pytest", "-q", "--durations=15", "-n", "4", *BY_FILE]),
    ("demo", [str(BIN / "pointsman"), "demo"]),
)
SECONDS_MAX = 20 * 60.0
"""Of all steps together: where ``CI=true``, more is a failure."""
BEGUN_WITH = {"types": "demo"}
"""The demo mostly waits, so it goes on beside; it is shown in its turn."""


class Ended(NamedTuple):
    """How a step ended, all that it said, and how long it took."""

    code: int
    lines: list[str]
    seconds: float


def main() -> int:
    """Run every step, or those that are named, also after one has failed, and say which did."""
    only = sys.argv[1:]
    known = [name for name, _ in STEPS]
    if unknown := [name for name in only if name not in known]:
        print(
            f"No such steps: {', '.join(unknown)}. There are {', '.join(known)}. Nothing was run.",
            file=sys.stderr,
        )
        return 2
    began = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Hundreds of processes are started: what one has compiled is there for the others.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    passed: list[str] = []
    failed: list[str] = []
    not_run: list[str] = []
    wanted = {name: command for name, command in STEPS if not only or name in only}
    begun: dict[str, Future[Ended]] = {}
    with ThreadPoolExecutor() as beside:
        for name, command in wanted.items():
            if (other := BEGUN_WITH.get(name)) in wanted:
                begun[other] = beside.submit(_run, wanted[other], environment, is_shown=False)
            print(f"== {name}", flush=True)
            if name in begun:
                ended = begun[name].result()
                print(*ended.lines, sep="\n", flush=True)
            else:
                with _servers(name) as addresses:
                    ended = _run(command, environment | addresses)
            (failed if ended.code else passed).append(name)
            not_run += [line for line in ended.lines if NOT_RUN.match(line)]
            how = f"failed ({ended.code})" if ended.code else "ok"
            print(f"== {name}: {how}, {ended.seconds:.0f} s", flush=True)
    if os.environ.get("CI") == "true" and time.monotonic() - began > SECONDS_MAX:
        failed.append(f"all of it within {SECONDS_MAX:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}")
    for line in not_run:
        print(line)
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


@contextlib.contextmanager
def _servers(step: str) -> Iterator[dict[str, str]]:
    """One Kafka for all who share the files of the tests: each topic, and each group, is one test's own.

    Where it cannot be had, whoever needs it says so.
    """
    addresses: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if step == "tests":
            with contextlib.suppress(pytest.skip.Exception, pytest.fail.Exception):
                addresses["POINTSMAN_TEST_KAFKA"] = stack.enter_context(open_kafka()).bootstrap
        yield addresses


def _run(command: list[str], environment: dict[str, str], *, is_shown: bool = True) -> Ended:
    """Run a command; what it says is shown as it says it, if at all."""
    lines: list[str] = []
    began = time.monotonic()
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
            lines.append(line.rstrip("\n"))
            if is_shown:
                print(lines[-1], flush=True)
    return Ended(process.returncode, lines, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
