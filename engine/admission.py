"""What an engine checks before it works on a store: its role, its definitions, and the others of its group."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from engine.errors import RefusedError
from engine.routing import Loaded
from engine.store.postgres import PostgresStore
from engine.store.queries import load
from statemachines.canonical import keyed_for_ever
from statemachines.machine import Machine

GONE_SECONDS = 2.0
GONE_LOOKS = 10
"""How long the connection of an engine that was killed may outlive it, and how often that is looked at meanwhile."""

CLOCK_SECONDS_MAX = 2.0
"""How far apart the clocks of the database and of this machine may be before it is worth a word."""

log = logging.getLogger("pointsman.engine")

_SQL = load("admission")
_ONE_OF_SET = re.compile(r"(\S+ version \d+) \((\w+)(?:, code (\w+))?\)")
"""A version in the words for a set: names have no blanks."""


async def check_role(connection: asyncpg.Connection[Any]) -> None:
    """Refuse to be owner or superuser, or to have a right to change the log: then nothing would refuse it.

    Raises:
        RefusedError: with what to do.
    """
    row = await connection.fetchrow(_SQL["role"])
    assert row is not None, "the current role is in pg_roles"
    superuser, owner, allowed, user = row
    if superuser:
        what = "a superuser"
    elif owner:
        what = "the owner of the event log"
    elif allowed:
        what = f"allowed to change the event log ({', '.join(allowed)})"
    else:
        return
    raise RefusedError(
        f"The role {user!r} is {what}, so that nothing would keep the log append-only. Run the engine as a role of "
        f"its own, with no other rights to the log than it is given so: CREATE ROLE my_engine LOGIN IN ROLE "
        "pointsman_engine"
    )


async def check_temporary(connection: asyncpg.Connection[Any]) -> None:
    """Refuse a role that may make no temporary tables: the changes of each commit are in one first.

    Raises:
        RefusedError: with what to do.
    """
    row = await connection.fetchrow(_SQL["may_make_temporary"])
    assert row is not None, "it is asked of no table"
    user, database, may = row
    if not may:
        raise RefusedError(
            f"The role {user!r} may make no temporary tables in the database {database!r}, and an engine needs one. As "
            f'the owner of the database: GRANT TEMPORARY ON DATABASE "{database}" TO pointsman_engine'
        )


async def clocks_apart(connection: asyncpg.Connection[Any], ours: datetime | None = None) -> str | None:
    """What follows from it, as a sentence, where this machine's clock is not that of the database."""
    began = time.monotonic()
    theirs = await connection.fetchval("select clock_timestamp()")
    ahead = ((ours or datetime.now(UTC)) - theirs).total_seconds()
    if abs(ahead) - (time.monotonic() - began) <= CLOCK_SECONDS_MAX:
        return None
    where, fire = ("ahead of", "early") if ahead > 0 else ("behind", "late")
    return (
        f"This machine's clock is {abs(ahead):.0f} s {where} the database's: timers that an engine serves here fire as "
        f"much too {fire}, and times in histories will not fit."
    )


async def tell_clock(connection: asyncpg.Connection[Any], ours: datetime | None = None) -> None:
    """Say where the clock of this machine will have timers fire at other times than they should."""
    if apart := await clocks_apart(connection, ours):
        log.warning("%s Let both follow a time server (NTP)", apart)


async def join_set(
    connection: asyncpg.Connection[Any], namespace: str, group: str, machines: Sequence[Machine]
) -> int:
    """Take the place of an engine that loads these pipelines, for as long as the connection lasts.

    Returns how many others of the group do the same.

    Raises:
        RefusedError: another engine of the group has loaded other ones, and each would dead-letter the other's types.
    """
    lock_class, lock_object, words = _set_of(namespace, group, machines)
    async with connection.transaction():
        # One at a time, or two that come at once would not see each other.
        await connection.execute("select pg_advisory_xact_lock($1, 0)", lock_class)
        await connection.execute(_SQL["describe_set"], lock_class, lock_object, words)
        await _refuse_others(connection, namespace, group, machines)
        others = await connection.fetchval(_SQL["others_of_set"], lock_class, lock_object)
        await connection.execute("select pg_advisory_lock_shared($1, $2)", lock_class, lock_object)
    return int(others)


async def note_definitions(
    connection: asyncpg.Connection[Any], namespace: str, group: str, loaded: Sequence[Loaded]
) -> None:
    """Say which definitions the set is that ``join_set`` has described, as soon as they are registered."""
    lock_class, lock_object, _ = _set_of(namespace, group, [one.machine for one in loaded])
    definitions = [one.definition for one in loaded]
    await connection.execute(_SQL["note_definitions"], lock_class, lock_object, definitions)


async def refuse_early(
    connection: asyncpg.Connection[Any],
    namespace: str,
    group: str,
    machines: Sequence[Machine],
    *,
    strict: bool,
) -> None:
    """Refuse what ``join_set`` and ``register`` would refuse, before the group hears of it.

    All others of a group stand still for a while where a member comes, and again where it goes.

    Raises:
        RefusedError: as those do.
    """
    await _refuse_others(connection, namespace, group, machines)
    if strict:
        for machine in machines:
            rows = await connection.fetch(_SQL["definitions_by_name"], namespace, machine.name)
            _refuse_changed(machine, [tuple(row) for row in rows], machines)


