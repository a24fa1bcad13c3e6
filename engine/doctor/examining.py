"""All areas, one after the other; what one of them cannot tell does not keep the others from telling."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TypeVar

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.source import Partition, SourceError
from engine.doctor.check import Check, Report, Verdict
from engine.doctor.kafka import Wanted, examine_kafka
from engine.doctor.postgres import examine_postgres
from engine.errors import PointsmanError, ServiceUnreachableError
from engine.left_behind import find_left_behind
from engine.reading import PositionView, list_positions
from engine.relay import relay_status
from engine.settings import Settings
from engine.store.connecting import connect
from engine.topics import dead_letter_topics, source_topics
from statemachines.machine import Machine

Value = TypeVar("Value")


async def examine(settings: Settings, machines: Sequence[Machine]) -> list[Check]:
    """Every check there is, in the order in which things depend on one another.

    Without machines, the topics are those that the namespace has positions in.
    """
    report = Report("settings")
    postgres = _given(report, "postgres", lambda: settings.postgres)
    kafka = _given(report, "kafka", lambda: settings.kafka)
    _given(report, "limits", lambda: settings.limits)
    _given(report, "from", lambda: settings.first)
    if importlib.util.find_spec("uvloop") is None:
        report.warn("uvloop", "It is not installed; the engine is slower without it.", "pip install uvloop")
    checks = report.checks
    if postgres is not None:
        checks += (await examine_postgres(postgres)).checks
    if kafka is not None:
        cluster, found = await _positions(settings, postgres, kafka)
        positions = {Partition(one.topic, one.partition): one.position for one in found}
        topic_ids = {Partition(one.topic, one.partition): one.topic_id for one in found}
        sources = source_topics(machines) if machines else sorted({one.topic for one in positions})
        group = settings.value("group") or f"pointsman.{settings.namespace}"
        letters = dead_letter_topics(machines)
        wanted = Wanted(settings.namespace, sources, letters, positions, cluster, group, topic_ids)
        checks += (await examine_kafka(kafka, wanted)).checks
    if postgres is not None and machines and not any(one.verdict is Verdict.FAIL for one in checks):
        checks += (await _versions(postgres, settings.namespace, machines)).checks
    if postgres is not None and kafka is not None and not any(one.unreachable for one in checks):
        checks += (await _relay(postgres, kafka, settings.namespace)).checks
    return checks


def _given(report: Report, name: str, value: Callable[[], Value]) -> Value | None:
    try:
        return value()
    except PointsmanError as error:
        report.fail(name, str(error))
        return None


async def _positions(
    settings: Settings, postgres: str | None, kafka: KafkaSettings
) -> tuple[str | None, list[PositionView]]:
    """The stored positions of this group in this cluster; none where they cannot be had."""
    if postgres is None:
        return None, []
    try:
        async with KafkaAdmin(kafka) as admin:
            cluster = await admin.cluster_id()
        connection = await connect(postgres, name="pointsman doctor", for_engine=False)
    except (SourceError, PointsmanError):
        return None, []
    try:
        found = await list_positions(connection, settings.namespace)
    except Exception:  # noqa: BLE001 - why the store cannot be read is told by its own checks
        return None, []
    finally:
        await connection.close()
    group = settings.value("group") or f"pointsman.{settings.namespace}"
    return cluster, [one for one in found if one.group == group and one.cluster == cluster]


async def _versions(postgres: str, namespace: str, machines: Sequence[Machine]) -> Report:
    report = Report("pipelines")
    try:
        connection = await connect(postgres, name="pointsman doctor", for_engine=False)
        try:
            found = await find_left_behind(connection, namespace, machines)
        finally:
            await connection.close()
    except Exception as error:  # noqa: BLE001 - told as a finding, like any other
        report.fail(
            "versions", f"It cannot be seen which runs follow others: {type(error).__name__}: {error}."
        )
        return report
    for one in found:
        report.warn("versions", str(one), one.cure)
    if not found:
        report.ok("versions", "Every open run follows a version that is loaded.")
    return report


async def _relay(postgres: str, kafka: KafkaSettings, namespace: str) -> Report:
    report = Report("relay")
    try:
        status = await relay_status(postgres, kafka, namespace)
    except ServiceUnreachableError as error:
        report.fail("progress", str(error))
    except PointsmanError:
        report.ok("progress", "No engine has run in this namespace yet.")
    except Exception as error:  # noqa: BLE001 - told as a finding, like any other
        report.fail("progress", f"It cannot be seen: {type(error).__name__}: {error}.")
    else:
        if status.healthy:
            report.ok("progress", f"{status.depth:,} commits wait to be published.")
        else:
            report.fail("progress", status.reason)
    return report
