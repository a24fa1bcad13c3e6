"""Commands as the work of steps: a process gets JSON on standard input, and answers with JSON on standard output.

    @flow.step(timeout=timedelta(minutes=5))
    def thumbnail(picture: Picture, call: Call) -> Command[Thumbnail]:
        return Command(["thumbnail", "--key", call.idempotency_key], send=picture, result=Thumbnail)

The function says which command; the engine runs it. It ends with the attempt: where that takes too long or is not
wanted any more, and where the engine ends or is killed, all processes of its group are ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter

from statemachines.described import Described

R = TypeVar("R")

GRACE_SECONDS = 5.0
"""How long a command may take to end after SIGTERM; then comes SIGKILL."""


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


@dataclass(frozen=True, slots=True, init=False)
class Command(Described[R]):
    """A command that is to be run to its end, and what is made of that.

    No shell is between: the arguments arrive as they are. What it writes to standard output is its result, as one JSON
    document; what it has to say besides belongs to standard error, and counts as a heartbeat. Any other end than code 0
    is a ``CommandError``, unless ``exits`` has another exception for it.
    """

    arguments: tuple[str, ...]
    send: Any
    result: Any
    exits: Mapping[int, type[Exception]]
    env: Mapping[str, str] | None
    cwd: str | None
    grace_seconds: float

    @overload
    def __init__(
        self: Command[None],
        arguments: Sequence[str | os.PathLike[str]],
        *,
        send: Any = ...,
        result: None = ...,
        exits: Mapping[int, type[Exception]] | None = ...,
        env: Mapping[str, str] | None = ...,
        cwd: str | os.PathLike[str] | None = ...,
        grace_seconds: float = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        send: Any = ...,
        result: type[R] | TypeAdapter[R],
        exits: Mapping[int, type[Exception]] | None = ...,
        env: Mapping[str, str] | None = ...,
        cwd: str | os.PathLike[str] | None = ...,
        grace_seconds: float = ...,
    ) -> None: ...

    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        send: Any = None,
        result: Any = None,
        exits: Mapping[int, type[Exception]] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Describe it.

        Args:
            arguments: the command and its arguments.
            send: what it gets as JSON on standard input: a context, a model, or what JSON has; None: nothing.
            result: the class of what it writes, or a ``TypeAdapter``; None: what it writes is not looked at, so that it
                comes to None. Where its step is to come to anything else, it is not begun.
            exits: by exit code, the exception that it stands for, for ``failed_with`` and ``Retry(unless=)``.
            env: its environment; None: that of the engine.
            cwd: where it runs; None: where the engine does.
            grace_seconds: between SIGTERM and SIGKILL.

        Raises:
            TypeError: ``arguments`` is one string, or empty, or has something else than strings.
        """
        for name, value in (
            ("arguments", _words(arguments)),
            ("send", send),
            ("result", result),
            ("exits", {} if exits is None else exits),
            ("env", env),
            ("cwd", None if cwd is None else os.fspath(cwd)),
            ("grace_seconds", grace_seconds),
        ):
            object.__setattr__(self, name, value)


def _words(arguments: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(arguments, str | bytes | os.PathLike):
        raise TypeError(
            f"a command is a list of its arguments, as ['convert', '-']; {arguments!r} is one string"
        )
    words = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in arguments)
    if not words or not all(isinstance(one, str) for one in words):
        raise TypeError(f"a command is a list of strings, with the command first; this is {arguments!r}")
    return words