async def refuse_beside(connection: asyncpg.Connection[Any], namespace: str, group: str, broker: str) -> None:
    """Refuse to be the second engine on a broker that serves one only.

    One that was killed a moment ago is waited for.

    Raises:
        RefusedError: another one of the group is there.
    """
    lock_class = _number(f"{namespace}\0{group}")
    for _ in range(GONE_LOOKS):
        if not await connection.fetchval(_SQL["engines_of_group"], lock_class):
            return
        await asyncio.sleep(GONE_SECONDS / GONE_LOOKS)
    raise RefusedError(
        f"The broker at {broker} is the small one of `pointsman dev`, which serves one engine only, and another one of "
        f"the group {group!r} is at work on it. End that, or have two of them on a real Kafka: `pointsman dev --kafka "
        "apache`, or your own."
    )


async def register(store: PostgresStore, machines: Sequence[Machine], *, strict: bool) -> list[Loaded]:
    """Register the definitions, and learn the store's numbers for them.

    Unless ``strict``, a version may have changed: of open runs that follow it as it was, ``left_behind`` tells.

    Raises:
        RefusedError: (where strict) a version was registered with another structure or other code.
    """
    loaded = []
    for machine in machines:
        pipeline = await store.register_pipeline(machine.name)
        known = await store.definitions_of(pipeline)
        is_known = any(row[1:4] == (machine.version, machine.hash, machine.code) for row in known)
        if strict:
            _refuse_changed(machine, known, machines)
        number = await store.register_definition(
            pipeline, machine.version, machine.hash, machine.code, machine.structure
        )
        if not is_known:
            await store.tell_version(pipeline, machine.version)
        loaded.append(Loaded(machine, pipeline, number))
    keyed = {number: await _keyed(store, number) for number in {one.pipeline for one in loaded}}
    return [one._replace(keyed=keyed[one.pipeline]) for one in loaded]


async def _keyed(store: PostgresStore, pipeline: int) -> frozenset[str]:
    """Types, and patterns, for which any version that was ever registered names a business key that counts for ever."""
    return frozenset().union(*map(keyed_for_ever, await store.keyed_structures_of(pipeline)))


def tell_newer(loaded: Sequence[Loaded], pipeline: int, version: int, *, strict: bool) -> None:
    """Say that another engine has a newer version of a pipeline by now than any that is loaded here, if so it is.

    It is of another group, for those of one load the same; and it does not know that this one is there.
    """
    ours = [one.machine for one in loaded if one.pipeline == pipeline]
    if not ours or version <= max(machine.version for machine in ours):
        return
    log.warning(
        "an engine of another group has registered version %s of the pipeline %r, newer than any that is loaded here. "
        "What this engine reads for runs of that version holds them until an engine starts that has it; types that "
        "only that version knows are dead letters here%s. Load it here, too, or end this engine",
        version,
        ours[0].name,
        "; and this engine would not start again" if strict else "",
    )


def _refuse_changed(machine: Machine, known: Sequence[tuple[Any, ...]], machines: Sequence[Machine]) -> None:
    """Refuse a definition that is another one than was run with its version before, and one that is not the newest.

    ``known`` are (id, version, hash, code) of all that are registered of the pipeline. Raises RefusedError.
    """
    same_version = [row for row in known if row[1] == machine.version]
    is_known = any(row[2] == machine.hash and row[3] == machine.code for row in same_version)
    if same_version and not is_known:
        what = "another structure" if all(r[2] != machine.hash for r in same_version) else "other code"
        raise RefusedError(
            f"Pipeline {machine.name!r} version {machine.version} was run with {what} before. Runs in flight "
            f"follow what they started with: give the changed definition a new version, and load both."
        )
    newest = max((row[1] for row in known), default=0)
    if newest > max(m.version for m in machines if m.name == machine.name):
        raise RefusedError(
            f"Pipeline {machine.name!r} is registered with version {newest}, newer than any that is loaded here. "
            "An older engine would dead-letter types that it does not know: load the newer version, too. To go back "
            f"to what this one does, give it version {newest + 1}."
        )


async def _refuse_others(
    connection: asyncpg.Connection[Any], namespace: str, group: str, machines: Sequence[Machine]
) -> None:
    lock_class, lock_object, words = _set_of(namespace, group, machines)
    other = await connection.fetchval(_SQL["other_set"], lock_class, lock_object)
    if other is not None:
        raise RefusedError(
            f"Another engine of the group {group!r} has loaded other pipelines: {other}. This one would load "
            f"{words}.{_difference(other, words)} Engines of one group load the same: stop the others first. (In a "
            "--group of its own this one would read all topics anew, beside the others.)"
        )


def _set_of(namespace: str, group: str, machines: Sequence[Machine]) -> tuple[int, int, str]:
    """What stands for the group, what for these definitions in it, and these in words: a lock has two numbers."""
    identity = sorted((m.name, m.version, m.hash.hex(), m.code.hex()) for m in machines)
    words = ", ".join(
        f"{name} version {version} ({hash_[:8]}, code {code[:8]})" for name, version, hash_, code in identity
    )
    return _number(f"{namespace}\0{group}"), _number(repr(identity)), words


def _difference(theirs: str, ours: str) -> str:
    """Which versions are others there than here, as a sentence; empty where only one has such, or nobody knows.

    An engine of an earlier release may have said nothing of its code.
    """
    there, here = (
        {one[1]: (one[2], one[3]) for one in _ONE_OF_SET.finditer(set_)} for set_ in (theirs, ours)
    )
    told = []
    for name in sorted(here.keys() & there.keys()):
        (structure, code), (structure_there, code_there) = here[name], there[name]
        if structure != structure_there:
            told.append(f"the structure of {name}")
        elif code_there is not None and code != code_there:
            told.append(f"the code of {name}")
    return f" What differs is {', '.join(told)}." if told else ""


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big", signed=True)
