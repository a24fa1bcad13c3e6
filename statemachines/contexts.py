"""How contexts are read and written: from the JSON that a run has, and as the JSON that it will have.

A run goes on from what survives being stored. Mostly that is found out by reading back what was written (``handlers``);
of plain contexts it is known (``plain``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachines.handlers import read_anew, write_and_read_back
from statemachines.limits import CONTEXT_BYTES_MAX

if TYPE_CHECKING:
    from statemachines.context import Context
    from statemachines.machine import Machine


def read(machine: Machine, written: bytes) -> Context:
    """The context as it was stored; one that nobody has had yet. Raises HandlerError."""
    kept = machine.kept
    if kept.contexts:
        context = kept.take(written)
        if context is not None:
            return context
    return read_anew(machine, written)


def write(machine: Machine, context: Context, name: str | None, before: bytes = b"") -> bytes:
    """The context as it is stored, and survives that.

    ``name`` is that of the handler that left it, ``before`` is how the run has it, to tell what has grown; empty where
    the run begins.

    Raises:
        HandlerError: it does not survive that, or is too large.
    """
    plain = machine.plain
    if plain is not None:
        written = plain.write(context)
        if 0 < len(written) <= CONTEXT_BYTES_MAX:
            return written
    return write_and_read_back(machine, context, name, before)


def write_last(machine: Machine, context: Context, name: str | None, before: bytes) -> bytes:
    """The same of one that the caller has no more use for, and has in one variable alone.

    It may go to the next who reads these bytes, where it is seen that no handler has kept it.
    """
    plain, kept = machine.plain, machine.kept
    if plain is not None and kept.pausing:
        kept.pausing -= 1
    elif plain is not None:
        written = plain.write_if_held_once(context)
        if 0 < len(written) <= CONTEXT_BYTES_MAX:
            kept.keep(written, context)
            return written
    return write(machine, context, name, before)
