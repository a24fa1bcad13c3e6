"""The commands that look and decide, over what a real engine has done."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.store.connecting import Connection
from tests.cli import Done, apart, pointsman, started
from tests.integration.test_cli_run import engine_on, pipeline, publish, reader_on, rows, run
from tests.services import Database, Kafka, TopicFactory

EARLY = {"type": "order.paid", "order_id": "o-9", "amount": 5, "event": "early"}
BROKEN = {"type": "order.paid", "order_id": "o-2", "amount": "much", "event": "broken"}


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop whose events have been read."""

    database: Database
    kafka: Kafka
    topic: str
    file: Path

    def ask(self, *words: object) -> Done:
        return pointsman(*words, on=reader_on(self.database))

    def decide(self, *words: object) -> Done:
        return pointsman(*words, on=engine_on(self.database, self.kafka))


@pytest.fixture
async def shop(database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path) -> Shop:
    name = await topic("orders", partitions=2)
    file = pipeline(tmp_path, name)
    publish(kafka, name, rows("o-1"))
    special = [
        {
            "type": "order.placed",
            "order_id": "o-2",
            "customer": "Ada",
            "amount": 5,
            "items": [],
            "event": "begin",
        },
        BROKEN,
        {"type": "order.packed", "order_id": "o-2", "event": "behind"},
        EARLY,
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in special)
    done = apart(
        "publish", name, "-", "--key", "order_id", "--id", "event", input=text, on={"KAFKA": kafka.bootstrap}
    )
    assert done.code == 0, done.err
    assert run(file, database, kafka).code == 0
    return Shop(database, kafka, name, file)


async def test_what_the_store_knows_is_told_as_documents(shop: Shop) -> None:
    runs = {one["key"]: one for one in shop.ask("runs", "--json").json}
    assert set(runs["o-1"]) >= {
        "namespace", "pipeline", "key", "generation", "status", "configuration", "sequence", "context", "started",
        "updated",
    }  # fmt: skip
    assert (runs["o-1"]["status"], runs["o-1"]["configuration"]) == ("running", ["paid"])
    assert (runs["o-2"]["status"], runs["o-2"]["waiting"]) == ("held", 1)
    assert shop.ask("runs", "--json", "--limit", "1").json[0]["key"] in runs
    nowhere = shop.ask("runs", "--json", "--state", "plced")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "has a state 'plced'. Did you mean 'placed'?" in nowhere.err

    first, second = shop.ask("history", "o-1", "--json").json
    assert set(first) >= {"sequence", "event", "from", "to", "at", "effects", "context", "hash"}
    assert (first["from"], first["to"], second["from"], second["to"]) == (
        None,
        ["placed"],
        ["placed"],
        ["paid"],
    )
    assert shop.ask("history", "order", "o-1", "--json").json == [first, second]
    then = shop.ask("show", "o-1", "--at", "1", "--json").json
    assert (then["configuration"], then["context"]["received"]) == (["placed"], 0)
    assert then["record"]["topic"] == shop.topic

    letters = {one["event_id"]: one for one in shop.ask("dead-letters", "list", "--json").json}
    assert set(letters["early"]) >= {
        "id", "reason", "error", "topic", "partition", "offset", "pipeline", "key", "event_id", "status",
    }  # fmt: skip
    assert (letters["early"]["reason"], letters["broken"]["reason"]) == ("no run", "invalid data")
    whole = shop.ask("dead-letters", "show", letters["broken"]["id"], "--json").json
    assert whole["holds"] is True
    assert json.loads(whole["record"]["value"])["data"]["amount"] == "much"

    (told,) = shop.ask("explain", "behind", "--json").json["answers"]
    assert told["disposition"] == "held"
    by_place = shop.ask(
        "explain",
        "--topic",
        shop.topic,
        "--partition",
        told["partition"],
        "--offset",
        told["offset"],
        "--json",
    )
    assert by_place.json["answers"][0]["event_id"] == "behind"
    assert shop.ask("verify", "--json").json["clean"] is True
    assert shop.ask("verify", "o-2", "--json").json["runs"] == 1
    assert shop.ask("replay", shop.file, "--json").json["equal"] is True
    chatty = shop.file.with_name("chatty.py")
    text = shop.file.read_text().replace("    return Order(", "    print('built')\n    return Order(", 1)
    chatty.write_text(f"{text}\nprint('imported')\n")
    replayed = shop.ask("replay", chatty, "--json")
    assert replayed.json["equal"] is True
    assert replayed.err.split() == ["imported", "built", "built"]


async def test_people_get_tables_and_sentences(shop: Shop) -> None:
    assert "o-1" in shop.ask("runs").out
    assert "placed → paid" in shop.ask("history", "o-1").out
    assert '"received": 5' in shop.ask("show", "o-1").out
    assert "no run" in shop.ask("dead-letters", "list").out
    assert "It waits (row 3) behind event 'broken'" in shop.ask("explain", "behind").out
    assert "all as it must be" in shop.ask("verify").out
    assert "come out equal" in shop.ask("replay", shop.file).out
    assert shop.topic in shop.ask("positions", "list").out
    assert "well" in shop.decide("relay", "status").out


