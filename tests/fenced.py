"""Fenced blocks of a Markdown file, as its readers see them."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    """Those in one of these languages; the language of a block that names none is empty."""
    return [block for language, block in _BLOCK.findall(text) if language in languages]
