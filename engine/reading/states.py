"""The states that there are to ask for."""

from __future__ import annotations

from collections.abc import Collection

from engine.errors import UsageError
from engine.reading.catalog import SQL
from engine.reading.values import askable, json_of
from engine.store.connecting import Connection
from statemachines.chart.tree import COMPENSATING
from statemachines.suggest import did_you_mean


async def check_states(
    connection: Connection, namespace: str, pipeline: str | None, states: Collection[str]
) -> frozenset[str]:
    """All states of a pipeline, or of all, in any version that was ever run.

    Raises:
        UsageError: one that is asked for is none of them. Where nothing was ever run, nothing is known of any.
    """
    rows = await connection.fetch(SQL["structures_of"], namespace, askable(pipeline))
    structures = [one for row in rows if isinstance(one := json_of(row["structure"]), dict)]
    # A structure that was tampered with is what verify finds.
    found = {str(state["name"]) for one in structures for state in one.get("states", ())}
    strange = sorted(set(states) - found - {COMPENSATING})
    if strange and found:
        whose = "any pipeline" if pipeline is None else pipeline
        raise UsageError(
            f"No version of {whose} that was ever run has a state {strange[0]!r}. "
            f"{did_you_mean(strange[0], sorted(found))}"
        )
    return frozenset({*found, COMPENSATING})
