"""Suites of statecharts that others wrote: each test plainly, killed and loaded after each commit, and replayed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.scxml.suite import BY_EYE, BY_THE_TEXT, LEFT_OUT, NAMES, W3C, live, outcome_of

HELD = [name for name in NAMES if name not in LEFT_OUT]
DESCRIPTION = Path(__file__).parents[2] / "statemachines" / "README.md"


@pytest.mark.parametrize("name", HELD)
def test_a_chart_of_an_outside_suite_comes_out_as_the_suite_says(name: str) -> None:
    plain = live(name)
    plain.check_log()
    dying = live(name, dies=True)
    assert dying.rows == plain.rows
    dying.check_log()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_left_out_for_what_it_says(name: str) -> None:
    assert LEFT_OUT[name].seen in outcome_of(name)


def test_every_test_is_held_or_in_the_table() -> None:
    assert LEFT_OUT.keys() | BY_THE_TEXT.keys() | BY_EYE <= set(NAMES)
    assert Counter(name.startswith(W3C) for name in HELD) == {False: 125, True: 131}
    assert Counter(name.startswith(W3C) for name in NAMES) == {False: 127, True: 203}


def test_the_description_says_how_many_hold() -> None:
    said = " ".join(DESCRIPTION.read_text("utf-8").split())
    assert "of the 127 tests of SCION's SCXML test framework 125 come out as they say" in said
    assert "of the W3C's own tests of SCXML, 203 in their ECMAScript form, 131," in said
    assert f"The other {len(LEFT_OUT)} are listed one by one" in said
