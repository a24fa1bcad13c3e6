"""What is said of what was asked of many runs."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cli import many
from engine.reading import AskedOfRun, Chosen, Done


def done(number: int, sentence: str, **known: Any) -> Done:
    asked = AskedOfRun(number, "pause", "shop", f"o{number}")
    return Done(asked, disposition=None, dead_letter=None, sentence=sentence, **known)


async def nothing(*_: Any) -> list[Any]:
    return []


def test_why_runs_wait_is_said_once_and_why_others_failed_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    became = [
        done(1, "It is done.", taken=True, done=True),
        done(2, "shop is paused.", taken=False, done=False),
        done(3, "shop is paused.", taken=False, done=False),
        done(4, "o4 has ended.", taken=True, done=False),
    ]
    chosen = [Chosen("shop", f"o{number}", 0, 1, "running", ("open",), 1) for number in range(1, 5)]
    answers = iter([chosen, became])
    monkeypatch.setattr(many, "ask_store", lambda *_: next(answers))
    asks = many.Asks("pause", dry_run=False, yes=True, json=False)
    assert many.do_to_many(asks, {}, nothing, nothing) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "pause: done of 1 of 4 runs.",
        "2 of them: shop is paused.",
        "o4 has ended.",
    ]
