"""What ``doctor`` finds in a Postgres and a Kafka that are not as they must be, each told with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from connectors.kafka.admin import Broker, Kept
from connectors.kafka.settings import KafkaSettings
from connectors.source import (
    NoSuchTopicError,
    NotAllowedError,
    Partition,
    SourceError,
    SourceUnreachableError,
)
from engine.doctor import Check, Verdict
from engine.doctor import kafka as kafka_doctor
from engine.doctor import postgres as postgres_doctor
from engine.doctor.kafka import Wanted, examine_kafka
from engine.doctor.postgres import examine_postgres
from engine.homes import homes_topic

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
}
TOPIC, LETTERS = "orders", "orders.dead-letters"


class Postgres:
    """A connection to a server that answers as it is told to."""

    def __init__(
        self,
        *,
        major: int = 18,
        settings: Mapping[str, str] | None = None,
        replicas: int = 0,
        address: str | None = "127.0.0.1",
        encrypted: bool = False,
        servers: tuple[int, ...] = (7,),
        apart: timedelta = timedelta(),
    ) -> None:
        self._major = major
        self._settings = {**SETTINGS, **(settings or {})}
        self._replicas = replicas
        self._reached = {"address": address, "encrypted": encrypted}
        self._servers = servers
        self._apart = apart
        self._asked = 0

    def get_server_version(self) -> Any:
        return SimpleNamespace(major=self._major, minor=0, micro=1)

    def get_server_pid(self) -> int:
        return 7

    async def fetchval(self, statement: str, *values: Any) -> Any:
        if "pg_backend_pid" in statement:
            self._asked += 1
            return self._servers[self._asked % len(self._servers)]
        if "current_setting" in statement:
            return self._settings[values[0] if values else statement.split("'")[1]]
        answers: dict[str, Any] = {
            "current_user::text": "my_engine",
            "pg_has_role": True,
            "pg_stat_replication": self._replicas,
            "clock_timestamp": datetime.now(UTC) + self._apart,
        }
        [answer] = [answers[part] for part in answers if part in statement]
        return answer

    async def fetchrow(self, _: str) -> Any:
        return self._reached

    async def close(self) -> None:
        pass


async def found_in(monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> dict[str, Check]:
    async def connect(*_: Any, **__: Any) -> Any:
        return postgres

    async def fine(_: Any) -> None:
        pass

    checks = ("check_schema", fine), ("check_role", fine), ("check_temporary", fine)
    for name, stand_in in (("connect", connect), *checks):
        monkeypatch.setattr(postgres_doctor, name, stand_in)
    return {one.name: one for one in (await examine_postgres("postgresql://me@db/x")).checks}


async def test_a_postgres_as_it_must_be_is_found_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await found_in(monkeypatch, Postgres())
    assert {one.verdict for one in found.values()} == {OK}
    assert {"version", "schema", "role", "fsync", "full_page_writes", "synchronous_commit", "clock"} <= set(
        found
    )


@pytest.mark.parametrize(
    ("postgres", "name", "verdict", "said"),
    [
        (Postgres(major=13), "version", FAIL, "Postgres 13.1 is older than 14"),
        (Postgres(settings={"fsync": "off"}), "fsync", FAIL, "can lose or damage what was committed"),
        (Postgres(settings={"full_page_writes": "off"}), "full_page_writes", FAIL, "damage what was written"),
        (
            Postgres(settings={"synchronous_commit": "off"}),
            "synchronous_commit",
            FAIL,
            "the last commits are lost",
        ),
        (Postgres(settings={"synchronous_commit": "local"}), "synchronous_commit", FAIL, "local"),
        (Postgres(replicas=1), "replication", WARN, "a failover loses the last commits"),
        (Postgres(address="10.0.0.7"), "encryption", WARN, "not encrypted"),
        (Postgres(address="10.0.0.7", encrypted=True), "encryption", WARN, "nobody looks whether it is your"),
        (Postgres(servers=(7, 8)), "pooler", FAIL, "changes the server process between transactions"),
        (Postgres(servers=(8,)), "pooler", WARN, "There is a pooler between"),
        (Postgres(apart=timedelta(minutes=5)), "clock", WARN, "300 s behind the database's"),
        (Postgres(apart=-timedelta(minutes=5)), "clock", WARN, "300 s ahead of the database's"),
    ],
)
async def test_what_is_wrong_with_a_postgres_is_told_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, name: str, verdict: Verdict, said: str
) -> None:
    found = await found_in(monkeypatch, postgres)
    assert (found[name].verdict, said in found[name].sentence) == (verdict, True), found[name]
    assert bool(found[name].cure) == (verdict is not OK)
    assert [one.name for one in found.values() if one.verdict is not OK and one.name != name] == []


async def test_who_has_shown_who_it_is_over_tls_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    found = await found_in(monkeypatch, Postgres(address="10.0.0.7", encrypted=True))
    assert (found["encryption"].verdict, "has shown who it is" in found["encryption"].sentence) == (OK, True)


async def test_standbys_that_commits_wait_for_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await found_in(
        monkeypatch, Postgres(replicas=2, settings={"synchronous_standby_names": "ANY 1 (*)"})
    )
    assert "replication" not in found


class Kafka:
    """A cluster that answers as it is told to; both what administrates it and what reads it."""

    def __init__(
        self,
        *,
        releases: tuple[tuple[int, int] | None, ...] = ((4, 0), (4, 0), (4, 0)),
        replicas: int = 3,
        configs: Mapping[str, Mapping[str, str]] | None = None,
        missing: tuple[str, ...] = (),
        secret: bool = False,
        homes: int = 16,
        silent: tuple[int, ...] = (),
        kept: Mapping[str, Kept] | None = None,
        default_replicas: str = "3",
        rights: Mapping[str, frozenset[str]] | None = None,
        lost: tuple[str, ...] = (),
    ) -> None:
        self._brokers = [
            Broker(number, "k", 9092, release, number not in silent)
            for number, release in enumerate(releases)
        ]
        self._kept = kept or {}
        self._usual = Kept(0, tuple(range(replicas)), tuple(range(replicas)))
        self._default_replicas = default_replicas
        self._configs = configs or {}
        self._missing = missing
        self._secret = secret
        self._homes = homes
        self._rights = rights or {}
        """On topics and groups; nothing at all is not even to see it, and what is not here is not told."""
        self._lost = lost
        """Groups that no broker has."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def cluster_id(self) -> str:
        return "cluster"

    async def brokers(self) -> list[Broker]:
        return self._brokers

    bootstrap = "127.0.0.1:9092"

    async def topic_rights(self, topic: str) -> frozenset[str] | None:
        granted = self._rights.get(topic)
        if granted == frozenset():
            raise NotAllowedError(topic)
        return granted

    async def group_rights(self, group: str) -> frozenset[str] | None:
        if group in self._lost:
            raise SourceUnreachableError("Kafka at k does not answer")
        return self._rights.get(group)

    async def topic_exists(self, topic: str) -> bool:
        return topic not in self._missing

    async def partitions_of(self, topic: str) -> set[Partition]:
        count = self._homes if topic == homes_topic("shop") else 1
        return set() if topic in self._missing else {Partition(topic, number) for number in range(count)}

    async def kept_by(self, topic: str) -> dict[Partition, Kept]:
        return {Partition(topic, 0): self._kept.get(topic, self._usual)}

    async def broker_config(self, broker: int) -> dict[str, str]:
        assert self._brokers[broker].answers
        return {"default.replication.factor": self._default_replicas}

    async def topic_config(self, topic: str) -> dict[str, str]:
        if topic in self._missing:
            raise NoSuchTopicError(topic)
        if self._secret:
            raise SourceError("not authorized")
        usual = {"min.insync.replicas": "2", "max.message.bytes": "1048588", "cleanup.policy": "delete"}
        if topic == "pointsman.shop.relay":
            usual["cleanup.policy"] = "compact"
        return {**usual, **self._configs.get(topic, {})}

    async def ids_of(self, topics: Any) -> dict[str, str]:
        return dict.fromkeys(topics, "the second")

    async def earliest(self, partitions: Any) -> dict[Partition, int]:
        return dict.fromkeys(partitions, 100)

    async def ends(self, partitions: Any) -> dict[Partition, int]:
        return dict.fromkeys(partitions, 200)


