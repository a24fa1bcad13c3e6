"""``migrate``, ``prune`` and ``config``: what a person looks after beside the engines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import check_text, up_to
from engine.cli.asking import ask_store, whoever
from engine.cli.failures import FAILED
from engine.cli.options import Group, Json, Kafka, Namespace, Postgres, Who, resolve
from engine.cli.output import counted, note, print_json, print_rows, say
from engine.limits import limits_told
from engine.setting_kinds import HIDDEN, LIMIT, Setting
from engine.settings import Settings, strange_variables

if TYPE_CHECKING:
    from engine.retention import Pruned
    from engine.store.connecting import Connection

PANEL = "Upkeep"
DAYS_MAX = 36_500
_POSTGRES_OWN = (
    *("PGPASSWORD", "PGPASSFILE", "PGTARGETSESSIONATTRS"),
    *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"),
)
"""Variables that Postgres' own clients read, and so do we."""
_THEIRS = "Postgres' own"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=PANEL)(migrate)
    app.command(rich_help_panel=PANEL)(prune)
    app.command(rich_help_panel=PANEL)(config)


def migrate(postgres: Postgres = None, json: Json = False) -> None:
    """Bring the database to this version's schema; nothing happens where it has it already.

    The role of the address becomes the owner. Engines use another one, a member of pointsman_engine.
    """
    from engine.store.migrations import SCHEMA_VERSION  # noqa: PLC0415 - needs an extra to be installed
    from engine.store.migrations import migrate as migrate_store  # noqa: PLC0415 - as above

    address = resolve({"postgres": postgres}).postgres
    applied = asyncio.run(migrate_store(address))
    if json:
        steps = [{"number": one.number, "name": one.name} for one in applied]
        print_json({"version": SCHEMA_VERSION, "applied": steps})
        return
    for one in applied:
        say(f"Applied {one.number:04} {one.name}.")
    say(f"The schema is version {SCHEMA_VERSION}{'' if applied else '; there was nothing to do'}.")
    if applied:
        note(
            "Engines need a role that does not own it, such as: "
            "CREATE ROLE my_engine LOGIN IN ROLE pointsman_engine"
        )


def prune(
    older_than: Annotated[
        int,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=1,
            callback=up_to(DAYS_MAX),
            help="Only what was not changed for so many days.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and do nothing.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")
    ] = "pruned at the command line",
    who: Who = None,
    postgres: Postgres = None,
    json: Json = False,
) -> int:
    """Empty old months of the log, of all namespaces. Only the role that owns the log may.

    A month has the rows of the runs that began in it. All of them go once the runs have ended, were not changed for so
    long, and have no open dead letters; engines may go on meanwhile. The month's partition stays, and the runs stay as
    they ended, with their keys, so that what still comes for them is late and has a place. Gone are their histories,
    and that an event is known again which such a run took longer ago than its last sixteen. With them go notes that are
    as old: of events that moved nothing, of dead letters that were dealt with, and answers to operators. Ends with 1
    where a month stays as it is only since somebody reads or writes it just now.
    """
    check_text("--reason", reason)
    check_text("--who", who)

    async def question(connection: Connection, _: str) -> Pruned:
        from engine.retention import prune  # noqa: PLC0415 - needs an extra to be installed

        before = await connection.fetchval("select now() - make_interval(days => $1)", older_than)
        return await prune(connection, before, who=whoever(who), why=reason, dry_run=dry_run)

    done = ask_store({"postgres": postgres}, question)
    ends_with = FAILED if any(one.in_use for one in done.months) else 0
    if json:
        print_json(done)
        return ends_with
    for one in done.months:
        what = f"{counted(one.runs, 'run')}, {one.bytes / 1_000_000:,.1f} MB"
        became = "emptied" if one.dropped else "would be emptied"
        say(f"{one.month}: {what}: {f'kept, since {one.kept}' if one.kept else became}.")
    if not done.months:
        say(f"No month of the log ended before {done.before:%Y-%m-%d}.")
    told = f"{counted(done.notes, 'note')} from before then"
    say(
        f"Beside the log, {told} {'would be' if dry_run else 'were'} dropped."
        if done.notes
        else "No notes are as old."
    )
    return ends_with


def config(
    postgres: Postgres = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    group: Group = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="The engine's limits, too, and what each of them is.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the settings in force, and where each came from; secrets stay hidden."""
    options = {"postgres": postgres, "kafka": kafka, "namespace": namespace, "group": group}
    settings = Settings.resolve(options, os.environ)
    shown = {name: _shown(one, settings) for name, one in settings.found.items()}
    theirs = {name: os.environ[name] for name in _POSTGRES_OWN if os.environ.get(name)}
    strange, told = strange_variables(os.environ), limits_told()
    if json:
        print_json(
            {
                name: {**_setting_json(one), "value": shown[name], "what": _what(one, told)}
                for name, one in settings.found.items()
            }
            | {name: _theirs_json(name, value) for name, value in theirs.items()}
        )
        return
    rows: list[tuple[object, ...]] = [
        (name, "-" if shown[name] is None else shown[name], one.source, _default(one), _what(one, told))
        for name, one in settings.found.items()
        if limits or not name.startswith(LIMIT) or one.origin != "default"
    ]
    rows += [(name, _hidden(name, value), "environment", "", _THEIRS) for name, value in theirs.items()]
    columns = ("setting", "value", "from", "default", "what it is")
    print_rows(columns, rows, optional=("default",), fold=("value", "what it is"))
    for sentence in strange:
        note(sentence)


def _shown(setting: Setting, settings: Settings) -> str | None:
    if setting.value is None:
        return f"pointsman.{settings.namespace}" if setting.kind.name == "group" else None
    if setting.kind.secret:
        return HIDDEN
    if setting.kind.name == "postgres":
        return masked_address(setting.value)
    return setting.value


def masked_address(address: str) -> str:
    """An address of Postgres without a password, also where asyncpg is not installed."""
    try:
        from engine.store.connecting import masked  # noqa: PLC0415 - needs an extra to be installed
    except ModuleNotFoundError:
        return HIDDEN
    return masked(address)


def _what(setting: Setting, limits: Mapping[str, str]) -> str:
    """What it is; of a limit, as it is said of ``limits``."""
    return limits.get(setting.kind.name.removeprefix(LIMIT), setting.kind.what)


def _default(setting: Setting) -> str:
    """What counts where nothing is set, of one that is."""
    return "" if setting.origin == "default" else setting.kind.default or "-"


def _setting_json(setting: Setting) -> dict[str, Any]:
    kind = setting.kind
    return {"from": setting.origin, "option": kind.option, "variable": kind.variable, "default": kind.default}


def _theirs_json(name: str, value: str) -> dict[str, Any]:
    told = {"option": None, "variable": name, "default": None, "value": _hidden(name, value), "what": _THEIRS}
    return {"from": "environment", **told}


def _hidden(name: str, value: str) -> str:
    return HIDDEN if name == "PGPASSWORD" else value
