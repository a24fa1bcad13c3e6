"""What the README shows is true: its code runs, and its commands are the ones that CI runs."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli.app import app
from engine.metrics import CATALOGUE
from statemachines.definition import Pipeline
from statemachines.diagram import to_mermaid
from statemachines.testkit import given
from statemachines.validation import find_mistakes
from tests.fenced import blocks

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
OPERATING = (ROOT / "engine" / "operating.md").read_text("utf-8")
FENCED = re.MULTILINE | re.DOTALL


def test_the_pipeline_and_its_test_run_as_shown(tmp_path: Path) -> None:
    pipeline, test, _, _, publisher, client = blocks(TEXT, "python")
    file = tmp_path / "orders.py"
    file.write_text(pipeline, "utf-8")
    names: dict[str, Any] = {"__name__": "orders"}
    exec(compile(pipeline, str(file), "exec"), names)
    assert isinstance(names["flow"], Pipeline)
    assert not find_mistakes(names["flow"])
    (tmp_path / "test_orders.py").write_text(test, "utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
    for one in (publisher, client):
        compile(one, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_chart_that_it_shows_is_one_of_the_description_of_the_language() -> None:
    shown, _ = blocks(TEXT, "mermaid")
    language = (ROOT / "statemachines" / "README.md").read_text("utf-8")
    assert shown.replace('"incident version 1"', '"regions version 1"') in language


def test_the_saga_is_a_pipeline_that_is_drawn_as_shown_and_undone_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    _, _, saga, shop, *_ = blocks(TEXT, "python")
    request.addfinalizer(lambda: sys.modules.pop("shop", None))
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "saga.py").write_text(saga)
    monkeypatch.syspath_prepend(tmp_path)
    names = runpy.run_path(str(tmp_path / "saga.py"))
    flow = names["flow"]
    assert not find_mistakes(flow)
    _, drawn = blocks(TEXT, "mermaid")
    assert to_mermaid(flow) == drawn
    order = given(flow, names["Placed"](order="o1", amount=500)).step_done(names["charge"], "pay-1")
    order.step_done(names["reserve"], "shelf-1").step_done(names["ship"], "T-1").then(state="under_way")
    order.when(names["ParcelLost"](order="o1")).then_runs(names["release"]).undone(names["release"])
    order.then_runs(names["refund"]).undone(names["refund"]).then(state="undone", ended=True)


def test_the_first_two_shell_blocks_are_one_line_each_and_ci_runs_the_second() -> None:
    demo, tests, *_ = blocks(TEXT, "sh")
    assert demo.strip().endswith("pointsman demo")
    assert tests.strip().endswith("-m tests")
    assert demo.count("\n") == tests.count("\n") == 1
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    [line] = [one for one in script.splitlines() if one.startswith("command=")]
    found = subprocess.run(
        ["bash", "-c", f'{line}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == tests.strip()


def test_each_extra_is_told_and_what_one_writes_on_has_pytest() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert re.findall(r"^\| `pointsman\[(\w+)\]` \|", TEXT, re.MULTILINE) == [*extras]
    assert any(one.startswith("pytest>") for one in extras["dev"])


def shown_in_blocks() -> list[str]:
    """What follows `pointsman` on the lines of shell blocks."""
    lines = [line for block in blocks(TEXT + OPERATING, "sh", "") for line in block.splitlines()]
    return [found[1] for line in lines if (found := re.search(r"(?:^|bin/)pointsman (.+)$", line))]


def shown_in_prose() -> list[str]:
    """The same between backticks; names alone, which are no whole commands, too."""
    prose = re.sub(r"^```.*?^```$", "", TEXT + OPERATING, flags=FENCED)
    told = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [one.removeprefix("pointsman ") for one in told if one.startswith("pointsman ")]


def parse(text: str, *, names_alone: bool = False) -> str:
    """Let the command line read a command without running it; returns the command's name."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("pointsman", shlex.split(text, comments=True))
    names: list[str] = []
    while hasattr(command, "resolve_command"):
        words = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, words)
        names.append(name)
        if names_alone and not words:
            break
        context = command.make_context(name, words, parent=context)
    return " ".join(names)


def test_every_command_that_the_readme_shows_can_be_given_as_it_is_shown() -> None:
    in_blocks = {parse(one) for one in shown_in_blocks()}
    assert {"demo", "dev", "publish", "runs", "history", "explain", "dead-letters redrive"} <= in_blocks
    in_prose = {parse(one, names_alone=True) for one in shown_in_prose()}
    assert {"run", "migrate", "validate"} <= in_prose


@pytest.mark.parametrize("text", ["histroy o1", "history", "runs --limt 5", "dead-letters drop one"])
def test_a_command_that_cannot_be_given_is_noticed(text: str) -> None:
    with pytest.raises(Exception, match=r".+") as refused:
        parse(text)
    assert getattr(refused.value, "exit_code", None) == 2


def test_every_option_that_the_readme_names_exists() -> None:
    known: set[str] = set()

    def look(command: Any) -> None:
        known.update(option for parameter in command.params for option in parameter.opts)
        for inner in getattr(command, "commands", {}).values():
            look(inner)

    look(typer.main.get_command(app))
    named = set(re.findall(r"`(--[a-z-]+)", TEXT + OPERATING))
    assert "--instance" in named
    assert named <= known


def test_addresses_are_had_before_the_commands_that_need_them() -> None:
    [block] = [one for one in blocks(TEXT, "") if "pointsman publish" in one]
    assert (
        block.index(". .venv/bin/activate\n") < block.index(". .pointsman/env ") < block.index("pointsman ")
    )


@pytest.mark.parametrize("page", ["README.md", "engine/operating.md", "engine/python.md"])
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    text, folder = (ROOT / page).read_text("utf-8"), (ROOT / page).parent
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert linked
    assert [link for link in linked if not (folder / link).exists()] == []


def test_every_metric_that_is_worth_a_look_is_one() -> None:
    named = re.findall(r"^\| `(pointsman_\w+)` \|", OPERATING, re.MULTILINE)
    known = {one.name.replace(".", "_") for one in CATALOGUE}
    assert len(named) > 5
    assert {re.sub(r"(_seconds)?(_total)?$", "", one) for one in named} <= known