async def checks_of(
    monkeypatch: pytest.MonkeyPatch,
    kafka: Kafka,
    *,
    bootstrap: str = "127.0.0.1:9092",
    positions: Mapping[Partition, int] | None = None,
    topic_ids: Mapping[Partition, str] | None = None,
) -> list[Check]:
    for name in ("KafkaAdmin", "KafkaReader"):
        monkeypatch.setattr(kafka_doctor, name, lambda _: kafka)
    monkeypatch.setattr(kafka_doctor, "progress_topic", lambda namespace: f"pointsman.{namespace}.relay")
    wanted = Wanted("shop", [TOPIC], [LETTERS], dict(positions or {}), "cluster", "group", topic_ids or {})
    return (await examine_kafka(KafkaSettings(bootstrap), wanted)).checks


async def test_a_kafka_as_it_must_be_is_found_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await checks_of(monkeypatch, Kafka(), positions={Partition(TOPIC, 0): 150})
    assert {one.verdict for one in found} == {OK}
    assert found[-1].sentence == "1 partition, 50 records behind."


async def test_a_position_of_another_topic_of_that_name_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Partition(TOPIC, 0)
    found = await checks_of(monkeypatch, Kafka(), positions={at: 150}, topic_ids={at: "the second"})
    assert {one.verdict for one in found} == {OK}
    found = await checks_of(monkeypatch, Kafka(), positions={at: 150}, topic_ids={at: "the first"})
    (failed,) = (one for one in found if one.verdict is FAIL)
    assert failed.name == str(at)
    assert "read up to 150 (the first then, the second now)" in failed.sentence
    assert (
        f"positions set {TOPIC} 0 POSITION --group=group --cluster=cluster --reason TEXT," in failed.sentence
    )
    assert not any("behind" in one.sentence for one in found)


