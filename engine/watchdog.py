"""Ends an engine in which a handler never returns, or a step in its loop, and leaves a strike against that.

One that was asked to end (``engine.last_resort``), and in which a handler holds the interpreter's lock, it ends
without a strike.

Started by ``engine.watching`` as a file of its own (``python -I -S watchdog.py``), so that it costs little and
needs nothing of the engine, which may hold its interpreter's lock for ever: in a regular expression, say. What
the engine is busy with it reads from memory that both share. One line of JSON on standard input says all it has to
know; the end of that pipe is the engine's end, also by SIGKILL, and then this ends, too.

A stopped engine (SIGSTOP, a debugger, a paused machine) does not keep anybody waiting: only time in which the
engine could run counts, and of a look that came late only what a punctual one would have counted.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

LOOKS = 10
"""How often to look, at least, within the time that a record or a step may take."""
LOOK_SECONDS_MIN = 0.05
LOOK_SECONDS_MAX = 1.0
TRACE_SECONDS = 2.0
"""How long the engine has to write down where it is; it does so in C, whatever its interpreter is doing."""
STORE_SECONDS = 5.0
"""For the connection to Postgres, and again for the strike."""
LOCK_SECONDS = 2.0
"""The engine itself may hold the lock; then it is ended first."""
SAY_SECONDS = 2.0
END_SECONDS = 1.0
CALLS_MAX = 10
"""So many calls are told of a step."""

_BEAT = struct.Struct("6q")
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?+) in (?P<name>.*)$', re.MULTILINE)
_CALLS_HANDLERS = re.compile(r"[/\\]statemachines[/\\](handlers|wishes)\.py$")
_CALLS_STEPS = re.compile(
    r"[/\\](connectors[/\\]looping|engine[/\\]steps[/\\](executors|outcomes)|statemachines[/\\]results)\.py$"
)

Beat = tuple[int, int, int, int]
"""Position, offset, what changes with each batch, and a run; the third is 0 where no handler is being called.

