"""The identity of a definition: what its structure hash and its code hash see, and what they do not."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from statemachines import Pipeline, Topic
from statemachines.canonical import canonical_bytes, keyed_for_ever
from statemachines.codehash import code_hash
from statemachines.loading import find_pipelines
from statemachines.shipped.orders import flow as orders
from statemachines.source import tree_of_file
from tests.kiln import flow as kiln
from tests.plain_orders import flow as plain_orders
from tests.unit.machines import Account, Added, Noted, account_pipeline, below_limit
from tests.ward import ward

ROOT = Path(__file__).parents[2]
NAMED = [Path(one) for one in os.environ.get("POINTSMAN_TEST_PYTHONS", "").split(os.pathsep) if one]
PYTHONS = sorted({Path(sys.executable), *(NAMED or Path.home().glob(".pyenv/versions/3.1[1-9]*/bin/python"))})
"""Interpreters to compare: this one, and those that the variable names, or else those of pyenv."""

SAY = """
import hashlib, sys
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.loading import find_pipelines
for target in sys.argv[1:]:
    for pipeline in find_pipelines(target):
        print(hashlib.sha256(canonical_bytes(pipeline)).hexdigest(), code_hash(pipeline).hex())
"""

TRICKY = '''
from __future__ import annotations
import enum
import math
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from statemachines import Context, Event, Pipeline, Publish
import helpers as tools
from helpers import LIMIT, double as twice

class Kind(enum.Enum):
    A = "ä"

class Begun(Event, type="begun", key="name"):
    """A docstring."""
    name: str
    """Of a field."""

class Box(Context):
    text: str = ""
    kinds: dict[str, Kind] = {}

def build(event: Begun) -> Box:
    name, width = event.name, 5
    return Box(text=f"a{name!r:>{width}}" "b" f"{'nested'}{name=}" f'{{}}' f"{math.pi:.3f}\\N{BULLET}{1}{2}")

def over(limit, *, kinds={Kind.A, "b", 3}):
    def guard(box: Box, event: Begun) -> bool:
        return twice(len(box.text)) > limit and tools.halve(3) < LIMIT and bool(kinds)
    return guard

def times(factor: int, box: Box, event: Begun) -> None:
    match box.text:
        case "x" | "y" if factor > 10**400:
            box.text = u"z"
        case str() as found:
            with open(found) as one, open(found) as two:
                pass

flow = Pipeline("tricky", Box, topics=["b", "a"])
only = flow.state("only", initial=True)
flow.start(Begun, build)
for event in [Event.named(name) for name in ("one", "two")]:
    [only.on(event, when=lambda box, event, n=n: n > 1, do=partial(times, n)) for n in (1, 2, 3)]
only.on(Begun, when=over(3), do=lambda box, event: Publish("out", event))
only.on(Begun, when=over(4.5))
for data in (Decimal("2.50"), timedelta(days=1, seconds=2), datetime(2026, 1, 1, tzinfo=timezone.utc), range(3)):
    only.on(Event.named(str(data)[:3]), when=over(data))
only.on(Event.named("found"), when=over(re.compile("a|ä", re.IGNORECASE)))
'''

HELPERS = """
LIMIT = 5

def double(number):
    return number * _factor()

def _factor():
    return 2

def halve(number):
    return number / 2

def unused():
    return None
