"""Servers that move under load: no answer is lost, repeated or wrong."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images, packaged_images
from harness.engine import PrivateEngine
from harness.migration import (
    ADDRESS,
    NAME,
    NETWORK,
    LoadClient,
    Sites,
    ip,
    move,
    sites,
    start,
)

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]

HARNESS = Path(__file__).parents[3] / "harness"
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
CLUSTER = """
echo db:x:1000:1000::/db:/bin/sh >> /etc/passwd
mkdir /db
chown 1000 /db
exec /bin/busybox su -s /bin/sh db -c "
set -e
initdb -D /db/data -A trust --no-sync >/dev/null
echo host all all 0.0.0.0/0 trust >> /db/data/pg_hba.conf
exec postgres -D /db/data -k /db -c listen_addresses=* -c shared_buffers=32MB -c fsync=off"
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 10) as made:
        yield made


@pytest.fixture(autouse=True)
def _clean(two: Sites) -> Iterator[None]:
    ip("neigh", "flush", "all", netns=two.client)
    yield
    for site in (two.a, two.b):
        site.engine.cli("jaula", "rm", "-f", "-v", NAME)


def to_and_fro(two: Sites, *flags: str, times: int = 1) -> None:
    """Move the server to ``b`` and back; it ends at ``b``."""
    for number in range(times):
        source, target = (two.a, two.b) if number % 2 == 0 else (two.b, two.a)
        move(source, target, "--rm", *flags)
        time.sleep(0.3)


def wait_port(two: Sites, port: int) -> None:
    """Wait until the server accepts connections of the client's namespace."""
    program = f"import socket; socket.create_connection(('{ADDRESS}', {port}), 1)"
    for _ in range(300):
        words = ["ip", "netns", "exec", two.client, "python3", "-c", program]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return
        if not two.a.runs(NAME):
            break
        time.sleep(0.1)
    raise AssertionError(two.a.engine.cli("jaula", "logs", NAME))


def check(result: dict[str, object]) -> None:
    assert result["failures"] == []
    answers = result["answers"]
    assert isinstance(answers, int)
    assert answers > 50


def test_many_connections_of_a_counter(two: Sites) -> None:
    start(two.a)
    with LoadClient(two.client, "counter", ADDRESS, 7000, 16) as client:
        to_and_fro(two, times=3)
        result = client.finish()
    check(result)
    with two.counting(ADDRESS) as last:
        last.finish()
    assert two.never_ran_twice()


def test_a_python_program_with_threads_and_sqlite(two: Sites) -> None:
    words = images.host_tools(two.a.engine)
    images.host_tools(two.b.engine)
    two.a.jaula(
        *("create", "--name", NAME, "--network", NETWORK, "--ip", ADDRESS, *words),
        *("python3", "/root/row_server.py"),
    )
    two.a.jaula("cp", str(HARNESS / "row_server.py"), f"{NAME}:/root/row_server.py")
    two.a.jaula("start", NAME)
    wait_port(two, 7000)
    with LoadClient(two.client, "counter", ADDRESS, 7000, 4) as client:
        time.sleep(0.5)
        to_and_fro(two, "--volumes", "shared", times=3)
        time.sleep(0.5)
        result = client.finish()
    check(result)
    query = "select count(*), max(id), sum(id < 1) from rows"
    program = (
        f"import sqlite3; print(*sqlite3.connect('/root/rows.db').execute('{query}').fetchone())"
    )
    rows = two.b.jaula("exec", NAME, "python3", "-c", program).split()
    assert rows == [str(result["answers"]), str(result["answers"]), "0"]
    assert two.b.jaula("exec", NAME, "python3", "-c",
                       "import sqlite3; print(sqlite3.connect('/root/rows.db')"
                       ".execute('pragma integrity_check').fetchone()[0])") == "ok\n"  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL's server")
def test_postgresql_under_pgbench(two: Sites) -> None:
    programs = POSTGRES[-1]
    words = images.host_tools(two.a.engine)
    images.host_tools(two.b.engine)
    environment = ("-e", f"PATH={programs}:/usr/bin:/bin", "--shm-size", "128m")
    two.a.jaula(
        *("run", "-d", "--name", NAME, "--network", NETWORK, "--ip", ADDRESS, *environment),
        *(*words, "sh", "-c", CLUSTER),
    )
    wait_port(two, 5432)
    bench = [str(programs / "pgbench"), "-h", ADDRESS, "-U", "db", "postgres"]
    inside = ["ip", "netns", "exec", two.client]
    subprocess.run([*inside, *bench, "-i", "-q", "-I", "dtgp"], check=True, capture_output=True)
    client = subprocess.Popen(
        [*inside, *bench, "-n", "-c", "4", "-T", "15"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2)
    to_and_fro(two, "--volumes", "shared")
    output, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    processed = re.search(r"transactions actually processed: (\d+)", output)
    assert processed is not None, output
    assert "number of failed transactions: 0" in output
    query = (
        "select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history),"
        " (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from"
        " pgbench_branches), (select sum(tbalance) from pgbench_tellers)"
    )
    row = two.b.jaula("exec", NAME, "psql", "-h", "/db", "-U", "db", "-AtF ", "-c", query,
                      "postgres").split()  # fmt: skip
    assert row[0] == processed[1]
    assert len(set(row[1:])) == 1


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with archives of images, built by an engine that reaches a mirror."""
    path = tmp_path_factory.mktemp("images")
    engine = PrivateEngine(238)
    engine.start()
    try:
        done = engine.cli("jaula", "image", "bootstrap", "debian", timeout=900)
        assert done.returncode == 0, done.stderr
        for name in ("redis", "nginx"):
            image = packaged_images.build(engine, name)
            done = engine.cli("jaula", "save", "-o", str(path / f"{name}.tar"), image)
            assert done.returncode == 0, done.stderr
    finally:
        engine.remove_containers()
        engine.stop()
        engine.delete_directories()
    return path


@pytest.mark.packages
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "protocol", "port"), [("redis", "redis", 6379), ("nginx", "http", 80)]
)
def test_servers_of_packages(
    two: Sites, packaged: Path, name: str, protocol: str, port: int
) -> None:
    two.a.jaula("load", "-q", "-i", str(packaged / f"{name}.tar"))
    two.a.jaula(
        *("run", "-d", "--name", NAME, "--network", NETWORK, "--ip", ADDRESS, f"profiles/{name}")
    )
    wait_port(two, port)
    with LoadClient(two.client, protocol, ADDRESS, port, 8) as client:
        time.sleep(0.5)
        to_and_fro(two)
        time.sleep(0.5)
        result = client.finish()
    check(result)
    assert two.b.runs(NAME)
