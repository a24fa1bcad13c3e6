"""All commands, and the one place where what they raise becomes a sentence and an exit code."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator
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
from engine.cli.failures import INTERRUPTED, UNREAD, report
from engine.cli.streams import UnwritableError, give_up_output, have_streams, is_unread
from engine.compiled import how_compiled


class _BrokenPipeError(Exception):
    """A pipe broke: that of the answer, or a connection. By itself click ends with 1 for either, without a word."""


class _UnreadError(Exception):
    """Nobody reads the answer any more."""


class Commands(TyperGroup):
    """Ends with an exit code, whatever a command raises."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; always raises SystemExit."""
        kwargs["standalone_mode"] = False
        have_streams()
        try:
            with _broken_pipes():
                returned = super().main(*args, **kwargs)
                sys.stdout.flush()
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except _UnreadError:
            sys.exit(UNREAD)
        except _BrokenPipeError as broken:
            sys.exit(UNREAD if is_unread() else _tell(ConnectionError(str(broken))))
        except UnwritableError as error:
            give_up_output()
            sys.exit(_tell(error))
        except Exception as error:  # noqa: BLE001 - this is where all of them end
            sys.exit(_tell(error))
        sys.exit(returned if isinstance(returned, int) else 0)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments; where they ask for help, that is shown."""
        with _broken_pipes():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that they name."""
        with _broken_pipes():
            return super().invoke(*args, **kwargs)


@contextlib.contextmanager
def _broken_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _BrokenPipeError(str(error)) from error
    except SystemExit as end:
        # What draws tables and help ends so by itself.
        if isinstance(end.__context__, BrokenPipeError):
            raise _UnreadError from end
        raise


def _tell(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    try:
        return _usage(error) or report(error)
    except BrokenPipeError:
        is_unread()
        return UNREAD


def _usage(error: Exception) -> int | None:
    """Say what was wrong with the arguments, if that is what it was."""
    message = getattr(error, "format_message", None)
    code = getattr(error, "exit_code", None)
    if message is None or not isinstance(code, int):
        return None
    context = getattr(error, "ctx", None)
    hint = f" Try: {context.command_path} --help" if context is not None else ""
    print(f"{message().rstrip('.')}.{hint}", file=sys.stderr)
    return code


app = typer.Typer(
    name="pointsman",
    cls=Commands,
    help="Pipelines that are state machines: from a Kafka record to a durable transition in Postgres. "
    "All times are told in UTC.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(", ".join(filter(None, (f"pointsman {version('pointsman')}", how_compiled()))))
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


def _flow(group: typer.Typer) -> None:
    """Have help break its lines where the terminal ends, and not where those of a docstring do."""
    for command in group.registered_commands:
        paragraphs = inspect.cleandoc((command.callback and command.callback.__doc__) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(one.split()) for one in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _flow(inner.typer_instance)


_flow(app)
