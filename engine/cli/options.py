"""The options that many commands take, each declared once, and the settings that come of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import typer

from engine.cli.arguments import BIGINT_MAX, up_to
from engine.settings import Settings

WHERE = "Where"
"""The heading of the addresses in a command's help."""

Postgres = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        metavar="ADDRESS",
        help="Postgres, without a password; TLS by ?sslmode=... or PGSSLMODE. Or POINTSMAN_POSTGRES.",
        rich_help_panel=WHERE,
    ),
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        metavar="HOST:PORT",
        help="Kafka, several separated by commas; TLS and users by POINTSMAN_KAFKA_... (see `pointsman config`). "
        "Or POINTSMAN_KAFKA.",
        rich_help_panel=WHERE,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="What runs and positions belong to. Or POINTSMAN_NAMESPACE. \\[default: default]",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="NAME",
        help="The consumer group. Or POINTSMAN_GROUP. \\[default: pointsman.<namespace>]",
        rich_help_panel=WHERE,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output; engine/cli/README.md has its fields."),
]
Limit = Annotated[
    int,
    typer.Option(
        "--limit", metavar="N", min=0, callback=up_to(BIGINT_MAX), help="At most so many; 0 is all."
    ),
]
Modules = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE[:NAME]",
        help="package.module or path/to/file.py, and if only one of its pipelines is meant, its variable.",
        show_default=False,
    ),
]
ExecutorsOf = Annotated[
    str | None,
    typer.Option(
        "--executors",
        metavar="MODULE:NAME",
        help="Executors of work that steps describe: a dict of them, by its class. Or POINTSMAN_EXECUTORS.",
    ),
]
Who = Annotated[
    str | None,
    typer.Option("--who", metavar="NAME", help="Who decides this. \\[default: the user logged in]"),
]


def resolve(options: Mapping[str, str | None]) -> Settings:
    """The settings in force for a command that goes to Postgres.

    Raises:
        UsageError: one of them cannot be, or the address has a password in it.
    """
    from engine.store.connecting import check_address  # noqa: PLC0415 - needs an extra to be installed

    settings = Settings.resolve(options, os.environ)
    if (address := settings.value("postgres")) is not None:
        check_address(address)
    return settings
