"""The outside suites, and what of them a pipeline cannot be held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from tests.scxml.content import UntranslatableError
from tests.scxml.ecmascript import UnsupportedScriptError
from tests.scxml.lived import Lived
from tests.scxml.scxml_file import Translated

FOLDER: Final = Path(__file__).parent / "suites" / "scion"
W3C: Final = "w3c-ecma"
A_WHILE: Final = 3_600_000
"""Longer than anything in the suites takes, in milliseconds."""

BY_THE_TEXT: Final = {"more-parallel/test10": "legacySemantics", "more-parallel/test10b": "legacySemantics"}
"""Where SCION went its own way: since its version 2 a transition of a region of a parallel state to that region leaves
nothing else. By the text its domain is a compound state (``findLCCA``), so that the parallel state is left, too. The
file has what is by the text under another name."""

BY_EYE: Final = frozenset(f"{W3C}/test{number}.txml" for number in (178, 307, 415))
"""Where a person is to read a log: what is held is that it ends in the state ``final``."""


@dataclass(frozen=True, slots=True)
class Left:
    """Why a test is left out, and what comes of it: what the translator refuses, or where the chart ends."""

    why: str
    seen: str


_INVOKE = Left("starts another chart; a pipeline has steps and Send instead", "<invoke>")
_HTTP = Left("Event I/O Processors: what comes in and goes out is Kafka's", "fail")
_HTTP_SCRIPT = Left(_HTTP.why, "a call of _event.raw.search")
_HTTP_REGEXP = Left(_HTTP.why, "a regular expression")
_FIELDS = Left(
    "fields of _event that tell of Event I/O Processors; an event's meta has its source, and what is raised has none",
    "fail",
)
_OTHER_SESSION = Left("error.communication: a Send to a run that is not there meets the policy there", "fail")
_UNDONE = Left("a difference of ours: a function that fails is undone whole", "fail")
_UNDONE_TIMEOUT = Left(_UNDONE.why, "s0")
_FUNCTION = Left("ECMAScript at large", "a script with 'function'")
_OBJECT = Left(_FUNCTION.why, "a script with 'new'")
_XML = Left("XML as data; data are JSON", "XML as data")
_ELSEWHERE = Left(
    "its script is a file on somebody's disk, and it is refused, as it should be", "No such file"
)

LEFT_OUT: Final[Mapping[str, Left]] = {
    "error/error": _FUNCTION,
    "script-src/test3": _FUNCTION,
    **{f"{W3C}/test{name}.txml": left for left, names in {
        _UNDONE: "156 402",
        _UNDONE_TIMEOUT: "553",
        _HTTP: "201 510 522 531 532 567 577",
        _HTTP_SCRIPT: "509 519 534",
        _HTTP_REGEXP: "518 520",
        _FIELDS: "198 325 326 329 330 331 336 349 352 500 501 569",
        _OTHER_SESSION: "496 521",
        _FUNCTION: "303-2 453",
        _OBJECT: "452",
        _XML: "557 561",
        _ELSEWHERE: "301",
        _INVOKE: (
            "187 191 192 207 215 216 220 223 224 225 226 228 229 230 232 233 234 235 236 237 239 240 241 242 243 244 "
            "245 247 250 252 253 276 338 347 422 530 554"
        ),
    }.items() for name in names.split()},
}  # fmt: skip


def _names() -> list[str]:
    found = sorted(str(one.relative_to(FOLDER).with_suffix("")) for one in FOLDER.rglob("*.scxml"))
    # Parts of others, which start them.
    return [name for name in found if "sub1" not in name]


NAMES: Final = _names()


def path_of(name: str) -> Path:
    """The chart of a test."""
    return FOLDER / f"{name}.scxml"


def live(name: str, *, dies: bool = False, make: Callable[[Path], Translated] = Translated) -> Lived:
    """Go through a test; AssertionError where anything is otherwise than it says."""
    lived = Lived(lambda: make(path_of(name)).machine(), dies=dies)
    if name.startswith(W3C):
        # The tests of the recommendation end in a state of this name, whatever comes in between.
        lived.pass_by(A_WHILE)
        assert lived.basic == {"final" if name in BY_EYE else "pass"}
        return lived
    script: dict[str, Any] = orjson.loads(path_of(name).with_suffix(".json").read_bytes())
    script = script[BY_THE_TEXT[name]] if name in BY_THE_TEXT else script
    assert lived.basic == set(script["initialConfiguration"])
    for one in script["events"]:
        lived.pass_by(one.get("after", 0))
        lived.tell(one["event"]["name"], one["event"].get("data"))
        assert lived.basic == set(one["nextConfiguration"]), one
    return lived


def outcome_of(name: str) -> str:
    """What comes of a test that is left out."""
    try:
        translated = Translated(path_of(name))
    except (UntranslatableError, UnsupportedScriptError, FileNotFoundError) as refused:
        return str(refused)
    lived = Lived(translated.machine)
    lived.pass_by(A_WHILE)
    return " ".join(sorted(lived.basic))
