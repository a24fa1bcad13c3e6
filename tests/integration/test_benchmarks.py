"""The benchmarks still run: all of them, at their smallest sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.scratch import scratch_folder
from tests.services import Kafka

CHECKOUT = Path(__file__).parents[2]
SECONDS_MAX = 900
CASES = {
    *("core", "w1a", "w1b", "w1c", "chart", "two", "bytes", "latency", "memory", "publishing"),
    *("deferred", "timers", "w2", "begun", "limited", "recovery"),
}


def test_a_smoke_of_the_benchmarks_measures_every_case(kafka: Kafka, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with scratch_folder("benchmarks") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--smoke", "--json", report],
            cwd=CHECKOUT,
            env=os.environ | {"BENCHMARK_KAFKA": kafka.bootstrap, "TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    cases = json.loads(report.read_text())["cases"]
    assert cases.keys() == CASES
    figures = {
        (name, figure["name"]): figure["value"] for name, one in cases.items() for figure in one["figures"]
    }
    assert set(figures) >= {
        ("w1a", "engine / baseline"),
        ("w1b", "engine / baseline"),
        ("chart", "chart / flat"),
        ("two", "two engines / one"),
        ("bytes", "bytes a transition"),
        ("latency", "p50, engine / baseline"),
        ("latency", "p99, engine / baseline"),
        ("memory", "engine's peak"),
        ("publishing", "publishing / not"),
        ("deferred", "early / in order"),
        ("timers", "with timers / alone"),
        ("timers", "p99 of lateness"),
        ("timers", "engine's peak"),
        ("w2", "saga / events, transitions"),
        ("begun", "p50, to the step / to the baseline's commit"),
        ("begun", "p99, to the step / to the baseline's commit"),
        ("limited", "peak with many / with few"),
        ("limited", "most at once"),
        ("recovery", "first commit"),
        ("recovery", "all again"),
    }
    assert figures["limited", "most at once"] <= 100
    assert all(value > 0 for (_, name), value in figures.items() if not name.startswith("change of"))
    assert cases["bytes"]["by_relation"]["events (table)"] > cases["bytes"]["event"] > 150
    # The names of the cases stand in what people read, too.
    assert all(f"## {name}: " in done.stdout for name in CASES)
