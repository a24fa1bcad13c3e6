"""What the log says of dead letters."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from connectors.source import RawRecord
from engine.cli.logs import JsonLines, Lines
from engine.commands.telling import TOLD_MAX, tell_dead_letters
from engine.dead_letters import DeadLetterTopic, Subject, make_dead_letter
from engine.raised import Seldom
from engine.store.values import DeadLetter
from statemachines.outcome import Reason
from statemachines.places import raised_by

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "4111-1111"


def letter(
    offset: int = 5,
    *,
    key: str | None = "o1",
    holds: bool = True,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> DeadLetter:
    record = RawRecord("orders", 3, offset, 0, b"k", f'{{"card": "{SECRET}"}}'.encode(), headers)
    subject = Subject(1, "shop", 77, 4 if holds else None, key, "e1", "order.paid")
    error = f"pay raised ValueError: {SECRET} is no card"
    topic = DeadLetterTopic("orders.dead-letters")
    return make_dead_letter(record, subject, Reason.ACTION_FAILED, error, at=AT, position=9, topic=topic)


def told(
    caplog: pytest.LogCaptureFixture, *letters: DeadLetter, traced: Seldom | None = None
) -> list[logging.LogRecord]:
    with caplog.at_level(logging.WARNING, "pointsman.engine"):
        tell_dead_letters(letters, traced or Seldom())
    return caplog.records


def test_a_dead_letter_is_told_with_reason_run_event_and_place(caplog: pytest.LogCaptureFixture) -> None:
    [line] = told(caplog, letter())
    said = json.loads(JsonLines().format(line))
    del said["time"]
    assert said == {
        "level": "warning",
        "logger": "pointsman.engine",
        "message": "dead letter; its run is held",
        "reason": "action raised",
        "pipeline": "shop",
        "run": "o1",
        "event": "e1",
        "topic": "orders",
        "partition": "3",
        "offset": 5,
    }


def test_neither_the_data_nor_an_error_that_may_quote_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    [line] = told(caplog, letter())
    assert SECRET not in JsonLines().format(line)
    assert SECRET not in Lines().format(line)


def test_what_is_not_known_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    record = RawRecord("orders", 3, 5, 0, None, b"{", (("pointsman-pipeline", b"of another one"),))
    unread = make_dead_letter(
        record, Subject(), Reason.UNREADABLE, "no", at=AT, position=9, topic=DeadLetterTopic("dead")
    )
    [line] = told(caplog, unread)
    said = json.loads(JsonLines().format(line))
    assert said["message"] == "dead letter"
    assert not {"pipeline", "run", "event"} & set(said)
    assert said["topic"] == "orders"


@pytest.mark.parametrize(
    ("subject", "reason"),
    [(Subject(key="k"), Reason.UNREADABLE), (Subject(1, "shop", key="k"), Reason.NO_KEY)],
)
def test_where_no_run_is_known_the_key_is_that_of_the_record(
    subject: Subject, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    record = RawRecord("orders", 3, 5, 0, b"k", b"{", ())
    [line] = told(
        caplog,
        make_dead_letter(record, subject, reason, "no", at=AT, position=9, topic=DeadLetterTopic("dead")),
    )
    said = json.loads(JsonLines().format(line))
    assert (said.get("run"), said["key"]) == (None, "k")


def test_what_a_sender_wrote_into_headers_of_ours_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    [line] = told(caplog, letter(headers=(("pointsman-topic", b"\xff"), ("pointsman-partition", b"99"))))
    said = json.loads(JsonLines().format(line))
    assert (said["topic"], said["partition"]) == ("orders", "3")


def test_a_key_cannot_be_taken_for_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    [line] = told(caplog, letter(key="o1\n12:00:00 all is well\ud800"))
    text = Lines().format(line)
    assert "\n" not in text
    assert text.isprintable()
    assert 'run="o1\\n12:00:00 all is well' in text


def test_a_flood_is_counted_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    lines = told(caplog, *(letter(offset) for offset in range(TOLD_MAX + 25)))
    assert len(lines) == TOLD_MAX + 1
    assert lines[-1].getMessage() == "25 more dead letters in the same commit: 25 action raised"


def raising(number: str) -> None:
    raise ValueError(number)


def test_where_user_code_has_raised_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=SECRET) as raised:
        raising(SECRET)
    failed = letter()._replace(raised=raised_by(raised.value))
    lines = told(caplog, failed, failed, letter(), traced=Seldom(lambda: 0.0))
    first, *others = (json.loads(JsonLines().format(one)) for one in lines)
    assert "    raise ValueError(number)\n" in first["traceback"]
    assert first["traceback"].endswith("\nValueError")
    assert first["error"] == "ValueError"
    assert SECRET not in json.dumps(first)
    assert [one for one in others if "traceback" in one] == []
    shown = Lines(with_messages=True).format(lines[0])
    assert shown.endswith(f"ValueError: pay raised ValueError: {SECRET} is no card")