@pytest.mark.parametrize(
    ("kafka", "name", "verdict", "said"),
    [
        (Kafka(releases=((4, 3),)), "release", FAIL, "KAFKA-20734"),
        (Kafka(releases=((4, 1),)), "release", WARN, "it was not tried"),
        (
            Kafka(configs={TOPIC: {"cleanup.policy": "compact,delete"}}),
            TOPIC,
            WARN,
            "only the last event stays",
        ),
        (Kafka(missing=(TOPIC,)), TOPIC, FAIL, "does not exist"),
        (Kafka(configs={LETTERS: {"max.message.bytes": "1000"}}), LETTERS, WARN, "kept in the table alone"),
        (
            Kafka(configs={"pointsman.shop.relay": {"cleanup.policy": "delete"}}),
            "pointsman.shop.relay",
            FAIL,
            "forget",
        ),
        (
            Kafka(configs={TOPIC: {"unclean.leader.election.enable": "true"}}),
            TOPIC,
            FAIL,
            "records can be gone",
        ),
        (Kafka(configs={TOPIC: {"min.insync.replicas": "1"}}), TOPIC, WARN, "by one broker alone"),
        (Kafka(homes=5), homes_topic("shop"), WARN, "no more than 5 of the engines"),
        (Kafka(silent=(0,)), "brokers", WARN, "Broker 0 at k:9092 does not answer"),
        (Kafka(kept={TOPIC: Kept(0, (0, 1, 2), (0, 2))}), TOPIC, WARN, "nothing is broken, until another"),
        (
            Kafka(kept={TOPIC: Kept(0, (0, 1, 2), (0,))}),
            TOPIC,
            FAIL,
            "min.insync.replicas, 2: nothing can be written",
        ),
        (Kafka(kept={TOPIC: Kept(-1, (0, 1, 2), (0, 2))}), TOPIC, FAIL, "1 without a leader"),
        (
            Kafka(kept={"__transaction_state": Kept(0, (0,), (0,))}),
            "__transaction_state",
            WARN,
            "while its broker is away, nothing may be published",
        ),
        (
            Kafka(kept={"__transaction_state": Kept(-1, (0,), ())}),
            "__transaction_state",
            FAIL,
            "without a leader",
        ),
        (
            Kafka(kept={"__consumer_offsets": Kept(0, (0,), (0,))}),
            "__consumer_offsets",
            WARN,
            "no engine can join a group",
        ),
        (
            Kafka(missing=(LETTERS,), default_replicas="1"),
            "default.replication.factor",
            WARN,
            f"one replica of {LETTERS}",
        ),
        (Kafka(rights={TOPIC: frozenset({"DESCRIBE"})}), TOPIC, FAIL, "may not READ on the topic"),
        (Kafka(rights={TOPIC: frozenset()}), TOPIC, FAIL, f"see the topic {TOPIC}, or there is none"),
        (
            Kafka(rights={"pointsman.shop.relay": frozenset({"WRITE"})}),
            "pointsman.shop.relay",
            FAIL,
            "may not READ on",
        ),
        (Kafka(rights={LETTERS: frozenset({"READ"})}), LETTERS, FAIL, "may not WRITE on the topic"),
        (Kafka(rights={"group": frozenset()}), "group", FAIL, "may not READ on the consumer group"),
        (Kafka(rights={"group.lag": frozenset()}), "group.lag", WARN, "they will see none"),
    ],
)
async def test_what_is_wrong_with_a_kafka_is_told_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, kafka: Kafka, name: str, verdict: Verdict, said: str
) -> None:
    wrong = [one for one in await checks_of(monkeypatch, kafka) if one.verdict is not OK]
    assert [(one.name, one.verdict) for one in wrong] == [(name, verdict)]
    assert said in wrong[0].sentence
    assert wrong[0].cure


