"""What the README shows is true: its code runs, and its commands are the ones that CI runs."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import typer

from engine.cli.app import app
from statemachines.definition import Pipeline
from statemachines.validation import find_mistakes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_pipeline_and_its_test_run_as_shown(tmp_path: Path) -> None:
    pipeline, test, publisher = blocks("python")
    file = tmp_path / "orders.py"
    file.write_text(pipeline, "utf-8")
    names: dict[str, Any] = {"__name__": "orders"}
    exec(compile(pipeline, str(file), "exec"), names)
    assert isinstance(names["flow"], Pipeline)
    assert not find_mistakes(names["flow"])
    exec(compile(test, "README.md", "exec"), names)
    compile(publisher, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_first_two_shell_blocks_are_one_line_each_and_ci_runs_the_second() -> None:
    demo, tests, *_ = blocks("sh")
    assert demo.strip().endswith("pointsman demo")
    assert tests.strip().endswith("-m tests")
    assert demo.count("\n") == tests.count("\n") == 1
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    [line] = [one for one in script.splitlines() if one.startswith("command=")]
    found = subprocess.run(
        ["bash", "-c", f'{line}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == tests.strip()


def test_every_command_that_the_readme_names_exists() -> None:
    group: Any = typer.main.get_command(app)
    named = set(re.findall(r"(?:^|`|bin/)pointsman ([a-z][a-z-]+)", TEXT, re.MULTILINE))
    assert {"run", "migrate", "explain"} <= named
    assert named <= set(group.commands)
