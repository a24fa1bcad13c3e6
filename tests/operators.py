"""What operators ask of runs that are fed: asked as the command line does it, and taken up at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import orjson

from engine.reading import (
    AskedOfRun,
    Done,
    ask_complete,
    ask_of_pipeline,
    ask_of_run,
    ask_send,
    end_told,
    wait_until_done,
)
from engine.reading.operating import What
from engine.store.connecting import Connection, connect
from tests.feeding import Feeding

WHO, WHY = "ana", "the customer called"


async def send(
    feeding: Feeding,
    pipeline: str,
    key: str,
    event_type: str,
    data: Any = None,
    *,
    id: str | None = None,
    why: str = WHY,
) -> Done:
    """Send an event."""
    given = None if data is None else orjson.dumps(data)

    async def question(connection: Connection) -> AskedOfRun:
        return await ask_send(
            connection,
            feeding.namespace,
            pipeline,
            key,
            event_type,
            given,
            who=WHO,
            why=why,
            event_id=id,
        )

    return await _done(feeding, question)


async def ask(
    feeding: Feeding, what: What, pipeline: str, key: str, *, why: str = WHY, result: bytes | None = None
) -> Done:
    """Have something done to a run."""

    async def question(connection: Connection) -> AskedOfRun:
        return await ask_of_run(
            connection, feeding.namespace, what, pipeline, key, who=WHO, why=why, result=result
        )

    return await _done(feeding, question)


async def ask_pipeline(
    feeding: Feeding, what: Literal["pause", "resume"], pipeline: str, *, why: str = WHY
) -> Done:
    """Have a pipeline paused or resumed."""

    async def question(connection: Connection) -> AskedOfRun:
        return await ask_of_pipeline(connection, feeding.namespace, what, pipeline, who=WHO, why=why)

    return await _done(feeding, question)


async def _done(feeding: Feeding, ask: Callable[[Connection], Awaitable[AskedOfRun]]) -> Done:
    connection = await connect(feeding.database.engine_dsn, for_engine=False)
    try:
        asked = await ask(connection)
        await feeding.commands()
        (done,) = await wait_until_done(connection, feeding.namespace, [asked], seconds=0)
        await end_told(connection, [done], who=WHO)
    finally:
        await connection.close()
    return done


async def complete(feeding: Feeding, token: str, result: Any = None, *, error: str | None = None) -> Done:
    """Have a step completed that goes on outside."""
    given = None if error is not None else orjson.dumps(result)

    async def question(connection: Connection) -> AskedOfRun:
        return await ask_complete(
            connection, feeding.namespace, token, result=given, error=error, who=WHO, why=WHY, seconds=0
        )

    return await _done(feeding, question)
