"""Folders for the servers of tests: in memory, where there is plenty of it, since each test has a database made.

What they bring to disk there outlives any of them, and not the machine; nor does anything in a folder that is removed
behind its test. `TMPDIR` names another place.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "pointsman-test-"
ROOM_BYTES = 12_000_000_000
"""At least so much of the machine's memory must be free, and may be taken there: several times what all servers of a
run of the tests take, with their processes."""


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder for a server, removed afterwards; pytest's own would be kept for three sessions."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-{os.getpid()}-", dir=_place()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def _place() -> Path | None:
    """Where; None: where temporary files are."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    remove_left_behind(MEMORY)
    free = min(shutil.disk_usage(MEMORY).free, _free_memory())
    return MEMORY if free >= ROOM_BYTES else None


def _free_memory() -> int:
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 0 if found is None else int(found[1]) * 1024


def remove_left_behind(place: Path) -> None:
    """Remove the folders of processes that have ended without it."""
    for folder in place.glob(f"{PREFIX}*"):
        process = folder.name.split("-")[-2]
        if process.isdecimal() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)