async def test_what_is_not_there_ends_with_1_and_bad_questions_with_2(shop: Shop) -> None:
    for words in (
        ["history", "o-77"],
        ["show", "o-77"],
        ["show", "o-1", "--at", "77"],
        ["dead-letters", "show", "77"],
        ["explain", "no-such-event"],
        ["verify", "o-77"],
    ):
        done = shop.ask(*words)
        assert (done.code, "Traceback" in done.err) == (1, False), (words, done)
    for words in (
        ["history", "a", "b", "c"],
        ["explain"],
        ["runs", "--status", "runing"],
        ["dead-letters", "redrive"],
        ["dead-letters", "redrive", "1", "--all"],
        ["relay", "accept", "--reason", "no reason"],
        ["positions", "set", shop.topic, "0"],
    ):
        done = shop.decide(*words)
        assert (done.code, done.out) == (2, ""), (words, done)
    for words in (["runs"], ["dead-letters", "list"]):
        done = shop.ask(*words, "--pipeline", "ordr")
        assert (done.code, done.out.count("\n")) == (0, 1)
        assert "No pipeline 'ordr' was ever run in the namespace" in done.err
        assert "Did you mean 'order'?" in done.err
        assert "was ever run" not in shop.ask(*words, "--pipeline", "order", "--key", "o-77").err
    for listing, said in (
        (("runs",), "runs"),
        (("dead-letters", "list"), "open dead letters"),
        (("positions", "list"), "positions"),
    ):
        for form in ((), ("--json",)):
            told = shop.ask(*listing, "--limit", "1", *form)
            assert f"The first 1 {said}; --limit 0 shows all." in told.err
    skipped = shop.ask("explain", "--topic", shop.topic, "--partition", "0", "--offset", "999", "--json")
    assert (skipped.code, skipped.json["known"], skipped.json["answers"]) == (1, False, [])
    unknown = shop.decide("positions", "set", "a\udcffb", "0", "1", "--reason", "a test")
    assert (unknown.code, "has no position in the topic" in unknown.err) == (1, True)
    reader = shop.ask("dead-letters", "redrive", "1")
    assert reader.code == 2
    assert "pointsman_engine" in reader.err


async def test_a_process_says_the_same_and_ends_in_the_same_way(shop: Shop) -> None:
    on = reader_on(shop.database)
    for words in (
        ["runs", "--json"],
        ["show", "o-2"],
        ["history", "o-77"],
        ["runs", "--status", "runing"],
        ["dead-letters", "redrive", "1"],
    ):
        assert apart(*words, on=on) == pointsman(*words, on=on)


async def test_a_process_says_the_same_of_what_it_reads_and_of_many_runs(
    shop: Shop, reader: Connection
) -> None:
    on, why = engine_on(shop.database, shop.kafka), ("--reason", "a look")
    sends = "send", "order", "o-1", "order.paid", "-", "--id", "cash", "--wait", "0", "--json", *why
    maps = "definitions", "map", "order", "--from", "1", "--to", "1", *why
    for words, given, code, said in (
        (sends, '{"order_id": "o-1", "amount": 7, "by": "Zoë"}', 1, '"taken": false'),
        (sends, '{"order_id": "o-1', 2, "The data is no JSON"),
        (sends, "", 2, "The data is no JSON"),
        ([*maps, "--json", "--dry-run"], None, 0, '"runs": 2'),
        ([*maps, "--json"], "y\n", 2, "There is no terminal to ask on"),
    ):
        process, here = (how(*words, input=given, on=on) for how in (apart, pointsman))
        assert process == here
        assert (here.code, said in here.out + here.err) == (code, True), here
    # What both have read is what came to the store.
    bodies = await reader.fetch("select convert_from(body, 'UTF8') as body from pointsman.inbox")
    assert ["Zoë" in row["body"] for row in bodies] == [True, True]


async def test_dead_letters_are_redriven_and_dropped_by_an_engine_once(shop: Shop) -> None:
    letters = {one["event_id"]: one["id"] for one in shop.ask("dead-letters", "list", "--json").json}
    publish(shop.kafka, shop.topic, rows("o-9").splitlines()[0] + "\n")
    waiting = shop.decide("dead-letters", "redrive", letters["early"], "--wait", "0", "--json")
    assert waiting.code == 1
    assert waiting.json["became"][0]["taken"] is False
    words = ("run", shop.file)
    with started(*words, on=engine_on(shop.database, shop.kafka)) as engine:
        engine.wait_for("partitions: ")
        failed = shop.decide("dead-letters", "redrive", letters["broken"], "--wait", "30")
        assert failed.code == 1
        assert f"{letters['broken']}: It failed again. " in failed.out
        dropped = shop.decide(
            "dead-letters", "drop", "--key", "o-2", "--reason", "not worth it", "--wait", "30"
        )
        assert dropped.code == 0, dropped.err
        for command, code in (("redrive", 0), ("drop", 1)):
            again = shop.decide("dead-letters", command, letters["broken"], "--json")
            assert again.code == code
            assert again.json["skipped"] == [{"id": letters["broken"], "reason": "it is redriven already"}]
        unknown = shop.decide("dead-letters", "redrive", "77")
        assert unknown.code == 1
        engine.process.send_signal(signal.SIGTERM)
        assert engine.end().code == 0
    runs = {one["key"]: one for one in shop.ask("runs", "--json").json}
    assert (runs["o-2"]["status"], runs["o-2"]["waiting"]) == ("running", 0)
    early = shop.ask("dead-letters", "list", "--event-id", "early", "--all", "--json").json
    assert "redriven" in {one["status"] for one in early}
    assert shop.ask("verify", "--json").json["clean"] is True
