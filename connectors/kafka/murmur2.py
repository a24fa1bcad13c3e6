"""The hash by which Kafka's clients choose a key's partition, for many keys at once.

The algorithm is that of ``org.apache.kafka.common.utils.Utils.murmur2``. It multiplies 32-bit words, one key
after the other, which costs Python some ten microseconds a key. Here all keys of one length are laid side by
side into one large integer, 64 bits for each, so that a single multiplication does a step for all of them:
less than a microsecond a key where there are a thousand.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence

_SEED = 0x9747B28C
_M = 0x5BD1E995
_WORD = 0xFFFFFFFF
_LANE_BYTES = 8
_MANY = 8
"""From so many keys of one length on, the large integer is faster."""

assert array("I").itemsize * 2 == _LANE_BYTES, "the layout below takes unsigned ints for words"


def murmur2(key: bytes) -> int:
    """The hash of one key, 0 to 2**32 - 1."""
    length = len(key)
    rest = length & 3
    mixture = _SEED ^ length
    for word in struct.unpack_from(f"<{length >> 2}I", key):
        mixed = word * _M & _WORD
        mixture = (mixture * _M ^ (mixed ^ mixed >> 24) * _M) & _WORD
    if rest:
        mixture = (mixture ^ int.from_bytes(key[-rest:], "little")) * _M & _WORD
    mixture = (mixture ^ mixture >> 13) * _M & _WORD
    return mixture ^ mixture >> 15


def murmur2_all(keys: Sequence[bytes]) -> list[int]:
    """The hashes of all keys, in their order."""
    by_length: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_length.setdefault(len(key), []).append(index)
    hashes = [0] * len(keys)
    for length, indexes in by_length.items():
        found = _of_one_length([keys[index] for index in indexes], length)
        if len(found) == len(keys):
            return found
        for index, value in zip(indexes, found, strict=True):
            hashes[index] = value
    return hashes


def _of_one_length(keys: Sequence[bytes], length: int) -> list[int]:
    count = len(keys)
    if count < _MANY:
        return [murmur2(key) for key in keys]
    whole, rest = length >> 2, length & 3
    stride = whole + (rest > 0)
    padding = bytes(-length & 3)
    words = array("I", padding.join(keys) + padding)
    one = int.from_bytes((b"\x01" + bytes(_LANE_BYTES - 1)) * count, "little")
    mask = one * _WORD
    mixture = one * (_SEED ^ length)
    for column in range(whole):
        mixed = _lanes(words[column::stride]) * _M & mask
        mixed ^= mixed >> 24 & one * 0xFF
        mixture = (mixture * _M ^ mixed * _M) & mask
    if rest:
        mixture = (mixture ^ _lanes(words[whole::stride])) * _M & mask
    mixture = (mixture ^ mixture >> 13 & one * (_WORD >> 13)) * _M & mask
    mixture ^= mixture >> 15 & one * (_WORD >> 15)
    return array("I", mixture.to_bytes(_LANE_BYTES * count, "little"))[::2].tolist()


def _lanes(words: array[int]) -> int:
    lanes = array("I", bytes(_LANE_BYTES * len(words)))
    lanes[::2] = words
    return int.from_bytes(lanes.tobytes(), "little")