"""


def hashes(python: Path, folder: Path, seed: str) -> list[str] | None:
    """What an interpreter says of three pipelines; None if it lacks what that needs."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": seed,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(Path.home()),
    }
    targets = [str(folder / "tricky.py"), "tests.kiln", "statemachines.shipped.orders"]
    done = subprocess.run(
        [python, "-c", SAY, *targets],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if any(f"No module named '{name}" in done.stderr for name in ("pydantic", "orjson", "tenacity")):
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def tricky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tricky")
    (folder / "tricky.py").write_text(TRICKY)
    (folder / "helpers.py").write_text(HELPERS)
    return folder


def test_hashes_are_equal_in_processes_with_other_hash_seeds(tricky: Path) -> None:
    first = hashes(Path(sys.executable), tricky, "0")
    assert first is not None
    assert len(first) == 3
    assert all(hashes(Path(sys.executable), tricky, seed) == first for seed in ("1", "4711"))


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_hashes_are_equal_on_other_versions_of_python(python: Path, tricky: Path) -> None:
    found = hashes(python, tricky, "random")
    if found is None and python not in NAMED:
        pytest.skip(
            f"{python} has not what pipelines need. Tests take interpreters that have it from POINTSMAN_TEST_PYTHONS."
        )
    assert found == hashes(Path(sys.executable), tricky, "0")


@pytest.mark.parametrize("pipeline", [kiln, orders])
def test_another_release_of_what_pipelines_are_written_with_is_no_other_code(
    pipeline: Pipeline[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = code_hash(pipeline), set[str]()

    def noted(file: str, variables: dict[str, Any]) -> ast.Module | None:
        read.add(str(variables["__name__"]))
        return tree_of_file(file, variables)

    monkeypatch.setattr("statemachines.reach.tree_of_file", noted)
    assert code_hash(pipeline) == before
    product = {"statemachines", "connectors", "engine"}
    assert read
    assert {
        one for one in read if one.split(".")[0] in product and not one.startswith("statemachines.shipped.")
    } == set()


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [("plain", plain_orders), ("chart", kiln), ("shipped", orders), ("starts", ward())],
)
def test_the_hashes_of_known_pipelines_are_those_in_the_golden_file(
    name: str, pipeline: Pipeline[Any]
) -> None:
    golden = orjson.loads((Path(__file__).parent / "golden_hashes.json").read_bytes())
    assert {
        "structure": hashlib.sha256(canonical_bytes(pipeline)).hexdigest(),
        "code": code_hash(pipeline).hex(),
    } == golden[name], (
        "the pipeline or the format has changed: runs in flight would not fit; if meant, renew this"
    )


def test_the_canonical_form_is_sorted_json_that_names_its_format() -> None:
    form = orjson.loads(canonical_bytes(account_pipeline()))
    assert form["format"] == "pointsman.definition/1"
    assert canonical_bytes(account_pipeline()) == orjson.dumps(form, option=orjson.OPT_SORT_KEYS)
    assert [state["name"] for state in form["states"]] == ["active", "full", "closed"]
    assert form["moves"][0] == {
        "source": "active",
        "event": "added",
        "target": None,
        "guard": "below_limit",
        "action": "add",
    }
    assert form["events"] == {
        "opened": "name",
        "added": "name",
        "closed": "name",
        "noted": None,
        "dropped": None,
    }


def swapped(flow: Pipeline[Account]) -> None:
    flow.moves[0], flow.moves[1] = flow.moves[1], flow.moves[0]


def reordered(flow: Pipeline[Account]) -> None:
    flow.states.reverse()


@pytest.mark.parametrize(
    "change",
    [
        swapped,
        reordered,
        lambda flow: flow.state("more"),
        lambda flow: flow.on(Noted),
        lambda flow: flow.moves.pop(),
        lambda flow: setattr(flow, "version", 2),
        lambda flow: setattr(flow, "closed", "ignore"),
        lambda flow: setattr(flow, "topics", [Topic("accounts", key="id")]),
        lambda flow: flow.states[1].on(Added, when=below_limit),
    ],
)
def test_the_structure_shows_every_change_that_matters(change: Any) -> None:
    flow = account_pipeline()
    before = canonical_bytes(flow)
    change(flow)
    assert canonical_bytes(flow) != before


def test_a_structure_tells_which_types_have_business_keys_that_count_for_ever() -> None:
    flow = account_pipeline()
    assert keyed_for_ever(canonical_bytes(flow)) == frozenset()
    flow.policy(Added, duplicate_by="amount")
    flow.policy(Noted, duplicate_by="text", duplicate_for=timedelta(days=1))
    flow.policy(Noted, unexpected="ignore")
    assert keyed_for_ever(canonical_bytes(flow)) == {"added"}
    for tampered in (b"", b"[]", b'{"policies": {"lines": [1]}}'):
        assert keyed_for_ever(tampered) == frozenset()


def test_descriptions_and_the_order_of_topics_do_not_matter() -> None:
    first = account_pipeline(description="one")
    second = account_pipeline(description="other")
    first.topics, second.topics = ["a", Topic("b")], ["b", "a"]
    assert canonical_bytes(first) == canonical_bytes(second)


def code_of(folder: Path, text: str, helpers: str = HELPERS) -> bytes:
    """The code hash of a pipeline in a module of its own, with a module of helpers beside it."""
    for name in ("tricky", "helpers"):
        sys.modules.pop(name, None)
    here = Path(folder / f"v{len(list(folder.iterdir()))}")
    here.mkdir()
    (here / "tricky.py").write_text(text)
    (here / "helpers.py").write_text(helpers)
    before = list(sys.path)
    sys.path.insert(0, str(here))
    try:
        return code_hash(find_pipelines(str(here / "tricky.py"))[0])
    finally:
        sys.path[:] = before
        for name in ("tricky", "helpers"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A docstring."""', '"""Another."""  # and a comment'),
        ('    """Of a field."""\n', ""),
        ("name, width = event.name, 5\n", "name, width = (\n        event.name,\n        5,\n    )\n"),
        ('u"z"', "'z'"),
        ("import enum\n", "import enum\nimport os\n"),
        ("import LIMIT, double as twice", "import double as twice, LIMIT"),
        ('topics=["b", "a"]', 'topics=["c"], description="x"'),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_code_hash(
    tmp_path: Path, old: str, new: str
) -> None:
    assert old in TRICKY
    assert code_of(tmp_path, TRICKY.replace(old, new)) == code_of(tmp_path, TRICKY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a{name!r:>{width}}", "a{name!s:>{width}}"),
        ("math.pi:.3f", "math.pi:.4f"),
        ("math.pi", "math.e"),
        ("import math\n", "import cmath as math\n"),
        ('A = "ä"', 'A = "a"'),
        ("over(4.5)", "over(4)"),
        ('Kind.A, "b", 3}', 'Kind.A, "b"}'),
        ("n=n: n > 1", "n=n: n > 2"),
        ("for n in (1, 2, 3)]", "for n in (1, 2, 4)]"),
        ('text: str = ""', 'text: str = "x"'),
        ("    name: str\n", "    name: str\n    more: int = 0\n"),
        ("10**400", "10**401"),
        ("double as twice", "halve as twice"),
        ("if factor > 10**400", "if factor >= 10**400"),
    ],
)
def test_a_change_of_any_function_or_class_changes_the_code_hash(tmp_path: Path, old: str, new: str) -> None:
    assert old in TRICKY
    assert code_of(tmp_path, TRICKY.replace(old, new)) != code_of(tmp_path, TRICKY)


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        ("LIMIT = 5", "LIMIT = 6", True),
        ("return 2", "return 3", True),
        ("number / 2", "number // 2", True),
        ("return None", "return 1", False),
        ("def unused", "# a comment\ndef unused", False),
    ],
)
def test_helpers_count_if_they_are_reached(tmp_path: Path, old: str, new: str, matters: bool) -> None:
    assert old in HELPERS
    changed = code_of(tmp_path, TRICKY, HELPERS.replace(old, new)) != code_of(tmp_path, TRICKY)
    assert changed == matters


def test_helpers_are_reached_through_packages_stars_and_imports_within_functions(tmp_path: Path) -> None:
    header = textwrap.dedent(
        """
        from statemachines import Context, Event, Pipeline
        from .stars import *
        from . import parts
        import {package}.deep.down as down
        class Begun(Event, type="begun"): pass
        class Empty(Context): pass
        def build(event):
            from .inner import inside
            inside(), starred(), parts.part(), down.bottom(), parts.unused_star
            return Empty()
        flow = Pipeline("packaged", Empty, topics=["t"])
        flow.state("only", initial=True, final=True)
        flow.start(Begun, build)
        """
    )
    sources = {
        "__init__": "",
        "stars": "from .starry import *\n",
        "starry": "from .stars import *\ndef starred(): return 1\n",
        "parts": "unused_star = 1\ndef part(): return 1\n",
        "inner": "def inside(): return 1\n",
        "deep/__init__": "",
        "deep/down": "def bottom(): return 1\n",
    }

    def hash_with(changed: str | None, number: int) -> bytes:
        package = f"packaged_{number}"
        folder = tmp_path / package
        (folder / "deep").mkdir(parents=True)
        for name, text in sources.items():
            (folder / f"{name}.py").write_text(
                text.replace("return 1", "return 2") if name == changed else text
            )
        (folder / "flows.py").write_text(header.format(package=package))
        try:
            return code_hash(find_pipelines(str(folder / "flows.py"))[0])
        finally:
            sys.path.remove(str(tmp_path))

    plain = hash_with(None, 0)
    helpers = ["starry", "parts", "inner", "deep/down"]
    found = {name: hash_with(name, number) != plain for number, name in enumerate(helpers, start=2)}
    assert found == dict.fromkeys(helpers, True)


def test_a_copy_in_another_place_under_another_name_hashes_the_same(tmp_path: Path) -> None:
    copy = tmp_path / "mine.py"
    copy.write_bytes((ROOT / "statemachines" / "shipped" / "orders.py").read_bytes())
    try:
        assert code_hash(find_pipelines(str(copy))[0]) == code_hash(orders)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["mine"]


def test_functions_without_source_are_known_by_name() -> None:
    def with_guard(guard: Any) -> bytes:
        flow = account_pipeline()
        flow.states[1].on(Added, when=guard)
        return code_hash(flow)

    namespace: dict[str, Any] = {}
    exec("def typed_in(a, b): return True\nclass Odd:\n  def __call__(self, a, b): return True", namespace)
    guards = [namespace["typed_in"], namespace["Odd"](), max, bool.__and__, "text".startswith, Account, print]
    found = [with_guard(guard) for guard in guards]
    assert [with_guard(guard) for guard in guards] == found
    assert len(set(found)) == len(guards)


def test_values_in_a_closure_may_contain_themselves() -> None:
    def make() -> Any:
        box: list[Any] = []

        def guard(_context: Any, _event: Any) -> bool:
            return bool(box) or guard(None, None)

        box += [box, guard]
        return guard

    flow = account_pipeline()
    flow.states[1].on(Added, when=make())
    assert code_hash(flow) == code_hash(flow)


def test_settings_of_topics_that_came_later_stand_in_the_form_where_they_are_used() -> None:
    def form(topic: Topic) -> dict[str, Any]:
        pipeline = account_pipeline()
        pipeline.topics = [topic]
        topics: list[dict[str, Any]] = orjson.loads(canonical_bytes(pipeline))["topics"]
        return topics[0]

    plain = form(Topic("s3"))
    assert not plain.keys() & {"each", "each_missing", "tombstones"}
    assert form(Topic("s3", tombstones="ignore")) == {**plain, "tombstones": "ignore"}
    assert form(Topic("s3", each="Records")) == {**plain, "each": "Records"}
    assert form(Topic("s3", each="Records", each_missing="ignore")) == {
        **plain, "each": "Records", "each_missing": "ignore",
    }  # fmt: skip
