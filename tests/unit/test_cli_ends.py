"""How a command ends where streams are closed, nobody reads the answer, or somebody presses Ctrl-C; as a process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import pytest

from tests.cli import COMMAND, environment

DEFINED = "statemachines.shipped.orders"


def ended(*words: str, closed: str = "", first: str = "", **streams: int) -> tuple[int, str]:
    """Exit code, and what was said on standard error; the shell has done ``first`` and closed some streams before."""
    command = ["sh", "-c", f'{first} exec "$@" {closed}', "sh", *COMMAND, *words]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | streams
    done = subprocess.run(command, text=True, check=False, env=environment({}), **given)  # type: ignore[call-overload]
    return done.returncode, done.stderr or ""


def unread() -> int:
    """A pipe that nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


@pytest.mark.parametrize(
    "words", [["--help"], ["dev", "--help"], ["validate", DEFINED], ["config", "--json"]]
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_who_is_not_read_any_more_ends_quietly_with_141(
    words: list[str], stream: Literal["stdout", "stderr"]
) -> None:
    pipe = unread()
    try:
        if stream == "stdout":
            assert ended(*words, stdout=pipe) == (141, "")
        else:
            assert ended(words[0], "--no-such-option", stderr=pipe) == (141, "")
    finally:
        os.close(pipe)


def test_streams_that_are_closed_are_done_without() -> None:
    assert ended("validate", DEFINED, closed=">&- <&-") == (0, "")
    assert ended("validate", "nowhere", closed="2>&-") == (2, "")
    code, said = ended(
        "complete", "token", "--result", "-", "--postgres", "postgresql://x@127.0.0.1:1/x", closed="<&-"
    )
    assert (code, "cannot be reached" in said) == (3, True)


LONG = ("config", "--limits", "--json")
"""More than 10,000 bytes are its answer."""
BUFFERING = ["unset PYTHONUNBUFFERED;", "PYTHONUNBUFFERED=1; export PYTHONUNBUFFERED;"]


@pytest.mark.parametrize("first", BUFFERING)
def test_an_answer_of_which_only_the_beginning_is_read_ends_with_141(first: str) -> None:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)

    def read_the_beginning() -> None:
        os.read(reads, 1)
        os.close(reads)

    reader = threading.Thread(target=read_the_beginning)
    reader.start()
    try:
        assert ended(*LONG, first=first, stdout=writes) == (141, "")
    finally:
        reader.join()
        os.close(writes)


@pytest.mark.parametrize("first", BUFFERING)
@pytest.mark.parametrize("words", [LONG, ("config",), ("validate", DEFINED), ("--help",), ("--version",)])
def test_an_answer_that_has_no_room_is_a_failure_of_standard_output(
    words: tuple[str, ...], first: str
) -> None:
    code, said = ended(*words, first=first, closed=">/dev/full")
    assert code == 3
    assert said.startswith("The answer cannot be written to standard output: No space left on device.")
    assert said.count("\n") == 1


@pytest.mark.parametrize("first", BUFFERING)
def test_an_answer_that_has_room_for_its_beginning_is_such_a_failure_too(first: str, tmp_path: Path) -> None:
    file = tmp_path / "answer"
    code, said = ended(*LONG, first=f"{first} ulimit -f 9;", closed=f">{file}")
    assert (code, file.stat().st_size % 512) == (3, 0)
    assert said.startswith("The answer cannot be written to standard output: File too large.")


def script(text: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=False,
        env=environment({}),
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_ctrl_c_after_all_is_said_changes_nothing() -> None:
    code, out, err = script(
        "import signal, sys\n"
        "from engine.cli import main\n"
        "sys.argv = ['pointsman', '--version']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    assert (code, err) == (0, "")
    assert out.startswith("pointsman ")


def test_of_ctrl_c_where_nothing_can_be_interrupted_nothing_is_said_but_of_other_failures() -> None:
    _, _, err = script(
        "import atexit, sys\n"
        "from engine.cli import main\n"
        "class Raises:\n"
        "    def __init__(self, error): self.error = error\n"
        "    def __del__(self): raise self.error\n"
        "atexit.register(lambda: (Raises(KeyboardInterrupt()), Raises(ValueError('seen'))) and None)\n"
        "sys.argv = ['pointsman', '--version']\n"
        "main()"
    )
    assert "KeyboardInterrupt" not in err
    assert "ValueError: seen" in err


def test_python_ends_while_standard_input_is_waited_for() -> None:
    text = (
        "import sys, threading\n"
        "from engine.cli.publish import _standard_input\n"
        "stream, reads = _standard_input(), threading.Event()\n"
        "def work():\n"
        "    stream.readline(); reads.set(); stream.readline()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "reads.wait()\n"
        "sys.exit(130)\n"
    )
    reads, writes = os.pipe()
    os.write(writes, b"first\n")
    try:
        done = subprocess.run(
            [sys.executable, "-c", text], stdin=reads, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        os.close(reads)
        os.close(writes)
    assert (done.returncode, done.stderr) == (130, "")
