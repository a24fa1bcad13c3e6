"""What a batch must ask the store before its events can meet their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.batch.arrival import Arrival
from engine.batch.batch import Batch
from engine.batch.moves import RECENT_BYTES
from engine.batch.waiting import with_deferred
from engine.log import digest_number
from engine.routing import Route, TopicRoute, bytes_of
from engine.store.contract import Store
from statemachines.run import Run


async def load_for(
    batch: Batch, arrivals: Sequence[Arrival], store: Store, topics: Mapping[str, TopicRoute]
) -> int:
    """Bring the runs of these arrivals into the caches, and ask the log for events that may have been seen long ago.

    Other arrivals of the batch may meet their runs meanwhile. Returns how many events are deferred for the runs.
    """
    missing: dict[Route, set[str]] = {}
    for arrival in arrivals:
        route, key = arrival[0], arrival[1]
        if key not in route.cache:
            missing.setdefault(route, set()).add(key)
    for route, keys in missing.items():
        await load_into_cache(route, sorted(keys), store, topics)
    return await ask_for_seen(batch, arrivals, store)


async def load_into_cache(
    route: Route, keys: Sequence[str], store: Store, topics: Mapping[str, TopicRoute]
) -> None:
    """Bring these runs into the cache, with what is deferred for them; those that are there stay as they are."""
    found = await store.load_runs(route.pipeline, keys)
    for run in await with_deferred(route, found, store, topics):
        if run.key not in route.cache:
            keep(route, run)


def keep(route: Route, run: Run) -> None:
    """Have a run in the cache as the store has it."""
    route.cache[run.key] = run
    route.cache_bytes += bytes_of(run)


@dataclass(slots=True)
class _Asked:
    """Whether these were consumed: (run, digest), or by any run of a key (pipeline, key, digest), each with the run."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    by_keys: dict[tuple[int, str, int], int] = field(default_factory=dict)
    ids: list[tuple[int, int]] = field(default_factory=list)
    """Of source and id, among those of events with business keys."""
    ids_by_keys: list[tuple[int, str, int]] = field(default_factory=list)

    def ask_for_id(self, arrival: Arrival, run: Run) -> None:
        """Ask for source and id of an event, whatever its business key."""
        by_id = digest_number(arrival.id_digest)
        if run.generation:
            asked = arrival.route.pipeline, run.key, by_id
            self.by_keys[asked] = run.id
            self.ids_by_keys.append(asked)
            return
        self.ids.append((run.id, by_id))
        if len(run.recent) >= RECENT_BYTES:
            self.pairs.append((run.id, by_id))


async def ask_for_seen(batch: Batch, arrivals: Sequence[Arrival], store: Store) -> int:
    """Ask about events of runs whose own memory of recent events may be too short, and of held runs.

    Of ids beside business keys runs remember none. Returns how many events are deferred for the runs.
    """
    asked = _Asked()
    held: set[int] = set()
    deferred: dict[int, int] = {}
    for arrival in arrivals:
        run = arrival[0].cache.get(arrival[1])
        if run is None:
            continue
        if run.generation:
            asked.by_keys[arrival[0].pipeline, run.key, digest_number(arrival.digest)] = run.id
        elif len(run.recent) >= RECENT_BYTES:
            asked.pairs.append((run.id, digest_number(arrival.digest)))
        if arrival.id_digest:
            asked.ask_for_id(arrival, run)
        if run.held:
            held.add(run.id)
        if run.deferred:
            deferred[run.id] = len(run.deferred)
    if asked.pairs or asked.ids:
        batch.consumed.update(await store.seen(asked.pairs, asked.ids))
    if asked.by_keys:
        # Its newest generation may not be durable yet, so it goes by the key.
        seen = await store.seen_by_generations(list(asked.by_keys), asked.ids_by_keys)
        batch.consumed.update((asked.by_keys[one], one[2]) for one in seen)
    if held:
        batch.waiting |= await store.waiting_digests(sorted(held))
    return sum(deferred.values())
