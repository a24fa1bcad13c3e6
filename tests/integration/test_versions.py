"""``pointsman run`` and the versions of a pipeline: what it refuses, and how two are run side by side."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cli import Done, pointsman, started
from tests.integration.test_brokers import producer
from tests.integration.test_cli_run import engine_on, reader_on, run
from tests.services import Database, Kafka, TopicFactory

PARCELS = """
from statemachines import Context, Event, Pipeline
from statemachines.definition import Topic

class Sent{n}(Event, type="parcel.sent", key="id"):
    id: str

class Seen{n}(Event, type="parcel.seen", key="id"):
    id: str

class Kept{n}(Event, type="parcel.kept", key="id"):
    id: str

class Parcel{n}(Context):
    seen: int = 0

def begin{n}(event: Sent{n}) -> Parcel{n}:
    return Parcel{n}()

def see{n}(parcel: Parcel{n}, event: Seen{n}) -> None:
    parcel.seen += {step}

flow = Pipeline("parcel", Parcel{n}, version={n}, topics=[Topic({topic!r}, type={type!r})])
away = flow.state("away", initial=True)
home = flow.state("home", final=True)
flow.start(Sent{n}, begin{n})
away.on(Seen{n}, do=see{n})
away.on(Kept{n}, to=home)
{more}
"""
LOST = """
class Lost1(Event, type="parcel.lost", key="id"):
    id: str

away.on(Lost1, to=flow.state("lost", final=True))
"""


def parcels(
    folder: Path, topic: str, *, version: int = 1, step: int = 1, more: str = "", type: str = "type"
) -> Path:
    """A file with a version of the pipeline."""
    file = folder / f"parcels_{version}.py"
    file.write_text(PARCELS.format(n=version, topic=topic, step=step, more=more, type=type))
    return file


async def send(kafka: Kafka, topic: str, *kinds: str, field: str = "type") -> None:
    """Plain JSON records of one parcel."""
    async with producer(kafka.bootstrap) as sending:
        for kind in kinds:
            value = json.dumps({field: f"parcel.{kind}", "id": "p-1"}).encode()
            await sending.send_and_wait(topic, value)


def runs(database: Database) -> list[tuple[str, int]]:
    listed = pointsman("runs", "--json", on=reader_on(database)).json
    return sorted((one["key"], one["context"]["seen"]) for one in listed)


def assert_refused(done: Done, sentence: str) -> None:
    assert done.code == 2, done.err
    assert sentence in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"more": LOST}, "another structure"), ({"step": 2}, "other code")],
    ids=["structure", "code"],
)
async def test_a_version_that_has_changed_since_it_was_run_is_refused(
    database: Database,
    kafka: Kafka,
    topic: TopicFactory,
    tmp_path: Path,
    changed: dict[str, str | int],
    what: str,
) -> None:
    name = await topic("parcels")
    await send(kafka, name, "sent", "seen")
    assert run(parcels(tmp_path, name), database, kafka).code == 0
    await send(kafka, name, "seen")
    refused = run(parcels(tmp_path, name, **changed), database, kafka)  # type: ignore[arg-type]  # by name
    assert_refused(refused, f"Pipeline 'parcel' version 1 was run with {what} before.")
    assert "give the changed definition a new version, and load both" in " ".join(refused.err.split())
    assert runs(database) == [("p-1", 1)], "nothing was read"
    assert run(parcels(tmp_path, name), database, kafka).code == 0
    assert runs(database) == [("p-1", 2)]


async def test_an_engine_without_the_newest_version_is_refused(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("parcels")
    old, new = parcels(tmp_path, name), parcels(tmp_path, name, version=2, step=10)
    await send(kafka, name, "sent", "seen")
    assert run(old, database, kafka).code == 0
    assert run(old, database, kafka, str(new)).code == 0
    await send(kafka, name, "seen")
    refused = run(old, database, kafka)
    assert_refused(
        refused, "Pipeline 'parcel' is registered with version 2, newer than any that is loaded here."
    )
    assert "load the newer version, too" in " ".join(refused.err.split())
    assert runs(database) == [("p-1", 1)], "nothing was read"
    assert run(new, database, kafka, str(old)).code == 0
    assert runs(database) == [("p-1", 2)], "its run goes on with the version that it began with"


async def test_an_engine_of_another_group_says_once_that_a_newer_version_is_there(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("parcels")
    old, new = parcels(tmp_path, name), parcels(tmp_path, name, version=2, step=10)
    said = "an engine of another group has registered version 2 of the pipeline 'parcel'"
    with started("run", old, on=engine_on(database, kafka)) as engine:
        engine.wait_for("partitions: ")
        assert run(old, database, kafka, "--group", "same").code == 0
        newer = run(old, database, kafka, str(new), "--group", "newer")
        assert (newer.code, said in newer.err) == (0, False), newer.err
        engine.wait_for(said)
        assert run(new, database, kafka, str(old), "--group", "newer").code == 0
        engine.process.send_signal(signal.SIGTERM)
        told = engine.end().err
    assert told.count(said) == 1
    assert "holds them until an engine starts that has it" in told
    assert "this engine would not start again" in told


async def test_two_versions_that_read_a_topic_differently_run_side_by_side_with_a_warning(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("parcels")
    old = parcels(tmp_path, name)
    await send(kafka, name, "sent", "seen")
    assert run(old, database, kafka).code == 0
    new = parcels(tmp_path, name, version=2, step=10, type="what")
    await send(kafka, name, "seen", field="what")
    done = run(old, database, kafka, str(new))
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert f"warning: the topic '{name}' is read with type='what', and no more with type='type'" in told
    assert runs(database) == [("p-1", 2)]
    validated = pointsman("validate", old, new)
    assert (validated.code, "0 errors, 1 warning" in validated.out) == (0, True)


async def test_runs_of_a_version_that_is_not_loaded_are_told_of_at_once(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("parcels")
    old, new = parcels(tmp_path, name), parcels(tmp_path, name, version=2, step=10)
    on = engine_on(database, kafka)
    await send(kafka, name, "sent")
    assert run(old, database, kafka).code == 0

    def looked(*files: Path) -> tuple[str, str, str]:
        done = pointsman("doctor", *files, "--json", on=on)
        [one] = [
            one for one in done.json["checks"] if (one["area"], one["name"]) == ("pipelines", "versions")
        ]
        return one["verdict"], one["sentence"], one["cure"]

    assert (
        looked(old)[:2] == looked(old, new)[:2] == ("ok", "Every open run follows a version that is loaded.")
    )
    told = (
        "Open runs of parcel that follow version 1, which is not loaded: 1. Their events wait, and until it is loaded "
        "no timer of theirs fires and no step of theirs begins."
    )
    cure = (
        "Load that version, too: name both modules. Or have these runs follow one that is loaded: "
        "pointsman definitions map parcel --from 1 --to VERSION --reason TEXT."
    )
    assert looked(new) == ("warn", told, cure)
    with started("run", new, "--log-format", "text", on=on) as engine:
        engine.wait_for(f"warning: {told} {cure}")
    changed = parcels(tmp_path, name, step=2)
    _, said, cure = looked(changed)
    assert said.startswith(
        "Open runs of parcel that follow version 1 as it was before it changed, which is not loaded: 1."
    )
    assert cure.startswith(
        "Give the changed definition a new version, and load the one that they began with, too"
    )
    await send(kafka, name, "kept")
    parcels(tmp_path, name)
    assert run(old, database, kafka, str(new)).code == 0
    assert looked(new)[0] == "ok", "it has ended"
