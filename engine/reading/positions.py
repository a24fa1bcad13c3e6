"""How far each partition is applied, and how a person sets that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine import channels
from engine.commands.words import shell_word
from engine.errors import UsageError
from engine.reading.catalog import SQL
from engine.reading.errors import NotFoundError
from engine.reading.values import askable, printable, shown_time
from engine.store.connecting import Connection
from statemachines.suggest import did_you_mean

_OFFSET_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PositionView:
    """A partition's position: the next offset to apply."""

    namespace: str
    group: str
    cluster: str
    topic: str
    partition: int
    position: int
    epoch: int
    """Raised by everyone who takes the partition."""
    updated: datetime
    topic_id: str = ""
    """What Kafka calls the topic that it is of; empty where nobody has heard that yet."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "group": self.group,
            "cluster": self.cluster,
            "topic": self.topic,
            "partition": self.partition,
            "position": self.position,
            "epoch": self.epoch,
            "updated": shown_time(self.updated),
            "topic_id": self.topic_id,
        }


@dataclass(frozen=True, slots=True)
class PositionSet:
    """What was set."""

    group: str
    cluster: str
    topic: str
    partition: int
    old: int
    new: int
    epoch: int

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "group": self.group,
            "cluster": self.cluster,
            "topic": self.topic,
            "partition": self.partition,
            "old": self.old,
            "new": self.new,
            "epoch": self.epoch,
        }


async def list_positions(
    connection: Connection,
    namespace: str,
    *,
    topic: str | None = None,
    group: str | None = None,
    cluster: str | None = None,
    limit: int = 0,
) -> list[PositionView]:
    """All positions of a namespace that are of these, by topic and partition; ``limit`` 0 gives all of them."""
    rows = await connection.fetch(SQL["positions"], namespace)
    found = [
        PositionView(
            namespace,
            row["consumer_group"],
            row["cluster"],
            row["topic"],
            row["partition"],
            row["position"],
            row["epoch"],
            row["updated"],
            row["topic_id"],
        )
        for row in rows
        if topic in (None, row["topic"])
        and group in (None, row["consumer_group"])
        and cluster in (None, row["cluster"])
    ]
    return found[:limit] if limit else found


async def set_position(
    connection: Connection,
    namespace: str,
    topic: str,
    partition: int,
    position: int,
    *,
    who: str,
    why: str,
    group: str | None = None,
    cluster: str | None = None,
) -> PositionSet:
    """Let a partition go on from another offset; as ``set_positions``."""
    (done,) = await set_positions(
        connection, namespace, topic, partition, position, who=who, why=why, group=group, cluster=cluster
    )
    return done


async def set_positions(
    connection: Connection,
    namespace: str,
    topic: str,
    partition: int | None,
    position: int,
    *,
    who: str,
    why: str,
    group: str | None = None,
    cluster: str | None = None,
) -> list[PositionSet]:
    """Let a partition, or None for all of a topic, go on from another offset; needs the engine's role.

    It raises the epochs, so that a batch in flight fails as a whole, and tells the engines to take their
    partitions anew. Who did it and why is kept.

    Raises:
        UsageError: what is given cannot be, or several groups or clusters have such a partition.
        NotFoundError: there is no such partition.
    """
    if not 0 <= position <= _OFFSET_MAX:
        raise UsageError(f"A position is an offset of 0 or more, not {position}.")
    if not who.strip() or not why.strip():
        raise UsageError("Say who sets the position, and why (--reason): it is kept.")
    topic, cluster = printable(topic), askable(cluster)
    async with connection.transaction():
        rows = await connection.fetch(SQL["lock_positions"], namespace, topic, partition, group, cluster)
        if not rows:
            raise NotFoundError(await _nothing_there(connection, namespace, topic, partition, group, cluster))
        places = dict.fromkeys((row["consumer_group"], row["cluster"]) for row in rows)
        if len(places) > 1:
            what = topic if partition is None else f"{topic}/{partition}"
            listed = "; ".join(_named(*place) for place in places)
            raise UsageError(f"{what} has several positions. Say which: {listed}.")
        done = []
        for number, found_group, found_cluster, part, old in rows:
            epoch = await connection.fetchval(SQL["set_position"], number, position)
            await connection.execute(SQL["add_position_change"], number, old, position, who, why)
            done.append(PositionSet(found_group, found_cluster, topic, part, old, position, epoch))
        await connection.execute(SQL["notify"], channels.POSITIONS)
    return sorted(done, key=lambda one: one.partition)


async def _nothing_there(
    connection: Connection,
    namespace: str,
    topic: str,
    partition: int | None,
    group: str | None,
    cluster: str | None,
) -> str:
    known = await list_positions(connection, namespace)
    of_topic = [one for one in known if one.topic == topic]
    if not of_topic:
        topics = dict.fromkeys(one.topic for one in known)
        return f"The namespace {namespace!r} has no position in the topic {topic!r}. {did_you_mean(topic, topics)}"
    there = [one for one in of_topic if partition in (None, one.partition)]
    if not there:
        numbers = dict.fromkeys(str(one.partition) for one in of_topic)
        return (
            f"{topic} has no position of a partition {partition} in the namespace {namespace!r}; "
            f"it has those of {', '.join(numbers)}."
        )
    what = topic if partition is None else f"{topic}/{partition}"
    for name, wanted, having in (
        ("group", group, {one.group for one in there}),
        ("cluster", cluster, {one.cluster for one in there}),
    ):
        if wanted is not None and wanted not in having:
            return (
                f"{what} has no position of the {name} {wanted!r} in the namespace {namespace!r}. "
                f"{did_you_mean(wanted, sorted(having))}"
            )
    pairs = sorted({(one.group, one.cluster) for one in there})
    listed = "; ".join(_named(*pair) for pair in pairs)
    return (
        f"{what} has no position of the group {group!r} in the cluster {cluster!r}; it has those of {listed}."
    )


def _named(group: str, cluster: str) -> str:
    return f"{shell_word(f'--group={group}')} {shell_word(f'--cluster={cluster}')}"
