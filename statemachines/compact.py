"""JSON that is kept for a while, in no more memory than it needs.

What orjson writes has room behind it, which it gives back as it ends. Allocators hand that out again only to what is
smaller: each document that is kept takes a few thousand bytes, and the time to get them from the system.
"""

from __future__ import annotations

from typing import Any

import orjson

_join = b"".join


def dumps_compact(value: Any, option: int | None = None) -> bytes:
    """What ``orjson.dumps`` says, copied into memory of its own size. Raises what that does."""
    return _join((orjson.dumps(value, option=option), b""))
