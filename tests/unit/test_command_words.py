"""Commands that sentences name can be given as they stand there."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from engine.cli.app import app
from engine.commands.words import (
    goes_on_by,
    letter_cure,
    map_command,
    not_taken,
    position_command,
    resume_command,
    run_command,
    until_taken,
)
from statemachines.outcome import Reason


def test_a_plain_key_is_as_it_is() -> None:
    assert run_command("resume", "order", "o-1") == "pointsman resume order o-1 --reason TEXT"
    assert resume_command("order") == "pointsman resume --pipeline order --reason TEXT"
    assert map_command("order", 1) == "pointsman definitions map order --from 1 --to VERSION --reason TEXT"


@pytest.mark.parametrize("key", ["a b", "a'b", 'a"b', "a/b", "a\\b", "$HOME", "a;b", "", "-a"])
def test_any_key_comes_through_a_shell_as_one_word(key: str) -> None:
    words = shlex.split(run_command("retry", "or der", key))
    assert words[-2:] == ["or der", key] if key.startswith("-") else words[2:4] == ["or der", key]
    assert shlex.split(map_command("or der", key=key))[3:5] == ["or der", f"--key={key}"]
    assert ("--" in words) is key.startswith("-")
    assert (
        words.index("--reason") < words.index("--") if "--" in words else words[-2:] == ["--reason", "TEXT"]
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to ask")
@pytest.mark.parametrize(
    "key", ["a\nb", "a\x01b", "\ta\r", "\x1b[31m'a\\\n", "a\x7f9", "\x85é\u200b9", "\n$HOME", "-\n"]
)
def test_a_key_that_would_move_the_cursor_is_shown_by_escapes_that_a_shell_reads(key: str) -> None:
    command = run_command("retry", "order", key)
    assert command.isprintable()
    shell = ["bash", "-c", f"pointsman() {{ printf '%s\\0' \"$@\"; }}; {command}"]
    words = subprocess.run(shell, capture_output=True, check=True).stdout.split(b"\0")
    assert key.encode() in words


def test_a_position_is_named_with_its_group_and_its_cluster_as_words_of_a_shell() -> None:
    command = position_command("orders", 0, group="my group", cluster="$c")
    assert shlex.split(command) == [
        "pointsman", "positions", "set", "orders", "0", "POSITION", "--group=my group", "--cluster=$c", "--reason",
        "TEXT",
    ]  # fmt: skip
    assert position_command("orders", 0, group="", cluster="") == (
        "pointsman positions set orders 0 POSITION --reason TEXT"
    )


def test_what_is_mapped_from_a_version_that_is_loaded_is_said_in_the_same_words_by_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "only a run that is held or paused is mapped" in goes_on_by(1)
    with pytest.raises(SystemExit):
        app(["definitions", "map", "--help"])
    assert "else those that are held or paused" in " ".join(capsys.readouterr().out.split())


def test_what_is_not_valid_may_be_given_other_data_but_what_became_of_a_step() -> None:
    redrive = "Redrive or drop", "pointsman dead-letters redrive 7", "drop"
    assert letter_cure(7, Reason.INVALID, "order.paid") == (
        "Edit, redrive or drop",
        "pointsman dead-letters edit 7 --set FIELD=VALUE --reason TEXT",
        "redrive, or drop",
    )
    assert letter_cure(7, Reason.INVALID, "done.step.charge") == redrive
    assert letter_cure(7, Reason.ACTION_FAILED, "order.paid") == redrive
    assert letter_cure(7, Reason.UNREADABLE, None) == redrive


def test_what_waits_in_the_inbox_is_said_to_wait_for_a_pause_to_end_or_for_an_engine() -> None:
    goes_on = "pointsman resume --pipeline shop --reason TEXT"
    assert until_taken("shop", is_paused=True) == f"until shop goes on, which is paused: {goes_on}"
    assert until_taken("shop", is_paused=False) == "until an engine takes it that has shop loaded"
    assert not_taken("drop", "shop", is_paused=True) == (
        f"shop is paused, and the drop waits in the inbox until that goes on: {goes_on}. Nothing need be done again."
    )
    assert not_taken("drop", "shop", is_paused=False) == (
        "No engine took the drop up yet. It waits in the inbox until one runs that has shop loaded; nothing need be "
        "done again."
    )
    assert not_taken("redrive", None, is_paused=False) == (
        "No engine took the redrive up yet. It waits in the inbox until one runs; nothing need be done again."
    )
