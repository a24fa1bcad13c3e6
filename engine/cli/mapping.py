"""``definitions list`` and ``map``: which versions runs follow; open runs that are to follow another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import INT_MAX, check_one_of, check_text
from engine.cli.asking import Key, Pipeline, ask_store, unknown_pipeline, whoever
from engine.cli.looking import tell_limit
from engine.cli.many import Asks, do_to_many
from engine.cli.operating import Reason, Wait
from engine.cli.options import Json, Limit, Namespace, Postgres, Who
from engine.cli.output import note, print_json, print_rows
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.reading import Chosen, DefinitionView, Done
    from engine.store.connecting import Connection

PANEL = "Decisions"
_HASH_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    definitions = typer.Typer(
        name="definitions", help="Which version of their pipeline runs follow.", no_args_is_help=True
    )
    definitions.command("list")(list_versions)
    definitions.command("map")(map_runs)
    app.add_typer(definitions, rich_help_panel=PANEL)


def list_versions(
    pipeline: Pipeline = None,
    limit: Limit = 0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """List the versions that were ever run, the newest of each pipeline first, with the open runs that follow each.

    A version that no open run follows need not be loaded any more. Engines are those that are there now and have it
    loaded. A version that has changed since it was run, as dev allows, is there once for each structure and code.
    """

    async def question(connection: Connection, namespace: str) -> tuple[list[DefinitionView], str]:
        from engine.reading import list_definitions  # noqa: PLC0415 - needs an extra to be installed

        listed = await list_definitions(connection, namespace, pipeline=pipeline, limit=limit)
        return listed, "" if listed else await unknown_pipeline(connection, namespace, pipeline)

    found, unknown = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        print_rows(
            ("pipeline", "version", "definition", "code", "since", "open runs", "engines"),
            [
                (
                    one.pipeline,
                    one.version,
                    one.definition[:_HASH_SHOWN],
                    one.code[:_HASH_SHOWN],
                    one.registered,
                    one.runs,
                    one.engines,
                )
                for one in found
            ],
            right=("version", "open runs", "engines"),
        )
    tell_limit(len(found), limit, "definition", unknown)


def map_runs(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline of the runs.")],
    *,
    version: Annotated[
        int,
        typer.Option(
            "--from",
            metavar="VERSION",
            min=1,
            max=INT_MAX,
            help="The version that they follow.",
        ),
    ],
    to: Annotated[
        int,
        typer.Option(
            "--to",
            metavar="VERSION",
            min=1,
            max=INT_MAX,
            help="The version that they are to follow, loaded now.",
        ),
    ],
    reason: Reason,
    key: Key = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="running|held|paused",
            help="Only those that go on, or that are held or paused.",
        ),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            metavar="OLD=NEW",
            help="A step or compensation of another name; may be given several times.",
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="OLD=NEW", help="A state of another name; may be given several times."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Count the runs, say which would stay as they are for where they are, and do nothing.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it is done.")] = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Have open runs of a version follow another one that is loaded, and go on by it.

    All of them, where their version is not loaded any more; else those that are held or paused, such as by a bug that
    the other version does not have, and then nothing may have another name.

    Of each run the engine looks first whether all that it is in, waits for and may have to undo is there, under the
    same name or the one that is given; whether its timers are, and lead to the same; and whether its context is valid.
    One that does not fit stays as it is, and is told of; so does one that is being undone. In each log is a row that
    says who did it, and why. Ends with 1 where a run does not fit.
    """
    from engine.reading.mapping import MAPPED_STATUSES  # noqa: PLC0415 - needs an extra to be installed
    from statemachines.renames import Renames  # noqa: PLC0415 - pydantic is loaded only when needed

    check_one_of("status", status, MAPPED_STATUSES)
    check_text("--reason", reason)
    check_text("--who", who)
    renames = Renames(_renamed("--state", state), _renamed("--step", step))
    asks = Asks("map", dry_run, yes, json, f" to version {to}")
    asks.check()
    options = {"postgres": postgres, "namespace": namespace}

    async def choose(connection: Connection, namespace: str) -> list[Chosen]:
        from engine.reading import choose_to_map  # noqa: PLC0415 - needs an extra to be installed

        return await choose_to_map(
            connection, namespace, pipeline, version, to, renames, key=key, status=status
        )

    async def do(chosen: list[Chosen], connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import ask_to_map, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        said = pipeline, chosen, version, to, renames
        asked = await ask_to_map(connection, namespace, *said, who=whoever(who), why=reason)
        return await wait_until_done(connection, namespace, asked, seconds=wait)

    async def look(chosen: list[Chosen], connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import would_not_map  # noqa: PLC0415 - needs an extra to be installed

        return await would_not_map(connection, namespace, pipeline, chosen, version, to, renames)

    ended = do_to_many(asks, options, choose, do, look)
    if dry_run:
        note("They were only looked at: whether each of the others fits, an engine sees as it maps it.")
    return ended


def _renamed(option: str, given: list[str] | None) -> dict[str, str]:
    """What is called otherwise. Raises UsageError: that is no OLD=NEW, or says two things of one name."""
    found: dict[str, str] = {}
    for one in given or ():
        old, equals, new = one.partition("=")
        if not (old and equals and new):
            raise UsageError(f"{option} {one!r} is not of the form OLD=NEW.")
        if found.setdefault(old, new) != new:
            raise UsageError(f"{option} says both {found[old]!r} and {new!r} of {old!r}.")
    return found
