"""The one command of the tests: what it says of steps that it does not know."""

from __future__ import annotations

import sys

import pytest

import tests.__main__ as command


def ask(monkeypatch: pytest.MonkeyPatch, *names: str) -> tuple[int, list[list[str]]]:
    """Call it with names of steps; its exit code, and what it has run."""
    ran: list[list[str]] = []

    def run(words: list[str], *_: object, **__: object) -> command.Ended:
        ran.append(words)
        return command.Ended(0, [], 0.0)

    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(sys, "argv", ["tests", *names])
    return command.main(), ran


def test_nothing_is_run_where_a_step_is_named_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, "lint", "typos", "unit") == (2, [])
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "No such steps: typos, unit. There are lint, format, layers, types, tests, demo. Nothing was run.\n",
    )


def test_the_steps_that_are_named_are_run_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = dict(command.STEPS)
    assert ask(monkeypatch, "types", "lint") == (0, [steps["lint"], steps["types"]])
