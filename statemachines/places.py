"""Where in the user's code something was said, so that a message can point at it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

_HERE = str(Path(__file__).parent)
_FOREIGN = ("pydantic", "typing.py", "abc.py", "functools.py")


class Place(NamedTuple):
    """A file and a line (from 1; 0 where it is not known)."""

    file: str
    line: int

    def __str__(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}" if self.line else (self.file or "unknown place")


def calling_place() -> Place:
    """The place outside this package that is being executed."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads every source file on the way
    while frame is not None:
        file = frame.f_code.co_filename
        foreign = any(word in file for word in _FOREIGN) or file.startswith("<")
        if not file.startswith(_HERE + "/shipped") and (file.startswith(_HERE) or foreign):
            if frame.f_back is None:
                break
            frame = frame.f_back
            continue
        return Place(file, frame.f_lineno)
    return Place("", 0)
