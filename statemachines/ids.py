"""Ids that are derived: what a run publishes, sends and asks for has the same ones after any number of crashes."""

from __future__ import annotations

import hashlib
from typing import Final

ASKED_IDS_FROM: Final = 1_000_000
"""Numbers of effects below are those of publications, whose ids are derived in the same way."""
_VARIANT: Final = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
_sha256: Final = hashlib.sha256


def derived_id(namespace: str, pipeline: str, key: str, generation: int, sequence: int, index: int) -> str:
    """The id of the effect (or of anything else) number ``index`` of a move of a run, as the text of a UUID.

    SHA-256 of these, cut; version 8 of RFC 9562, and its variant.
    """
    text = f"{namespace}\0{pipeline}\0{key}\0{generation}\0{sequence}\0{index}"
    digits: str = _sha256(text.encode()).hexdigest()
    variant = _VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def asked_id(namespace: str, pipeline: str, key: str, generation: int, sequence: int, number: int) -> str:
    """The id of what a move has asked for beside publications, by its number there: a timer, an event, or a step."""
    return derived_id(namespace, pipeline, key, generation, sequence, ASKED_IDS_FROM + number)


def number_of_id(derived: str) -> int:
    """What stands for such an id where a number has to: 60 of its bits that are the hash's."""
    return int(derived[:8] + derived[-7:], 16)
