"""Which folders `dev` takes to keep its data in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.cli.dev import own, sourced
from engine.errors import UsageError


def kept(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_is_new_or_empty_is_taken_and_kept_out_of_version_control(
    tmp_path: Path, is_there: bool
) -> None:
    folder = tmp_path / "a" / "b"
    if is_there:
        folder.mkdir(parents=True)
    assert kept(own(folder)) == {".gitignore": "*\n"}
    assert kept(own(folder)) == {".gitignore": "*\n"}


@pytest.mark.parametrize(
    "files",
    [
        {".gitignore": "*\n", "running": "process 7\n"},
        {".gitignore": "*\n", "postgres/data.unfinished/PG_VERSION": "18\n", "kafka/x": ""},
        {".gitignore": "*\n", "running": "", "env": "export POINTSMAN_KAFKA=x\n"},
        {".gitignore": "*\n", "postgres/passfile": "", "env": "", "notes.md": "mine"},
        {".gitignore": "*\n!notes.md\n", "postgres/passfile": "", "running": "", "notes.md": "mine"},
    ],
)
def test_a_folder_of_dev_is_taken_again_as_it_is(tmp_path: Path, files: dict[str, str]) -> None:
    assert kept(own(make(tmp_path, files))) == files


@pytest.mark.parametrize(
    "files",
    [
        {"env": "mine"},
        {"running": ""},
        {".gitignore": "*.pyc\n", "env": "mine"},
        {".gitignore": "*\n", "pyvenv.cfg": ""},
        {"orders.py": "", "postgres/init.sql": ""},
    ],
)
def test_a_folder_of_others_is_refused_and_left_as_it_is(tmp_path: Path, files: dict[str, str]) -> None:
    make(tmp_path, files)
    with pytest.raises(UsageError, match=f"^{tmp_path} is not empty, and no folder of `pointsman dev`"):
        own(tmp_path)
    assert kept(tmp_path) == files


@pytest.mark.parametrize("folder", [".", "here", "a b", "-x"])
def test_a_shell_finds_the_addresses_in_any_folder(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(folder) / "env"
    make(tmp_path, {str(file): "A=found\n"})
    shell = subprocess.run(
        ["sh", "-c", f"{sourced(file)} && echo $A"], capture_output=True, text=True, check=False
    )
    assert (shell.stdout, shell.stderr) == ("found\n", "")
