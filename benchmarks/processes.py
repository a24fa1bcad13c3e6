"""Processes that are measured: started, watched by what /proc tells of them, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.services.process import last_lines

SAMPLE_SECONDS = 0.05
STOP_SECONDS = 20.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasuringError(RuntimeError):
    """What was measured is not what was to be measured."""


class ProcessError(MeasuringError):
    """A measured process failed; the message has the end of what it said."""


class Process:
    """One process with those that it starts; ``samples`` are (time, seconds of CPU)."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, *, waits: bool
    ) -> None:
        self.name = name
        self.samples: list[tuple[float, float]] = []
        self._cpu: dict[int, float] = {}
        self._peaks: dict[int, int] = {}
        self.log = log
        self._waits = waits
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if waits else output,
                stderr=output,
                env=dict(environment),
            )

    def await_ready(self) -> None:
        """Return once it has said that it is ready, where it does say so."""
        if self._waits:
            assert self._popen.stdout is not None
            if not self._popen.stdout.readline():
                self._popen.wait()
                raise self._failure("ended before it was ready")

    def go(self) -> None:
        """Let it begin."""
        if self._waits:
            assert self._popen.stdin is not None
            self._popen.stdin.write(b"go\n")
            self._popen.stdin.flush()

    def sample(self) -> bool:
        """Look at it; False once it has ended. Raises ProcessError where it failed."""
        if self._popen.poll() is not None:
            if self._popen.returncode != 0:
                raise self._failure(f"ended with {self._popen.returncode}")
            return False
        for pid in _family(self._popen.pid):
            with contextlib.suppress(OSError):
                self._cpu[pid] = _cpu_seconds(pid)
                self._peaks[pid] = max(self._peaks.get(pid, 0), _peak_bytes(pid))
        self.samples.append((time.time(), sum(self._cpu.values())))
        return True

    @property
    def peak_bytes(self) -> int:
        """Its largest resident memory so far, and that of the processes that it started."""
        return sum(self._peaks.values())

    def cpu_between(self, first: float, last: float) -> float:
        """Seconds of CPU between two times."""
        return self._cpu_at(last) - self._cpu_at(first)

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self._popen.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def _cpu_at(self, moment: float) -> float:
        if not self.samples:
            return 0.0
        at = bisect_left(self.samples, (moment, 0.0))
        if at == 0 or at == len(self.samples):
            return self.samples[min(at, len(self.samples) - 1)][1]
        (before, cpu_before), (after, cpu_after) = self.samples[at - 1], self.samples[at]
        return cpu_before + (cpu_after - cpu_before) * (moment - before) / (after - before)

    def _failure(self, what: str) -> ProcessError:
        said = last_lines(self.log.read_text(errors="replace"))
        return ProcessError(f"{self.name} {what}. The end of what it said:\n{said}")


def _family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found.extend(_family(int(child)))
    return found


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Fields 14 and 15 of proc(5): in user mode and in the kernel.
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


async def begin(processes: Sequence[Process]) -> None:
    """Let all begin at once, when all are ready."""
    for one in processes:
        await asyncio.to_thread(one.await_ready)
    for one in processes:
        one.go()


async def watch(
    processes: Sequence[Process], seconds_max: float, until: Callable[[], bool] = lambda: False
) -> None:
    """Sample all until they have ended, or ``until`` says so.

    Raises:
        ProcessError: one of them failed, or the time is over.
    """
    deadline = time.monotonic() + seconds_max
    while any([one.sample() for one in processes]) and not until():  # noqa: C419 - all are to be sampled
        if time.monotonic() > deadline:
            raise ProcessError(f"{processes[0].name} was not done within {seconds_max:.0f} s")
        await asyncio.sleep(SAMPLE_SECONDS)


async def end(processes: Sequence[Process]) -> None:
    """Ask all to end, and wait until they have."""
    for one in processes:
        one.ask_to_end()
    await watch(processes, STOP_SECONDS)
