"""Arrays as text, as Postgres reads them: for statements that are sent with others, and so cannot have parameters.

They have digits, letters and punctuation only that mean nothing to SQL: text is written in hex. To write a value so
takes less time than asyncpg takes to look at it in an array, so that it is worth it for a parameter, too. What users
have in their events is for COPY alone: Postgres tells of a statement that has failed in its own log.
"""

from __future__ import annotations

from collections.abc import Iterable


def numbers(values: Iterable[int]) -> str:
    """``int[]`` of any size."""
    return "{" + ",".join(map(int.__repr__, values)) + "}"


def numbers_or_null(values: Iterable[int | None]) -> str:
    """The same where some are missing."""
    return "{" + ",".join("null" if one is None else int.__repr__(one) for one in values) + "}"


def texts(values: Iterable[str]) -> str:
    """``text[]``: UTF-8 in hex, for ``convert_from(decode(..., 'hex'), 'UTF8')``."""
    return '{"' + '","'.join([one.encode().hex() for one in values]) + '"}'
