"""Puts an engine together from addresses and pipelines."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from dataclasses import dataclass, field, replace

from connectors.kafka.alone import AloneMembership
from connectors.kafka.membership import KafkaMembership
from connectors.kafka.reader import KafkaReader
from connectors.kafka.settings import KafkaSettings
from connectors.looping import BEAT
from connectors.source import Membership
from engine.admission import (
    check_role,
    check_temporary,
    join_set,
    note_definitions,
    refuse_beside,
    refuse_early,
    register,
    tell_clock,
    tell_newer,
)
from engine.engine import Engine
from engine.errors import ServiceUnreachableError
from engine.homes import homes_topic
from engine.limits import EngineLimits
from engine.observing import Observer, Silent
from engine.outlet import Outlet, ask_kafka
from engine.parts import Parts
from engine.routing import Routes, make_routes
from engine.starting import FirstPosition
from engine.steps.executors import ByClass, Executors, check_executors
from engine.store.connecting import connect
from engine.store.contract import Store, StoreUnavailableError
from engine.store.migrations import check_schema
from engine.store.postgres import PostgresStore
from statemachines.machine import Machine

log = logging.getLogger("pointsman.engine")

SMALL_CLUSTER = "mockCluster"
"""How the id of the cluster begins that the small broker is."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Where an engine works, and as whom."""

    postgres: str
    kafka: KafkaSettings
    namespace: str = "default"
    group: str | None = None
    """None: ``pointsman.<namespace>``."""
    instance: str | None = None
    """With a name the engine's membership is static: restarted, it finds its partitions again."""
    first: FirstPosition = "earliest"
    strict: bool = True
    """Refuse what breaks a promise (``run``) instead of warning (``dev``)."""
    alone: bool = False
    """Take all partitions without a group: for a broker without static members, which no other engine reads."""
    limits: EngineLimits = field(default_factory=EngineLimits)
    listen: tuple[str, int] | None = None
    """Host and port of ``/healthz``, ``/readyz`` and ``/metrics``; port 0 takes a free one. None: not served."""

    @property
    def group_name(self) -> str:
        """The consumer group."""
        return self.group or f"pointsman.{self.namespace}"


async def assemble(
    settings: EngineSettings,
    machines: Sequence[Machine],
    *,
    observer: Observer | None = None,
    outbox_depth: Callable[[], int] = lambda: 0,
    record_bytes_max: dict[str, int] | None = None,
    beat: MutableSequence[int] | None = None,
    executors: ByClass | None = None,
) -> Engine:
    """An engine, ready to ``run``.

    ``executors`` do the work that steps describe, by its class.

    Raises:
        PointsmanError: something is not as it must be; the message says what.
    """
    beat = [0] * BEAT if beat is None else beat
    known = Executors(executors, beat)
    check_executors(machines, known)
    await check_store(settings)
    await _check_early(settings, machines)
    reader = KafkaReader(settings.kafka)
    await reader.start()
    try:
        cluster = await reader.cluster_id()
    finally:
        await reader.stop()
    if cluster.startswith(SMALL_CLUSTER) and not settings.alone:
        await _check_alone(settings)
    topics = frozenset(topic.name for machine in machines for topic in machine.pipeline.read_topics)
    outlet = Outlet(ask_kafka(settings.kafka))
    machines = [replace(machine, outlet=outlet.refusal) for machine in machines]
    parts = Parts(
        membership=_membership(settings),
        reader=KafkaReader(settings.kafka),
        open_store=_opener(settings, cluster),
        prepare_store=_preparer(settings, machines, record_bytes_max or {}),
        topics=topics,
        cluster=cluster,
        first=settings.first,
        observer=observer or Silent(),
        beat=beat,
        outbox_depth=outbox_depth,
        outlet=outlet,
        limits=settings.limits,
        instance=settings.instance,
        executors=known,
        group=settings.group_name,
        homes=homes_topic(settings.namespace),
    )
    return Engine(parts)


def _membership(settings: EngineSettings) -> Membership:
    if settings.alone:
        return AloneMembership(settings.kafka)
    return KafkaMembership(settings.kafka, settings.group_name, instance=settings.instance)


async def check_store(settings: EngineSettings) -> None:
    """Refuse a store that is not there, not of this version, or entered in a role that may too much."""
    connection = await connect(settings.postgres, name="pointsman engine, checking")
    try:
        await check_schema(connection)
        await check_temporary(connection)
        if settings.strict:
            await check_role(connection)
        await tell_clock(connection)
    finally:
        await connection.close()


async def _check_early(settings: EngineSettings, machines: Sequence[Machine]) -> None:
    """Refuse to be the engine of a group that it would be refused by, before that stands still for it."""
    connection = await connect(settings.postgres, name="pointsman engine, checking")
    try:
        group, strict = settings.group_name, settings.strict
        await refuse_early(connection, settings.namespace, group, machines, strict=strict)
    finally:
        await connection.close()


async def _check_alone(settings: EngineSettings) -> None:
    """Refuse to be the second engine on the small broker, before that hears of it."""
    connection = await connect(settings.postgres, name="pointsman engine, checking")
    try:
        await refuse_beside(connection, settings.namespace, settings.group_name, settings.kafka.bootstrap)
    finally:
        await connection.close()


def _opener(settings: EngineSettings, cluster: str) -> Callable[[], Awaitable[Store]]:
    async def open_store() -> Store:
        try:
            return await PostgresStore.open(
                settings.postgres, namespace=settings.namespace, group=settings.group_name, cluster=cluster
            )
        except ServiceUnreachableError as error:
            raise StoreUnavailableError(str(error)) from error

    return open_store


def _preparer(
    settings: EngineSettings, machines: Sequence[Machine], record_bytes_max: dict[str, int]
) -> Callable[[Store], Awaitable[Routes]]:
    prepared = False

    async def prepare_store(store: Store) -> Routes:
        nonlocal prepared
        assert isinstance(store, PostgresStore)
        async with store.connection() as connection:
            await check_schema(connection)
            others = await join_set(connection, settings.namespace, settings.group_name, machines)
            # Only from here on nobody migrates without us.
            await check_schema(connection)
        if others and not prepared:
            # Later on it may be this one's own old connection that is not gone yet.
            log.info(
                "the group %r has %s already, which this one shares the partitions with; to have one that reads all of "
                "them by itself, stop the others",
                settings.group_name,
                "another engine" if others == 1 else f"{others} other engines",
            )
        prepared = True
        loaded = await register(store, machines, strict=settings.strict)
        async with store.connection() as connection:
            await note_definitions(connection, settings.namespace, settings.group_name, loaded)
        await store.hear_of_versions(
            lambda pipeline, version: tell_newer(loaded, pipeline, version, strict=settings.strict)
        )
        await store.ask_to_release([one.definition for one in loaded])
        return make_routes(loaded, record_bytes_max)

    return prepare_store
