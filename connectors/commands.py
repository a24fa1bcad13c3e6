"""Runs commands: each is a process that gets JSON on standard input, and answers with JSON on standard output.

A command ends with its attempt: where that takes too long or is not wanted any more, and where the engine ends or is
killed, all processes of its group are ended (``command_guard.py`` sees to that).

The code that it ends with is its word. What one did that a signal ended, or whose output is no result, nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from connectors.executor import CancelledError, Ended, Over, Running, WithinEngine, Work
from connectors.functions import InTask
from statemachines.call import Beat
from statemachines.command import Command, CommandError, CommandOutputError
from statemachines.failing import describe, printable
from statemachines.results import ResultError
from statemachines.step import Step

R = TypeVar("R")
OUTPUT_BYTES_MAX = 1_000_000
"""So much a command may write to standard output: as much as the result of a step may have."""
ERROR_BYTES_KEPT = 4_000
"""So much of the end of its standard error is told where it fails."""
PIPES_SECONDS = 1.0
"""How long to wait for what is still in the pipes of a command that has ended; processes that it has left may hold
them open."""
CANNOT_START = 127
BEGIN = b"\n"
"""What the guard waits for."""
STDIN, STDOUT, STDERR = range(3)
GUARD = Path(__file__).with_name("command_guard.py")


class CommandExecutor(WithinEngine):
    """Runs the commands that steps say are to be run."""

    def begin(self, work: Work) -> Running:
        """Start the command, unless it is known already that its step could not make anything of its end."""
        command = work.described
        assert isinstance(command, Command), f"{command!r} is no command"
        if command.result is None and (missing := _missing_result(work.step)):
            return Over(Ended(error=ResultError(missing), final=True))
        seconds = command.grace_seconds + PIPES_SECONDS
        return InTask(_ended(command, work.beat), f"command of {work.step.name}", seconds)


async def run_command(command: Command[R], *, beat: Beat | None = None) -> R:
    """Run a command to its end, in the middle of an async function, and return what it wrote to standard output.

    Where this is cancelled, all processes of the command are ended, by SIGTERM and after its ``grace_seconds`` by
    SIGKILL; so they are where this process ends, however it does, and where the command itself ends and leaves some
    behind.

    Args:
        command: which.
        beat: is called with None whenever it writes something to standard error; None: nobody listens.

    Raises:
        CommandOutputError: what it wrote is not what its ``result`` says, or more than ``OUTPUT_BYTES_MAX`` bytes.
        CommandError: it cannot be started, ended with another code than 0 that ``exits`` does not have, or by a signal.
        Exception: one of ``exits``.
    """
    adapter = command.result
    if adapter is not None and not isinstance(adapter, TypeAdapter):
        adapter = TypeAdapter(adapter)
    written, said, code = await _run(command, beat)
    name = command.arguments[0]
    if written is None:
        message = (
            f"{name} wrote more than {OUTPUT_BYTES_MAX} bytes to standard output, and was ended: the result of a step "
            "is kept in the log. Have it put what is large where others find it, and write where that is"
        )
        raise CommandOutputError(message, stderr=said)
    if code != 0:
        raise _failure(name, code, said, command.exits)
    if adapter is None:
        return cast("R", None)
    try:
        return cast("R", adapter.validate_json(written))
    except Exception as error:  # noqa: BLE001 - validators of results are user code
        message = (
            f"what {name} wrote to standard output is not its result ({_wrong_with(error)}): it has to be one JSON "
            f"document and nothing else, and begins with {written[:80]!r}. What it has to say besides belongs to "
            "standard error"
        )
        raise CommandOutputError(message, code=code, stderr=said) from None


def _wrong_with(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return describe(error, "its validator")
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()[:3])


def _missing_result(step: Step[Any, Any]) -> str:
    """Why a command of this step has to say what its output is; empty where nothing, which it comes to, will do."""
    try:
        step.adapter.validator.validate_python(None)
    except Exception:  # noqa: BLE001 - validators of results are user code
        wanted: Any = step.result_type
        called = wanted.__name__ if isinstance(wanted, type) else str(wanted)
        cure = called if isinstance(wanted, type) else f"TypeAdapter({called})"
        return printable(
            f"{step.name} returned a Command that does not say what its output is, which was not begun: its step comes "
            f"to {called} by its annotation. Say what its output is with result={cure}"
        )
    return ""


async def _ended(command: Command[Any], beat: Beat | None) -> Ended:
    try:
        return Ended(await run_command(command, beat=beat))
    except asyncio.CancelledError:
        return Ended(error=CancelledError("it was cancelled"))
    except CommandOutputError as error:
        # It was done, or ended for what it wrote, and would write that again.
        return Ended(error=error, lost=True, final=True)
    except CommandError as error:
        return Ended(error=error, lost=error.signal is not None)
    except BaseException as error:  # noqa: BLE001 - validators of results are user code
        return Ended(error=error)


class _Watched(asyncio.SubprocessProtocol):
    """What comes of a process, within limits."""

    def __init__(self, beat: Beat | None) -> None:
        loop = asyncio.get_running_loop()
        self._beat = beat
        self.exited: asyncio.Future[None] = loop.create_future()
        self.emptied: asyncio.Future[None] = loop.create_future()
        """Done once both pipes are closed."""
        self.flooded: asyncio.Future[None] = loop.create_future()
        self.output = bytearray()
        self.error = bytearray()
        self._open = {STDOUT, STDERR}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == STDERR:
            self.error += data
            del self.error[:-ERROR_BYTES_KEPT]
            if self._beat is not None:
                self._beat(None)
        elif len(self.output) + len(data) <= OUTPUT_BYTES_MAX:
            self.output += data
        elif not self.flooded.done():
            self.flooded.set_result(None)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del exc
        self._open.discard(fd)
        if not self._open and not self.emptied.done():
            self.emptied.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)


async def _run(command: Command[Any], beat: Beat | None) -> tuple[bytes | None, str, int]:
    """What it wrote (None: too much), the end of what it said besides, and its code; below 0, a signal."""
    watched, sent = _Watched(beat), _as_json(command.send)
    control, ours = os.pipe()
    seconds = str(command.grace_seconds)
    guarded = sys.executable, "-I", "-S", str(GUARD), str(control), seconds, *command.arguments
    try:
        try:
            # Not a child of the terminal: who is interrupted there is the engine, which ends it in good order.
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: watched,
                *guarded,
                env=command.env,
                cwd=command.cwd,
                pass_fds=(control,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            where = "" if command.cwd is None else f" in {command.cwd!r}"
            raise CommandError(
                f"the command {command.arguments[0]!r} cannot be started{where}: {error}"
            ) from None
        finally:
            os.close(control)
        try:
            # Only now: a process whose start is cancelled is killed, and must not have begun the command by then.
            with contextlib.suppress(BrokenPipeError):
                os.write(ours, BEGIN)
            stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(STDIN))
            with contextlib.suppress(ConnectionError):
                stdin.write(sent)
            stdin.close()
            await asyncio.wait({watched.exited, watched.flooded}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            os.close(ours)
            ours = -1
            # It does end: whatever happens to this task meanwhile, nothing of it is to go on unseen.
            try:
                await _through(watched.exited)
                await asyncio.wait({watched.emptied}, timeout=PIPES_SECONDS)
            finally:
                code = transport.get_returncode()
                transport.close()
    finally:
        if ours >= 0:
            os.close(ours)
    assert code is not None, "it has ended"
    return (
        None if watched.flooded.done() else bytes(watched.output),
        watched.error.decode(errors="replace").strip(),
        code,
    )


async def _through(future: asyncio.Future[None]) -> None:
    """Wait for it, also where this task is cancelled meanwhile; that is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _as_json(send: Any) -> bytes:
    return b"" if send is None else to_json(send)


def _failure(name: str, code: int, said: str, exits: Mapping[int, type[Exception]]) -> Exception:
    behind = f": {said}" if said else ""
    if code < 0:
        by = _signal_name(-code)
        hint = " (where nobody did that, the machine had no memory left for it)" if by == "SIGKILL" else ""
        return CommandError(f"{name} was ended by {by}{hint}{behind}", signal=by, stderr=said)
    if code in exits:
        return exits[code](said or f"{name} ended with code {code}")
    if code == CANNOT_START and said:
        return CommandError(said, code=code, stderr=said)
    return CommandError(f"{name} ended with code {code}{behind}", code=code, stderr=said)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