@pytest.mark.parametrize(
    ("group", "verdict", "said"),
    [
        (
            "group",
            FAIL,
            "has the consumer group: engines cannot share the partitions. Kafka at k does not answer",
        ),
        ("group.lag", WARN, "that tools see the lag by; they will see none. Kafka at k does not answer"),
    ],
)
async def test_where_no_broker_has_a_group_that_is_told_and_all_else_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, group: str, verdict: Verdict, said: str
) -> None:
    position = {Partition(TOPIC, 0): 150}
    found = await checks_of(monkeypatch, Kafka(lost=(group,)), positions=position)
    [lost] = [one for one in found if one.verdict is not OK]
    assert (lost.name, lost.verdict, lost.unreachable) == (group, verdict, verdict is FAIL)
    assert said in lost.sentence
    assert "__consumer_offsets" in lost.cure
    well = await checks_of(monkeypatch, Kafka(), positions=position)
    assert [one for one in found if one is not lost] == well


async def test_a_release_that_forgets_markers_does_no_harm_where_there_are_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await checks_of(monkeypatch, Kafka(releases=((4, 3), (4, 3), (4, 3))))
    assert {one.verdict for one in found} == {OK}


async def test_one_replica_is_warned_of_for_each_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [one for one in await checks_of(monkeypatch, Kafka(replicas=1)) if one.verdict is not OK]
    assert [(one.name, one.verdict) for one in wrong] == [
        (TOPIC, WARN),
        (LETTERS, WARN),
        ("pointsman.shop.relay", WARN),
        ("__consumer_offsets", WARN),
        ("__transaction_state", WARN),
    ]
    assert "a lost disk loses events" in wrong[0].sentence


async def test_what_the_brokers_make_is_asked_of_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await checks_of(monkeypatch, Kafka(missing=(LETTERS,), silent=(0,), default_replicas="1"))
    assert ("default.replication.factor", WARN) in [(one.name, one.verdict) for one in found]


async def test_where_there_is_one_broker_nothing_is_said_of_what_needs_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = Kafka(replicas=1, releases=((4, 0),), missing=(LETTERS,), default_replicas="1")
    wrong = [one for one in await checks_of(monkeypatch, kafka) if one.verdict is not OK]
    assert [one.name for one in wrong] == [TOPIC, "pointsman.shop.relay"]


async def test_who_does_not_answer_any_more_in_the_middle_was_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Half(Kafka):
        async def earliest(self, partitions: Any) -> dict[Partition, int]:
            raise SourceUnreachableError("no broker leads orders/0")

    found = await checks_of(monkeypatch, Half(), positions={Partition(TOPIC, 0): 150})
    assert [(one.name, one.verdict) for one in found if one.name in ("address", "questions")] == [
        ("address", OK),
        ("questions", FAIL),
    ]
    assert found[-1].unreachable


async def test_settings_that_may_not_be_seen_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [one for one in await checks_of(monkeypatch, Kafka(secret=True)) if one.verdict is not OK]
    assert {one.cure for one in wrong} == {"Allow DESCRIBE_CONFIGS on the topic."}


async def test_only_what_leaves_the_machine_must_be_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [
        one
        for one in await checks_of(monkeypatch, Kafka(), bootstrap="127.0.0.1:1,broker-1:9092")
        if one.verdict is not OK
    ]
    assert [(one.name, one.verdict) for one in wrong] == [("encryption", WARN)]
    assert "broker-1:9092 is not encrypted" in wrong[0].sentence


async def test_a_key_that_others_may_read_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "me.key"
    key.touch(mode=0o600)
    monkeypatch.setattr(kafka_doctor, "KafkaAdmin", lambda _: Kafka())
    monkeypatch.setattr(kafka_doctor, "KafkaReader", lambda _: Kafka())
    settings = KafkaSettings("127.0.0.1:9092", security_protocol="SSL", key_file=key)
    wanted = Wanted("shop", [TOPIC], [LETTERS], {}, "cluster")
    assert [one for one in (await examine_kafka(settings, wanted)).checks if one.verdict is not OK] == []
    key.chmod(0o644)
    [wrong] = [one for one in (await examine_kafka(settings, wanted)).checks if one.verdict is not OK]
    assert (wrong.name, wrong.verdict, wrong.cure) == ("key", WARN, f"chmod 600 {key}")


@pytest.mark.parametrize("position", [99, 201])
async def test_a_position_that_kafka_does_not_have_fails_with_the_command_to_decide(
    monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    wrong = [
        one
        for one in await checks_of(monkeypatch, Kafka(), positions={Partition(TOPIC, 0): position})
        if one.verdict is not OK
    ]
    assert [(one.name, one.verdict) for one in wrong] == [(f"{TOPIC}/0", FAIL)]
    assert wrong[0].sentence == f"Its position is {position}, and Kafka has 100 to 200."
    assert wrong[0].cure == (
        f"pointsman positions set {TOPIC} 0 POSITION --group=group --cluster=cluster --reason TEXT"
    )
