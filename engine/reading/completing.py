"""Steps that go on outside: what says how they ended, put into the inbox; and what waits to be completed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.errors import UsageError
from engine.reading.asking import check_said
from engine.reading.catalog import SQL
from engine.reading.errors import NotFoundError
from engine.reading.operating import AskedOfRun, json_data, put
from engine.reading.values import askable
from engine.store.connecting import Connection
from statemachines.limits import TOKEN_CHARACTERS_MAX

TOKEN_SECONDS = 2.0
"""So long a token is looked for that nobody knows: whoever does the work may be faster than the engine's commit."""
_LOOK_SECONDS = 0.05
WHY = "by its token"


async def ask_complete(
    connection: Connection,
    namespace: str,
    token: str,
    *,
    result: bytes | None = None,
    error: str | None = None,
    who: str,
    why: str = WHY,
    seconds: float = TOKEN_SECONDS,
) -> AskedOfRun:
    """Ask for a step to be completed that goes on outside. Needs the engine's role.

    Either ``result`` is what it has made, as JSON; or ``error`` is why it has failed. What fits its step is seen by the
    engine.

    Raises:
        NotFoundError: no step has waited for that token, and none has come to for so many seconds.
        UsageError: there is neither a result nor an error, or it cannot be one; or it is not said who asks, or why.
    """
    check_said("who asks", who)
    check_said("why", why)
    if (result is None) == (error is None):
        raise UsageError("Say how it ended: with a result, or with an error.")
    if error is not None:
        check_said("why it failed", error)
    form = json_data(result, "The result", "Nothing was done.")
    found = await _find(connection, namespace, token, seconds)
    body: dict[str, Any] = {"key": found["key"], "token": token}
    body["execution"] = [found[name] for name in ("run", "sequence", "number", "step", "attempt")]
    body |= {"result": form} if error is None else {"error": error}
    asked = AskedOfRun(
        0, "complete" if error is None else "fail", found["pipeline"], found["key"], token=token
    )
    return await put(connection, namespace, asked, body, who, why)


async def _find(connection: Connection, namespace: str, token: str, seconds: float) -> Any:
    until = time.monotonic() + seconds
    while token and len(token) <= TOKEN_CHARACTERS_MAX:
        found = await connection.fetchrow(SQL["token"], namespace, askable(token))
        if found is not None:
            return found
        if time.monotonic() >= until:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    raise NotFoundError(
        f"No step in the namespace {namespace!r} waits to be completed by the token {token!r:.100}, or ever has. It is "
        "the one that the step returned in Later, and is known once the engine has committed that."
    )
