"""Whether Kafka lets this user do what an engine does, as far as it tells without anything being done."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.allowing import may_not_see
from connectors.source import NotAllowedError, SourceUnreachableError
from engine.doctor.check import Report

READ = frozenset({"READ"})
WRITE = frozenset({"WRITE"})
NOBODY_HAS = "No broker that answers has"
THAT_OF_TOOLS = "the consumer group that tools see the lag by; they will see none"
CONSUMER_OFFSETS = (
    "kafka-topics.sh --describe --topic __consumer_offsets, and start the brokers that are away."
)


async def examine_topic_rights(
    admin: KafkaAdmin, needed: Mapping[str, frozenset[str]], report: Report
) -> set[str]:
    """Tell what is missing of what is needed on each topic; returns those that cannot even be seen."""
    hidden: set[str] = set()
    for topic, operations in needed.items():
        words = " and ".join(sorted(operations))
        try:
            granted = await admin.topic_rights(topic)
        except NotAllowedError:
            hidden.add(topic)
            report.fail(topic, may_not_see(admin.bootstrap, topic, words), _acl(words, "topic", topic))
            continue
        if granted is not None and (missing := sorted(operations - granted)):
            words = " and ".join(missing)
            report.fail(topic, f"This user may not {words} on the topic.", _acl(words, "topic", topic))
    return hidden


async def examine_group_rights(admin: KafkaAdmin, group: str, lag: str, report: Report) -> None:
    """Tell where an engine could not join its group, or not tell tools how far it is."""
    try:
        if _may_not_read(await admin.group_rights(group)):
            report.fail(group, "This user may not READ on the consumer group.", _acl("READ", "group", group))
    except SourceUnreachableError as error:
        sentence = f"{NOBODY_HAS} the consumer group: engines cannot share the partitions. {error}"
        report.fail(group, sentence, CONSUMER_OFFSETS, unreachable=True)
    try:
        if _may_not_read(await admin.group_rights(lag)):
            report.warn(lag, f"This user may not READ on {THAT_OF_TOOLS}.", _acl("READ", "group", lag))
    except SourceUnreachableError as error:
        report.warn(lag, f"{NOBODY_HAS} {THAT_OF_TOOLS}. {error}", CONSUMER_OFFSETS)


def _may_not_read(granted: frozenset[str] | None) -> bool:
    return granted is not None and not granted >= READ


def _acl(operations: str, kind: str, name: str) -> str:
    options = " ".join(f"--operation {one}" for one in operations.split(" and "))
    return f"kafka-acls.sh --add --allow-principal User:... {options} --{kind} {name}"
