"""The caches of hot runs, brought down to their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.batch.batch import Batch
from engine.limits import EngineLimits
from engine.routing import Route, bytes_of

NOTHING: Mapping[str, int] = {}


def evict(routes: Sequence[Route], limits: EngineLimits, batch: Batch | None = None) -> None:
    """Bring the caches down to their limits, the least recently moved runs first.

    What ``batch`` moved stays, since it is not durable yet; None: all is.
    """
    bytes_max = limits.cache_bytes_max // max(1, len(routes))
    for route in routes:
        cache, moved = route.cache, NOTHING if batch is None else batch.moved(route)
        over = 0
        if route.cache_bytes > bytes_max:
            route.cache_bytes = sum(map(bytes_of, cache.values()))
            over = route.cache_bytes - bytes_max
        surplus = len(cache) - limits.cache_runs_max
        gone: list[str] = []
        if surplus > 0 or over > 0:
            for key, run in cache.items():
                if (len(gone) >= surplus and over <= 0) or key in moved:
                    break
                gone.append(key)
                over -= bytes_of(run)
                route.cache_bytes -= bytes_of(run)
        for key in gone:
            del cache[key]
