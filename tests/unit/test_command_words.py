"""Commands that sentences name can be given as they stand there."""

from __future__ import annotations

import shlex

import pytest

from engine.commands.words import letter_cure, map_command, resume_command, run_command
from statemachines.outcome import Reason


def test_a_plain_key_is_as_it_is() -> None:
    assert run_command("resume", "order", "o-1") == "pointsman resume order o-1 --reason TEXT"
    assert resume_command("order") == "pointsman resume --pipeline order --reason TEXT"
    assert map_command("order", 1) == "pointsman definitions map order --from 1 --to VERSION --reason TEXT"


@pytest.mark.parametrize("key", ["a b", "a'b", 'a"b', "a/b", "a\nb", "$HOME", "a;b", "", "-a"])
def test_any_key_comes_through_a_shell_as_one_word(key: str) -> None:
    words = shlex.split(run_command("retry", "or der", key))
    assert words[-2:] == ["or der", key] if key.startswith("-") else words[2:4] == ["or der", key]
    assert shlex.split(map_command("or der", key=key))[3:5] == ["or der", f"--key={key}"]
    assert ("--" in words) is key.startswith("-")
    assert (
        words.index("--reason") < words.index("--") if "--" in words else words[-2:] == ["--reason", "TEXT"]
    )


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
