"""Commands as the work of steps: a process gets JSON on standard input, and answers with JSON on standard output.

    @flow.step(timeout=timedelta(minutes=5))
    async def thumbnail(picture: Picture, call: Call) -> Thumbnail:
        return await run_command(["thumbnail", "--key", call.idempotency_key], send=picture, result=Thumbnail)

The command ends with the attempt: where that takes too long or is not wanted any more, and where the engine ends or is
killed, all processes of its group are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

R = TypeVar("R")
OUTPUT_BYTES_MAX = 1_000_000
"""So much a command may write to standard output: as much as the result of a step may have."""
ERROR_BYTES_KEPT = 4_000
"""So much of the end of its standard error is told where it fails."""
GRACE_SECONDS = 5.0
"""How long a command may take to end after SIGTERM; then comes SIGKILL."""
PIPES_SECONDS = 1.0
"""How long to wait for what is still in the pipes of a command that has ended; processes that it has left may hold
them open."""
CANNOT_START = 127
STDIN, STDOUT, STDERR = range(3)
GUARD = Path(__file__).with_name("command_guard.py")


class CommandError(Exception):
    """A command has failed.

    Attributes:
        code: what it ended with; None: by a signal.
        signal: the name of the signal that ended it, as ``SIGKILL``; None: it ended itself.
        stderr: the end of what it wrote to standard error.
    """

    def __init__(
        self, message: str, *, code: int | None = None, signal: str | None = None, stderr: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.signal = signal
        self.stderr = stderr


class CommandOutputError(CommandError):
    """What a command wrote to standard output is not its result. It would most likely write it again."""


@overload
async def run_command(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    send: Any = ...,
    result: None = ...,
    exits: Mapping[int, type[Exception]] = ...,
    env: Mapping[str, str] | None = ...,
    cwd: str | os.PathLike[str] | None = ...,
    grace_seconds: float = ...,
) -> None: ...


@overload
async def run_command(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    send: Any = ...,
    result: type[R] | TypeAdapter[R],
    exits: Mapping[int, type[Exception]] = ...,
    env: Mapping[str, str] | None = ...,
    cwd: str | os.PathLike[str] | None = ...,
    grace_seconds: float = ...,
) -> R: ...


async def run_command(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    send: Any = None,
    result: type[R] | TypeAdapter[R] | None = None,
    exits: Mapping[int, type[Exception]] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> R | None:
    """Run a command to its end, and return what it wrote to standard output, as the class says.

    No shell is between: the arguments arrive as they are. Where this is cancelled, all processes of the command are
    ended, by SIGTERM and after ``grace_seconds`` by SIGKILL; so they are where this process ends, however it does, and
    where the command itself ends and leaves some behind.

    Args:
        arguments: the command and its arguments.
        send: what it gets as JSON on standard input: a context, a model, or what JSON has; None: nothing.
        result: the class of what it writes, or a ``TypeAdapter``; None: what it writes is not looked at.
        exits: by exit code, the exception that it stands for, for ``failed_with`` and ``Retry(unless=)``.
        env: its environment; None: that of this process.
        cwd: where it runs; None: where this process does.
        grace_seconds: between SIGTERM and SIGKILL.

    Raises:
        CommandOutputError: what it wrote is not what ``result`` says, or more than ``OUTPUT_BYTES_MAX`` bytes.
        CommandError: it cannot be started, ended with another code than 0 that ``exits`` does not have, or by a signal.
        Exception: one of ``exits``.
        TypeError: ``arguments`` is one string, or empty.
    """
    words = _words(arguments)
    adapter = TypeAdapter(result) if result is not None and not isinstance(result, TypeAdapter) else result
    written, said, code = await _run(words, _as_json(send), env, cwd, grace_seconds)
    name = words[0]
    if written is None:
        message = (
            f"{name} wrote more than {OUTPUT_BYTES_MAX} bytes to standard output, and was ended: the result of a step "
            "is kept in the log. Have it put what is large where others find it, and write where that is"
        )
        raise CommandOutputError(message, stderr=said)
    if code != 0:
        raise _failure(name, code, said, exits or {})
    if adapter is None:
        return None
    try:
        return adapter.validate_json(written)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()[:3]
        )
        message = (
            f"what {name} wrote to standard output is not its result ({found}): it has to be one JSON document and "
            f"nothing else, and begins with {written[:80]!r}. What it has to say besides belongs to standard error"
        )
        raise CommandOutputError(message, code=code, stderr=said) from None


class _Watched(asyncio.SubprocessProtocol):
    """What comes of a process, within limits."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
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


async def _run(
    words: Sequence[str],
    sent: bytes,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    grace_seconds: float,
) -> tuple[bytes | None, str, int]:
    """What it wrote (None: too much), the end of what it said besides, and its code; below 0, a signal."""
    control, ours = os.pipe()
    watched = _Watched()
    guarded = sys.executable, "-I", "-S", str(GUARD), str(control), str(grace_seconds), *words
    try:
        try:
            # Not a child of the terminal: who is interrupted there is the engine, which ends it in good order.
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: watched, *guarded, env=env, cwd=cwd, pass_fds=(control,), start_new_session=True
            )
        except (OSError, ValueError) as error:
            where = "" if cwd is None else f" in {os.fspath(cwd)!r}"
            raise CommandError(f"the command {words[0]!r} cannot be started{where}: {error}") from None
        finally:
            os.close(control)
        try:
            stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(STDIN))
            with contextlib.suppress(ConnectionError):
                stdin.write(sent)
            stdin.close()
            await asyncio.wait({watched.exited, watched.flooded}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            os.close(ours)
            ours = -1
            # It does end: whatever happens to this task meanwhile, nothing of it is to go on unseen.
            await _through(watched.exited)
            await asyncio.wait({watched.emptied}, timeout=PIPES_SECONDS)
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


def _words(arguments: Sequence[str | os.PathLike[str]]) -> list[str]:
    if isinstance(arguments, str | bytes | os.PathLike):
        raise TypeError(
            f"a command is a list of its arguments, as ['convert', '-']; {arguments!r} is one string"
        )
    words = [os.fspath(one) for one in arguments]
    if not words or not all(isinstance(one, str) for one in words):
        raise TypeError(f"a command is a list of strings, with the command first; this is {arguments!r}")
    return words


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
