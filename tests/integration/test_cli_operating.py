"""The commands that do something to runs, while an engine runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli import COMMAND, environment, pointsman, started
from tests.integration.test_cli_run import engine_on, pipeline, publish, reader_on, rows
from tests.services import Database, Kafka, TopicFactory


async def test_events_are_sent_by_an_operator(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders")
    publish(kafka, name, rows("o-1"))
    settings, looking = engine_on(database, kafka), reader_on(database)
    with started("run", pipeline(tmp_path, name), on=settings) as engine:
        engine.wait_for("partitions: ")
        why = ("--reason", "paid in cash", "--who", "ana", "--wait", "60")
        placed = '{"order_id": "o-2", "customer": "Ada", "amount": 5, "items": []}'
        begun = pointsman("send", "order", "o-2", "order.placed", placed, *why, on=settings)
        assert begun.code == 0, begun.err
        assert "It started the run 'o-2' of order, in placed (row 1)." in begun.out
        data = '{"order_id": "o-2", "amount": 5}'
        moved = pointsman(
            "send", "order", "o-2", "order.paid", "-", "--id", "cash", *why, "--json", input=data, on=settings
        )
        assert (moved.code, moved.json["disposition"], moved.json["event_id"]) == (0, "applied", "cash")
        failed = pointsman(
            "send", "order", "o-2", "order.paid", '{"order_id": "o-2", "amount": "much"}', *why, on=settings
        )
        assert (failed.code, "amount: Input should be" in failed.out) == (2, True)
        assert pointsman("runs", "--status", "held", "--json", on=looking).json == []
        wrong = {"type": "order.placed", "order_id": "o-3", "customer": "Ada", "amount": "much", "items": []}
        strange = {"type": "order.paid", "order_id": "o-2", "amount": "much"}
        publish(kafka, name, f"{json.dumps(wrong)}\n{json.dumps(strange)}\n")
        is_open = ("dead-letters", "list", "--status", "open", "--json", "--key")
        until(lambda: all(pointsman(*is_open, key, on=looking).json for key in ("o-2", "o-3")))
        [holder], [letter] = (pointsman(*is_open, key, on=looking).json for key in ("o-2", "o-3"))
        edit = ("dead-letters", "edit", letter["id"])
        slip = pointsman(*edit, "--set", "amuont=5", *why, on=settings)
        assert (slip.code, "has no field 'amuont'. Did you mean 'amount'?" in slip.err) == (2, True), slip
        new = ("--set", "amount=5", "--set", "note=five", "--add")
        edited = pointsman(*edit, *new, *why, on=settings)
        assert (edited.code, "It started the run 'o-3' of order" in edited.out) == (0, True), edited
        again = pointsman(*edit, "--data", "-", *why, input="{}", on=settings)
        assert (again.code, again.out) == (1, f"{letter['id']}: left alone, it is redriven already\n"), again
        paused = pointsman("pause", "o-1", *why, on=settings)
        assert (paused.code, "is paused (row 3)" in paused.out) == (0, True), paused
        data = '{"order_id": "o-1", "package": "p-1"}'
        waits = pointsman("send", "order", "o-1", "order.packed", data, *why, on=settings)
        assert (waits.code, "It waits (row 4) behind a pause by ana" in waits.out) == (0, True), waits
        assert [one["key"] for one in pointsman("runs", "--status", "paused", "--json", on=looking).json] == [
            "o-1"
        ]
        shown = pointsman("show", "o-1", "--at", "3", on=looking).out
        assert "pause by ana: paid in cash" in shown
        resumed = pointsman("resume", "order", "o-1", *why, "--json", on=settings)
        assert (resumed.code, resumed.json["done"]) == (0, 1)
        held = pointsman("pause", "order", "o-2", *why, on=settings)
        by = f"held by dead letter {holder['id']} (invalid data)"
        assert (held.code, by in held.out) == (1, True), held
        cancelled = pointsman("cancel", "order", "o-2", *why, on=settings)
        assert (cancelled.code, "the run 'o-2' of order ended where it was" in cancelled.out) == (0, True), (
            cancelled
        )
        again = pointsman("cancel", "order", "o-2", *why, on=settings)
        assert (again.code, "It was cancelled by ana" in again.out) == (0, True), again
        assert pointsman("runs", "--status", "cancelled", "--json", on=looking).json[0]["key"] == "o-2"
        assert pointsman("pause", "order", "o-77", *why, on=settings).code == 1
        assert pointsman("pause", "o-1", on=settings).code == 2
        decide_of_many(settings, looking, name, kafka)
    told = pointsman("explain", "cash", on=looking)
    assert "ana sent it at 20" in told.out
    assert "paid in cash." in told.out
    for words in (
        ["send", "order", "o-2", "order.payd", "--reason", "x"],
        ["send", "order", "o-2", "order.paid", "{", "--reason", "x"],
        ["send", "order", "o-2", "order.paid"],
        ["send", "order", "o-2", "--reason", "x"],
        ["send", "order", "o-2", "order.paid", "--state", "paid", "--reason", "x"],
        ["send", "order", "o-2", "order.paid", "--dry-run", "--reason", "x"],
        ["send", "order", "o-2", "order.paid", "--reason", " "],
    ):
        refused = pointsman(*words, on=settings)
        assert (refused.code, refused.out) == (2, ""), (words, refused)
    unknown = pointsman("send", "ordr", "o-2", "order.paid", "--reason", "x", on=settings)
    assert (unknown.code, "Did you mean 'order'?" in unknown.err) == (1, True)


def decide_of_many(settings: dict[str, str], looking: dict[str, str], topic: str, kafka: Kafka) -> None:
    """Runs that filters choose, while an engine runs."""
    why = ("--reason", "the depot burned down", "--wait", "60")
    publish(kafka, topic, rows("o-4", "o-5", "o-6"))

    def keys(status: str) -> set[str]:
        runs = pointsman("runs", "--status", status, "--state", "paid", "--json", on=looking).json
        return {one["key"] for one in runs}

    until(lambda: keys("running") == {"o-4", "o-5", "o-6"})
    counted = pointsman("pause", "--state", "paid", "--status", "running", "--dry-run", *why, on=settings)
    assert (counted.code, "3 runs." in counted.err) == (0, True), counted
    assert "order     running  paid      3" in counted.out, counted
    form = pointsman("pause", "--state", "paid", "--dry-run", "--json", *why, on=settings).json
    assert (form["dry_run"], form["runs"], form["became"]) == (True, 3, [])
    unsure = pointsman("pause", "--state", "paid", *why, on=settings)
    assert (unsure.code, unsure.out, "Say --yes" in unsure.err) == (2, "", True), unsure
    assert answered("n", "pause", "--state", "paid", *why, on=settings) == (1, "3 runs.\nPause 3 runs? [y/N]")
    assert keys("running") == {"o-4", "o-5", "o-6"}
    assert answered("y", "pause", "--state", "paid", *why, on=settings) == (0, "3 runs.\nPause 3 runs? [y/N]")
    assert keys("paused") == {"o-4", "o-5", "o-6"}
    done = pointsman("cancel", "--pipeline", "order", "--status", "paused", "--yes", *why, on=settings)
    assert (done.code, "cancel: done of 3 of 3 runs." in done.out) == (0, True), done
    assert keys("cancelled") == {"o-2", "o-4", "o-5", "o-6"}
    nothing = pointsman("cancel", "--status", "paused", "--yes", *why, on=settings)
    assert (nothing.code, "No runs." in nothing.err) == (0, True), nothing
    sent = ("send", "order.shipped", '{"tracking": "t-1"}', "--state", "packed")
    counted = pointsman(*sent, "--dry-run", *why, on=settings)
    assert (counted.code, "1 run." in counted.err) == (0, True), counted
    for event, said in (
        ("order.shippd {}", "knows the type"),
        ('order.shipped {"order_id":"o-77"}', "is for the run"),
    ):
        wrong = pointsman("send", *event.split(), "--state", "packed", "--dry-run", *why, on=settings)
        assert (wrong.code, wrong.out, said in wrong.err) == (2, "", True), wrong
    invalid = pointsman(*sent[:2], '{"tracking": []}', *sent[3:], "--yes", *why, on=settings)
    assert (invalid.code, "done of 0 of 1 run." in invalid.out) == (2, True), invalid
    assert (
        pointsman("dead-letters", "list", "--status", "open", "--key", "o-1", "--json", on=looking).json == []
    )
    done = pointsman(*sent, "--yes", *why, on=settings)
    assert (done.code, done.out.splitlines()[-1]) == (0, "send: done of 1 of 1 run."), done
    form = pointsman(
        "send", "order.delivered", "--state", "shipped", "--yes", "--json", *why, on=settings
    ).json
    assert (form["command"], form["done"]) == ("send", 1)
    assert (form["became"][0]["disposition"], form["became"][0]["configuration"]) == (
        "applied",
        ["delivered"],
    )
    for words in (["cancel", "o-1", "--state", "paid"], ["cancel"], ["cancel", "o-1", "--dry-run"]):
        refused = pointsman(*words, *why, on=settings)
        assert (refused.code, refused.out) == (2, ""), (words, refused)


def answered(word: str, *words: object, on: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command that asks on a terminal, and what it asks first."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{word}\n".encode())
        environ = environment({f"POINTSMAN_{name}": value for name, value in on.items()})
        done = subprocess.run(
            [*COMMAND, *map(str, words)],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environ,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr.partition(":")[0]


def until(holds: Callable[[], bool]) -> None:
    """Look until it is so: the engine may need a moment."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
