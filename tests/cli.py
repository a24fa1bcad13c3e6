"""The command line as a user has it: its answer, and its exit code; as a process where that is the point.

A process takes most of a second only to start. So most commands run by their entry point in this process, with
streams and environment of their own; ``test_cli_asking.py`` holds that it makes no difference.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import typer.main

from engine.cli.app import app

COMMAND = (sys.executable, "-m", "engine.cli")
READY_SECONDS = 180.0
THAT_STAY = {"run", "dev", "demo"}
"""Commands that take signals, and start processes: they are always processes of their own."""
entry = functools.cache(typer.main.get_command)
"""What an application is called by: making all of its commands takes a moment."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its answer, which must be one document."""
        return json.loads(self.out)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Ours, with no settings of Pointsman but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POINTSMAN_", "PG"))}
    return {**kept, "COLUMNS": "100", **settings}


def _named(on: Mapping[str, str] | None) -> dict[str, str]:
    return {f"POINTSMAN_{name}": value for name, value in (on or {}).items()}


def pointsman(
    *words: object,
    input: str | None = None,
    seconds: float = 120.0,
    on: Mapping[str, str] | None = None,
) -> Done:
    """Run a command to its end, in this process; ``on`` has POSTGRES for POINTSMAN_POSTGRES and so on."""
    if words[0] in THAT_STAY:
        return apart(*words, input=input, seconds=seconds, on=on)
    ended: list[Done] = []

    def target() -> None:
        ended.append(_answer([*map(str, words)], input or ""))

    # In a thread of its own, since this one may be in the middle of an event loop.
    thread = threading.Thread(target=target, daemon=True)
    with mock.patch.dict(os.environ, environment(_named(on)), clear=True), _as_it_was():
        thread.start()
        thread.join(seconds)
    assert not thread.is_alive(), f"{words} goes on after {seconds} s"
    return ended[0]


def _answer(words: list[str], input: str) -> Done:
    """What the entry point says, on streams like those of a process."""
    streams = [
        io.TextIOWrapper(io.BytesIO(given), encoding="utf-8", errors=errors, write_through=True)
        for given, errors in ((input.encode(), "strict"), (b"", "strict"), (b"", "backslashreplace"))
    ]
    ours, (sys.stdin, sys.stdout, sys.stderr) = (sys.stdin, sys.stdout, sys.stderr), streams
    try:
        entry(app)(words, prog_name="pointsman")
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdin, sys.stdout, sys.stderr = ours
    assert isinstance(code, int), code
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    return Done(code, out, err)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Forget the pipelines that were loaded, of which the next command may find others in the same file."""
    path, modules, log = [*sys.path], {*sys.modules}, logging.getLogger("aiokafka")
    level, writes = log.level, sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        folders = {*sys.path} - {*path}
        for name in {*sys.modules} - modules:
            if str(Path(getattr(sys.modules[name], "__file__", None) or "").parent) in folders:
                del sys.modules[name]
        sys.path[:] = path
        sys.dont_write_bytecode = writes
        log.setLevel(level)


def apart(
    *words: object,
    input: str | None = None,
    cwd: Path | None = None,
    seconds: float = 120.0,
    on: Mapping[str, str] | None = None,
) -> Done:
    """Run a command to its end in a process of its own; see ``pointsman``."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        input=input,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=cwd,
        env=environment(_named(on)),
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Started:
    """A command that runs on; what it says is gathered as it says it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._said = threading.Condition()
        streams = ((process.stdout, self.out), (process.stderr, self.err))
        self._threads = [threading.Thread(target=self._gather, args=one, daemon=True) for one in streams]
        for thread in self._threads:
            thread.start()

    @classmethod
    def start(
        cls,
        *words: object,
        cwd: Path | None = None,
        on: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Self:
        """Start a command; see ``pointsman``."""
        return cls(
            subprocess.Popen(
                [*COMMAND, *map(str, words)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd,
                env=environment(_named(on)),
            )
        )

    def wait_for(self, text: str, seconds: float = READY_SECONDS) -> None:
        """Return once it has said this."""
        deadline = time.monotonic() + seconds
        with self._said:
            while not any(text in line for line in (*self.out, *self.err)):
                left = deadline - time.monotonic()
                assert left > 0, f"did not say {text!r} within {seconds} s, but: {self.out} {self.err}"
                assert self.process.poll() is None or self._alive(), f"ended, saying: {self.out} {self.err}"
                self._said.wait(min(left, 0.5))

    def end(self, seconds: float = 60.0) -> Done:
        """Wait for its end."""
        code = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        return Done(code, "".join(self.out), "".join(self.err))

    def _alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _gather(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._said:
                    lines.append(line)
                    self._said.notify_all()


@contextlib.contextmanager
def started(
    *words: object,
    cwd: Path | None = None,
    on: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Started]:
    """A command that is killed in the end if it still runs."""
    command = Started.start(*words, cwd=cwd, on=on, stdin=stdin)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.end()
