"""The sentences of explanations, for what is rare in a store."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.dispositions import Disposition
from engine.log import Kind
from engine.reading.explain import words
from engine.reading.explain.found import FoundLetter, FoundNote, FoundRow, LogRowBrief
from statemachines.outcome import Reason

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LETTER = FoundLetter(
    id=7,
    pipeline=1,
    run=5,
    sequence=None,
    key="o1",
    event_id="e1",
    type="order.paid",
    disposition=int(Disposition.DEAD_LETTERED),
    reason=Reason.UNEXPECTED,
    error="placed has no transition for it",
    details=b"",
    position=1,
    offset=3,
    record_time=0,
    record_key=None,
    record_value=b"",
    record_headers=b"",
    topic="orders.dead-letters",
    publishing="published",
    publishing_error="",
    status="open",
    who="",
    why="",
    at=AT,
    ended=None,
    generation=2,
    held=0,
    waiting=0,
)
ROW = FoundRow(
    run=5,
    sequence=4,
    kind=int(Kind.MOVED),
    status=1,
    at=AT,
    position=1,
    offset=3,
    definition=1,
    type="order.paid",
    event_id="e1",
    configuration="paid",
    effects=b"",
    envelope=b"",
    payload=b"",
    pipeline=1,
    key="o1",
    generation=2,
    held=0,
    waiting=0,
    memory=None,
    before="placed",
    last_release=None,
    last_hold=None,
)


def told(letter: FoundLetter, pipeline: str | None = "shop") -> str:
    return words.dead_letter(letter, pipeline, ["shop"], ())


def test_a_dead_letter_says_whether_its_topic_has_it() -> None:
    assert "It was published to orders.dead-letters." in told(LETTER)
    assert "It waits to be published to orders.dead-letters." in told(LETTER._replace(publishing="pending"))
    refused = LETTER._replace(publishing="refused", publishing_error="too large")
    assert "The broker refused it for orders.dead-letters (too large), so it is in the table alone." in told(
        refused
    )
    assert "publish" not in told(LETTER._replace(topic=None))


def test_what_the_broker_refused_of_a_run_says_what_became_of_it_since() -> None:
    refused = LETTER._replace(reason=Reason.REFUSED_BY_BROKER, error="too large", topic=None, run=None)
    assert told(refused) == (
        "It was to be published, and the broker refused it (dead letter 7, refused by broker): too large. "
        "It came of the run 'o1' of shop, generation 2. "
        "It is open: pointsman dead-letters redrive 7, once the topic takes it (or drop)."
    )
    again = refused._replace(status="redriven", who="ana", ended=AT, publishing="pending")
    assert told(again).endswith(
        "Redriven by ana at 2026-03-01T12:00:00Z. It waits in the outbox to be published."
    )
    assert told(again._replace(publishing="published")).endswith("Z. It was published then.")
    assert told(again._replace(publishing="refused", publishing_error="still too large")).endswith(
        "Z. The broker refused it again: still too large."
    )
    assert told(refused._replace(status="dropped", ended=AT)).endswith(
        "Dropped by somebody at 2026-03-01T12:00:00Z."
    )


def test_several_events_that_wait_are_counted() -> None:
    holding = LETTER._replace(sequence=4, held=4, waiting=1_200)
    assert (
        "It holds the run 'o1' of shop, generation 2 since row 4, and 1,200 events wait behind it."
        in told(holding)
    )


def test_who_ended_a_dead_letter_is_said_even_where_nobody_said_why() -> None:
    ended = LETTER._replace(status="dropped", who="ana", ended=AT)
    assert told(ended).endswith("Dropped by ana at 2026-03-01T12:00:00Z.")


def test_a_row_without_its_dead_letter_still_says_what_it_did() -> None:
    held = words.held_without_letter(ROW._replace(kind=int(Kind.HELD), configuration="placed"), "shop")
    assert held == (
        "It failed and held the run 'o1' of shop, generation 2 in placed (row 4); its dead letter is gone."
    )
    waits = words.waits(ROW._replace(kind=int(Kind.WAITED)), "shop", 1, 2, None, still=True)
    assert waits == "It waits (row 4) behind row 2, which holds the run 'o1' of shop, generation 2."


def test_a_command_whose_body_cannot_be_read_is_named_by_its_type() -> None:
    brief = LogRowBrief(int(Kind.RELEASED), AT, "pointsman.redrive", "command/3", b"\xff")
    sentence = words.moved(ROW, "shop", brief)
    assert sentence == (
        "After it had waited until a redrive by somebody at 2026-03-01T12:00:00Z (command/3), it moved the run 'o1' "
        "of shop, generation 2 from placed to paid (row 4)."
    )


def test_effects_are_counted_by_topic() -> None:
    effects = b'[{"publish":"a","type":"t"},{"publish":"b","type":"t"},{"publish":"a","type":"t"}]'
    sentence = words.moved(ROW._replace(effects=effects), "shop", None)
    assert sentence.endswith("It asked for 3 events to be published to a, b.")


def test_a_reason_that_is_new_is_told_as_it_stands() -> None:
    note = FoundNote(
        id=1,
        position=1,
        offset=1,
        pipeline=1,
        run=5,
        key="o1",
        event_id="e1",
        type="t",
        disposition=int(Disposition.IGNORED),
        reason="out of season",
        details=b"",
        at=AT,
        generation=0,
    )
    sentence = words.noted(note, "shop", tried=(), configuration=None, seen=None)
    assert sentence == "It was ignored (out of season), as shop says of such events: out of season."
