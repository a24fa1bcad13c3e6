"""Where in the user's code something was said, so that a message can point at it."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pydantic

_HERE = str(Path(__file__).parent) + "/"
_SHIPPED = _HERE + "shipped/"
"""Pipelines shipped with this package are written as a user writes them, so places in them count."""
_PYDANTIC = str(Path(pydantic.__file__).parent) + "/"
_ENGINE = tuple(str(Path(__file__).parents[1] / name) + "/" for name in ("engine", "connectors"))
"""Of the same distribution, above and below user code."""
_LIBRARY = sysconfig.get_path("stdlib") + "/"
_GENERATED = ("<frozen", "<string>")


class Place(NamedTuple):
    """A file and a line (from 1; 0 where it is not known)."""

    file: str
    line: int

    def __str__(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}" if self.line else (self.file or "unknown place")


class Frame(NamedTuple):
    """A call in user code that led to an exception, or in a library that user code has called."""

    file: str
    line: int
    function: str


class Raised(NamedTuple):
    """What was raised in user code, without what it said."""

    name: str
    """Of its class."""
    frames: tuple[Frame, ...]
    """The calls that led to it, the innermost last; none, where no user code was called."""


FRAMES_MAX = 20
"""Of more calls than that, the innermost ones are told."""


def calling_place() -> Place:
    """The innermost place being executed that is neither in this package nor in a library it goes through."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads every source file on the way
    while _passes_through(frame.f_code.co_filename):
        if frame.f_back is None:
            return Place("", 0)
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def _passes_through(file: str) -> bool:
    if file.startswith(_SHIPPED):
        return False
    in_library = file.startswith(_LIBRARY) and "site-packages/" not in file
    return in_library or file.startswith((_HERE, _PYDANTIC, *_GENERATED))


def _file_of(frame: FrameType) -> str:
    """The file of the code that is executed; of what is compiled, which tells no more than a relative path, its own."""
    file = frame.f_code.co_filename
    if file.startswith(_GENERATED) or Path(file).is_absolute():
        return file
    return str(frame.f_globals.get("__file__") or file)


def place_of(error: BaseException) -> Place:
    """Where user code raised: the innermost place of the traceback that is not in a library."""
    found = Place("", 0)
    trace = error.__traceback__
    while trace is not None:
        file = _file_of(trace.tb_frame)
        if not _passes_through(file):
            found = Place(file, trace.tb_lineno)
        trace = trace.tb_next
    return found


def raised_by(error: BaseException) -> Raised:
    """What was raised, and by which calls, without those in this package and where it is called from."""
    found: list[Frame] = []
    trace = error.__traceback__
    while trace is not None:
        file = _file_of(trace.tb_frame)
        if not (_passes_through(file) or file.startswith(_ENGINE)):
            found.append(Frame(file, trace.tb_lineno, trace.tb_frame.f_code.co_name))
        trace = trace.tb_next
    return Raised(type(error).__name__, tuple(found[-FRAMES_MAX:]))
