"""The words in which `show`, `history` and `explain` print what waits and what is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from engine.cli.looking import due_words, effect_words, kind_words, place, print_explanation
from engine.cli.output import short_time
from engine.log import Kind
from engine.publications import asked_effects
from engine.reading.asked import deferral_of, shown_effects
from engine.reading.due import DueView, memory_of
from engine.reading.explain import Answer, Change, Explanation
from engine.reading.rows import kind_word
from engine.reading.values import RecordView
from statemachines.effects import Asked
from statemachines.events import Address

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADDRESS = Address("default", "shop", "o1", 0, 3)
DUE = DueView("id-1", "timer", "after 5 minutes", AT, False, 3, "placed", None, None, None, None, None)


def test_events_of_one_id_name_their_sources_where_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    change = Change("applied", AT, "The run took it.")
    one = Answer("shop", "o1", 0, "c2", "order.paid", "/a", "orders", 0, 3, "g", None, None, change, ())
    other, doubled = replace(one, source="file:c.jsonl"), replace(one, source=None)

    def subjects(*answers: Answer) -> list[str]:
        print_explanation(Explanation("default", "c2", None, None, None, None, True, (), answers))
        return capsys.readouterr().out.splitlines()[::2]

    assert subjects(one, doubled) == ["order.paid c2, orders/0 offset 3, for shop:"] * 2
    assert subjects(one, other, doubled) == [
        "order.paid c2 of /a, orders/0 offset 3, for shop:",
        "order.paid c2 of file:c.jsonl, orders/0 offset 3, for shop:",
        "order.paid c2 of a source that is not kept, orders/0 offset 3, for shop:",
    ]


def test_what_falls_due_is_told_by_whom_it_is_for() -> None:
    assert due_words(DUE) == "after 5 minutes, a timer of placed (id-1, asked for in row 3)"
    sent = replace(DUE, what="send", type="order.late", state=None)
    assert due_words(sent) == "order.late is sent to itself (id-1, asked for in row 3)"
    assert due_words(replace(sent, key="all", pipeline="ledger")).startswith(
        "order.late is sent to ledger all ("
    )
    assert due_words(replace(sent, key="o2")).startswith("order.late is sent to the run o2 (")
    assert due_words(replace(sent, key="o\n2\t")).startswith("order.late is sent to the run o\\n2\\t (")
    published = replace(sent, what="publish", topic="letters", key="o1")
    assert due_words(published).startswith("order.late is published to letters (")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.LEFT_WAITING, "waited in vain"),
        (Kind.LEFT_DEFERRED, "deferred in vain"),
        (Kind.WAITED, "waited"),
    ],
)
def test_an_event_that_waits_no_longer_and_changed_nothing_is_not_printed_as_if_it_were_left_to_wait(
    kind: Kind, words: str
) -> None:
    assert kind_words(kind_word(kind)) == words


def test_effects_have_all_fields_and_keep_the_ids_of_their_own() -> None:
    effects = (
        b'[{"publish":"payments","type":"seen","key":"o1","data":{}},{"timer":"t","type":"t","id":"own",'
        b'"due":"2026-03-01T12:05:00+00:00"},{"cancel":"reminder"}]'
    )
    published, timer, cancel = shown_effects(ADDRESS, Kind.MOVED, effects)
    assert len({frozenset(one) for one in (published, timer, cancel)}) == 1
    assert (published["id"], timer["id"], cancel["id"]) == (str(ADDRESS.derive(0)), "own", None)
    assert [effect_words(one) for one in (published, timer, cancel)] == [
        "seen",
        f"t at {short_time(datetime(2026, 3, 1, 12, 5, tzinfo=UTC))}",
        "cancel reminder",
    ]
    assert shown_effects(ADDRESS, Kind.DEFERRED, b'[{"deferred":"no run"}]') == []


def test_steps_that_a_run_asked_for_and_stopped_are_told_apart_and_known_by_one_id() -> None:
    first = ADDRESS._replace(sequence=2)
    asking = asked_effects(b"", (Asked("step", "charge", number=1),), first)
    stopping = asked_effects(
        b"",
        (
            Asked("stop", "charge", id="2.1"),
            Asked("step", "pack", number=1),
            Asked("settle", "charge", id="2.1"),
        ),
        ADDRESS,
    )
    [asked], [stopped, other, settled] = (
        shown_effects(address, Kind.MOVED, effects)
        for address, effects in ((first, asking), (ADDRESS, stopping))
    )
    assert len({frozenset(one) for one in (asked, stopped, other, settled)}) == 1
    assert [one["what"] for one in (asked, stopped, other, settled)] == ["step", "stop", "step", "settle"]
    assert [one["type"] for one in (asked, stopped, other)] == ["charge", "charge", "pack"]
    assert asked["id"] == stopped["id"] == settled["id"] == first.id_of_asked(1) != other["id"]
    said = [effect_words(one) for one in (asked, stopped, settled)]
    assert said == ["run charge", "stop charge", "settle charge"]


def test_what_was_tampered_with_is_shown_as_far_as_it_can_be() -> None:
    assert deferral_of(1, "e1", "t", b'[{"deferred":"no run"}]') is None
    assert deferral_of(1, "e1", "t", b"nonsense") is None
    assert memory_of(b"nonsense") == memory_of(b"")
    [timer] = shown_effects(ADDRESS, Kind.MOVED, b'[{"timer":"t","type":"t","id":"own","due":"soon"}]')
    assert timer["due"] == "soon"


def test_a_record_that_came_from_inside_of_a_run_has_no_place() -> None:
    inner = RecordView("", None, None, 0, None, (), b"")
    assert place(inner) == "none: it came from a run, or from an operator"
    assert place(replace(inner, topic="orders", partition=0, offset=7)) == "orders/0 offset 7"
