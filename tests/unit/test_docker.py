"""What can be known of the container files without a Docker engine."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from engine.cli.app import app
from engine.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_last_stage_does_not_run_as_root_and_has_a_health_check() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}
    assert "HEALTHCHECK" in last


def test_the_image_has_the_hot_path_compiled() -> None:
    first = DOCKERFILE[: DOCKERFILE.rindex("FROM ")]
    assert re.search(r"install .*\bgcc\b", first)
    assert re.search(r"HATCH_BUILD_HOOKS_ENABLE=1 \S*pip install .*'\.\[engine\]'", first)


def test_run_in_the_image_serves_the_port_that_is_exposed_and_published() -> None:
    [exposed] = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert Settings.resolve({}, image_environment()).listen == ("0.0.0.0", int(exposed))
    [published] = SERVICES["engine"]["ports"]
    assert published.endswith(f":{exposed}")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_of_the_image_asks_the_port_of_run(status: int, code: int) -> None:
    [words] = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    python, *arguments = json.loads(words)
    assert python == "python"
    with health(status) as port:
        environ = {**os.environ, **image_environment(), "POINTSMAN_HEALTH_PORT": str(port)}
        done = subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, check=False)
    assert done.returncode == code


def image_environment() -> dict[str, str]:
    """What the image sets for Pointsman."""
    lines = re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)
    pairs = [pair.partition("=") for line in lines for pair in shlex.split(line)]
    return {name: value for name, _, value in pairs if name.startswith("POINTSMAN_")}


@contextlib.contextmanager
def health(status: int) -> Iterator[int]:
    """The port of a server that gives this status to /healthz alone."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        server.timeout = 30
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            yield server.server_port
        finally:
            thread.join()


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in let_in, f"{source} is kept out by .dockerignore"


def test_what_kafka_and_postgres_keep_is_on_a_named_volume() -> None:
    mounted = {
        name: [str(volume).split(":")[:2] for volume in SERVICES[name]["volumes"]]
        for name in ("kafka", "postgres")
    }
    assert [SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]] == [path for _, path in mounted["kafka"]]
    # postgres:18 keeps its data in a folder of its version below this one.
    assert [path for _, path in mounted["postgres"]] == ["/var/lib/postgresql"]
    assert {volume for volumes in mounted.values() for volume, _ in volumes} == set(COMPOSE["volumes"])


def test_everything_is_published_on_loopback_only() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), (name, port)


def test_services_wait_for_what_they_need_and_servers_have_health_checks() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, (name, needed)
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[needed]["healthcheck"], needed


@pytest.mark.parametrize("service", ["migrate", "engine"])
def test_the_commands_that_compose_runs_exist_with_their_options(service: str) -> None:
    command, *arguments = SERVICES[service]["command"]
    group = typer.main.get_command(app)
    found = group.get_command(typer.Context(group), command)  # type: ignore[attr-defined]  # it is a click group
    assert found is not None, command
    known = {option for parameter in found.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_the_engine_gets_no_password_as_an_argument_or_in_its_address() -> None:
    for service in SERVICES.values():
        address = service.get("environment", {}).get("POINTSMAN_POSTGRES", "")
        assert not re.search(r"://[^/@:]+:[^@]+@", address)
