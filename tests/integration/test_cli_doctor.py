"""``pointsman doctor`` on real services, healthy and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from engine.homes import homes_topic
from engine.store.connecting import Connection
from tests.cli import pointsman
from tests.integration.test_cli_run import engine_on, pipeline, publish, rows, run
from tests.services import Database, Kafka, TopicFactory


def verdicts(done: Any) -> dict[tuple[str, str], str]:
    return {(one["area"], one["name"]): one["verdict"] for one in done.json["checks"]}


async def test_what_an_engine_runs_on_is_found_well(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path, reader: Connection
) -> None:
    name = await topic("orders", partitions=2)
    file = pipeline(tmp_path, name)
    publish(kafka, name, rows("o-1"))
    assert run(file, database, kafka).code == 0
    done = pointsman("doctor", file, "--json", on=engine_on(database, kafka))
    assert done.code == 0, done.out
    found = verdicts(done)
    for check in ("schema", "role", "fsync", "full_page_writes", "synchronous_commit", "pooler"):
        assert found["postgres", check] == "ok"
    version = str(await reader.fetchval("show server_version")).split()[0]
    [told] = [one for one in done.json["checks"] if (one["area"], one["name"]) == ("postgres", "version")]
    assert told["sentence"] == f"Postgres {version}."
    assert found["kafka", "positions"] == "ok"
    assert found["relay", "progress"] == "ok"
    assert found["kafka", name] in ("ok", "warn")
    assert found["kafka", homes_topic(database.name)] == "ok"


async def test_a_topic_of_homes_that_is_missing_or_too_small_is_told(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, await topic("orders"))
    homes = homes_topic(database.name)

    def told() -> dict[str, str]:
        done = pointsman("doctor", file, "--json", on=engine_on(database, kafka))
        [one] = [one for one in done.json["checks"] if one["name"] == homes]
        return {name: str(one[name]) for name in ("verdict", "sentence", "cure")}

    assert told()["sentence"] == (
        "Does not exist yet; the engine will make it, with 16 partitions, if it may create topics."
    )
    async with KafkaAdmin(KafkaSettings(kafka.bootstrap)) as admin:
        await admin.create_topic(homes, partitions=3)
    assert told() == {
        "verdict": "warn",
        "sentence": "3 partitions: no more than 3 of the engines of a group can share the timers.",
        "cure": f"kafka-topics.sh --alter --topic {homes} --partitions 16",
    }


async def test_what_breaks_a_promise_fails_with_a_cure(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic("orders", partitions=1)
    file = pipeline(tmp_path, name)
    publish(kafka, name, rows("o-1"))
    assert run(file, database, kafka).code == 0
    set_ = pointsman("positions", "set", name, 0, 500, "--reason", "a test", on=engine_on(database, kafka))
    assert set_.code == 0, set_.err
    done = pointsman(
        "doctor", file, "--json", on={**engine_on(database, kafka), "POSTGRES": database.owner_dsn}
    )
    assert done.code == 1
    failed = {one["name"]: one for one in done.json["checks"] if one["verdict"] == "fail"}
    assert "superuser" in failed["role"]["sentence"]
    assert "pointsman positions set" in failed[f"{name}/0"]["cure"]
    reader = pointsman(
        "doctor", file, "--json", on={**engine_on(database, kafka), "POSTGRES": database.reader_dsn}
    )
    assert verdicts(reader)["postgres", "role"] == "fail"


async def test_a_topic_that_is_missing_and_one_that_forgets_are_found(
    database: Database, kafka: Kafka, topic: TopicFactory, tmp_path: Path
) -> None:
    forgetful = await topic("orders", configs={"cleanup.policy": "compact"})
    done = pointsman("doctor", pipeline(tmp_path, forgetful), "--json", on=engine_on(database, kafka))
    compacted = [
        one for one in done.json["checks"] if one["name"] == forgetful and "compact" in one["sentence"]
    ]
    assert [one["verdict"] for one in compacted] == ["warn"]
    missing = pointsman(
        "doctor",
        pipeline(tmp_path, "no-such-topic"),
        "--json",
        on=engine_on(database, kafka),
    )
    assert missing.code == 1
    assert verdicts(missing)["kafka", "no-such-topic"] == "fail"


async def test_a_service_that_does_not_answer_is_named_and_the_other_is_looked_at(kafka: Kafka) -> None:
    done = pointsman(
        "doctor", "--json", on={"POSTGRES": "postgresql://me@127.0.0.1:1/x", "KAFKA": kafka.bootstrap}
    )
    assert done.code == 3
    assert verdicts(done)["postgres", "address"] == "fail"
    assert verdicts(done)["kafka", "address"] == "ok"
