"""The set of pipelines that an engine has loaded, as others know it while it is there: by a lock that its like share.

In Postgres the lock has two numbers, one for the namespace and its group, and one for the set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

Identity = tuple[str, int, str, str]
"""Of a definition: name and version of its pipeline, and the hashes of its structure and of its code, in hex."""


def group_number(namespace: str, group: str) -> int:
    """What stands for a group."""
    return _number(f"{namespace}\0{group}")


def set_number(identities: Iterable[Identity]) -> int:
    """What stands for these definitions in any group."""
    return _number(repr(sorted(identities)))


def set_words(identities: Iterable[Identity]) -> str:
    """These definitions for people, as in ``order version 1 (5f0ac3d1), order version 2 (9be2c03f)``."""
    return ", ".join(
        f"{name} version {version} ({structure[:8]})" for name, version, structure, _ in sorted(identities)
    )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big", signed=True)
