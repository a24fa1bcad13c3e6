"""``retry``, ``skip`` and ``resolve``, while an engine runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from tests.cli import pointsman, started
from tests.integration.test_cli_operating import until
from tests.integration.test_cli_run import engine_on, reader_on
from tests.services import Database, Kafka, TopicFactory

LORRIES = """
from datetime import timedelta
from pathlib import Path

from statemachines import Call, Context, Done, Event, Pipeline, Retry, exponential

LORRY = Path({lorry!r})


class Ordered(Event, type="load.ordered", key="load"):
    load: str


class Load(Context):
    load: str
    lorry: str = ""


def order(event: Ordered) -> Load:
    return Load(load=event.load)


def note(load: Load, got: Done[str]) -> None:
    load.lorry = got.result


flow = Pipeline("loads", Load, topics=[{topic!r}])


@flow.step(retry=Retry(attempts=2, wait=exponential(0.01, 0.01)))
def ship(load: Load, call: Call) -> str:
    return LORRY.read_text()


shipping = flow.state("shipping", run=ship, initial=True)
shipped = flow.state("shipped", final=True)
flow.start(Ordered, order)
shipping.on(ship.done, to=shipped, do=note)
shipping.after(timedelta(days=30), to=shipped)
"""


def publish(topic: str, kafka: Kafka, *loads: str) -> None:
    lines = "".join(f"{json.dumps({'type': 'load.ordered', 'load': one})}\n" for one in loads)
    done = pointsman("publish", topic, "-", "--key", "load", input=lines, on={"KAFKA": kafka.bootstrap})
    assert done.code == 0, done.err


def pause_all(settings: dict[str, str], looking: dict[str, str], topic: str, kafka: Kafka) -> None:
    """The whole pipeline is paused, and goes on."""
    why = ("--reason", "the road is closed", "--who", "ana", "--wait", "60")

    def statuses() -> dict[str, str]:
        runs = pointsman("runs", "--json", on=looking).json
        return {one["key"]: one["status"] for one in runs if one["key"] in ("l-5", "l-6")}

    paused = pointsman("pause", "--pipeline", "loads", *why, "--json", on=settings).json
    assert (paused["runs"], paused["done"], paused["became"][0]["command"]) == (0, 1, "pause_pipeline")
    told = pointsman("runs", on=looking).err
    assert "loads is paused since" in told
    assert (
        "by ana: the road is closed. To let it go on: pointsman resume --pipeline loads --reason TEXT."
        in told
    )
    publish(topic, kafka, "l-5", "l-6")
    until(lambda: statuses() == {"l-5": "paused", "l-6": "paused"})
    waits = pointsman("cancel", "l-6", "--reason", "not needed", "--wait", "0", on=settings)
    assert (waits.code, "loads is paused, and the cancel waits in the inbox" in waits.out) == (1, True)
    counted = pointsman("pause", "--pipeline", "loads", "--dry-run", *why, on=settings)
    assert (counted.code, "loads is paused already, which ana has paused" in counted.out) == (0, True), (
        counted
    )
    resumed = pointsman("resume", "--pipeline", "loads", *why, on=settings)
    assert (resumed.code, "loads goes on" in resumed.out) == (0, True), resumed
    until(lambda: statuses()["l-5"] == "completed")
    nobody = pointsman("pause", "--pipeline", "laods", *why, on=settings)
    assert (nobody.code, "Did you mean 'loads'?" in nobody.err) == (1, True), nobody


async def test_operators_decide_of_runs_that_are_stuck(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name, lorry = await topic("loads"), tmp_path / "lorry"
    file = tmp_path / "loads.py"
    file.write_text(LORRIES.format(topic=name, lorry=str(lorry)))
    settings, looking = engine_on(database, kafka), reader_on(database)
    why = ("--reason", "the lorry is back", "--who", "ana", "--wait", "60")

    def keys(status: str) -> set[str]:
        return {one["key"] for one in pointsman("runs", "--status", status, "--json", on=looking).json}

    with started("run", file, on=settings) as engine:
        engine.wait_for("partitions: ")
        publish(name, kafka, *(f"l-{one}" for one in range(5)))
        until(lambda: keys("stuck") == {"l-0", "l-1", "l-2", "l-3", "l-4"})
        table = pointsman("runs", "--status", "stuck", on=looking)
        assert "ship: FileNotFoundError: " in table.out
        shown = pointsman("show", "l-4", on=looking).out
        assert "stuck on ship: FileNotFoundError: " in shown
        [skip] = [one.strip() for one in shown.splitlines() if one.startswith("  pointsman skip ")]
        elsewhere = f"--namespace {looking['NAMESPACE']}"
        assert skip == f"pointsman skip --reason 'it is not needed' {elsewhere} loads l-4"
        assert skip.replace("l-4", "l-") in re.sub(r"l-\d", "l-", table.err)
        wrong = pointsman("resolve", "l-0", "--result", "7", *why, on=settings)
        assert (wrong.code, "is not resolved: ship does not return that" in wrong.out) == (1, True), wrong
        resolved = pointsman("resolve", "loads", "l-0", "--result", "-", *why, on=settings, input='"van"')
        assert (resolved.code, resolved.out) == (
            0,
            "The run 'l-0' of loads counts ship as done (row 5).\n",
        )
        skipped = pointsman("skip", "l-1", *why, on=settings)
        assert (skipped.code, "goes on without ship, in shipping (row 5)" in skipped.out) == (0, True)
        pasted = pointsman(*shlex.split(skip)[1:], on=settings)
        assert (pasted.code, "goes on without ship" in pasted.out) == (0, True), pasted
        again = pointsman("skip", "l-1", *why, on=settings)
        assert (again.code, "is not stuck: nothing holds it" in again.out) == (1, True), again
        counted = pointsman("retry", "--state", "shipping", "--dry-run", *why, on=settings)
        assert (counted.code, "2 runs." in counted.err) == (0, True), counted
        lorry.write_text("lorry")
        done = pointsman("retry", "--pipeline", "loads", "--yes", *why, on=settings)
        assert (done.code, "retry: done of 2 of 2 runs." in done.out) == (0, True), done
        until(lambda: keys("completed") == {"l-0", "l-2", "l-3"})
        pause_all(settings, looking, name, kafka)
    assert pointsman("runs", "--status", "stuck", "--json", on=looking).json == []
    assert "is paused since" not in pointsman("runs", on=looking).err
    shown = pointsman("show", "l-1", on=looking).out
    assert "skipped by ana (row 5): not done" in shown, shown
    assert "resolved by ana (row 5)" in pointsman("show", "l-0", on=looking).out
    assert "pointsman.retry" in pointsman("history", "l-2", on=looking).out
    assert {
        one["status"] for one in pointsman("dead-letters", "list", "--all", "--json", on=looking).json
    } == {
        "redriven",
        "dropped",
        "resolved",
    }
    assert pointsman("verify", on=looking).code == 0
    assert pointsman("replay", file, on=looking).code == 0
    for words in (
        ["resolve", "l-1", "--result", "{"],
        ["retry"],
        ["skip", "l-1", "--pipeline", "loads"],
        ["retry", "l-1", "--dry-run"],
    ):
        refused = pointsman(*words, *why, on=settings)
        assert (refused.code, refused.out) == (2, ""), (words, refused)
