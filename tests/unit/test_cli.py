"""Commands that need no service: answers on standard output, sentences on standard error, exit codes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer
from typer.testing import CliRunner

from engine.cli.app import app
from engine.cli.failures import explain
from engine.errors import ServiceUnreachableError
from engine.limits import EngineLimits
from engine.reading import Mismatch, PausedPipeline, ReplayReport
from tests.cli import apart, entry, environment
from tests.documented import Page

DEFINED = "statemachines.shipped.orders"
MISTAKEN = """
from statemachines import Context, Event, Pipeline

class Opened(Event, type="opened", key="id"):
    id: str

class Thing(Context):
    id: str

flow = Pipeline("thing", Thing, topics=["things"])
one = flow.state("one", initial=True)
two = flow.state("two", final=True)
flow.start(Opened, lambda event: Thing(id=event.id))
one.on(Opened, to="tow")
"""


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    file = tmp_path / "mistaken.py"
    file.write_text(MISTAKEN)
    return file


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in [name for name in environment({}) if name.startswith("POINTSMAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("typer.testing._get_command", entry)
    return CliRunner()


def test_help_lists_every_command(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["--help"]).stdout
    for command in (
        "demo", "dev", "run", "validate", "diagram", "publish", "runs", "history", "show", "explain", "verify",
        "replay", "dead-letters", "send", "pause", "resume", "cancel", "complete", "relay", "positions", "migrate",
        "config", "doctor",
    ):  # fmt: skip
        assert f" {command} " in shown


def test_a_sound_pipeline_is_valid(runner: CliRunner) -> None:
    done = runner.invoke(app, ["validate", "statemachines.shipped.orders"])
    assert done.exit_code == 0
    assert "order version 1: 9 states, 10 moves, reads orders" in done.stdout
    as_json = json.loads(runner.invoke(app, ["validate", "statemachines.shipped.orders", "--json"]).stdout)
    assert as_json["valid"] is True
    assert as_json["mistakes"] == []
    assert as_json["pipelines"][0]["states"][0] == "charging"


def test_mistakes_end_with_1_each_with_its_place_and_its_cure(runner: CliRunner, mistaken: Path) -> None:
    done = runner.invoke(app, ["validate", f"{mistaken}:flow"])
    assert done.exit_code == 1
    assert "mistaken.py:14" in done.stdout
    assert "Did you mean 'two'?" in done.stdout
    as_json = json.loads(runner.invoke(app, ["validate", str(mistaken), "--json"]).stdout)
    assert as_json["valid"] is False
    (unknown,) = [one for one in as_json["mistakes"] if one["line"] == 14 and "tow" in one["message"]]
    assert unknown["severity"] == "error"
    assert unknown["file"].endswith("mistaken.py")


def test_a_module_that_is_not_there_is_bad_input_with_what_was_meant(runner: CliRunner) -> None:
    done = runner.invoke(app, ["validate", "statemachines.shipped.oders"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Did you mean 'statemachines.shipped.orders'?" in done.stderr


def test_a_diagram_is_mermaid_alone_on_standard_output(runner: CliRunner) -> None:
    done = runner.invoke(app, ["diagram", "statemachines.shipped.orders:flow"])
    assert done.exit_code == 0
    assert "stateDiagram-v2" in done.stdout
    assert "[*] --> charging: order.placed" in done.stdout
    (only,) = json.loads(runner.invoke(app, ["diagram", "statemachines.shipped.orders", "--json"]).stdout)
    assert only["pipeline"] == "order"
    assert only["mermaid"].strip() == done.stdout.strip()


@pytest.mark.parametrize(
    ("what", "is_paused", "said"),
    [
        ("pause", False, "order would be paused, with all of its runs, and those to come."),
        ("pause", True, "order is paused already, {by}: nothing would be done."),
        ("resume", False, "order is not paused: nothing would be done."),
        ("resume", True, "order would go on, {by}. Runs that are paused for themselves would stay so."),
    ],
)
def test_a_dry_run_of_a_whole_pipeline_says_what_would_be_done_to_it(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, what: str, is_paused: bool, said: str
) -> None:
    pause = PausedPipeline("order", "ana", "its prices are wrong", datetime(2026, 3, 1, 12, tzinfo=UTC))
    monkeypatch.setattr("engine.cli.operating.ask_store", lambda *_: [pause] if is_paused else [])
    words = [what, "--pipeline", "order", "--dry-run", "--reason", "to see"]
    by = "which ana has paused at 2026-03-01 12:00:00Z (its prices are wrong)"
    done = runner.invoke(app, words)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{said.format(by=by)}\n", "")
    as_json = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
    assert as_json == {"command": what, "dry_run": True, "runs": 0, "done": 0, "became": []}


def test_a_run_is_named_on_one_line_whatever_its_key_is(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    differs = Mismatch("order", "a\nb\x1b", 0, 2, "e1", "order.paid", "It came out otherwise.", ())
    found = ReplayReport("default", ("order",), 1, 0, 2, 1, (differs,), 0, ())
    monkeypatch.setattr("engine.cli.checking.ask_store", lambda *_: found)
    replayed = runner.invoke(app, ["replay", DEFINED])
    assert replayed.stdout.splitlines()[0] == "order a\\nb\\x1b: row 2: It came out otherwise."


def test_bad_usage_ends_with_2_and_a_hint(runner: CliRunner) -> None:
    unknown = runner.invoke(app, ["histroy", "o-1"])
    assert unknown.exit_code == 2
    assert "Did you mean 'history'?" in unknown.stderr
    option = runner.invoke(app, ["runs", "--limt", "5"])
    assert option.exit_code == 2
    assert "--limt" in option.stderr
    assert "Traceback" not in option.stderr


def test_an_address_that_is_not_given_is_bad_usage(runner: CliRunner) -> None:
    done = runner.invoke(app, ["runs", "--json"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "POINTSMAN_POSTGRES" in done.stderr


WORDS: dict[str, list[str]] = {
    "breakers": [],
    "cancel": ["o-1", "--reason", "a test"],
    "complete": ["token", "--result", "1"],
    "config": [],
    "dead-letters drop": ["1"],
    "dead-letters edit": ["1", "--data", "{}", "--reason", "a test"],
    "dead-letters list": [],
    "dead-letters redrive": ["1"],
    "dead-letters show": ["1"],
    "definitions list": [],
    "definitions map": ["order", "--from", "1", "--to", "2", "--reason", "a test", "--yes"],
    "diagram": ["statemachines.shipped.orders", "--counts"],
    "doctor": [],
    "explain": ["e-1"],
    "history": ["o-1"],
    "migrate": [],
    "pause": ["o-1", "--reason", "a test"],
    "positions list": [],
    "positions set": ["orders", "0", "5", "--reason", "a test"],
    "prune": ["--older-than", "400"],
    "relay accept": ["--reason", "a test"],
    "relay status": [],
    "replay": ["statemachines.shipped.orders"],
    "resolve": ["o-1", "--reason", "a test"],
    "resume": ["o-1", "--reason", "a test"],
    "retry": ["o-1", "--reason", "a test"],
    "run": ["statemachines.shipped.orders"],
    "runs": [],
    "send": ["order", "o-1", "order.paid", "{}", "--reason", "a test"],
    "show": ["o-1"],
    "skip": ["o-1", "--reason", "a test"],
    "verify": [],
}
"""What each command that goes to Postgres may be asked."""


def commands_with(option: str) -> list[str]:
    """The names of all commands that take an option."""
    found = []

    def look(command: Any, *names: str) -> None:
        if any(option in parameter.opts for parameter in command.params):
            found.append(" ".join(names))
        for name, inner in getattr(command, "commands", {}).items():
            look(inner, *names, name)

    look(typer.main.get_command(app))
    return sorted(found)


def test_these_are_all_commands_that_go_to_postgres() -> None:
    assert commands_with("--postgres") == sorted(WORDS)


def test_the_text_that_is_kept_with_a_decision_has_one_name_and_no_filter_has_it() -> None:
    decisions = [
        "cancel",
        "complete",
        "dead-letters drop",
        "dead-letters edit",
        "dead-letters redrive",
        "definitions map",
        "pause",
        "positions set",
        "prune",
        "relay accept",
        "resolve",
        "resume",
        "retry",
        "send",
        "skip",
    ]
    assert commands_with("--reason") == decisions
    assert commands_with("--with-reason") == [
        "dead-letters drop",
        "dead-letters list",
        "dead-letters redrive",
    ]
    assert commands_with("--why") == []


def test_the_fields_of_every_command_with_json_are_documented_and_every_link_leads_somewhere() -> None:
    page = Page.read()
    assert commands_with("--json") == sorted(page.commands)
    sections = [*page.commands.values(), *page.parts.values()]
    told = [text for one in sections for text in (*one.fields.values(), f"(#{one.items or one.base})")]
    linked = set(re.findall(r"\(#([\w-]+)\)", " ".join(told))) - {"None"}
    assert page.parts.keys() <= linked
    assert linked - page.parts.keys() == {"explain", "show", "verify"}


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@t?er#2"])
@pytest.mark.parametrize("command", WORDS)
def test_a_password_in_an_address_is_refused_and_not_repeated(
    runner: CliRunner, command: str, password: str
) -> None:
    address = f"postgresql://me:{password}@127.0.0.1:1/x"
    words = [*command.split(), *WORDS[command], "--postgres", address]
    done = runner.invoke(app, words, env={"POINTSMAN_KAFKA": "127.0.0.1:1"})
    if command == "config":
        assert (done.exit_code, "postgresql://me:***@127.0.0.1:1/x" in done.stdout) == (0, True)
    else:
        assert (done.exit_code, done.stdout) == (2, "")
        assert "passfile" in done.stderr
    for part in ("hun", "er2", "er#2"):
        assert part not in done.stderr + done.stdout


def test_a_service_that_does_not_answer_ends_with_3_and_is_named(runner: CliRunner) -> None:
    done = runner.invoke(app, ["runs", "--postgres", "postgresql://me@127.0.0.1:1/x"])
    assert done.exit_code == 3
    assert "postgresql://me@127.0.0.1:1/x" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("explain", "Give an event's id"),
        ("explain --source shop", "Give an event's id"),
        ("explain --topic orders --offset 5", "--partition"),
        ("explain --topic orders --partition 2147483648 --offset 5", "--partition"),
        ("history a b c", "these are 3 words"),
        ("show a b c", "these are 3 words"),
        ("show o-1 --at 0", "--at"),
        ("verify a b c", "these are 3 words"),
        ("verify --generation 1", "name the run"),
        ("runs --status runing", "Did you mean 'running'?"),
        ("runs --postgres localhost", "postgresql://user@host:5432/database"),
        ("verify --postgres localhost", "postgresql://user@host:5432/database"),
        ("positions set orders 0 5 --reason x --postgres localhost", "is no address of a Postgres"),
        ("doctor statemachines.shipped.orders --postgres localhost", "is no address of a Postgres"),
        ("run statemachines.shipped.orders --postgres localhost", "is no address of a Postgres"),
        ("runs --limit -1", "--limit"),
        ("runs --limit 9223372036854775808", "--limit"),
        ("dead-letters list --status opn", "Did you mean 'open'?"),
        ("dead-letters list --status open --all", "Give --all or --status, not both."),
        ("dead-letters edit 1 --data 1 --add --reason it", "--add is for --set."),
        ("dead-letters list --with-reason no-run", "Did you mean 'no run'?"),
        ("dead-letters show 9223372036854775808", "ID"),
        ("dead-letters redrive", "--all"),
        ("dead-letters drop", "--all"),
        ("dead-letters redrive 1 --all", "not both"),
        ("dead-letters redrive --with-reason no-run", "Did you mean 'no run'?"),
        ("dead-letters drop 1 --reason=", "--reason"),
        ("dead-letters drop 1 --who=", "--who"),
        ("positions set orders 0 5", "--reason"),
        ("definitions map order --from 1 --to 2 --yes", "--reason"),
        ("definitions map order --from 1 --to 2 --reason x", "There is no terminal to ask on"),
        (
            "definitions map order --from 1 --to 2 --reason x --yes --step a",
            "--step 'a' is not of the form OLD=NEW",
        ),
        (
            "definitions map order --from 1 --to 2 --reason x --yes --state a=b --state a=c",
            "--state says both 'b' and 'c' of 'a'",
        ),
        ("positions set orders 0 5 --reason=", "--reason"),
        ("positions set orders 0 9223372036854775808 --reason x", "POSITION"),
        ("relay accept", "--reason"),
        ("relay accept --reason=", "--reason"),
        ("replay statemachines.shipped.orders --pipeline ordr", "Did you mean 'order'?"),
        ("replay statemachines.shipped.orders --generation 1", "name the run"),
        ("replay statemachines.shipped.oders", "Did you mean"),
        ("run statemachines.shipped.oders", "Did you mean"),
        ("run statemachines.shipped.orders --port 70000", "--port"),
        ("run statemachines.shipped.orders --from yesterday", "--from"),
        ("doctor statemachines.shipped.oders", "Did you mean"),
        ("dev statemachines.shipped.oders", "Did you mean"),
        ("dev statemachines.shipped.orders --topic or/ders", "cannot be a topic"),
        ("dev statemachines.shipped.orders --kafka mine", "mock or apache"),
        ("publish orders no-such-file", "cannot be read"),
        ("publish or/ders {file}", "cannot be a topic"),
        ("publish orders {file} --type activty", "Did you mean 'activity'?"),
        ("publish orders {file} --type=", "--type"),
        ("publish orders {file} --format xml", "jsonl or csv"),
        ("publish orders {file} --delimiter ab", "--delimiter"),
        ("publish orders {file} --type activity --source {long}", "--source"),
    ],
)
def test_bad_arguments_are_refused_before_anybody_is_asked(
    runner: CliRunner, tmp_path: Path, words: str, said: str
) -> None:
    file = tmp_path / "log.csv"
    file.write_text("case,activity\n1,opened\n")
    nobody = {"POINTSMAN_POSTGRES": "postgresql://me@127.0.0.1:1/x", "POINTSMAN_KAFKA": "127.0.0.1:1"}
    done = runner.invoke(app, words.format(file=file, long="s" * 5_000).split(), env=nobody)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert said in " ".join(done.stderr.split())


def test_config_shows_what_is_in_force_and_hides_secrets(runner: CliRunner) -> None:
    settings = {
        "POINTSMAN_POSTGRES": "postgresql://me:hunter2@db/x",
        "POINTSMAN_KAFKA_PASSWORD": "hunter3",
        "PGPASSWORD": "hunter4",
        "POINTSMAN_LIMIT_STOP_SECONDS": "5",
    }
    done = runner.invoke(app, ["config", "--namespace", "shop", "--json"], env=settings)
    assert done.exit_code == 0
    assert "hunter" not in done.stdout
    shown = json.loads(done.stdout)
    assert shown["namespace"] == {
        "from": "option",
        "option": "--namespace",
        "variable": "POINTSMAN_NAMESPACE",
        "default": "default",
        "value": "shop",
        "what": "what runs and positions belong to",
    }
    assert shown["group"]["value"] == "pointsman.shop"
    assert shown["kafka_password"]["value"] == "***"
    assert (shown["limit_stop_seconds"]["value"], shown["limit_stop_seconds"]["default"]) == ("5", "8.0")
    table = runner.invoke(app, ["config"], env=settings).stdout
    assert "hunter" not in table
    assert "environment POINTSMAN_LIMIT_STOP_SECONDS  8.0 " in table


def test_config_and_the_help_of_run_say_what_each_limit_is_and_what_counts_where_nothing_is_set(
    runner: CliRunner,
) -> None:
    shown = runner.invoke(app, ["config", "--limits"]).stdout
    told = " ".join(runner.invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).stdout.split())
    threads = "How many of them are plain functions, which have a thread each."
    assert threads in shown
    assert f"POINTSMAN_LIMIT_STEP_THREADS_MAX [40] {threads}" in told
    for limit in dataclasses.fields(EngineLimits):
        assert f"POINTSMAN_LIMIT_{limit.name.upper()} [{limit.default}] " in told
    assert "a limit of the engine" not in shown


def test_config_and_the_help_of_run_need_no_source_beside_the_program(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.limits.__file__", "/nowhere/limits.pyc")
    for command in (["config", "--limits"], ["run", "--help"]):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.output


def test_config_names_the_variable_that_was_meant(runner: CliRunner) -> None:
    meant = {
        "POINTSMAN_HANDLER_SECONDS_MAX": " Did you mean POINTSMAN_LIMIT_HANDLER_SECONDS_MAX?",
        "POINTSMAN_POSTGRS": " Did you mean POINTSMAN_POSTGRES?",
        "POINTSMAN_SERVICE_HOST": "",
    }
    said = runner.invoke(app, ["config"], env=dict.fromkeys(meant, "3")).stderr
    assert said.splitlines() == [
        f"{name} is set, and no setting of Pointsman.{which}" for name, which in meant.items()
    ]


def test_an_engine_that_starts_names_the_variable_that_was_meant() -> None:
    on = {
        "POSTGRES": "postgresql://me@db/x",
        "KAFKA": "broker:9092",
        "STEP_THREADS": "9",
        "SERVICE_HOST": "10.0.0.1",
    }
    done = apart("run", "statemachines.shipped.oders", on=on)
    assert done.code == 2
    said = "POINTSMAN_STEP_THREADS is set, and no setting of Pointsman. Did you mean POINTSMAN_LIMIT_STEP_THREADS_MAX?"
    assert said in done.err
    assert "SERVICE_HOST" not in done.err


def test_a_connection_that_breaks_is_no_reader_that_went_away(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("engine.cli.upkeep.strange_variables", fail)
    done = runner.invoke(app, ["config"])
    assert (done.exit_code, done.stderr.count("Broken pipe")) == (3, 1)


def test_help_says_what_is_taken_where_nothing_is_given(runner: CliRunner) -> None:
    told = " ".join(runner.invoke(app, ["publish", "--help"], env={"COLUMNS": "200"}).stdout.split())
    for default in (
        "the field type",
        "made of the row's content, and of how many equal rows came before it",
        "by the file's name, or how it begins",
    ):
        assert f"[default: {default}]" in told
    assert "[default: pointsman.<namespace>]" in runner.invoke(app, ["run", "--help"]).stdout


def test_the_usage_of_send_says_what_it_takes_once(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["send", "--help"], env={"COLUMNS": "100"}).stdout
    assert "Usage: pointsman send [OPTIONS] [PIPELINE KEY] TYPE [DATA] " in shown


def test_help_breaks_its_lines_where_the_terminal_ends(runner: CliRunner) -> None:
    columns = 60
    for words in (["dev"], ["publish"], ["dead-letters", "edit"], ["definitions", "map"]):
        shown = runner.invoke(app, [*words, "--help"], env={"COLUMNS": str(columns)}).stdout
        lines = [line.strip() for line in shown.partition("╭")[0].splitlines()]
        for line, behind in itertools.pairwise(lines):
            if line and behind and not line.startswith("Usage"):
                assert len(line) + len(behind.split()[0]) >= columns - 3, (line, behind)


def test_what_is_wrong_with_arguments_is_a_sentence_before_the_hint(runner: CliRunner) -> None:
    for words, said in (
        (["runs", "--limit", "-1"], "greater than or equal to 0. Try: pointsman runs --help\n"),
        (["runs", "--limit", "x"], "as an integer. Try: pointsman runs --help\n"),
        (["history"], "Missing argument '[PIPELINE] KEY'. Try: pointsman history --help\n"),
    ):
        done = runner.invoke(app, words, prog_name="pointsman")
        assert done.exit_code == 2
        assert done.stderr.endswith(said), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "--kafka", "x"], "No such option"),
        (["breakers", "--state", "opened"], "There is no state 'opened'"),
        (["pause", "--status", "runing", "--reason", "x"], "There is no status 'runing'"),
        (["cancel", "o-1", "--reason", "a\nb"], "--reason takes a line"),
        (["cancel", "o-1", "--reason", "a\udcff"], "--reason takes a line"),
        (["cancel", "o-1", "--reason", "a", "--who", "b\x1b[2J"], "--who takes a line"),
        (["publish", "orders", "-", "--source", " "], "--source is empty"),
        (["publish", "orders", "-", "--format", "jsonl", "--delimiter", ";"], "--delimiter is of CSV"),
        (["publish", "orders", "-", "--kafka", "localhost:x"], "--kafka is 'localhost:x'; it is HOST:PORT"),
        (["runs", "--postgres", "postgresql://u@127.0.0.1:99999/x"], "the port is '99999'"),
        (["doctor", "--postgres", "postgresql://u@127.0.0.1:-5/x"], "the port is '-5'"),
        (["complete", "token", "--result", "3", "--error", "x"], "Give --result or --error, not both"),
        (["complete", "token"], "Say how the step ended"),
        (
            ["dead-letters", "edit", "1", "--data", "{}", "--set", "a=1", "--reason", "x"],
            "Give --data or --set, not both",
        ),
        (["dead-letters", "edit", "1", "--reason", "x"], "Say what the data is to be"),
        (["run", DEFINED, "--group", ""], "--group is ''; it cannot be empty"),
        (["run", DEFINED, "--instance", " "], "--instance is ' '; it cannot be empty"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_connected_to(
    runner: CliRunner, words: list[str], said: str
) -> None:
    done = runner.invoke(app, words)
    assert (done.exit_code, said in done.stderr, done.stdout) == (2, True, ""), done.stderr


def test_a_mistake_of_this_program_is_a_sentence_with_the_way_to_see_more(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("engine.cli.upkeep.strange_variables", fail)
    done = runner.invoke(app, ["config"])
    assert done.exit_code == 70
    assert "POINTSMAN_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    debugged = runner.invoke(app, ["config"], env={"POINTSMAN_DEBUG": "1"})
    assert "Traceback" in debugged.stderr


def test_every_failure_of_a_service_is_3() -> None:
    assert explain(ServiceUnreachableError("Postgres at x cannot be reached")).exit_code == 3


NEEDED_BY_EXTRAS = (
    "aiokafka",
    "asyncpg",
    "aiohttp",
    "opentelemetry",
    "uvloop",
    "confluent_kafka",
)


def bare(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line where only the base dependencies are installed."""
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({NEEDED_BY_EXTRAS!r})); "
        "from engine.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment({}),
    )


def test_definitions_need_no_extra() -> None:
    for words in (["validate", "statemachines.shipped.orders"], ["diagram", "statemachines.shipped.orders"]):
        done = bare(*words)
        assert (done.returncode, done.stderr) == (0, "")
    assert bare("config").returncode == 0
    assert bare("--help").returncode == 0


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["runs", "--postgres", "postgresql://x/y"], "engine"),
        (["run", "statemachines.shipped.orders", "--postgres", "x", "--kafka", "y"], "engine"),
        (["publish", "topic", "-", "--kafka", "y"], "publish"),
        (["demo"], "dev"),
        (["dev", "statemachines.shipped.orders"], "dev"),
    ],
)
def test_a_command_that_needs_an_extra_says_which(words: list[str], extra: str) -> None:
    done = bare(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"pip install 'pointsman[{extra}]'" in done.stderr


def test_what_postgres_breaks_off_is_not_taken_for_a_postgres_that_is_away() -> None:
    failure = explain(asyncpg.QueryCanceledError("canceling statement due to statement timeout"))
    assert failure.exit_code == 1
    assert "has a statement_timeout" in failure.sentence
