"""Standard streams as commands have them: all three are there, and of what is written nothing is lost in silence."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING

from engine.errors import PointsmanError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class UnwritableError(PointsmanError):
    """The answer cannot be written where it is to go."""

    exit_code = 3


def have_streams() -> None:
    """Read nothing and write nowhere where a stream is closed; in their order, so that each has its number again.

    Standard output writes all that it is given, also where Python is told not to buffer it: by itself it writes as much
    as the system takes at once then, and passes over the rest.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for good
    # Not what somebody else has put there, as tests do.
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        unbuffered = isinstance(sys.stdout.buffer, io.RawIOBase)
        sys.stdout.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            sys.stdout.encoding,
            sys.stdout.errors,
            newline="\n",
            line_buffering=unbuffered or sys.stdout.line_buffering,
        )


class _Output(io.FileIO):
    """Standard output, whose failures are told from those of other files."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnwritableError(
                f"The answer cannot be written to standard output: {error.strerror or error}. "
                "What was done is done all the same."
            ) from error


def is_unread() -> bool:
    """Whether nobody reads what is said any more; the rest of it goes nowhere then."""
    unread = False
    for stream in (sys.stdout, sys.stderr):
        # Not a stream in memory, as tests have it.
        with contextlib.suppress(io.UnsupportedOperation):
            pipe = select.poll()
            pipe.register(stream.fileno(), 0)
            if pipe.poll(0):
                unread = True
                _send_nowhere(stream.fileno())
    return unread


def give_up_output() -> None:
    """Have the rest of the answer go nowhere: Python would try to write it once more as it ends."""
    _send_nowhere(sys.stdout.fileno())


def _send_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
