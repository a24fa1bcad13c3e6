"""The hot path compiled, as it is installed where that is asked for: what holds for it in Python holds for it in C."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import pytest

from tests.services import UNAVAILABLE

ROOT = Path(__file__).parents[2]
COPIED = ("engine", "connectors", "statemachines", "tests", "benchmarks")
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
SUITES = (
    "tests/property/test_charts.py",
    "tests/property/test_fired.py",
    "tests/property/test_fold.py",
    "tests/property/test_machines.py",
    "tests/property/test_publications.py",
    "tests/property/test_scopes_random.py",
    "tests/property/test_written_plainly.py",
    "tests/unit/test_batch.py",
    "tests/unit/test_begun_beside.py",
    "tests/unit/test_cancelling.py",
    "tests/unit/test_chart_failures.py",
    "tests/unit/test_chart_runs.py",
    "tests/unit/test_compensations.py",
    "tests/unit/test_compensations_stopped.py",
    "tests/unit/test_compensations_undoing.py",
    "tests/unit/test_executions.py",
    "tests/unit/test_going.py",
    "tests/unit/test_handlers.py",
    "tests/unit/test_hanging.py",
    "tests/unit/test_interpreter.py",
    "tests/unit/test_kept_contexts.py",
    "tests/unit/test_language.py",
    "tests/unit/test_late_successes.py",
    "tests/unit/test_later.py",
    "tests/unit/test_loading.py",
    "tests/unit/test_misfits.py",
    "tests/unit/test_on_error.py",
    "tests/unit/test_ordering.py",
    "tests/unit/test_plain_contexts.py",
    "tests/unit/test_policies.py",
    "tests/unit/test_raised.py",
    "tests/unit/test_remembered.py",
    "tests/unit/test_scopes.py",
    "tests/unit/test_scxml_suites.py",
    "tests/unit/test_sends.py",
    "tests/unit/test_settling.py",
    "tests/unit/test_starts.py",
    "tests/unit/test_steps_end.py",
    "tests/unit/test_steps_ended.py",
    "tests/unit/test_steps_told.py",
    "tests/unit/test_tags.py",
    "tests/unit/test_testkit.py",
    "tests/unit/test_timers.py",
    "tests/unit/test_turns.py",
    "tests/unit/test_types.py",
    "tests/unit/test_undoing_as_stated.py",
    "tests/unit/test_values_of_handlers.py",
    "tests/unit/test_watchdog.py",
)
"""Of what is compiled, but those that put something of their own in its place, and those that take longest."""
HOOK = "[tool.hatch.build.targets.wheel.hooks.mypyc]"
QUICKLY = 'options = { opt_level = "0", debug_level = "0" }'
"""How quick it is, is not what is tested here, and making it so takes the C compiler longest."""
BUILD_SECONDS = 900.0
SUITES_SECONDS = 900.0

IS_COMPILED = """
import importlib, sys
for name in sys.argv[1:]:
    found = importlib.import_module(name).__file__
    assert not found.endswith(".py"), found
"""
HASHES = """
from engine.compiled import how_compiled
from statemachines.machine import compile_pipeline
from statemachines.shipped.orders import flow
machine = compile_pipeline(flow)
print(machine.hash.hex(), machine.code.hex(), how_compiled())
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose hot path is compiled."""
    if shutil.which("cc") is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        pytest.skip(
            f"{UNAVAILABLE}nothing is compiled, since there is no C compiler, or none of Python's headers."
        )
    folder = tmp_path_factory.mktemp("compiled")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in BESIDE:
        shutil.copy(ROOT / name, folder / name)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace(HOOK, f"{HOOK}\n{QUICKLY}"))
    environment = os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "1"}
    run(folder, "-m", "hatchling", "build", "-t", "wheel", environment=environment, seconds=BUILD_SECONDS)
    return folder


def run(folder: Path, *arguments: str, seconds: float, environment: dict[str, str] | None = None) -> str:
    """What Python says, with the packages of this folder."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=(environment or dict(os.environ)) | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]
    return done.stdout


def modules() -> list[str]:
    """Those that are to be compiled."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        hook = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    found = [path.relative_to(ROOT) for pattern in hook["include"] for path in sorted(ROOT.glob(pattern))]
    return [".".join(one.with_suffix("").parts) for one in found if one.name != "__init__.py"]


def test_what_is_named_is_compiled(compiled: Path) -> None:
    run(compiled, "-c", IS_COMPILED, *modules(), seconds=60.0)


def test_what_holds_for_it_as_python_holds_for_it_compiled(compiled: Path) -> None:
    said = run(compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES, seconds=SUITES_SECONDS)
    assert int(re.findall(r"(\d+) passed", said)[-1]) > 1_000


def test_a_definition_has_the_same_hashes_where_it_is_compiled(compiled: Path) -> None:
    here, there = (run(folder, "-c", HASHES, seconds=60.0).split() for folder in (ROOT, compiled))
    assert there == [*here, "compiled"]


def test_it_is_told_where_the_source_was_changed_since(compiled: Path) -> None:
    source = compiled / "statemachines" / "memory.py"
    before = source.stat().st_mtime
    os.utime(source, (time.time() + 3600, time.time() + 3600))
    try:
        assert run(compiled, "-c", HASHES, seconds=60.0).endswith("compiled from other source\n")
    finally:
        os.utime(source, (before, before))
