"""What became of an event: every disposition, told from what was recorded."""

from __future__ import annotations

import orjson
import pytest

from connectors.source import Partition, RawRecord
from engine.cli.looking import move_of
from engine.errors import UsageError
from engine.outbox import OutRecord
from engine.reading import Answer, explain, history, list_dead_letters, set_position, verify
from engine.reading.catalog import SQL
from engine.relay.refusals import keep_refused
from engine.relay.rows import Load
from engine.store.connecting import Connection, connect
from statemachines.definition import Pipeline, Topic
from tests.feeding import event, feed, raw
from tests.services import Database
from tests.shop import OrderContext, OrderNoted, OrderPaid, OrderPlaced, add_note, begin, blind_shop, shop

FIRST = Partition("orders", 0)
PLACED = event("order.placed", {"order_id": "o1", "amount": 5}, id="placed-1")
PAID = event("order.paid", {"order_id": "o1", "amount": 5}, id="paid-1")


async def only(reader: Connection, event_id: str) -> Answer:
    found = await explain(reader, "default", event_id=event_id)
    assert found.known
    [answer] = found.answers
    return answer


async def test_a_start_and_a_move_are_told_with_their_configurations(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, PAID)
    started = await only(reader, "placed-1")
    assert started.current.disposition == "started"
    assert started.current.sentence == "It started the run 'o1' of shop, in placed (row 1)."
    applied = await only(reader, "paid-1")
    assert applied.current.disposition == "applied"
    assert applied.current.sentence == (
        "It moved the run 'o1' of shop from placed to paid (row 2). It asked for 1 event to be published to payments."
    )
    assert applied.earlier == ()
    found = applied.as_json()
    assert {
        name: found[name] for name in ("pipeline", "key", "source", "topic", "partition", "offset", "group")
    } == {
        "pipeline": "shop",
        "key": "o1",
        "source": "/shop",
        "topic": "orders",
        "partition": 0,
        "offset": 1,
        "group": "pointsman.default",
    }


async def test_an_event_that_may_have_led_out_of_a_state_and_back_is_not_said_to_have_stayed(
    database: Database, reader: Connection
) -> None:
    flow = Pipeline("again", OrderContext, topics=["orders"])
    placed = flow.state("placed", initial=True)
    flow.start(OrderPlaced, begin)
    placed.on(OrderNoted, do=add_note)
    placed.on(OrderPaid, to=placed, reenter=True)
    async with feed(database, flow) as feeding:
        await feeding.records(PLACED, event("order.noted", {"order_id": "o1"}, id="noted-1"), PAID)
    assert (await only(reader, "paid-1")).current.sentence == (
        "The run 'o1' of again took it and is in placed as before (row 3)."
    )
    rows = await history(reader, "default", "again", "o1")
    assert [move_of(row) for row in rows] == ["→ placed", "stays placed", "placed → placed"]


async def test_an_event_that_stays_and_one_that_ends_the_run_are_told(
    database: Database, reader: Connection
) -> None:
    noted = event("order.noted", {"order_id": "o1"}, id="noted-1")
    shipped = event("order.shipped", {"order_id": "o1"}, id="shipped-1")
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, noted, PAID, shipped)
    assert (await only(reader, "noted-1")).current.sentence == (
        "The run 'o1' of shop took it and stayed in placed (row 2)."
    )
    assert (await only(reader, "shipped-1")).current.sentence == (
        "It moved the run 'o1' of shop from paid to shipped (row 4). The run is completed."
    )


async def test_a_duplicate_is_told_beside_the_event_that_it_doubles(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, PAID, PAID)
    found = await explain(reader, "default", event_id="paid-1")
    assert [(a.offset, a.current.disposition) for a in found.answers] == [(1, "applied"), (2, "duplicate")]
    assert "has an event of this source and id since row 2" in found.answers[1].current.sentence
    [by_place] = (await explain(reader, "default", topic="orders", partition=0, offset=2)).answers
    assert by_place == found.answers[1]


