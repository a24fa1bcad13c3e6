"""The command line: ``pointsman``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run the command that the process was started with, and end with its exit code."""
    sys.unraisablehook = _pass_over
    try:
        from engine.cli.app import app  # noqa: PLC0415 - importing the package alone costs nothing

        app(prog_name="pointsman")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # All is said; a moment later the process is over, and not with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pass_over(raised: UnraisableHookArgs) -> None:
    """Of a Ctrl-C that falls into the end of an object, where nothing can be interrupted, say nothing."""
    if not issubclass(raised.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(raised)


__all__ = ["main"]
