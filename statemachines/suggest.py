"""'Did you mean' for names that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN_MAX = 10


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A sentence that names the known word nearest to ``word``, or else the known ones.

    ``Did you mean 'paid'?`` or ``Known are 'paid' and 'placed'.`` or ``None are known.``
    """
    words = list(dict.fromkeys(known))
    by_folded = {name.casefold(): name for name in words}
    near = difflib.get_close_matches(str(word).casefold(), by_folded, n=1)
    if near:
        return f"Did you mean {by_folded[near[0]]!r}?"
    if not words:
        return "None are known."
    return f"Known {'is' if len(words) == 1 else 'are'} {listed(words)}."


def listed(words: Iterable[str]) -> str:
    """``'a', 'b' and 'c'``; long lists are cut off."""
    quoted = [repr(word) for word in words]
    if len(quoted) > _SHOWN_MAX:
        rest = len(quoted) - _SHOWN_MAX
        return f"{', '.join(quoted[:_SHOWN_MAX])} and {rest} more"
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else ""