async def test_an_event_that_its_state_does_not_take_tells_each_condition_that_failed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.paid", {"order_id": "o1", "amount": 0}, id="paid-0"))
    answer = await only(reader, "paid-0")
    assert answer.current.disposition == "dead-lettered"
    assert answer.current.reason == "not accepted"
    assert [(t.source, t.target, t.guard) for t in answer.current.tried] == [
        ("placed", "paid", "covers"),
        ("placed", None, "is_part"),
    ]
    assert answer.current.sentence == (
        "It could not be applied (dead letter 1, not accepted): no condition of the transitions out of placed held. "
        "Tried in this order: from placed to paid if covers, which did not hold; from placed without leaving it if "
        "is_part, which did not hold. The policy that decided: dead_letter (unexpected of the pipeline). It holds no "
        "run: later events go on without it. It waits to be published to "
        "orders.dead-letters. It is open: pointsman dead-letters redrive 1 (or drop)."
    )


async def test_a_deferred_event_tells_each_condition_that_failed_while_it_waits_and_after_it(
    database: Database, reader: Connection
) -> None:
    tried = (
        "It was deferred (row 2 of the run 'o1' of shop, not accepted): no condition of the transitions out of placed "
        "held. Tried in this order: from placed to paid if covers, which did not hold; from placed without leaving it "
        "if is_part, which did not hold. "
    )
    async with feed(database, shop(unexpected="defer")) as feeding:
        await feeding.records(PLACED, event("order.paid", {"order_id": "o1", "amount": 0}, id="paid-0"))
        waits = await only(reader, "paid-0")
        assert waits.current.sentence.startswith(f"{tried}It waits until the run takes it;")
        await feeding.records(PAID, event("order.shipped", {"order_id": "o1"}))
    late = await only(reader, "paid-0")
    assert late.current.disposition == "late"
    assert late.earlier[0].sentence.startswith(f"{tried}The policy that decided:")


async def test_events_that_a_pipeline_ignores_are_told_with_the_reason(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(unexpected="ignore", no_run="ignore", closed="ignore")) as feeding:
        await feeding.records(event("order.noted", {"order_id": "o9"}, id="no-run"), PLACED)
        await feeding.records(
            event("order.shipped", {"order_id": "o1"}, id="early"),
            event("order.paid", {"order_id": "o1", "amount": 0}, id="nothing"),
        )
        await feeding.records(PAID, event("order.shipped", {"order_id": "o1"}))
        await feeding.records(event("order.noted", {"order_id": "o1"}, id="late"))
    no_run = await only(reader, "no-run")
    assert no_run.current.disposition == "ignored"
    assert no_run.current.sentence == (
        "It was ignored (no run), as shop says of such events: shop has no run with the key 'o9', and this event "
        "starts none. The policy that decided: ignore (no_run of the pipeline)."
    )
    early = await only(reader, "early")
    assert early.current.reason == "not accepted"
    assert "the run 'o1' of shop had no transition for it in placed." in early.current.sentence
    nothing = await only(reader, "nothing")
    assert [one.guard for one in nothing.current.tried] == ["covers", "is_part"]
    assert (
        "no condition of the transitions of the run 'o1' of shop in placed held" in nothing.current.sentence
    )
    assert "the run 'o1' of shop had ended in shipped" in (await only(reader, "late")).current.sentence


async def test_a_late_event_is_told(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, PAID, event("order.shipped", {"order_id": "o1"}))
        await feeding.records(event("order.noted", {"order_id": "o1"}, id="late"))
    answer = await only(reader, "late")
    assert answer.current.disposition == "late"
    assert answer.current.sentence.startswith(
        "It came late (dead letter 1, run closed): the run ended in shipped. The policy that decided: dead_letter "
        "(closed of the pipeline). It holds no run"
    )


