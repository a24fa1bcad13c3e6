"""Contexts as they were read back after they were written, kept for the next who reads the same bytes.

Keeping one costs more than a microsecond, mostly because its memory is not used again at once; reading it anew costs
somewhat more. So it is worth it where runs move again soon, and not where thousands of others move before: that is
noticed, and nothing is kept for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachines.limits import KEPT_BYTES_MAX, KEPT_CONTEXTS_MAX, KEPT_PAUSE_CONTEXTS

if TYPE_CHECKING:
    from statemachines.context import Context

WORTH_ONE_IN: Final = 4
"""Keeping is worth it where one in so many is read again."""


class KeptContexts:
    """Those of one pipeline, by their JSON."""

    __slots__ = ("_read", "contexts", "pausing")

    def __init__(self) -> None:
        self.contexts: dict[bytes, Context] = {}
        self._read = 0
        """How many of them were read again."""
        self.pausing = 0
        """So many of the next are not kept."""

    def take(self, written: bytes) -> Context | None:
        """The context that was kept for these bytes, if one was: for whoever takes it, and no other."""
        context = self.contexts.pop(written, None)
        if context is not None:
            self._read += 1
        return context

    def keep(self, written: bytes, context: Context) -> None:
        """Keep a context, unless that was not worth it of late."""
        if self.pausing:
            self.pausing -= 1
            return
        if len(written) > KEPT_BYTES_MAX:
            return
        contexts = self.contexts
        if len(contexts) >= KEPT_CONTEXTS_MAX:
            contexts.clear()
            worth_it, self._read = self._read * WORTH_ONE_IN >= KEPT_CONTEXTS_MAX, 0
            if not worth_it:
                self.pausing = KEPT_PAUSE_CONTEXTS
                return
        contexts[written] = context
