"""Where the servers of tests have their folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import scratch


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    """The place is looked for once in a process."""
    scratch._place.cache_clear()
    yield
    scratch._place.cache_clear()


def test_what_processes_that_have_ended_left_behind_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = tmp_path / f"pointsman-test-kafka-{ended.pid}-ab_c1"
    kept = [
        tmp_path / f"pointsman-test-kafka-{os.getpid()}-ab_c1",
        tmp_path / "pointsman-test-kafka-abc",
        tmp_path / f"other-kafka-{ended.pid}-ab_c1",
    ]
    for folder in (gone, *kept):
        folder.mkdir()
        (folder / "data").write_text("some")
    scratch.remove_left_behind(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize(("free", "in_memory"), [(scratch.ROOM_BYTES, True), (scratch.ROOM_BYTES - 1, False)])
def test_they_are_in_memory_where_there_is_plenty_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, in_memory: bool
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "_free_memory", lambda: free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage())
    with scratch.scratch_folder("kafka") as folder:
        assert (folder.parent == tmp_path) is in_memory
        assert scratch.PREFIX in folder.name
    assert not folder.exists()


class Usage:
    """Of a disk."""

    free = 10 * scratch.ROOM_BYTES


def test_whoever_names_another_place_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with scratch.scratch_folder("kafka") as folder:
        assert folder.parent == tmp_path
