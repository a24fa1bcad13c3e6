"""The one command of the tests: what a newcomer runs, and what CI runs. ``python -m tests``

Lint, types and layers, then every suite, on a real Postgres and a real Apache Kafka where they can be had, then the
demo; or only the steps that are named, as in ``python -m tests lint types``. What cannot run on a machine is skipped
and named at the end; where ``CI=true`` or ``POINTSMAN_REQUIRE=kafka,postgres`` says that it must be there, its absence
is a failure. Where ``CI=true``, all of it has 20 minutes, and a step that is not done by then is ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from connectors import command_guard
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
END_SECONDS = 10.0
"""What is ended at the end of that has so long to end in order, as the demo does."""
LAST_WORDS_SECONDS = 5.0
"""So long after its end it is waited for what a step has said: somebody else may hold on to where it says it."""
BEGUN_WITH = {"types": "demo"}
"""The demo mostly waits, so it goes on beside; it is shown in its turn."""


class Ended(NamedTuple):
    """How a step ended, all that it said, and how long it took."""

    code: int
    lines: list[str]
    seconds: float
    in_time: bool = True

    @property
    def how(self) -> str:
        """In words."""
        if not self.in_time:
            return "not done in time, and ended"
        return f"failed ({self.code})" if self.code else "ok"


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
    until = began + SECONDS_MAX if os.environ.get("CI") == "true" else None
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Hundreds of processes are started: what one has compiled is there for the others.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    passed: list[str] = []
    failed: list[str] = []
    not_run: list[str] = []
    wanted = {name: command for name, command in STEPS if not only or name in only}
    begun: dict[str, Future[Ended]] = {}
    with ThreadPoolExecutor() as beside, contextlib.ExitStack() as ending:
        for name, command in wanted.items():
            if until is not None and time.monotonic() > until and name not in begun:
                failed.append(name)
                print(f"== {name}: not begun, the time is over", flush=True)
                continue
            if (other := BEGUN_WITH.get(name)) in wanted:
                begun[other] = beside.submit(_run, wanted[other], environment, until, ending, is_shown=False)
            print(f"== {name}", flush=True)
            if name in begun:
                ended = begun[name].result()
                print(*ended.lines, sep="\n", flush=True)
            else:
                with _servers(name) as addresses:
                    ended = _run(command, environment | addresses, until, ending)
            (failed if ended.code or not ended.in_time else passed).append(name)
            not_run += [line for line in ended.lines if NOT_RUN.match(line)]
            print(f"== {name}: {ended.how}, {ended.seconds:.0f} s", flush=True)
    if until is not None and time.monotonic() > until:
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


def _run(
    command: list[str],
    environment: dict[str, str],
    until: float | None,
    ending: contextlib.ExitStack,
    *,
    is_shown: bool = True,
) -> Ended:
    """Run a command; what it says is shown as it says it, if at all.

    It ends with all of its group of processes ``until`` then at the latest, with ``ending``, and with this process.
    """
    began = time.monotonic()
    reads, writes = os.pipe()
    control = os.fdopen(writes, "wb", buffering=0)
    ending.callback(control.close)
    guard = [PYTHON, "-I", "-S", command_guard.__file__, str(reads), str(END_SECONDS)]
    process = subprocess.Popen(
        [*guard, *command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[reads],
        start_new_session=True,
    )
    os.close(reads)
    control.write(b"!")
    assert process.stdout is not None
    lines: list[str] = []
    listening = threading.Thread(
        target=_listen, args=(process.stdout, lines), kwargs={"is_shown": is_shown}, daemon=True
    )
    listening.start()
    in_time = True
    try:
        process.wait(None if until is None else max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        in_time = False
    finally:
        control.close()
    code = process.wait()
    listening.join(LAST_WORDS_SECONDS)
    return Ended(code, lines, time.monotonic() - began, in_time)


def _listen(said: IO[str], lines: list[str], *, is_shown: bool) -> None:
    with said:
        for line in said:
            lines.append(line.rstrip("\n"))
            if is_shown:
                print(lines[-1], flush=True)


if __name__ == "__main__":
    sys.exit(main())
