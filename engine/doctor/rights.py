"""Whether Kafka lets this user do what an engine does, as far as it tells without anything being done."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.allowing import may_not_see
from connectors.source import NotAllowedError
from engine.doctor.check import Report

READ = frozenset({"READ"})
WRITE = frozenset({"WRITE"})


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
    granted = await admin.group_rights(group)
    if granted is not None and not granted >= READ:
        report.fail(group, "This user may not READ on the consumer group.", _acl("READ", "group", group))
    granted = await admin.group_rights(lag)
    if granted is not None and not granted >= READ:
        report.warn(
            lag,
            "This user may not READ on the consumer group that tools see the lag by; they will see none.",
            _acl("READ", "group", lag),
        )


def _acl(operations: str, kind: str, name: str) -> str:
    options = " ".join(f"--operation {one}" for one in operations.split(" and "))
    return f"kafka-acls.sh --add --allow-principal User:... {options} --{kind} {name}"