A position of 0 or less is that of an event without one, and only then the run counts (``Batch`` in
``engine.batch.batch``). That of a step says so, and its offset is the number of the execution.
"""


class Patience:
    """How long one record, or one step, has kept a running engine busy."""

    def __init__(self, seconds_max: float, look_seconds: float) -> None:
        self._seconds_max = seconds_max
        self._look_seconds = look_seconds
        self._beat: Beat = (0, 0, 0, 0)
        self._busy = 0.0
        self._looked_at = 0.0
        self._ran = True

    def look(self, beat: Beat, now: float, runs: Callable[[], bool]) -> bool:
        """Whether it is over; ``runs`` says whether the engine is not stopped, and is asked only where that counts."""
        passed, self._looked_at = now - self._looked_at, now
        if beat != self._beat or not beat[2]:
            self._beat, self._busy, self._ran = beat, 0.0, True
            return False
        before, self._ran = self._ran, runs()
        if before and self._ran:
            self._busy += min(passed, self._look_seconds)
        return self._busy >= self._seconds_max


class Strike(NamedTuple):
    """What came of writing it down."""

    number: int = 0
    """How many there are now; 0 where it is lost."""
    lost: str = ""
    """Why."""
    locked: bool = False
    """It may work once the engine is gone."""
    run: tuple[str, str] | None = None
    """Of what a run takes by itself: pipeline and key."""
    step: tuple[str, str, str, int] | None = None
    """Of a step: pipeline, key, its name and the attempt."""


class Watchdog:
    """Looks after one engine."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._engine = int(spec["engine"])
        self._beat = mmap.mmap(spec["beat"], mmap.PAGESIZE, access=mmap.ACCESS_READ)
        self._asked: list[int] = [] if spec["asked"] is None else [spec["asked"]]
        self._end_by = math.inf
        """Asked to end, the engine has until then."""

    def watch(self) -> None:
        """Return when the engine has ended, by itself or by us."""
        seconds = float(self._spec["seconds"])
        look = max(LOOK_SECONDS_MIN, min(LOOK_SECONDS_MAX, seconds / LOOKS))
        patience = Patience(seconds, look)
        while not self._ended_within(min(look, max(0.0, self._end_by - time.monotonic()))):
            if time.monotonic() >= self._end_by:
                self._say_late()
                self._kill()
                return
            beat = self._read_beat()
            if patience.look(beat, time.monotonic(), self._runs) and self._end(beat):
                return

    def _read_beat(self) -> Beat:
        position, offset, at, run, execution, since = _BEAT.unpack_from(self._beat)
        if since:
            return self._spec["of_step"], execution, since, 0
        return position, offset, at, run

    def _ended_within(self, seconds: float) -> bool:
        readable, _, _ = select.select([0, *self._asked], [], [], seconds)
        if self._asked and self._asked[0] in readable:
            # It stays readable, and the time begins once.
            self._asked = []
            self._end_by = time.monotonic() + float(self._spec["end_seconds"])
        return (0 in readable and not os.read(0, 4096)) or os.getppid() != self._engine

    def _runs(self) -> bool:
        return state_of(self._engine) not in ("T", "t")

    def _end(self, beat: Beat) -> bool:
        """End the engine; False where the handler returned meanwhile."""
        trace = self._ask_where()
        is_step = beat[0] == self._spec["of_step"]
        handler = find_in_step(trace) if is_step else find_handler(trace)
        if self._ended_within(0):
            return True
        if self._read_beat() != beat:
            return False
        strike = write_strike(self._spec, beat, handler)
        if strike.locked:
            self._kill()
            strike = write_strike(self._spec, beat, handler)
        self._say(beat, handler, strike)
        self._kill()
        return True

    def _ask_where(self) -> str:
        trace: int = self._spec["trace"]
        before = os.fstat(trace).st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._engine, self._spec["ask"])
        deadline = time.monotonic() + TRACE_SECONDS
        found, last = b"", None
        while time.monotonic() < deadline and (not found or found != last):
            last = found
            time.sleep(LOOK_SECONDS_MIN)
            found = os.pread(trace, os.fstat(trace).st_size - before, before)
        return found.decode("utf-8", "replace")

    def _kill(self) -> None:
        for number in (signal.SIGKILL, self._spec["ask_to_end"]):
            # The first process of a container cannot be killed from within; it has a handler for the second signal.
            if number is not None and os.getppid() == self._engine:
                os.kill(self._engine, number)
                self._ended_within(END_SECONDS)

    def _say(self, beat: Beat, handler: str, strike: Strike) -> None:
        if beat[0] == self._spec["of_step"]:
            self._say_of_step(handler, strike)
            return
        what, fields = self._subject(beat, strike)
        event = "record" if beat[0] > 0 else "event"
        seconds = self._spec["seconds"]
        if strike.number:
            after = self._spec["strikes_max"]
            times = f"Ends in this {event} so far: {strike.number}; after {after} it becomes a dead letter."
        else:
            times = f"This end could not be counted against the {event}: {strike.lost}"
        message = (
            f"{handler} has not returned within {seconds:g} s on {what}, so the engine "
            f"is ended; nothing of the {event} is committed. {times}"
        )
        self._write(message, {**fields, "handler": handler})

    def _say_of_step(self, handler: str, strike: Strike) -> None:
        what, fields = "A step", dict[str, object]()
        if strike.step is not None:
            pipeline, key, step, attempt = strike.step
            what = f"The step {step} of the {pipeline} {key!r}"
            fields = {"pipeline": pipeline, "key": key, "step": step, "attempt": attempt}
            after = f"Attempt {attempt} is lost with it, and counts."
        else:
            after = (
                f"The attempt is lost with it, and counts; which one it is was not found out: {strike.lost}"
            )
        self._write(
            f"{what} has kept the engine's loop busy for {self._spec['seconds']:g} s, so the engine is ended. {after} "
            f"It is in {handler}. What waits or computes for long belongs into a plain function, which has a thread.",
            {**fields, "handler": handler},
        )

    def _say_late(self) -> None:
        position, offset, *_ = self._read_beat()
        where = f" on {'/'.join(map(str, self._place(position)))}, offset {offset}," if position > 0 else ","
        self._write(
            f"the engine was asked to end, and has not got to it within {self._spec['end_seconds']:g} s, being "
            f"busy with a handler{where} so it is ended; what is not committed is left to the next one, and "
            "counted against nothing.",
            {},
        )

    def _write(self, message: str, fields: dict[str, object]) -> None:
        if self._spec["json"]:
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
                "level": "critical",
                "logger": "pointsman.watchdog",
                "message": message,
                **fields,
            }
            text = json.dumps(line)
        else:
            text = f"{time.strftime('%H:%M:%SZ', time.gmtime())} critical: {message}"
        # Whoever reads our standard error may have ended or be stuck, too.
        if select.select([], [2], [], SAY_SECONDS)[1]:
            os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")

    def _subject(self, beat: Beat, strike: Strike) -> tuple[str, dict[str, object]]:
        """What keeps the engine busy, in words and in fields."""
        position, offset, *_ = beat
        if position > 0:
            topic, partition = self._place(position)
            fields: dict[str, object] = {"topic": topic, "partition": partition, "offset": offset}
            return f"{topic}/{partition}, offset {offset}", fields
        what = self._spec["of_inside"][str(position)]
        if position == 0:
            return what, {}
        if strike.run is None:
            return f"{what} of a run that is not durable yet", {}
        pipeline, key = strike.run
        return f"{what} of the {pipeline} {key!r}", {"pipeline": pipeline, "key": key}

    def _place(self, position: int) -> tuple[str, str]:
        names: int = self._spec["names"]
        known = json.loads(os.pread(names, os.fstat(names).st_size, 0) or b"{}")
        topic, partition = known.get(str(position), ("position", position))
        return topic, str(partition)


