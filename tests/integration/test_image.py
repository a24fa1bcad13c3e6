"""The container files, where a Docker engine is there to take them."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.services import UNAVAILABLE, docker_answers
from tests.unit.test_docker import ROOT, SERVICES

BUILD_SECONDS = 600.0
ASK_SECONDS = 60.0


@pytest.fixture
def docker() -> None:
    """Nobody needs it who has Java and Maven, so nowhere it is required."""
    if shutil.which("docker") is None or not docker_answers():
        pytest.skip(
            f"{UNAVAILABLE}no image is built and no compose file read, since no Docker engine answers."
        )


@pytest.fixture
def compose(docker: None) -> None:
    """As a plugin of its command."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{UNAVAILABLE}the compose file is not read, since there is no `docker compose`.")


@pytest.fixture
def image(docker: None) -> Iterator[str]:
    """Its name, until the end of the test."""
    name = f"pointsman-test-{uuid.uuid4().hex[:10]}"
    ask("build", "--file", "docker/Dockerfile", "--tag", name, ".", seconds=BUILD_SECONDS)
    yield name
    ask("image", "rm", "--force", name)


def ask(*words: str, seconds: float = ASK_SECONDS) -> str:
    """What Docker answers."""
    done = subprocess.run(
        ["docker", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_image_is_built_and_has_the_pipelines_that_are_shipped(image: str) -> None:
    assert "0 errors" in ask("run", "--rm", image, "validate", "statemachines.shipped.orders")


def test_the_compose_file_is_one(compose: None) -> None:
    assert set(ask("compose", "--file", "docker/compose.yaml", "config", "--services").split()) == {*SERVICES}
