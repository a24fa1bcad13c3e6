"""What becomes of an event: each outcome of ``step``, and that a step changes nothing but what it returns."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Event
from statemachines.interpreter import step
from statemachines.machine import Machine, compile_pipeline
from statemachines.outcome import DUPLICATE, WAITS, Ignored, Moved, Outcome, Reason, Refused, Tried
from statemachines.run import RECENT_DIGESTS_MAX, Run, Status, has_seen, recent_is_full, remember
from tests.unit.machines import (
    DIGEST,
    NOW,
    Added,
    Closed,
    Dropped,
    Noted,
    Opened,
    account_pipeline,
    begun,
    occurrence,
)

MACHINE = compile_pipeline(account_pipeline(unexpected="dead_letter"))
LENIENT = compile_pipeline(account_pipeline(no_run="ignore", unexpected="ignore", closed="ignore"))
OPENED = Opened(name="acme")
ADDED = Added(name="acme", amount=3)
UNEXPECTED = "dead_letter (unexpected of the pipeline)"
TRIED_DROPPED = (Tried("full", "closed", "never"),)


def run_in(configuration: str = "active", **changes: Any) -> Run:
    status = Status.COMPLETED if configuration == "closed" else Status.RUNNING
    run = begun(MACHINE, OPENED)
    return run._replace(configuration=configuration, status=int(status), **changes)


def test_a_start_event_begins_a_run_in_the_initial_state() -> None:
    moved = step(MACHINE, None, occurrence(OPENED))
    assert isinstance(moved, Moved)
    assert (moved.started, moved.configuration, moved.status) == (True, "active", Status.RUNNING)
    assert moved.context == b'{"limit":10,"total":0,"note":null}'
    assert moved.publications == ()


def test_an_action_changes_the_context_and_publishes_under_the_run_s_key() -> None:
    moved = step(MACHINE, run_in(), occurrence(ADDED))
    assert isinstance(moved, Moved)
    assert (moved.started, moved.configuration, moved.status) == (False, "active", Status.RUNNING)
    assert moved.context == b'{"limit":10,"total":3,"note":null}'
    assert [tuple(one) for one in moved.publications] == [
        ("totals", "added", "acme", b'{"name":"acme","amount":3}')
    ]


def test_candidates_are_tried_in_order_and_the_first_that_holds_is_taken() -> None:
    moved = step(MACHINE, run_in(), occurrence(Added(name="acme", amount=30)))
    assert isinstance(moved, Moved)
    assert moved.configuration == "full"


def test_a_move_without_an_action_leaves_the_context_as_it_is() -> None:
    moved = step(MACHINE, run_in(), occurrence(Noted()))
    assert isinstance(moved, Moved)
    assert (moved.configuration, moved.context) == ("active", None)


def test_a_transition_of_the_pipeline_is_taken_in_any_state_and_ends_the_run() -> None:
    for state in ("active", "full"):
        moved = step(MACHINE, run_in(state), occurrence(Closed(name="acme")))
        assert isinstance(moved, Moved)
        assert (moved.configuration, moved.status) == ("closed", Status.COMPLETED)


@pytest.mark.parametrize(
    ("machine", "run", "event", "more", "expected"),
    [
        (MACHINE, run_in(recent=DIGEST), ADDED, {}, DUPLICATE),
        (MACHINE, run_in(recent=b"x" * 8 + DIGEST), ADDED, {}, DUPLICATE),
        (MACHINE, run_in(), ADDED, {"seen": True}, DUPLICATE),
        (MACHINE, run_in(recent=DIGEST, held=1), ADDED, {}, DUPLICATE),
        (MACHINE, run_in(held=1), ADDED, {}, WAITS),
        (MACHINE, run_in(held=1), None, {"kind": "added"}, WAITS),
        (MACHINE, run_in("closed", held=1), ADDED, {}, WAITS),
        (
            MACHINE,
            None,
            ADDED,
            {},
            Refused(
                Reason.NO_RUN,
                "no run has the key 'acme'",
                False,
                policy="dead_letter (no_run of the pipeline)",
            ),
        ),
        (LENIENT, None, ADDED, {}, Ignored(Reason.NO_RUN, policy="ignore (no_run of the pipeline)")),
        (
            MACHINE,
            run_in("closed"),
            ADDED,
            {},
            Refused(
                Reason.CLOSED, "the run ended in closed", False, policy="dead_letter (closed of the pipeline)"
            ),
        ),
        (
            MACHINE,
            run_in("closed"),
            OPENED,
            {},
            Refused(
                Reason.CLOSED, "the run ended in closed", False, policy="dead_letter (closed of the pipeline)"
            ),
        ),
        (
            LENIENT,
            run_in("closed"),
            ADDED,
            {},
            Ignored(Reason.CLOSED, policy="ignore (closed of the pipeline)"),
        ),
        (
            MACHINE,
            run_in(),
            None,
            {"kind": "added", "error": "amount: missing"},
            Refused(Reason.INVALID, "amount: missing", holds=True),
        ),
        (
            MACHINE,
            None,
            None,
            {"kind": "opened", "error": "name: missing"},
            Refused(Reason.INVALID, "name: missing", holds=False),
        ),
        (
            MACHINE,
            run_in("full"),
            ADDED,
            {},
            Refused(Reason.UNEXPECTED, "full has no transition for it", False, policy=UNEXPECTED),
        ),
        (
            MACHINE,
            run_in(),
            OPENED,
            {},
            Refused(Reason.UNEXPECTED, "active has no transition for it", False, (), UNEXPECTED),
        ),
        (
            LENIENT,
            run_in("full"),
            ADDED,
            {},
            Ignored(Reason.UNEXPECTED, policy="ignore (unexpected of the pipeline)"),
        ),
        (
            MACHINE,
            run_in("full"),
            Dropped(),
            {},
            Refused(
                Reason.UNEXPECTED,
                "no condition of the transitions out of full held",
                holds=False,
                tried=TRIED_DROPPED,
                policy=UNEXPECTED,
            ),
        ),
        (
            LENIENT,
            run_in("full"),
            Dropped(),
            {},
            Ignored(Reason.UNEXPECTED, TRIED_DROPPED, "ignore (unexpected of the pipeline)"),
        ),
        (
            MACHINE,
            run_in("gone"),
            ADDED,
            {},
            Refused(Reason.DEFINITION_MISSING, "account version 1 has no state 'gone'", holds=True),
        ),
    ],
)
def test_an_event_meets_the_questions_in_order(
    machine: Machine, run: Run | None, event: Event | None, more: dict[str, Any], expected: Outcome
) -> None:
    assert step(machine, run, occurrence(event, **more)) == expected


def test_a_digest_is_only_seen_at_its_own_place() -> None:
    recent = b"abcdefgh" + b"ijklmnop"
    assert has_seen(recent, b"ijklmnop")
    assert not has_seen(recent, b"efghijkl")
    assert has_seen(b"aaaabbbb" + b"bbbbaaaa" + b"aaaabbbb", b"bbbbaaaa")
    moved = step(MACHINE, run_in(recent=b"xxxx" + DIGEST + b"xxxx"), occurrence(ADDED))
    assert isinstance(moved, Moved)


def test_a_run_remembers_a_limited_number_of_digests() -> None:
    recent = b""
    for number in range(RECENT_DIGESTS_MAX + 1):
        assert recent_is_full(recent) == (number >= RECENT_DIGESTS_MAX)
        recent = remember(recent, number.to_bytes(8, "big"))
    assert not has_seen(recent, (0).to_bytes(8, "big"))
    assert has_seen(recent, (1).to_bytes(8, "big"))
    assert has_seen(recent, RECENT_DIGESTS_MAX.to_bytes(8, "big"))


def test_stepping_twice_from_one_run_gives_the_same_and_leaves_the_run_as_it_was() -> None:
    run = begun(MACHINE, OPENED)
    before = run
    first = step(MACHINE, run, occurrence(Added(name="acme", amount=3)))
    second = step(MACHINE, run, occurrence(Added(name="acme", amount=3)))
    assert first == second
    assert run == before


def test_what_a_guard_does_to_the_context_is_refused_and_counts_for_nothing() -> None:
    """Else an action behind it would find it, and none would not."""
    flow = account_pipeline()

    def meddle(account: Any, _event: Any) -> bool:
        account.total = 99
        return True

    flow.state("watched", final=True)
    flow.states[0].on(Dropped, to="watched", when=meddle)
    machine = compile_pipeline(flow)
    run = begun(machine, OPENED)
    refused = step(machine, run, occurrence(Dropped()))
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.holds) == (Reason.GUARD_FAILED, True)
    assert b"99" not in run.context


def test_meta_tells_a_handler_of_the_event_and_ids_that_are_the_same_again() -> None:
    seen = []

    def look(_account: Any, event: Noted) -> None:
        seen.append((event.meta, event.meta.uuid(1)))

    flow = account_pipeline()
    flow.states[1].on(Noted, do=look)
    machine = compile_pipeline(flow, namespace="blue")
    for _ in range(2):
        step(machine, run_in("full"), occurrence(Noted()))
    (meta, made), (_, again) = seen
    assert (meta.id, meta.source, meta.type, meta.key) == ("event-1", "test", "noted", "acme")
    assert (meta.now, meta.time, meta.subject, meta.attributes) == (NOW, NOW, None, {})
    assert tuple(meta.address) == ("blue", "account", "acme", 0, 2)
    assert made == again
    assert made.version == 8
    assert made not in (meta.uuid(0), meta.address.derive(0), meta.address.derive(1))


def test_an_event_that_no_run_has_taken_has_no_meta_and_says_why() -> None:
    with pytest.raises(AttributeError, match="Noted has no meta: it was made by hand"):
        _ = Noted().meta
