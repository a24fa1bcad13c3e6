"""Events that wait, as arrivals again: those behind what holds their run, and deferred ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from connectors.decode import Decoded, decode
from connectors.source import RawRecord
from engine.batch.arrival import Arrival
from engine.batch.identity import id_digest_of
from engine.batch.inside import inner_arrival, inner_topic
from engine.envelope import decode_envelope
from engine.log import digest_bytes
from engine.routing import Route, TopicRoute
from engine.store.contract import Store
from engine.store.values import WaitingEvent
from statemachines.run import DeferredEvent, Run
from statemachines.topic import Topic


async def arrival_of(
    event: WaitingEvent, route: Route, key: str, store: Store, topics: Mapping[str, TopicRoute]
) -> Arrival:
    """An event that waits, as the event that it was."""
    time_, record_key, headers = decode_envelope(event.envelope, key.encode())
    digest = digest_bytes(event.digest)
    if not event.position:
        record = RawRecord("", 0, 0, time_, record_key, event.payload, headers)
        return inner_arrival(route, key, record, digest)
    # The position need not be one that this engine reads, nor of the cluster that it reads.
    cluster, topic_name, partition = await store.origin_of(event.position)
    record = RawRecord(topic_name, partition, event.offset or 0, time_, record_key, event.payload, headers)
    topic = topics.get(topic_name) or inner_topic(route)
    decoded = _decode_as(event, record, cluster, route)
    by_id = id_digest_of(route, decoded.envelope)
    return Arrival(route, key, record, event.position, topic, decoded, digest, None, by_id)


async def with_deferred(
    route: Route, runs: Sequence[Run], store: Store, topics: Mapping[str, TopicRoute]
) -> list[Run]:
    """The runs with the events that are deferred for them."""
    waited_for = [run.id for run in runs if run.waiting]
    if not waited_for:
        return list(runs)
    by_run: dict[int, list[DeferredEvent]] = {}
    keys = {run.id: run.key for run in runs}
    for number, event, effects in await store.deferred_events(waited_for):
        arrival = await arrival_of(event, route, keys[number], store, topics)
        by_run.setdefault(number, []).append(deferred_event(event.sequence, effects, arrival))
    return [run._replace(deferred=tuple(by_run.get(run.id, ()))) for run in runs]


def deferred_event(sequence: int, effects: bytes, arrival: Arrival) -> DeferredEvent:
    """A deferred event, from its log row."""
    said = orjson.loads(effects)[0]
    envelope, data, _ = arrival.decoded
    return DeferredEvent(
        sequence, said["until"], said["then"], said["deferred"], arrival.digest, envelope, data, arrival
    )


def _decode_as(event: WaitingEvent, record: RawRecord, cluster: str, route: Route) -> Decoded:
    """Read a record as the event that it was, whatever the settings of its topic are by now."""
    identity = event.event_id, event.type
    machines = sorted(route.machines.values(), key=lambda machine: machine.version, reverse=True)
    topics = [one for machine in machines for one in machine.pipeline.read_topics if one.name == record.topic]
    for topic in topics:
        found = decode(record, topic.knowing(event.type), cluster)
        if isinstance(found, Decoded) and (found.envelope.id, found.envelope.type) == identity:
            return found
    # The version that it was read by is not loaded. What the settings tell beside its data is in the row; where its
    # record held several events, some version still says in which list.
    for each in (*(topic.each for topic in topics if topic.each is not None), None):
        found = decode(record, Topic(record.topic, type="", type_default=event.type, each=each), cluster)
        if isinstance(found, Decoded):
            return found._replace(envelope=found.envelope._replace(id=event.event_id))
    raise AssertionError("it could be read when it came, and these settings ask for nothing")