async def test_what_holds_a_run_and_what_waits_behind_it_are_told(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.broken", {"order_id": "o1"}, id="broken-1"), PAID)
    holder = await only(reader, "broken-1")
    assert (holder.current.disposition, holder.current.sequence, holder.current.dead_letter) == (
        "dead-lettered",
        2,
        1,
    )
    assert "action raised): breaks raised ValueError: order o1 cannot be mended" in holder.current.sentence
    assert (
        "It holds the run 'o1' of shop since row 2, and 1 event waits behind it." in holder.current.sentence
    )
    waiter = await only(reader, "paid-1")
    assert waiter.current.disposition == "held"
    assert waiter.current.sentence == (
        "It waits (row 3) behind event 'broken-1', which failed (action raised) and is dead letter 1: it holds the "
        "run 'o1' of shop since row 2. Redrive or drop that one to let the run go on: "
        "pointsman dead-letters redrive 1."
    )


async def test_what_is_not_valid_may_be_given_other_data(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        much = {"order_id": "o1", "amount": "much"}
        await feeding.records(PLACED, event("order.paid", much, id="paid-0"), PAID)
    edit = "pointsman dead-letters edit 1 --set FIELD=VALUE --reason TEXT"
    holder, waiter = await only(reader, "paid-0"), await only(reader, "paid-1")
    assert holder.current.sentence.endswith(f"To let the run go on: {edit} (or redrive, or drop).")
    assert waiter.current.sentence.endswith(f"Edit, redrive or drop that one to let the run go on: {edit}.")


async def test_a_redrive_keeps_what_the_event_was_before(
    database: Database, reader: Connection, broken: set[str]
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.broken", {"order_id": "o1"}, id="broken-1"), PAID)
        broken.clear()
        await feeding.redrive(1, why="the action is mended")
    mended = await only(reader, "broken-1")
    assert mended.current.disposition == "applied"
    assert mended.current.sentence == "The run 'o1' of shop took it and stayed in placed (row 5)."
    [before] = mended.earlier
    assert before.disposition == "dead-lettered"
    assert "It held the run 'o1' of shop from row 2 until" in before.sentence
    assert before.sentence.endswith(": the action is mended.")
    assert "Redriven by ana at 2026-03-01T12:00:02Z" in before.sentence
    waited = await only(reader, "paid-1")
    assert waited.current.disposition == "applied"
    assert waited.current.sentence.startswith(
        "After it had waited until a redrive by ana at 2026-03-01T12:00:02Z (command/1: the action is mended), it "
        "moved the run 'o1' of shop from placed to paid (row 6)."
    )
    [before] = waited.earlier
    assert before.disposition == "held"
    assert before.sentence.startswith("It waited (row 3) behind event 'broken-1'")
    released = await only(reader, "command/1")
    assert released.current.sentence.startswith("This is a redrive by ana at")


async def test_a_redrive_that_fails_again_is_a_dead_letter_again(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.broken", {"order_id": "o1"}, id="broken-1"), PAID)
        await feeding.redrive(1)
    answer = await only(reader, "broken-1")
    assert answer.current.dead_letter == 2
    assert [one.dead_letter for one in answer.earlier] == [1]
    assert "dead letter 2: it holds" in (await only(reader, "paid-1")).current.sentence


async def test_a_dropped_dead_letter_stays_one_and_says_who_gave_it_up(
    database: Database, reader: Connection
) -> None:
    second = event("order.broken", {"order_id": "o1"}, id="broken-2")
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, event("order.broken", {"order_id": "o1"}, id="broken-1"), second)
        await feeding.drop(1, why="a test order")
    dropped = await only(reader, "broken-1")
    assert dropped.current.disposition == "dead-lettered"
    assert "Dropped by ana at 2026-03-01T12:00:02Z: a test order." in dropped.current.sentence
    after = await only(reader, "broken-2")
    assert (after.current.disposition, after.current.dead_letter) == ("dead-lettered", 2)
    assert after.current.sentence.startswith("After it had waited, it could not be applied (dead letter 2")
    assert [one.disposition for one in after.earlier] == ["held"]


async def test_events_that_waited_in_vain_are_told(database: Database, reader: Connection) -> None:
    async with feed(database, shop(unexpected="ignore")) as feeding:
        await feeding.records(
            PLACED,
            event("order.broken", {"order_id": "o1"}, id="broken-1"),
            event("order.shipped", {"order_id": "o1"}, id="early"),
            event("order.shipped", {"order_id": "o1"}, id="early"),
        )
        await feeding.drop(1)
    found = await explain(reader, "default", event_id="early")
    first, second = found.answers
    assert (first.current.disposition, [one.disposition for one in first.earlier]) == ("ignored", ["held"])
    assert first.current.sentence.startswith("After it had waited, it was ignored (not accepted)")
    assert second.current.disposition == "duplicate"


async def test_a_record_that_is_no_event_concerns_all_pipelines(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), shop(name="audit")) as feeding:
        await feeding.records(raw(b"{broken"))
    found = await explain(reader, "default", topic="orders", partition=0, offset=0)
    [answer] = found.answers
    assert answer.pipeline is None
    assert answer.current.reason == "unreadable"
    assert "It concerns all pipelines that read the topic (audit, shop)." in answer.current.sentence
    assert (
        "No key could be read, so there is no order to keep, and it holds no run." in answer.current.sentence
    )


async def test_a_record_is_told_for_each_pipeline_that_takes_it(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop(), shop(name="audit")) as feeding:
        await feeding.records(PLACED)
    found = await explain(reader, "default", event_id="placed-1")
    assert sorted(str(answer.pipeline) for answer in found.answers) == ["audit", "shop"]


async def test_a_dead_letter_of_all_pipelines_is_the_past_of_each_that_took_it_later(
    database: Database, reader: Connection
) -> None:
    late_type = event("order.placed", {"order_id": "o1", "amount": 1}, id="placed-9", topic="others")
    async with feed(database, blind_shop(Topic("others"))) as feeding:
        await feeding.records(late_type)
    unknown = await only(reader, "placed-9")
    assert unknown.pipeline is None
    assert unknown.current.reason == "unknown type"
    async with feed(database, shop(version=2, topic=Topic("others"))) as feeding:
        await feeding.redrive(1, why="version 2 knows it")
    answer = await only(reader, "placed-9")
    assert (answer.pipeline, answer.current.disposition) == ("shop", "started")
    assert [one.reason for one in answer.earlier] == ["unknown type"]


async def test_ignored_ranges_answer_by_offset(database: Database, reader: Connection) -> None:
    async with feed(database, shop(topic=Topic("orders", unknown="ignore"))) as feeding:
        await feeding.records(
            PLACED,
            event("weather.changed", {}, id="rain"),
            event("weather.changed", {}),
            event("weather.changed", {}),
            PAID,
        )
    [answer] = (await explain(reader, "default", topic="orders", partition=0, offset=2)).answers
    assert answer.current.disposition == "ignored"
    assert "this one is of 1 to 3, 3 records." in answer.current.sentence
    assert answer.offset == 2
    unknown = await explain(reader, "default", event_id="rain")
    assert not unknown.known
    assert "Nothing is recorded of an event with the id 'rain'" in unknown.notes[0]


async def test_a_tombstone_that_is_ignored_answers_by_offset_also_after_it_was_a_dead_letter(
    database: Database, reader: Connection
) -> None:
    async def told(offset: int) -> Answer:
        [answer] = (await explain(reader, "default", topic="orders", partition=0, offset=offset)).answers
        return answer

    async with feed(database, shop(topic=Topic("orders"))) as feeding:
        await feeding.records(raw(None))
    assert (await told(0)).current.reason == "unreadable"
    ignoring = shop(version=2, topic=Topic("orders", tombstones="ignore"))
    async with feed(database, ignoring) as feeding:
        await feeding.records(PLACED, raw(None), raw(None), PAID)
        await feeding.redrive(1, why="version 2 ignores them")
    assert await list_dead_letters(reader, "default", status="open") == []
    answer = await told(2)
    assert (answer.current.disposition, answer.current.reason) == ("ignored", "no events")
    assert answer.current.sentence == (
        "It was ignored: it has no value, and the topic's settings say to ignore such records. They are kept as ranges "
        "of offsets, without their ids: this one is of 2 to 3, 2 records."
    )
    redriven = await told(0)
    assert redriven.current.disposition == "ignored"
    assert [one.disposition for one in redriven.earlier] == ["dead-lettered"]
    both = shop(version=3, topic=Topic("orders", tombstones="ignore", unknown="ignore"))
    async with feed(database, both) as feeding:
        await feeding.records(raw(None), event("weather.changed", {}), raw(None))
    found = [(await told(offset)).current for offset in (5, 6, 7)]
    assert [one.reason for one in found] == ["no events", "unknown type", "no events"]
    assert "no pipeline that reads orders (shop) knew its type, and" in found[1].sentence
    assert "this one is of 6 to 6, 1 record." in found[1].sentence
    assert "it has no value, and" in found[2].sentence
    assert (await verify(reader, "default")).is_clean


async def test_an_event_without_a_key_says_that_there_is_no_order_to_keep(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.placed", {"amount": 5}, id="keyless"))
    answer = await only(reader, "keyless")
    assert (answer.pipeline, answer.current.reason) == ("shop", "no key")
    assert "no order to keep" in answer.current.sentence


async def test_offsets_that_nothing_is_recorded_of_are_told_by_the_position(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
    engine = await connect(database.engine_dsn, for_engine=False)
    try:
        await set_position(engine, "default", "orders", 0, 5, who="ana", why="a broken export")
    finally:
        await engine.close()

    async def notes(topic: str, partition: int, offset: int) -> tuple[bool, str]:
        found = await explain(reader, "default", topic=topic, partition=partition, offset=offset)
        assert found.answers == ()
        return found.known, " ".join(found.notes)

    assert await notes("orders", 0, 7) == (
        False,
        "Offset 7 of orders/0 is not yet consumed by the group 'pointsman.default': its position is 5.",
    )
    known, skipped = await notes("orders", 0, 3)
    assert known
    assert "was skipped by ana, who set the position of the group 'pointsman.default' from 1 to 5" in skipped
    assert await notes("orders", 4, 0) == (
        False,
        "Partition 4 of orders has no position in the namespace 'default'.",
    )
    known, never = await notes("ordres", 0, 0)
    assert not known
    assert "Did you mean 'orders'?" in never


async def test_an_offset_that_was_passed_without_a_record_is_said_to_be_none(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
        await feeding.pass_over(FIRST, 3)
    found = await explain(reader, "default", topic="orders", partition=0, offset=2)
    assert not found.known
    assert "No such record is known at offset 2 of orders/0" in found.notes[0]


async def test_a_source_tells_events_of_one_id_apart(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(
            event("order.placed", {"order_id": "o1", "amount": 5}, id="1", source="/a"),
            event("order.placed", {"order_id": "o2", "amount": 5}, id="1", source="/b"),
        )
    assert len((await explain(reader, "default", event_id="1")).answers) == 2
    [answer] = (await explain(reader, "default", event_id="1", source="/b")).answers
    assert answer.key == "o2"


async def test_events_of_one_id_are_told_by_their_sources_and_in_the_order_of_time(
    database: Database, reader: Connection
) -> None:
    """A dead letter that came first and a row that came later; a duplicate's source is kept nowhere."""
    taken = event("order.placed", {"order_id": "o1", "amount": 5}, id="1", source="/b")
    async with feed(database, shop()) as feeding:
        await feeding.records(event("order.paid", {"order_id": "o9", "amount": 5}, id="1", source="/b/c"))
        await feeding.records(taken)
        await feeding.records(event("order.placed", {"order_id": "o2", "amount": 5}, id="1", source="/a"))
        await feeding.records(taken)
    answers = (await explain(reader, "default", event_id="1")).answers
    assert [(one.source, one.current.disposition) for one in answers] == [
        ("/a", "started"),
        ("/b", "started"),
        ("/b/c", "dead-lettered"),
        (None, "duplicate"),
    ]
    twice = (await explain(reader, "default", event_id="1", source="/b")).answers
    assert [one.source for one in twice] == ["/b", None]


async def test_an_event_whose_definition_was_not_loaded_waits_and_is_released(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
    async with feed(database, shop(version=2)) as feeding:
        await feeding.records(PAID)
    waits = await only(reader, "paid-1")
    assert waits.current.disposition == "held"
    assert waits.current.sentence == (
        "It waits (row 2): version 1 of shop, which the run 'o1' of shop follows, was not loaded in the engine that "
        "read it. Load it, or have the run follow another one: pointsman definitions map shop --from 1 --to VERSION "
        "--reason TEXT."
    )
    async with feed(database, shop(), shop(version=2)) as feeding:
        await feeding.commands()
    answer = await only(reader, "paid-1")
    assert answer.current.disposition == "applied"
    assert "until a release by engine" in answer.current.sentence


async def test_a_handler_that_never_returned_is_told(database: Database, reader: Connection) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
        position = feeding.claims[FIRST].id
    async with feed(database, shop(), strikes={(position, 1): (2, "pay")}) as feeding:
        await feeding.records(PAID)
    answer = await only(reader, "paid-1")
    assert answer.current.reason == "handler never returned"
    assert "pay did not return, 2 times" in answer.current.sentence
    assert "It holds the run 'o1' of shop since row 2" in answer.current.sentence


async def test_reading_a_record_again_does_not_change_what_it_was(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED)
        engine = await connect(database.engine_dsn, for_engine=False)
        try:
            await set_position(engine, "default", "orders", 0, 0, who="ana", why="read it all again")
        finally:
            await engine.close()
        feeding.let_go()
        await feeding.records(PLACED)
    answer = await only(reader, "placed-1")
    assert answer.current.disposition == "started"
    assert [one.disposition for one in answer.earlier] == ["duplicate"]


async def test_other_namespaces_are_not_told_of(database: Database, reader: Connection) -> None:
    async with feed(database, shop(), namespace="other") as feeding:
        await feeding.records(PLACED, raw(b"nonsense"))
    assert (await explain(reader, "default", event_id="placed-1")).answers == ()
    assert (await explain(reader, "default", topic="orders", partition=0, offset=1)).answers == ()
    assert len((await explain(reader, "other", event_id="placed-1")).answers) == 1


async def test_half_a_place_is_refused(reader: Connection) -> None:
    with pytest.raises(UsageError, match="--topic T --partition P --offset O"):
        await explain(reader, "default", topic="orders", offset=3)
    with pytest.raises(UsageError, match="Give an event's id"):
        await explain(reader, "default", topic="orders")


async def test_an_id_that_cannot_be_stored_is_asked_for_as_it_was_kept(
    database: Database, reader: Connection
) -> None:
    found = await explain(reader, "default", event_id="nul\0 and \ud800")
    assert not found.known


async def test_the_index_on_event_ids_serves_the_question(database: Database) -> None:
    owner = await connect(database.owner_dsn, for_engine=False)
    try:
        await owner.execute("set enable_seqscan = off")
        statement = SQL["rows_with_event_id"].replace("$1", "'x'::text").replace("$2", "10")
        plan = await owner.fetch(f"explain {statement}")
    finally:
        await owner.close()
    text = "\n".join(row[0] for row in plan)
    assert "Bitmap Index Scan" in text
    assert "event_id_idx" in text


async def test_a_published_event_that_the_broker_refused_is_told_and_listed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(PLACED, PAID)
    [row] = await history(reader, "default", "shop", "o1", limit=1)
    [effect] = row.effects
    published = event("payment.seen", {"amount": 5}, id=effect["id"], source="/pointsman/default/shop")
    engine = await connect(database.engine_dsn, for_engine=False)
    try:
        load = Load(
            [OutRecord("payments", b"o1", _with_subject(published, "o1"), (), 0)], [(1, 0)], 1, 1, b""
        )
        lane = await engine.fetchval("select id from pointsman.lanes")
        await keep_refused(engine, lane, "default", load, {0: "the topic is gone"})
    finally:
        await engine.close()
    answer = await only(reader, effect["id"])
    assert (answer.pipeline, answer.key, answer.topic) == ("shop", "o1", None)
    assert answer.current.sentence.startswith(
        "It was to be published, and the broker refused it (dead letter 1"
    )
    [letter] = await list_dead_letters(reader, "default")
    assert (letter.topic, letter.partition, letter.reason) == ("payments", None, "refused by broker")
    assert (await verify(reader, "default")).is_clean


def _with_subject(record: RawRecord, subject: str) -> bytes:
    found = orjson.loads(record.value or b"")
    return orjson.dumps(found | {"subject": subject})
