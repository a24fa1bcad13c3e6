"""What pipelines print while a command imports or calls them: beside its answer, which alone is on standard output."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def printing_beside() -> Iterator[None]:
    """Meanwhile what is printed goes to standard error; afterwards standard output is as it was, whatever was done."""
    beside: Any = _Beside()
    stream = io.TextIOWrapper(beside, encoding="utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(stream):
        yield


class _Beside(io.RawIOBase):
    """Standard error, which stays open where this is closed, and where a stream that was made of it is."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = bytes(data)
        if sys.stderr is not None:
            sys.stderr.write(written.decode("utf-8", "backslashreplace"))
        return len(written)

    def fileno(self) -> int:
        if sys.stderr is None:
            raise io.UnsupportedOperation("fileno")
        return sys.stderr.fileno()
