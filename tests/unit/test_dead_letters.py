"""What leaves to a dead-letter topic, and what stays in the table."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from connectors.source import RawRecord
from engine.dead_letters import DeadLetterTopic, Subject, fit_text, make_dead_letter, numbered
from engine.envelope import decode_envelope, decode_headers, encode_envelope
from engine.outbox import OutRecord
from engine.store.values import DeadLetter
from statemachines.outcome import Reason

AT = datetime(2026, 3, 1, tzinfo=UTC)
names = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=20)), max_size=4)


def letter(record: RawRecord, limit: int = 1_000_000) -> tuple[DeadLetter, OutRecord]:
    made = make_dead_letter(
        record,
        Subject(pipeline_name="order", key="o\0\ud800", event_id="e"),
        Reason.NO_RUN,
        "nobody\0has it",
        at=AT,
        position=1,
        topic=DeadLetterTopic("orders.dead-letters", limit),
    )
    assert made.out is not None
    return made, made.out


@given(headers, st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50))
def test_bytes_key_and_headers_leave_as_they_came_and_stay_in_the_table(
    sent: list[tuple[str, bytes | None]], key: bytes | None, value: bytes | None
) -> None:
    made, out = letter(RawRecord("orders", 3, 7, 1, key, value, tuple(sent)))
    assert (out.key, out.value) == (key, value)
    assert [text for _, text in out.headers[: len(sent)]] == [text for _, text in sent]
    assert decode_headers(made.record_headers) == tuple(sent)
    for name, _ in out.headers:
        name.encode()


def test_the_headers_say_why_and_where_from() -> None:
    made, out = letter(RawRecord("orders", 3, 7, 1, b"k", b"v"))
    said = dict(numbered(out, 12).headers)
    assert said == {
        "pointsman-reason": b"no run",
        "pointsman-error": b"nobody\\x00has it",
        "pointsman-topic": b"orders",
        "pointsman-partition": b"3",
        "pointsman-offset": b"7",
        "pointsman-pipeline": b"order",
        "pointsman-run": b"o\\x00\\ud800",
        "pointsman-event-id": b"e",
        "pointsman-dead-letter": b"12",
    }
    assert made.error == "nobody\\x00has it"


def test_a_value_too_large_for_the_topic_stays_in_the_table_and_the_record_says_so() -> None:
    made, out = letter(RawRecord("orders", 3, 7, 1, b"k", b"v" * 5_000, (("a", b"h" * 900),)), limit=4_000)
    assert out.value is None
    assert out.key == b"k"
    assert b"5000 bytes" in (dict(out.headers)["pointsman-value"] or b"")
    assert dict(out.headers)["pointsman-reason"] == b"no run"
    assert made.record_value == b"v" * 5_000


@given(st.text(alphabet=st.characters(codec=None), max_size=60), st.integers(10, 40))
def test_text_is_made_fit_for_the_database(text: str, room: int) -> None:
    fit = fit_text(text, room)
    assert "\0" not in fit
    assert len(fit.encode()) <= room


@given(st.integers(-1, 2**62), st.none() | st.binary(max_size=9), headers, st.binary(max_size=9))
def test_an_envelope_is_read_as_it_was_written(
    time: int, key: bytes | None, sent: list[tuple[str, bytes | None]], run_key: bytes
) -> None:
    packed = encode_envelope(time, key, tuple(sent), run_key)
    assert decode_envelope(packed, run_key) == (time, key, tuple(sent))
