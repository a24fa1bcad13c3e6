"""The command line: ``pointsman``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process was started with, and end with its exit code."""
    try:
        from engine.cli.app import app  # noqa: PLC0415 - importing the package alone costs nothing
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="pointsman")


__all__ = ["main"]
