"""What a batch must ask the store before its events can meet their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.arrival import Arrival
from engine.batch import Batch
from engine.log import digest_number
from engine.moves import RECENT_BYTES
from engine.routing import Route, TopicRoute, bytes_of
from engine.store.contract import Store
from engine.waiting import with_deferred
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


async def ask_for_seen(batch: Batch, arrivals: Sequence[Arrival], store: Store) -> int:
    """Ask about events of runs whose own memory of recent events may be too short, and of held runs.

    Returns how many events are deferred for the runs.
    """
    asked: list[tuple[int, int]] = []
    of_generations: dict[tuple[int, str, int], int] = {}
    held: set[int] = set()
    deferred: dict[int, int] = {}
    for arrival in arrivals:
        run = arrival[0].cache.get(arrival[1])
        if run is None:
            continue
        if run.generation:
            of_generations[arrival[0].pipeline, run.key, digest_number(arrival.digest)] = run.id
        elif len(run.recent) >= RECENT_BYTES:
            asked.append((run.id, digest_number(arrival.digest)))
        if run.held:
            held.add(run.id)
        if run.deferred:
            deferred[run.id] = len(run.deferred)
    if asked:
        batch.consumed |= await store.seen(asked)
    if of_generations:
        # Its newest generation may not be durable yet, so it goes by the key.
        seen = await store.seen_by_generations(list(of_generations))
        batch.consumed |= {(of_generations[one], one[2]) for one in seen}
    if held:
        batch.waiting |= await store.waiting_digests(sorted(held))
    return sum(deferred.values())
