"""Kafka: reachable, of a release that keeps its word, with topics as they must be, and positions that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from connectors.credentials import why_not_secret
from connectors.kafka.admin import Broker, KafkaAdmin, Kept
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_progress import progress_topic
from connectors.source import NoSuchTopicError, Partition, SourceError, SourceUnreachableError
from engine.commands.words import position_command
from engine.doctor.check import Report
from engine.doctor.rights import READ, WRITE, examine_group_rights, examine_topic_rights
from engine.homes import HOMES, homes_topic
from engine.telling_lag import lag_group
from engine.topic_ids import other_topic
from engine.unread import CURE, find_unread

FORGETS_MARKERS = (4, 3)
"""With one replica, this release can publish aborted records after a restart (KAFKA-20734)."""
TRIED = (4, 0)
"""The newest release on which brokers were killed, and nothing was lost or doubled."""
INTERNAL = {
    "__consumer_offsets": (
        "offsets.topic.replication.factor",
        "no engine can join a group that it coordinates, or leave its partitions to others",
    ),
    "__transaction_state": ("transaction.state.log.replication.factor", "nothing may be published"),
}
"""Topics that Kafka makes: how many replicas, by which setting, and what cannot be done without one."""
DEFAULT_REPLICAS = "default.replication.factor"
LOOPBACK = ("127.", "localhost", "[::1]")


class Wanted(NamedTuple):
    """What an engine of this namespace reads and writes, as far as is known."""

    namespace: str
    sources: Sequence[str]
    dead_letters: Sequence[str]
    positions: dict[Partition, int]
    """As stored for this cluster; empty where there is no store to ask."""
    cluster: str | None
    """Of the positions."""
    group: str = ""
    """The consumer group; empty where that is not asked about."""
    topic_ids: Mapping[Partition, str] = MappingProxyType({})
    """Which topics positions are of, as far as it is noted."""


async def examine_kafka(settings: KafkaSettings, wanted: Wanted) -> Report:
    """Look at a cluster as an engine would find it."""
    report = Report("kafka")
    try:
        async with KafkaAdmin(settings) as admin:
            brokers = await _cluster(admin, settings, report)
            hidden = await examine_topic_rights(admin, _rights(wanted), report)
            if wanted.group:
                await examine_group_rights(admin, wanted.group, lag_group(wanted.group), report)
            missing = await _topics(admin, wanted, hidden, report)
            if len(brokers) > 1:
                await _replication(admin, brokers, missing, report)
        await _positions(settings, wanted, hidden, report)
    except SourceUnreachableError as error:
        report.fail("questions" if report.checks else "address", str(error), unreachable=True)
    except SourceError as error:
        report.fail("questions", str(error))
    return report


async def _cluster(admin: KafkaAdmin, settings: KafkaSettings, report: Report) -> list[Broker]:
    brokers = await admin.brokers()
    report.ok("address", f"{settings.bootstrap} answers: cluster {await admin.cluster_id()}.")
    for broker in brokers:
        if not broker.answers:
            report.warn(
                "brokers",
                f"Broker {broker.id} at {broker.host}:{broker.port} does not answer, though others name it.",
                "Look whether it runs, and whether it can be reached from here by this name.",
            )
    releases = sorted({broker.release for broker in brokers if broker.release})
    told = ", ".join(f"{major}.{minor}" for major, minor in releases) or "of an unknown release"
    many = "1 broker" if len(brokers) == 1 else f"{len(brokers)} brokers"
    _release(report, brokers, f"{many}, Kafka {told}")
    if settings.key_file is not None and (why := why_not_secret("key", settings.key_file)):
        report.warn("key", why, f"chmod 600 {settings.key_file}")
    plain = settings.security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT")
    elsewhere = [one for one in settings.bootstrap.split(",") if not one.strip().startswith(LOOPBACK)]
    if plain and elsewhere:
        report.warn(
            "encryption",
            f"{settings.security_protocol}: what is said to {', '.join(elsewhere)} is not encrypted.",
            "Set POINTSMAN_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL.",
        )
    return brokers


def _release(report: Report, brokers: list[Broker], told: str) -> None:
    newest = max((broker.release for broker in brokers if broker.release), default=None)
    if newest is None or newest <= TRIED or len(brokers) > 1:
        report.ok("release", f"{told}.")
    elif newest >= FORGETS_MARKERS:
        report.fail(
            "release",
            f"{told}, without replicas: restarted, it can publish records of aborted transactions (KAFKA-20734), "
            "so that publishing is not exactly once.",
            "Use three brokers with three replicas, or Kafka 4.0.",
        )
    else:
        report.warn(
            "release",
            f"{told}, without replicas: 4.3 publishes aborted records after a restart (KAFKA-20734); on this release "
            "it was not tried.",
            "Use three brokers with three replicas, or Kafka 4.0.",
        )


def _rights(wanted: Wanted) -> dict[str, frozenset[str]]:
    """What an engine does with each topic that is known here; others that are published to are not."""
    needed = {homes_topic(wanted.namespace): READ, progress_topic(wanted.namespace): READ | WRITE}
    for topics, operations in ((wanted.sources, READ), (wanted.dead_letters, WRITE)):
        for topic in topics:
            needed[topic] = needed.get(topic, frozenset()) | operations
    return needed


async def _topics(admin: KafkaAdmin, wanted: Wanted, hidden: Collection[str], report: Report) -> list[str]:
    """Returns the topics that an engine will make."""
    progress, homes = progress_topic(wanted.namespace), homes_topic(wanted.namespace)
    sources = [one for one in wanted.sources if one not in hidden]
    dead_letters = [one for one in wanted.dead_letters if one not in hidden]
    names = [*sources, *dead_letters, *({progress, homes} - {*hidden})]
    exist = dict(zip(names, await asyncio.gather(*(admin.topic_exists(name) for name in names)), strict=True))
    largest = 0
    for topic in sources:
        if not exist[topic]:
            report.fail(topic, "The topic does not exist.", f"kafka-topics.sh --create --topic {topic}")
            continue
        configs = await _configs(admin, topic, report)
        largest = max(largest, _number(configs, "max.message.bytes"))
        if "compact" in configs.get("cleanup.policy", ""):
            report.warn(
                topic,
                "cleanup.policy has compact: of each key only the last event stays, perhaps before it was read.",
                f"kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=delete",
            )
        await _safety(admin, topic, configs, report)
    for topic in dead_letters:
        if not exist[topic]:
            report.ok(topic, "Does not exist yet; the engine will make it.")
            continue
        configs = await _configs(admin, topic, report)
        limit = _number(configs, "max.message.bytes")
        if 0 < limit < largest:
            report.warn(
                topic,
                f"max.message.bytes is {limit:,}, and events may have {largest:,}: larger dead letters are kept in "
                "the table alone.",
                f"kafka-configs.sh --alter --topic {topic} --add-config max.message.bytes={largest + 100_000}",
            )
        await _safety(admin, topic, configs, report)
    if progress not in hidden:
        if exist[progress]:
            await _progress(admin, progress, report)
        else:
            report.ok(progress, "Does not exist yet; the relay will make it.")
    if homes not in hidden:
        await _homes(admin, homes, report)
    return [topic for topic in (*dead_letters, progress, homes) if not exist.get(topic, True)]


async def _replication(
    admin: KafkaAdmin, brokers: Sequence[Broker], missing: Sequence[str], report: Report
) -> None:
    """Whether what Kafka makes by itself, and what we make as the brokers say, survives the loss of one of several."""
    for topic, (setting, loss) in INTERNAL.items():
        kept = await admin.kept_by(topic)
        if any(one.leader < 0 for one in kept.values()):
            report.fail(
                topic, f"{_partitions(kept)}, some without a leader: {loss}.", "Start their brokers again."
            )
        elif kept and min(len(one.replicas) for one in kept.values()) == 1:
            report.warn(
                topic,
                f"{_partitions(kept)}, one replica: while its broker is away, {loss}.",
                f"kafka-reassign-partitions.sh; and {setting}=3 on the brokers, before the topic is made.",
            )
    there = [broker.id for broker in brokers if broker.answers]
    if missing and there and (await admin.broker_config(there[0])).get(DEFAULT_REPLICAS) == "1":
        report.warn(
            DEFAULT_REPLICAS,
            f"It is 1, and engines make topics as the brokers say: one replica of {', '.join(missing)}.",
            f"Set {DEFAULT_REPLICAS}=3 on the brokers, or create these topics before an engine does.",
        )


async def _homes(admin: KafkaAdmin, topic: str, report: Report) -> None:
    """The topic whose partitions say which engine serves which timers; it holds nothing that could be lost."""
    partitions = await admin.partitions_of(topic)
    count = len(partitions)
    if not count:
        report.ok(
            topic,
            f"Does not exist yet; the engine will make it, with {HOMES} partitions, if it may create topics.",
        )
    elif count < HOMES:
        report.warn(
            topic,
            f"{_partitions(partitions)}: no more than {count} of the engines of a group can share the timers.",
            f"kafka-topics.sh --alter --topic {topic} --partitions {HOMES}",
        )
    else:
        report.ok(topic, f"{_partitions(partitions)}, for timers and what runs send to one another.")


async def _progress(admin: KafkaAdmin, topic: str, report: Report) -> None:
    configs = await _configs(admin, topic, report)
    policy = configs.get("cleanup.policy", "compact")
    if policy != "compact":
        report.fail(
            topic,
            f"cleanup.policy is {policy}: Kafka would forget how far was published.",
            f"kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact",
        )
    await _safety(admin, topic, configs, report)


async def _safety(admin: KafkaAdmin, topic: str, configs: dict[str, str], report: Report) -> None:
    """Whether a record that was confirmed survives the loss of a broker."""
    kept = await admin.kept_by(topic)
    least = min((len(one.replicas) for one in kept.values()), default=1)
    in_sync = _number(configs, "min.insync.replicas")
    if configs.get("unclean.leader.election.enable") == "true":
        report.fail(
            topic,
            "unclean.leader.election.enable is true: after an election confirmed records can be gone.",
            f"kafka-configs.sh --alter --topic {topic} --add-config unclean.leader.election.enable=false",
        )
    _standing(topic, kept, in_sync, report)
    if least < 2:  # noqa: PLR2004 - one copy is none
        report.warn(
            topic,
            f"{_partitions(kept)}, one replica: a lost disk loses events.",
            "In production, three replicas.",
        )
    elif in_sync == 1:
        report.warn(
            topic,
            f"{_partitions(kept)}, {least} replicas, min.insync.replicas 1: a record may be confirmed by one "
            "broker alone.",
            f"kafka-configs.sh --alter --topic {topic} --add-config min.insync.replicas=2",
        )
    else:
        report.ok(topic, f"{_partitions(kept)}, {least} replicas, min.insync.replicas {in_sync or '?'}.")


def _standing(topic: str, kept: Mapping[Partition, Kept], wanted: int, report: Report) -> None:
    """Whether all of it can be read and written just now, and still can when another broker goes."""
    unled = sum(one.leader < 0 for one in kept.values())
    too_few = sum(
        len(one.in_sync) < min(wanted, len(one.replicas)) for one in kept.values() if one.leader >= 0
    )
    lacking = sum(len(one.in_sync) < len(one.replicas) for one in kept.values())
    away = sorted({broker for one in kept.values() for broker in {*one.replicas} - {*one.in_sync}})
    cure = f"Start again what is away, or see why it lags: broker {', '.join(map(str, away))}."
    many = _partitions(kept)
    if unled:
        report.fail(topic, f"{many}, {unled} without a leader: nothing can be read or written there.", cure)
    if too_few:
        report.fail(
            topic,
            f"{many}, {too_few} with fewer replicas in sync than min.insync.replicas, {wanted}: nothing can be written "
            "there.",
            cure,
        )
    elif lacking and not unled:
        report.warn(
            topic,
            f"{many}, {lacking} with a replica that is not in sync: nothing is broken, until another broker goes.",
            cure,
        )


async def _configs(admin: KafkaAdmin, topic: str, report: Report) -> dict[str, str]:
    try:
        return await admin.topic_config(topic)
    except (SourceUnreachableError, NoSuchTopicError):
        raise
    except SourceError as error:
        report.warn(topic, f"Its settings cannot be seen: {error}", "Allow DESCRIBE_CONFIGS on the topic.")
        return {}


async def _positions(
    settings: KafkaSettings, wanted: Wanted, hidden: Collection[str], report: Report
) -> None:
    """Whether Kafka still has what is to be read next."""
    reader = KafkaReader(settings)
    await reader.start()
    try:
        topics = [one for one in _topics_of(wanted.positions) if one not in hidden]
        exist = {one for topic in topics for one in await reader.partitions_of(topic)}
        here = {one: at for one, at in wanted.positions.items() if one in exist}
        earliest, ends = await reader.earliest(here), await reader.ends(here)
        ids = await reader.ids_of(_topics_of(here))
        unread = await find_unread(reader, here, wanted.sources)
    finally:
        await reader.stop()
    lost = [one for one, at in sorted(here.items()) if not earliest[one] <= at <= ends[one]]
    for one in lost:
        report.fail(
            str(one),
            f"Its position is {here[one]}, and Kafka has {earliest[one]} to {ends[one]}.",
            _set_command(one, wanted),
        )
    anew = [
        one
        for one in sorted(here)
        if here[one] and _is_another(ids.get(one.topic), wanted.topic_ids.get(one))
    ]
    for one in anew:
        was, now = wanted.topic_ids[one], ids[one.topic]
        report.fail(str(one), f"{other_topic(one, here[one], was, now, _set_command(one, wanted))}.")
    for sentence in unread:
        report.warn("positions", sentence, CURE)
    if here and not lost and not anew:
        behind = sum(ends[one] - at for one, at in here.items())
        report.ok("positions", f"{_partitions(here)}, {behind:,} records behind.")


def _set_command(partition: Partition, wanted: Wanted) -> str:
    return position_command(
        partition.topic, partition.number, group=wanted.group, cluster=wanted.cluster or ""
    )


def _is_another(now: str | None, was: str | None) -> bool:
    return bool(now and was) and now != was


def _topics_of(partitions: Iterable[Partition]) -> list[str]:
    return sorted({partition.topic for partition in partitions})


def _partitions(many: Collection[Partition]) -> str:
    return "1 partition" if len(many) == 1 else f"{len(many)} partitions"


def _number(configs: dict[str, str], name: str) -> int:
    text = configs.get(name, "")
    return int(text) if text.isdigit() else 0
