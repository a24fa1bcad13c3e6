"""The engine's side of its watchdog (``engine.watchdog``): starts it, and shows it what the engine is busy with.

The process that runs the engine is the one that is ended, so only a process of its own is watched: the commands
``run`` and ``dev`` do it, and who calls ``engine.running.run`` need not.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, MutableSequence
from pathlib import Path
from typing import IO, Any, cast

from connectors.looping import BEAT
from connectors.source import Partition
from engine.batch.by_itself import OF_DEFERRED, OF_INSIDE, OF_ITSELF, OF_STEP, STRIKES_MAX
from engine.errors import RefusedError
from engine.last_resort import LAST_RESORT_SECONDS
from engine.observing import Silent
from engine.store.queries import load

log = logging.getLogger("pointsman.watchdog")

ASK = signal.SIGUSR1
"""Makes the engine write down where it is."""
ASK_TO_END = signal.SIGUSR2
"""Makes the first process of a container end, which cannot be killed from within."""
MEANT_FOR_THE_ENGINE = (signal.SIGINT, signal.SIGTERM)
"""It may take its time to end in order, and is watched until it has."""
EVENT_OF_ANOTHER = "an event that a run has sent to another one"
OF_THE_RUN = "a timer, or an event that the run has sent to itself,"
WAITED = "an event that was deferred"
LATER_SECONDS = 0.3
"""So much later than the engine itself the watchdog ends one that was asked to end."""
RESTART_SECONDS = 1.0
CLOSE_SECONDS = 2.0

_PROGRAM = Path(__file__).with_name("watchdog.py")


class Watched(Silent):
    """What an engine gives to its watchdog; an observer, to know the partitions by name."""

    def __init__(self, beat: MutableSequence[int], names: IO[bytes] | None = None) -> None:
        self.beat = beat
        self._names = names

    def assigned(self, partitions: Mapping[int, Partition]) -> None:
        """See Observer."""
        if self._names is not None:
            # Read by the watchdog only while this process is busy with a handler.
            os.ftruncate(self._names.fileno(), 0)
            os.pwrite(self._names.fileno(), json.dumps(partitions).encode(), 0)


@contextlib.contextmanager
def watching(
    postgres: str, seconds_max: float, *, as_json: bool = False, asked: int | None = None
) -> Iterator[Watched]:
    """While this lasts, this process is ended where a record, or a step, keeps it busy for longer than ``seconds_max``.

    0 seconds: it is not watched. ``as_json`` is how the watchdog speaks on standard error; ``asked`` is a file that can
    be read as soon as this process was asked to end (``LastResort``).

    Raises:
        RefusedError: the watchdog cannot be started.
    """
    if not seconds_max:
        yield Watched([0] * BEAT)
        return
    with contextlib.ExitStack() as stack:
        shared, names, trace = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        os.ftruncate(shared.fileno(), mmap.PAGESIZE)
        memory = stack.enter_context(mmap.mmap(shared.fileno(), mmap.PAGESIZE))
        view = stack.enter_context(memoryview(memory).cast("q"))
        faulthandler.register(ASK, file=trace, all_threads=False, chain=False)
        stack.callback(faulthandler.unregister, ASK)
        spec = {
            "engine": os.getpid(),
            "beat": shared.fileno(),
            "names": names.fileno(),
            "trace": trace.fileno(),
            "asked": asked,
            "end_seconds": LAST_RESORT_SECONDS + LATER_SECONDS,
            "seconds": seconds_max,
            "ask": int(ASK),
            "ask_to_end": _end_by_signal(),
            "postgres": postgres,
            "sql": load("store")["add_strike"],
            "sql_of_run": load("store")["busy_run"],
            "sql_of_step": load("store")["strike_step"],
            "of_step": OF_STEP,
            "of_inside": {OF_INSIDE: EVENT_OF_ANOTHER, OF_ITSELF: OF_THE_RUN, OF_DEFERRED: WAITED},
            "strikes_max": STRIKES_MAX,
            "path": sys.path,
            "json": as_json,
        }
        stack.enter_context(_Keeper(spec))
        # It lacks only what would change its length.
        yield Watched(cast("MutableSequence[int]", view), names)


class _Keeper:
    """Keeps a watchdog running."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes]
        self._thread = threading.Thread(target=self._keep, name="watchdog", daemon=True)

    def __enter__(self) -> None:
        try:
            self._start()
        except OSError as error:
            raise RefusedError(
                f"The watchdog cannot be started: {error}. Without it, a handler or a step that never returns stops "
                "the engine for ever. To run without it, set POINTSMAN_LIMIT_HANDLER_SECONDS_MAX=0."
            ) from error
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._lifeline.close()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join()

    def _start(self) -> None:
        files = (self._spec[name] for name in ("beat", "names", "trace", "asked"))
        descriptors = tuple(one for one in files if one is not None)
        with _blocked(*MEANT_FOR_THE_ENGINE):
            self._process = subprocess.Popen(  # noqa: S603 - a file of ours
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin
        self._lifeline.write(json.dumps(self._spec).encode() + b"\n")
        self._lifeline.flush()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if self._closing.is_set():
                return
            log.warning("the watchdog ended by itself (%s); another one is started", code)
            with contextlib.suppress(OSError):
                self._lifeline.close()
            if self._closing.wait(RESTART_SECONDS):
                return
            try:
                self._start()
            except OSError as error:
                log.error("the watchdog cannot be started again: %s", error)  # noqa: TRY400 - no bug of ours


@contextlib.contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """A process started meanwhile never gets these, from its first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_by_signal() -> int | None:
    """Let a signal end this process in C where it is the first of its container; returns the signal."""
    if os.getpid() != 1:
        return None
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(int(ASK_TO_END), ctypes.cast(libc._exit, ctypes.c_void_p))  # noqa: SLF001 - that is its name
    return int(ASK_TO_END)
