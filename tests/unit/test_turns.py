"""Order and business keys, through the core: what is stale, what waits for a gap, what was seen, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statemachines import Context, Defer, Event, OrderBy, Pipeline
from statemachines.interpreter import step
from statemachines.limits import SEEN_MAX, STREAM_CHARACTERS_MAX, STREAMS_MAX
from statemachines.memory import Memory, read_memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.ordering import OrderKind
from statemachines.outcome import DUPLICATE, WAITS, Deferred, Ignored, Moved, Reason, Refused, Stale
from statemachines.run import DIGEST_BYTES, Status
from statemachines.testkit import Case, given
from statemachines.turns import BUSINESS_KEY_BYTES_MAX
from tests.unit.early import Made, Opened, Painted, Rung, Shut, door_pipeline, state_of

HOUR = timedelta(hours=1)


class Row(Event, type="row.changed", key="table"):
    table: str = "t"
    at: Any = None
    row: Any = None


class Table(Context):
    seen: list[Any] = []  # noqa: RUF012 - pydantic copies defaults


def see(table: Table, event: Row) -> None:
    table.seen.append(event.at)


def table_pipeline(**policy: Any) -> Pipeline[Table]:
    flow = Pipeline("table", Table, topics=["rows"], no_run="start")
    flow.state("open", initial=True).on(Row, do=see)
    flow.policy(Row, **policy)
    return flow


def seen(flow: Pipeline[Table], *values: Any) -> list[Any]:
    case = given(flow)
    for value in values:
        case.when(Row(at=value))
    found: list[Any] = case.context.seen
    return found


@pytest.mark.parametrize(
    ("kind", "came", "applied"),
    [
        ("int", [1, 3, 2, 3, "4", "0005", 5], [1, 3, "4", "0005"]),
        ("int", [0, 2**63 - 1, 7], [0, 2**63 - 1]),
        (
            "lsn",
            ["16/B374D848", "16/B374D847", "17/0", "9/FFFFFFFF", "100/0"],
            ["16/B374D848", "17/0", "100/0"],
        ),
        ("lsn", [10, "0/A", "0/B", 11, "0/c"], [10, "0/B", "0/c"]),
        # S3: of sequencers of different length the shorter one is filled up with zeros on the right.
        (
            "hex",
            ["0055AED6DCD90281E5", "0055AED6DCD90281E4", "0055AED6DCD90281E51"],
            ["0055AED6DCD90281E5", "0055AED6DCD90281E51"],
        ),
        ("hex", ["1", "100", "0F", "2"], ["1", "2"]),
        ("hex", ["0xAB", "ab", "ABC", "0"], ["0xAB", "ABC"]),
        ("hex", ["0", "00", "01"], ["0", "01"]),
        (
            "time",
            ["2024-05-17T12:00:00Z", "2024-05-17T13:30:00+02:00", "2024-05-17T12:00:00.000001+00:00"],
            ["2024-05-17T12:00:00Z", "2024-05-17T12:00:00.000001+00:00"],
        ),
    ],
)
def test_an_event_older_than_what_was_applied_is_stale(kind: OrderKind, came: Any, applied: Any) -> None:
    assert seen(table_pipeline(order_by=OrderBy("at", kind)), *came) == applied


def test_the_name_of_a_field_is_an_order() -> None:
    assert seen(table_pipeline(order_by="at"), 2, 1, 3) == [2, 3]


def decided(case: Case[Any]) -> str:
    assert isinstance(case.outcome, Refused)
    return case.outcome.policy


@pytest.mark.parametrize("kind", ["int", "lsn", "hex", "time"])
@pytest.mark.parametrize(
    "value", [None, "", "-1", -1, 1.5, True, 2**63, "one", [], {}, "2024-05-17T12:00:00", "1/2/3"]
)
def test_a_field_that_says_nothing_of_the_order_holds_the_run(kind: OrderKind, value: Any) -> None:
    good = {"int": 1, "lsn": "0/1", "hex": "a", "time": "2024-01-01T00:00:00Z"}[kind]
    case = given(table_pipeline(order_by=OrderBy("at", kind)), Row(at=good)).when(Row(at=value))
    case.then_refused(Reason.INVALID, saying="the field 'at', by which events are in order,", holds=True)
    assert decided(case) == f"order_by=at{'' if kind == 'int' else f', as {kind}'}"
    case.when(Row(at=good)).then_stale()


def test_what_is_stale_says_what_was_applied() -> None:
    case = given(table_pipeline(order_by="at"), Row(at=5)).when(Row(at=4)).then_stale()
    assert isinstance(case.outcome, Stale)
    assert case.outcome.why == "at is 4, and 5 was applied already"
    assert case.outcome.policy == "order_by=at"
    case = given(table_pipeline(order_by=OrderBy("at", contiguous=True)), Row(at=1)).when(Row(at=1))
    assert case.outcome == Stale("at is 1, and 1 was applied already", "order_by=at, contiguous")
    case = given(table_pipeline(order_by=OrderBy("at", kind="lsn")), Row(at=5)).when(Row(at=5))
    assert case.outcome == Stale(
        "at is 00000000/00000005, and 00000000/00000005 was applied already", "order_by=at, as lsn"
    )


def test_each_scope_is_in_order_by_itself() -> None:
    case = given(table_pipeline(order_by=OrderBy("at", scope=("row",))))
    for at, row in ((5, "a"), (3, "b"), (4, "a"), (4, "b"), (1, 7)):
        case.when(Row(at=at, row=row))
    assert case.context.seen == [5, 3, 4, 1]
    case.when(Row(at=1, row=[])).then_refused(
        Reason.INVALID, saying="'row', which names the stream", holds=True
    )


def painting(order: OrderBy | None = None, **settings: Any) -> Pipeline[Any]:
    flow = door_pipeline(**settings)
    flow.policy(Painted, order_by=order or OrderBy("coat", contiguous=True, gap=Defer(HOUR)))
    return flow


def test_what_leaves_a_gap_waits_for_what_is_missing() -> None:
    case = given(painting(), Made(), Opened()).when(Painted(coat=3)).then_deferred(Reason.GAP)
    assert isinstance(case.outcome, Deferred)
    assert case.outcome.why == "coat is 3, and 1 has not come yet"
    assert case.outcome.policy == "order_by=coat, contiguous, gap=1 h, then dead_letter"
    case.when(Painted(coat=2)).then_deferred(Reason.GAP)
    case.when(Painted(coat=1)).then(context={"coats": [1, 2, 3]})
    assert case.deferred == []
    case.when(Painted(coat=2)).then_stale()


@pytest.mark.parametrize("first", [0, 7])
def test_a_stream_begins_with_its_first_number(first: int) -> None:
    case = given(painting(OrderBy("coat", contiguous=True, first=first)), Made(), Opened())
    case.when(Painted(coat=first + 1)).then_deferred(Reason.GAP)
    case.when(Painted(coat=first)).then(context={"coats": [first, first + 1]})
    if first:
        case.when(Painted(coat=first - 1)).then_stale()


def test_a_gap_holds_up_its_own_stream_only() -> None:
    flow = painting(OrderBy("coat", scope=("side",), contiguous=True))
    case = given(flow, Made(), Opened()).when(Painted(coat=2)).then_deferred(Reason.GAP)
    case.when(Painted(coat=1, side="back")).then(context={"coats": [1]})
    case.when(Painted(coat=2, side="back")).then(context={"coats": [1, 2]})
    assert case.deferred == ["door.painted"]
    case.when(Rung()).then_deferred(Reason.UNEXPECTED)
    case.when(Painted(coat=1)).then(context={"coats": [1, 2, 1, 2]})


@pytest.mark.parametrize("then", ["dead_letter", "ignore"])
def test_a_gap_that_nothing_fills_ends(then: Any) -> None:
    flow = painting(OrderBy("coat", contiguous=True, gap=Defer(HOUR, then)))
    case = given(flow, Made(), Opened()).when(Painted(coat=2)).later(HOUR)
    if then == "ignore":
        case.then_ignored(Reason.EXPIRED)
    else:
        case.then_refused(Reason.EXPIRED, saying="deferred (events before it are missing)", holds=False)
    # The stream is where it was: who comes next waits for the same number.
    case.when(Painted(coat=3)).then_deferred(Reason.GAP).when(Painted(coat=1)).then(context={"coats": [1]})
    case.when(Painted(coat=2)).then(context={"coats": [1, 2, 3]})


class Numbered(Event, type="door.numbered", key="door"):
    door: str = "d1"
    coat: int


def test_types_share_a_stream() -> None:
    class Washed(Event, type="door.washed", key="door"):
        door: str = "d1"
        coat: int

    flow = door_pipeline()
    state_of(flow, "opened").on(Washed, do=lambda door, event: door.coats.append(-event.coat))
    for event in (Painted, Washed):
        flow.policy(event, order_by=OrderBy("coat", stream="care", contiguous=True))
    case = given(flow, Made(), Opened(), Painted(coat=1)).when(Painted(coat=3), Washed(coat=2))
    case.then(context={"coats": [1, -2, 3]}).when(Washed(coat=1)).then_stale()
    assert read_memory(case.run.memory).marks == {"care": 3} if case.run else False


def test_types_that_name_no_stream_are_each_in_their_own_order() -> None:
    flow = door_pipeline()
    state_of(flow, "opened").on(Numbered, do=lambda door, event: door.coats.append(-event.coat))
    for event in (Painted, Numbered):
        flow.policy(event, order_by=OrderBy("coat"))
    case = given(flow, Made(), Opened(), Painted(coat=5)).when(Numbered(coat=3), Painted(coat=6))
    case.then(context={"coats": [5, -3, 6]})


def test_an_event_in_its_turn_that_nothing_takes_waits_and_the_stream_with_it() -> None:
    case = given(painting(), Made()).when(Painted(coat=1)).then_deferred(Reason.UNEXPECTED)
    case.when(Painted(coat=2)).then_deferred(Reason.GAP)
    case.when(Opened()).then(context={"coats": [1, 2]})


def test_what_waited_while_a_newer_one_was_applied_is_stale_in_the_end() -> None:
    flow = painting(OrderBy("coat"))
    state_of(flow, "closed").on(Painted, when=lambda _door, event: event.coat > 5)
    case = given(flow, Made()).when(Painted(coat=4)).then_deferred(Reason.UNEXPECTED)
    case.when(Painted(coat=9)).then()
    assert [(one, type(outcome)) for one, outcome in case.followed] == [("door.painted", Stale)]
    assert case.deferred == []


def test_what_is_ignored_before_there_was_a_run_has_not_had_its_turn() -> None:
    flow = painting(OrderBy("coat", contiguous=True), no_run="ignore", closed="restart")
    case = given(flow).when(Painted(coat=1)).then_ignored(Reason.NO_RUN)
    case.when(Made(), Opened(), Painted(coat=2)).then_deferred(Reason.GAP)
    # A run that has ended remembers for the next one of its key.
    case = given(flow, Made(), Shut()).when(Painted(coat=1)).then_ignored(Reason.NO_RUN)
    case.when(Made(), Opened(), Painted(coat=2)).then(context={"coats": [2]})


def test_what_is_ignored_has_had_its_turn() -> None:
    case = given(painting(unexpected="ignore"), Made()).when(Painted(coat=1)).then_ignored(Reason.UNEXPECTED)
    case.when(Painted(coat=1)).then_stale()
    case.when(Opened(), Painted(coat=2)).then(context={"coats": [2]})


def test_what_becomes_a_dead_letter_has_not() -> None:
    case = (
        given(painting(unexpected="dead_letter"), Made())
        .when(Painted(coat=1))
        .then_refused(Reason.UNEXPECTED)
    )
    case.when(Opened(), Painted(coat=2)).then_deferred(Reason.GAP)
    case.when(Painted(coat=1)).then(context={"coats": [1, 2]})


def test_a_gap_waits_for_a_run_too_and_not_for_one_that_has_ended() -> None:
    case = given(painting(no_run="defer")).when(Painted(coat=2)).then_deferred(Reason.GAP)
    case.when(Made(), Opened(), Painted(coat=1)).then(context={"coats": [1, 2]})
    ended = given(painting(), Made(), Opened()).when(Painted(coat=2), Shut()).then(ended=True)
    assert [(one, getattr(outcome, "reason", "")) for one, outcome in ended.followed] == [
        ("door.painted", Reason.CLOSED)
    ]
    ended.when(Painted(coat=2)).then_refused(Reason.CLOSED)
    assert ended.run is not None
    assert ended.run.generation == 0


def test_marks_belong_to_the_key_and_outlive_a_run() -> None:
    case = given(
        painting(closed="restart"), Made(), Opened(), Painted(coat=1), Painted(coat=2), Shut(), Made()
    )
    case.when(Opened(), Painted(coat=2)).then_stale()
    case.when(Painted(coat=4)).then_deferred(Reason.GAP).when(Painted(coat=3)).then(context={"coats": [3, 4]})
    waiting = given(painting(closed="restart"), Made(), Opened(), Painted(coat=1), Painted(coat=2), Shut())
    waiting.when(Painted(coat=4)).then_deferred(Reason.GAP).when(Made(), Opened())
    waiting.when(Painted(coat=3)).then(context={"coats": [3, 4]})


class Paid(Event, type="order.paid", key="order"):
    order: str = "o1"
    line: Any = None
    amount: int = 1


def paying(closed: Any = "dead_letter", **policy: Any) -> Pipeline[Any]:
    flow = door_pipeline(closed=closed)
    state_of(flow, "closed").on(Paid, do=lambda door, event: door.coats.append(event.amount))
    flow.key(Paid, by=lambda _data: "d1")
    flow.policy(Paid, **policy)
    return flow


def test_a_business_key_is_known_again_whatever_the_id() -> None:
    flow = paying(duplicate_by=["order", "line"])
    case = given(flow, Made(), Paid(line=1))
    assert case.when(Paid(line=1, amount=2)).outcome == DUPLICATE
    case.when(Paid(line=2), Paid(order="o2", line=1), Paid(line="1"))
    assert len(case.context.coats) == 4
    # Where a field is missing, only its id tells it from others.
    case.when(Paid(), Paid(line=[1]), Paid(line=[1]))
    assert len(case.context.coats) == 7


def test_an_id_is_known_again_whatever_the_business_key() -> None:
    flow = paying("restart", duplicate_by="line")
    case = given(flow, Made(), Paid(line=1))
    assert case.when_again(Paid(line=2)).outcome == DUPLICATE
    case.when(Shut(), Made())
    assert case.run is not None
    assert case.run.generation == 1
    case = given(flow, Made()).when(Paid(line=1)).when_again(Paid(line=2)).then_duplicate()
    assert case.when(Paid(line=2)).context.coats == [1, 1]


def test_an_id_is_known_again_while_the_event_waits() -> None:
    flow = door_pipeline()
    flow.policy(Painted, duplicate_by="coat")
    case = given(flow, Made()).when(Painted(coat=1)).when_again(Painted(coat=2)).then_duplicate()
    assert case.when(Opened()).context.coats == [1]
    case.when(Painted(coat=2)).then(context={"coats": [1, 2]})


@pytest.mark.parametrize(
    ("unexpected", "within", "coats"),
    [
        ("ignore", None, [2]),
        ("ignore", HOUR, []),
        ("dead_letter", None, [2]),
        ("dead_letter", HOUR, [2]),
        ("defer", None, [1]),
        ("defer", HOUR, [1]),
    ],
)
def test_what_no_state_takes_counts_as_seen_only_where_it_waits_or_is_ignored_for_a_time(
    unexpected: Any, within: timedelta | None, coats: list[int]
) -> None:
    flow = door_pipeline(unexpected=unexpected)
    flow.policy(Painted, duplicate_by="side", duplicate_for=within)
    case = given(flow, Made()).when(Painted(coat=1), Opened(), Painted(coat=2))
    assert case.context.coats == coats
    assert case.deferred == []


@pytest.mark.parametrize("within", [None, HOUR])
def test_a_business_key_counts_for_ever_or_for_a_time(within: timedelta | None) -> None:
    case = given(paying(duplicate_by="order", duplicate_for=within), Made(), Paid())
    case.later(HOUR - timedelta(microseconds=1))
    assert case.when(Paid()).outcome == DUPLICATE
    case.later(timedelta(microseconds=1)).when(Paid())
    assert isinstance(case.outcome, Moved) == (within is not None)
    assert case.context.coats == [1] * (1 if within is None else 2)


@pytest.mark.parametrize("within", [None, HOUR])
def test_business_keys_outlive_a_run(within: timedelta | None) -> None:
    case = given(
        paying("restart", duplicate_by="order", duplicate_for=within), Made(), Paid(), Shut(), Made()
    )
    assert case.run is not None
    assert case.run.generation == 1
    assert case.when(Paid()).outcome == DUPLICATE


def test_a_first_event_that_comes_again_after_its_run_has_ended_begins_no_other_one() -> None:
    case = given(door_pipeline(closed="restart")).when(Made())
    assert case.when_again().outcome == DUPLICATE
    first = case._last
    case.when(Shut()).then(ended=True)
    for _ in range(20):
        case.when(Made(), Shut()).then(ended=True)
    assert case.run is not None
    assert case.run.generation == 20
    flow = door_pipeline(closed="restart")
    flow.policy(Made, duplicate_by="door")
    again = given(flow, Made(), Shut()).when(Made())
    assert (first, again.outcome, again.run and again.run.generation) == (Made(), DUPLICATE, 0)


def test_what_is_deferred_under_two_ids_is_taken_once() -> None:
    flow = door_pipeline()
    flow.policy(Painted, duplicate_by="coat", duplicate_for=HOUR)
    case = given(flow, Made()).when(Painted(), Painted()).when(Opened()).then(context={"coats": [1]})
    assert [type(outcome) for _, outcome in case.followed] == [Moved, type(DUPLICATE)]
    assert case.deferred == []


def asked(case: Case[Any], event: Event | None, kind: type[Event], **more: Any) -> Occurrence:
    """An event as it comes, whatever is wrong with it."""
    made = case._occurrence(*case._sent(kind()), b"another "[:DIGEST_BYTES])
    data = {} if event is None else event.model_dump(mode="json")
    return made._replace(event=event, data=data, **more)


def test_the_questions_are_asked_in_their_order() -> None:
    """Each of these fits all the questions from the one that answers on, so that only the order tells them apart."""
    flow = painting(closed="dead_letter", unexpected="dead_letter")
    case = given(flow, Made(), Opened(), Painted(coat=1))
    machine, run = case.machine, case.run
    assert run is not None
    ended = run._replace(status=int(Status.COMPLETED))
    held, stale, early = run._replace(held=3), Painted(coat=1), Painted(coat=9)
    shut = run._replace(configuration="closed")

    def became(run: Any, event: Event | None, kind: type[Event] = Painted, **more: Any) -> Any:
        return step(machine, run, asked(case, event, kind, **more))

    assert became(held, stale, seen=True) == DUPLICATE
    assert isinstance(became(held, stale), Stale)
    assert isinstance(became(ended, stale), Stale)
    assert became(held, early) == WAITS
    assert became(ended._replace(held=3), Painted(coat=2)) == WAITS
    assert became(held, None) == WAITS
    assert became(None, early).reason is Reason.GAP
    assert became(shut, early).reason is Reason.GAP
    assert became(None, Painted(coat=1)).reason is Reason.NO_RUN
    assert became(ended, None, Rung).reason is Reason.CLOSED
    assert became(shut, None, Rung).reason is Reason.INVALID
    assert became(shut, Painted(coat=2)).reason is Reason.UNEXPECTED
    assert isinstance(became(run, Painted(coat=2)), Moved)


def with_memory(case: Case[Any], memory: Memory) -> Case[Any]:
    assert case.run is not None
    case.run = case.run._replace(memory=write_memory(memory))
    return case


def test_a_run_remembers_so_many_business_keys() -> None:
    flow = paying(duplicate_by="order", duplicate_for=HOUR)
    case = given(flow, Made(), Paid())
    [until] = read_memory(case.run.memory).seen.values() if case.run else [0]
    full = Memory(seen={str(number): until for number in range(SEEN_MAX)})
    with_memory(case, full).when(Paid(order="o2"))
    case.then_refused(Reason.MEMORY_FULL, saying=f"remembers {SEEN_MAX} business keys", holds=False)
    assert decided(case) == "duplicate_by=order, duplicate_for=1 h"
    case.later(HOUR).when(Paid(order="o2")).then()
    assert case.run is not None
    assert len(read_memory(case.run.memory).seen) == 1


def test_a_long_business_key_is_known_by_its_digest() -> None:
    case = given(paying(duplicate_by="line", duplicate_for=HOUR), Made(), Paid(line="x" * 100_000))
    assert case.run is not None
    [name] = read_memory(case.run.memory).seen
    assert len(name) <= BUSINESS_KEY_BYTES_MAX
    assert case.when(Paid(line="x" * 100_000)).outcome == DUPLICATE
    case.when(Paid(line="x" * 99_999)).then()


def test_a_run_has_so_many_streams() -> None:
    case = given(table_pipeline(order_by=OrderBy("at", scope=("row",))), Row(at=1, row="a"))
    assert case.run is not None
    marks = {**read_memory(case.run.memory).marks, **{str(number): 1 for number in range(STREAMS_MAX - 1)}}
    with_memory(case, Memory(marks=marks)).when(Row(at=1, row="b"))
    case.then_refused(Reason.MEMORY_FULL, saying=f"{STREAMS_MAX} streams already", holds=False)
    assert decided(case) == "order_by=at"
    case.when(Row(at=2, row="a")).then()
    long = given(table_pipeline(order_by=OrderBy("at", scope=("row",)))).when(Row(at=1, row="x" * 600))
    long.then_refused(Reason.INVALID, saying=f"of {STREAM_CHARACTERS_MAX} allowed: it is made of 'row'")


def test_what_is_ignored_does_not_make_the_memory_too_large() -> None:
    case = given(painting(unexpected="ignore"), Made())
    with_memory(case, Memory(marks={"x" * 1_000_000: 1})).when(Painted(coat=1))
    case.then_refused(Reason.MEMORY_FULL, saying="its streams grew most, from 1000")
    assert not isinstance(case.outcome, Ignored)
    assert isinstance(case.outcome, Refused)
