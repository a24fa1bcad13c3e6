"""All commands, and the one place where what they raise becomes a sentence and an exit code."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from engine.cli import (
    breakers,
    checking,
    completing,
    dead_letters,
    decisions,
    definitions,
    demo,
    dev,
    doctor,
    drawing,
    looking,
    mapping,
    operating,
    publish,
    run,
    unsticking,
    upkeep,
)
from engine.cli.failures import FAILED, INTERRUPTED, report


class Commands(TyperGroup):
    """Ends with an exit code, whatever a command raises."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; always raises SystemExit."""
        kwargs["standalone_mode"] = False
        try:
            returned = super().main(*args, **kwargs)
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            sys.exit(FAILED)
        except Exception as error:  # noqa: BLE001 - this is where all of them end
            sys.exit(_usage(error) or report(error))
        sys.exit(returned if isinstance(returned, int) else 0)


def _usage(error: Exception) -> int | None:
    """Say what was wrong with the arguments, if that is what it was."""
    message = getattr(error, "format_message", None)
    code = getattr(error, "exit_code", None)
    if message is None or not isinstance(code, int):
        return None
    context = getattr(error, "ctx", None)
    hint = f" Try: {context.command_path} --help" if context is not None else ""
    print(f"{message()}{hint}", file=sys.stderr)
    return code


app = typer.Typer(
    name="pointsman",
    cls=Commands,
    help="Pipelines that are state machines: from a Kafka record to a durable transition in Postgres.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pointsman {version('pointsman')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # It says much where there is no log to say it in; what matters of it, commands say themselves.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


for commands in (
    demo,
    dev,
    run,
    definitions,
    drawing,
    publish,
    looking,
    breakers,
    checking,
    dead_letters,
    operating,
    completing,
    unsticking,
    decisions,
    mapping,
    upkeep,
    doctor,
):
    commands.register(app)
