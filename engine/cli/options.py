"""The options that many commands take, each declared once."""

from __future__ import annotations

from typing import Annotated

import typer

WHERE = "Where"
"""The heading of the addresses in a command's help."""

Postgres = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        metavar="ADDRESS",
        help="Postgres, without a password. Or POINTSMAN_POSTGRES.",
        rich_help_panel=WHERE,
    ),
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        metavar="HOST:PORT",
        help="Kafka, several separated by commas. Or POINTSMAN_KAFKA.",
        rich_help_panel=WHERE,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="What runs and positions belong to. Or POINTSMAN_NAMESPACE. [default: default]",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="NAME",
        help="The consumer group. Or POINTSMAN_GROUP. [default: pointsman.<namespace>]",
        rich_help_panel=WHERE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many; 0 is all.")]
Modules = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE[:NAME]",
        help="package.module or path/to/file.py, and if only one of its pipelines is meant, its variable.",
        show_default=False,
    ),
]
Who = Annotated[
    str | None,
    typer.Option("--who", metavar="NAME", help="Who decides this. [default: the user logged in]"),
]
