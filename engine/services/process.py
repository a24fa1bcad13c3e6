"""One server process under a guard, so that it never outlives the process that started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.services.errors import ServiceError

GUARD = Path(__file__).with_name("guard.py")
GUARD_STDLIB_ONLY = ("-I", "-S")
POLL_SECONDS = 0.02
KILL_SECONDS = 5.0
LAST_SECONDS = 20.0
"""So long a server waits for the last one on its log to end, whose starter may have been killed a moment ago."""
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class User:
    """Whom a server runs as, where it must not run as us."""

    uid: int
    gid: int


class ServerProcess:
    """A running server: its pid, its signals, its log.

    `pid` is the server's own. The server ends (by `orphan_signal`) when this process ends, also by SIGKILL.
    A Ctrl-C of the terminal does not reach it: it is stopped by `stop`, after what uses it.
    """

    def __init__(self, name: str, guard: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._guard = guard

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        orphan_signal: signal.Signals = signal.SIGTERM,
        user: User | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ServerProcess:
        """Start `argv` in `cwd`, its output appended to `log`, once the last one that had this log has ended.

        Raises ServiceError if it cannot, or if that goes on for `LAST_SECONDS`.
        """
        spec = {
            "argv": list(argv),
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
            "orphan_signal": int(orphan_signal),
            "uid": user.uid if user else None,
            "gid": user.gid if user else None,
        }
        with log.open("ab") as output:
            _take(output, name, log)
            guard = subprocess.Popen(
                [sys.executable, *GUARD_STDLIB_ONLY, str(GUARD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        assert guard.stdin is not None
        assert guard.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(json.dumps(spec).encode() + b"\n")
            guard.stdin.flush()
        line = guard.stdout.readline()
        guard.stdout.close()
        answer = json.loads(line) if line else {"error": "its guard process ended"}
        if "pid" in answer:
            return cls(name, guard, int(answer["pid"]), log)
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.close()
        guard.wait()
        raise ServiceError(f"{name} cannot be started from {argv[0]}: {answer['error']}.\n{tail(log)}")

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server; nothing happens where it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_until_stopped(self, timeout_seconds: float = 5.0) -> None:
        """Return once SIGSTOP has taken effect, which takes a moment on a busy machine; where that can be seen."""
        until = time.monotonic() + timeout_seconds
        state = Path(f"/proc/{self.pid}/stat")
        while time.monotonic() < until:
            try:
                # Behind the name, which may have anything in it, stands the state; T is stopped.
                if state.read_text().rpartition(")")[2].split()[0] == "T":
                    return
            except OSError:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, number: signal.Signals, timeout_seconds: float) -> None:
        """End the server by a signal and wait for its end; by SIGKILL where that takes too long."""
        self.send(number)
        if number != signal.SIGKILL:
            self.send(signal.SIGCONT)
        try:
            self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._guard.wait()
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()

    def wait_ready(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return once `ready()` is true.

        Raises ServiceError with the end of the server's log where the server ends before that or the time is
        over; the server is stopped then.
        """
        try:
            why = self._why_not_ready(ready, timeout_seconds)
        except BaseException:
            self.stop(signal.SIGKILL, KILL_SECONDS)
            raise
        if why is not None:
            self.stop(signal.SIGKILL, KILL_SECONDS)
            raise ServiceError(
                f"{self.name} did not start: {why}. The end of its log, {self.log}:\n{tail(self.log)}"
            )

    def _why_not_ready(self, ready: Callable[[], bool], timeout_seconds: float) -> str | None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not self.running:
                return "it ended while starting"
            if ready():
                return None
            if time.monotonic() > deadline:
                return f"it did not answer within {timeout_seconds:.0f} s"
            time.sleep(POLL_SECONDS)


def _take(output: BinaryIO, name: str, log: Path) -> None:
    """Lock the log for as long as a process has this opening of it: the guard, the server, what that starts."""
    import fcntl  # noqa: PLC0415 - not on every system

    until = time.monotonic() + LAST_SECONDS
    while True:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise ServiceError(
                    f"{name} is not started: another one writes to {log}, and does not end. Stop it, or choose "
                    "another folder."
                ) from None
            time.sleep(POLL_SECONDS)
        else:
            return


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return last_lines(text, lines)


def last_lines(text: str, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of what a server said, without the inner lines of Java's stack traces."""
    return "\n".join([line for line in text.splitlines() if not line.startswith("\tat ")][-lines:])