def state_of(process: int) -> str:
    """The letter that says what a process is doing: T where it is stopped; empty where it is not known."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - pathlib costs more than all of this
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        pass
    import subprocess  # noqa: PLC0415 - not needed where there is /proc

    ps_command = ["ps", "-o", "state=", "-p", str(process)]
    try:
        ps = subprocess.run(ps_command, capture_output=True, check=False, timeout=5)  # noqa: S603 - the system's own
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ps.stdout.decode().strip()[:1]


def find_handler(trace: str) -> str:
    """Which handler is being called, and where in it the interpreter is, from what ``faulthandler`` wrote."""
    frames = [found.groupdict() for found in _FRAME.finditer(trace)]
    called = [at for at, frame in enumerate(frames) if _calls_handlers(frame)]
    if not called:
        # Calls a hundred deep are cut off at their outer end.
        return f"{_said(frames[-1])}, or what called it," if frames else "A handler that could not be named"
    at = called[-1]
    while at >= 0 and _calls_handlers(frames[at]):
        at -= 1
    return _said(frames[at]) if at >= 0 else "A handler that is not written in Python"


def find_in_step(trace: str) -> str:
    """Where in a step the interpreter is, the innermost call first, from what ``faulthandler`` wrote."""
    calls: list[str] = []
    for found in _FRAME.finditer(trace):
        if _CALLS_STEPS.search(found["file"]):
            break
        calls.append(_said(found.groupdict()))
    if not calls:
        return "what is not written in Python"
    innermost, *others = calls
    more = [*others[: CALLS_MAX - 1], "..."] if len(others) >= CALLS_MAX else others
    return innermost + "".join(f", called by {one}" for one in more)


def _calls_handlers(frame: dict[str, str]) -> bool:
    return _CALLS_HANDLERS.search(frame["file"]) is not None


def _said(frame: dict[str, str]) -> str:
    return f"{frame['name']} ({frame['file']}:{frame['line']})"


def write_strike(spec: dict[str, Any], beat: Beat, handler: str) -> Strike:
    """Count an end of an engine against a record, or an event that has none, or against an attempt at a step."""
    position, offset, _, run_number = beat
    is_step = position == spec["of_step"]
    # Only now is it worth what it weighs.
    sys.path[:] = spec["path"]
    try:
        import asyncio  # noqa: PLC0415 - as above

        import asyncpg  # noqa: PLC0415 - as above
    except ImportError as error:
        return Strike(lost=f"{error}.")

    async def write() -> Strike:
        settings = {"application_name": "pointsman watchdog", "lock_timeout": f"{LOCK_SECONDS}s"}
        connection = await asyncpg.connect(spec["postgres"], timeout=STORE_SECONDS, server_settings=settings)
        try:
            if is_step:
                row = await connection.fetchrow(
                    spec["sql_of_step"], position, offset, handler, timeout=STORE_SECONDS
                )
                gone = "it is over by now." if row is None else ""
                return Strike(lost=gone, step=None if row is None else tuple(row))
            number = await connection.fetchval(spec["sql"], position, offset, handler, timeout=STORE_SECONDS)
            run = None
            if position < 0:
                run = await connection.fetchrow(spec["sql_of_run"], run_number, timeout=STORE_SECONDS)
            return Strike(number, run=None if run is None else tuple(run))
        finally:
            connection.terminate()

    try:
        return asyncio.run(write())
    except asyncpg.LockNotAvailableError as error:
        return Strike(lost=f"Postgres says {error}.", locked=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine must end
        return Strike(lost=f"Postgres cannot be reached, or refuses ({type(error).__name__}: {error}).")


def main() -> None:
    """Watch as standard input says."""
    line = sys.stdin.buffer.readline()
    if line:
        Watchdog(json.loads(line)).watch()


if __name__ == "__main__":
    main()
