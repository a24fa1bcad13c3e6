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
    near = nearest(word, words)
    if near is not None:
        return f"Did you mean {near!r}?"
    if not words:
        return "None are known."
    return f"Known {'is' if len(words) == 1 else 'are'} {listed(words)}."


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that ``word`` is a slip of, upper and lower case counting as the same; or None."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(word).casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def listed(words: Iterable[str]) -> str:
    """``'a', 'b' and 'c'``; long lists are cut off."""
    quoted = [repr(word) for word in words]
    if len(quoted) > _SHOWN_MAX:
        rest = len(quoted) - _SHOWN_MAX
        return f"{', '.join(quoted[:_SHOWN_MAX])} and {rest} more"
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else ""
