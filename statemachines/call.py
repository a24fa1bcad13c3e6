"""What a step is given beside the context: which attempt this is, and how it says that it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from statemachines.limits import PROGRESS_BYTES_MAX

Beat = Callable[[bytes | None], None]
"""Takes a heartbeat, with the progress as JSON; None: as it was said last."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a step is to know beside the context: which attempt this is, at what."""

    idempotency_key: str
    """To be given to whoever does the work: equal for all attempts at one execution, and for nothing else."""
    attempt: int
    """The first is 1; of a call that is undone it is 0, since it is for all attempts of it."""
    key: str
    """The run's."""
    step: str
    last_error: str = ""
    """How the attempt before this one failed, as in ``Class: message``; empty where there is none."""
    undone: Call | None = None
    """Of a compensation: the call that it undoes, as ``of`` is; of a step: None."""
    progress: Any = field(default=None, hash=False)
    """What an attempt before this one said last of how far it had come (``heartbeat``); None: nothing."""
    beat: Beat | None = field(default=None, repr=False, compare=False)
    """Who is told of heartbeats; None: nobody, as in a unit test."""

    @property
    def of(self) -> Call:
        """The call that a compensation undoes.

        Raises:
            LookupError: it is the call of a step, which undoes nothing; ``undone`` is None there.
        """
        if self.undone is None:
            raise LookupError(
                f"{self.step} is no compensation, and its call is of none that it undoes: call.undone is None there"
            )
        return self.undone

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the attempt goes on, and how far it has come; from a thread as well as from the loop.

        It waits for nothing, and may be called as often as one likes. Of an attempt that is over it counts for nothing.

        Args:
            progress: what the next attempt is to see as ``call.progress``, if there is one: anything that JSON has
                words for. None: what was said last stays.

        Raises:
            ValueError: it cannot be kept, or is too large.
        """
        written = None if progress is None else _written(self.step, progress)
        if self.beat is not None:
            self.beat(written)


def read_progress(written: bytes | None) -> Any:
    """The progress as it was kept."""
    return None if written is None else from_json(written)


def _written(step: str, progress: Any) -> bytes:
    try:
        written = to_json(progress)
        from_json(written, allow_inf_nan=False)
    except Exception as error:  # noqa: BLE001 - serializers of models are user code
        why = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"what {step} says of its progress cannot be kept ({why}): say it in numbers, text, lists and objects"
        raise ValueError(message) from None
    if len(written) > PROGRESS_BYTES_MAX:
        message = (
            f"what {step} says of its progress takes {len(written)} bytes, of {PROGRESS_BYTES_MAX} allowed: "
            "put it where it belongs, and say what names it"
        )
        raise ValueError(message)
    return written
