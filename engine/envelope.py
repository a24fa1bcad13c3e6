"""What a log row keeps of a record beside its value: time, key and headers, as few bytes as they need.

The first byte says what follows: the record's time always; its key only where it is not just the run's key; its headers
only where there are any but the usual one. So an ordinary event costs seven bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Headers = Sequence[tuple[str, bytes | None]]

KEY_IS_RUN_KEY = 1
_NO_KEY = 2
HEADERS_ARE_USUAL = 4
_HEADERS = 8
_LONG_TIME = 16

USUAL_HEADERS: tuple[tuple[str, bytes], ...] = (("content-type", b"application/cloudevents+json"),)

TIME_MAX = 2**48 - 1
"""In milliseconds since 1970; a later time, and one before, takes more bytes."""
_SHORT = struct.Struct(">BHI")
_LONG = struct.Struct(">Bq")
_LENGTH = struct.Struct(">i")


def encode_envelope(time: int, key: bytes | None, headers: Headers, run_key: bytes) -> bytes:
    """Pack a record's time (milliseconds), key and headers; ``run_key`` is what can be left out."""
    flags = 0
    tail = b""
    if key == run_key:
        flags = KEY_IS_RUN_KEY
    elif key is None:
        flags = _NO_KEY
    else:
        tail = _LENGTH.pack(len(key)) + key
    if headers:
        if tuple(headers) == USUAL_HEADERS:
            flags |= HEADERS_ARE_USUAL
        else:
            flags |= _HEADERS
            tail += encode_headers(headers)
    if 0 <= time <= TIME_MAX:
        return _SHORT.pack(flags, time >> 32, time & 0xFFFFFFFF) + tail
    return _LONG.pack(flags | _LONG_TIME, time) + tail


def decode_envelope(packed: bytes, run_key: bytes) -> tuple[int, bytes | None, Headers]:
    """Time, key and headers, as they came."""
    flags = packed[0]
    if flags & _LONG_TIME:
        _, time = _LONG.unpack_from(packed)
        at = _LONG.size
    else:
        _, high, low = _SHORT.unpack_from(packed)
        time, at = high << 32 | low, _SHORT.size
    key: bytes | None = None
    if flags & KEY_IS_RUN_KEY:
        key = run_key
    elif not flags & _NO_KEY:
        key, at = _take(packed, at)
    if flags & HEADERS_ARE_USUAL:
        return time, key, USUAL_HEADERS
    return time, key, decode_headers(packed[at:]) if flags & _HEADERS else ()


def encode_headers(headers: Headers) -> bytes:
    """Pack headers; a name keeps what is not valid text in it, and a missing value is told from an empty one."""
    parts = []
    for name, value in headers:
        text = name.encode("utf-8", "surrogateescape")
        parts.append(_LENGTH.pack(len(text)) + text)
        parts.append(_LENGTH.pack(-1) if value is None else _LENGTH.pack(len(value)) + value)
    return b"".join(parts)


def decode_headers(packed: bytes) -> tuple[tuple[str, bytes | None], ...]:
    """Unpack headers."""
    at = 0
    found: list[tuple[str, bytes | None]] = []
    while at < len(packed):
        name, at = _take(packed, at)
        value, at = _take(packed, at)
        assert name is not None
        found.append((name.decode("utf-8", "surrogateescape"), value))
    return tuple(found)


def _take(packed: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _LENGTH.unpack_from(packed, at)
    at += _LENGTH.size
    if length < 0:
        return None, at
    return packed[at : at + length], at + length
