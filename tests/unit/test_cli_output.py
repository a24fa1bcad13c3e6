"""What commands print."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from rich.console import Console

from engine.cli.dead_letters import EACH_MAX, print_letters, print_outcomes
from engine.cli.logs import JsonLines, Lines
from engine.cli.output import counted, print_json, print_rows, say, short_time
from engine.reading import Asked, Became, DeadLetterView


def test_json_takes_what_a_context_may_hold(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    huge = 10**300 + 7
    print_json({"number": huge, "text": "a\ud800b", "zero": "\x00", "at": datetime(2026, 1, 1, tzinfo=UTC)})
    read = json.loads(capfdbinary.readouterr().out)
    assert read == {"number": huge, "text": "a\ud800b", "zero": "\x00", "at": "2026-01-01T00:00:00+00:00"}


def test_what_stands_in_an_event_is_no_markup_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("key",), [("[red]o-1[/red]",), ("o\x1b[2J-2",)])
    say("a\x07b")
    out = capsys.readouterr().out
    assert "[red]o-1[/red]" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_nothing_is_cut_off_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    key = "k" * 500
    print_rows(("key", "note"), [(key, "")], optional=("note",))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["key", key]


def test_a_row_stays_on_its_line_whatever_a_key_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("key", "found"), [("o\n1\t2", "well\nor not")], fold=("found",))
    assert capsys.readouterr().out.splitlines() == [
        "key      found",
        "o\\n1\\t2  well",
        "         or not",
    ]


def test_a_dead_letter_has_a_run_only_where_one_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    known = DeadLetterView(
        *(1, "no run", "none", "orders", 0, 5, "shop", "o-1", "e1", "order.paid", "open", "pending"),
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    print_letters([known])
    header, _ = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["id", "status", "reason", "event", "run", "error"]
    print_letters([known, replace(known, id=2, reason="unreadable", pipeline=None, key="x", type=None)])
    header, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["id", "status", "reason", "event", "run", "key", "error"]
    assert first == ["1", "open", "no", "run", "order.paid", "shop", "o-1", "none"]
    assert second == ["2", "open", "unreadable", "x", "none"]


@pytest.mark.parametrize(("width", "is_table"), [(40, False), (59, False), (60, True), (100, True)])
def test_on_a_narrow_terminal_each_row_is_told_by_itself(
    width: int, is_table: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(force_terminal=True, width=width, no_color=True, highlight=False)
    monkeypatch.setattr("engine.cli.output.console", lambda: screen)
    print_rows(
        ("pipeline", "key", "state", "rows"), [("order", "o-1\n", "placed", 7), ("order", "o-2", "", 8)]
    )
    out = capsys.readouterr().out
    assert ("pipeline  order\nkey       o-1\\n\nstate     placed\nrows      7\n\n" in out) is not is_table
    assert ("pipeline  order\nkey       o-2\nrows      8\n" in out) is not is_table


def test_numbers_are_spoken_of_as_people_do() -> None:
    assert [counted(number, "row") for number in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock shows another time."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_times_are_told_in_utc_wherever_they_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 3, 1, 7, 5, 9, tzinfo=timezone(timedelta(hours=-5)))
    assert short_time(at) == "2026-03-01 12:05:09Z"
    print_rows(("at",), [(at,)])
    assert capsys.readouterr().out.split() == ["at", "2026-03-01", "12:05:09Z"]
    record = _record()
    record.created = at.timestamp()
    assert Lines().format(record).startswith("12:05:09Z warning: ")


def _record(**extra: object) -> logging.LogRecord:
    record = logging.LogRecord("pointsman.engine", logging.WARNING, __file__, 1, "dead %s", ("letter",), None)
    for name, value in extra.items():
        setattr(record, name, value)
    return record


def test_a_log_line_is_one_object_with_run_and_event() -> None:
    line = JsonLines().format(_record(run="o-1", event="e-1", unknown="not told"))
    read = json.loads(line)
    assert "\n" not in line
    assert {name: read[name] for name in ("level", "message", "run", "event")} == {
        "level": "warning",
        "message": "dead letter",
        "run": "o-1",
        "event": "e-1",
    }
    assert "unknown" not in read


def test_a_log_line_for_people_says_the_same() -> None:
    assert Lines().format(_record(run="o-1")).endswith(" warning: dead letter run=o-1")


def test_of_many_dead_letters_it_is_counted_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked("redrive", (), ())
    done = [Became(number, True, "redriven", None, "It is redriven.") for number in range(EACH_MAX)]
    waits = Became(99, taken=False, status="open", disposition=None, sentence="It waits.")
    print_outcomes(asked, done, json=False)
    assert capsys.readouterr().out.splitlines()[-1] == f"{EACH_MAX - 1}: It is redriven."
    print_outcomes(asked, [*done, waits], json=False)
    assert capsys.readouterr().out.splitlines() == [
        f"{EACH_MAX} of them: It is redriven.",
        "1 of them: It waits.",
    ]
