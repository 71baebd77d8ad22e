"""Unmodified testcontainers: a generic container, PostgreSQL and Redis from Debian's packages."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import ExecWaitStrategy, LogMessageWaitStrategy

from harness.containers import eventually, left_by_testcontainers
from harness.engine import PrivateEngine

pytestmark = [
    pytest.mark.client(name="testcontainers (PyPI)"),
    pytest.mark.xdist_group("testcontainers"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

POSTGRES = """
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && apt-get clean
COPY --chmod=755 start /start
ENV PGDATA=/data
RUN install -d -o postgres /data
USER postgres
EXPOSE 5432
CMD ["/start"]
"""
START = """#!/bin/sh
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
echo "$POSTGRES_PASSWORD" > /tmp/password
"$bin/initdb" -D "$PGDATA" -U "$POSTGRES_USER" --pwfile /tmp/password -A scram-sha-256 >/dev/null
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
"$bin/pg_ctl" -D "$PGDATA" -o "-c listen_addresses= -k /tmp" -w start >/dev/null
PGPASSWORD=$POSTGRES_PASSWORD "$bin/createdb" -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
"$bin/pg_ctl" -D "$PGDATA" -w stop >/dev/null
exec "$bin/postgres" -D "$PGDATA" -c "listen_addresses=*" -k /tmp
"""
REDIS = """
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && apt-get clean
USER redis
EXPOSE 6379
CMD ["redis-server", "--bind", "*", "--protected-mode", "no", "--dir", "/tmp"]
"""


@pytest.fixture(autouse=True)
def address(engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of a user whose DOCKER_HOST is the engine, without the reaper."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


def built(engine: PrivateEngine, name: str, files: dict[str, str]) -> str:
    """Build an image from files and return its name."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    client = docker.DockerClient(base_url=engine.host, timeout=300)
    try:
        client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)
    finally:
        client.close()
    return name


@pytest.fixture(scope="module")
def postgres(engine: PrivateEngine, debian: str) -> str:
    return built(engine, "tc/postgres:1", {"Dockerfile": POSTGRES, "start": START})


@pytest.fixture(scope="module")
def redis(engine: PrivateEngine, debian: str) -> str:
    return built(engine, "tc/redis:1", {"Dockerfile": REDIS})


@pytest.fixture
def network() -> Iterator[Any]:
    with Network() as made:
        yield made


def test_a_generic_container_runs(busybox: str) -> None:
    command = "sh -c 'echo hello > /tmp/index.html; echo ready; exec httpd -f -p 80 -h /tmp'"
    container = DockerContainer(busybox).with_command(command).with_exposed_ports(80)
    with container.with_env("A", "b").waiting_for(LogMessageWaitStrategy("ready")) as started:
        port = started.get_exposed_port(80)
        host = started.get_container_host_ip()
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
            assert answer.read() == b"hello\n"
        assert started.exec(["sh", "-c", "echo $A"]).output == b"b\n"


@pytest.mark.packages
def test_postgresql_accepts_connections(postgres: str) -> None:
    container = (
        DockerContainer(postgres)
        .with_exposed_ports(5432)
        .with_env("POSTGRES_USER", "test")
        .with_env("POSTGRES_PASSWORD", "secret")
        .with_env("POSTGRES_DB", "shop")
        .with_env("PGPASSWORD", "secret")
    )
    query = ["psql", "-h", "127.0.0.1", "-U", "test", "-d", "shop", "-Atc"]
    with container.waiting_for(ExecWaitStrategy([*query, "select 1"])) as started:
        table = "create table t (n int); insert into t select generate_series(1, 1000)"
        assert started.exec([*query, table]).exit_code == 0
        assert started.exec([*query, "select sum(n) from t"]).output == b"500500\n"
        assert int(started.get_exposed_port(5432)) > 1024


def test_redis_is_reached_from_another_container(redis: str, network: Any) -> None:
    store = DockerContainer(redis).with_network(network).with_network_aliases("store")
    ready = ExecWaitStrategy(["redis-cli", "ping"])
    with store.with_exposed_ports(6379).waiting_for(ready) as started:
        assert started.exec(["redis-cli", "set", "k", "v"]).output == b"OK\n"
        client = DockerContainer(redis).with_network(network).with_command("sleep 60")
        with client as other:
            result = other.exec(["redis-cli", "-h", "store", "get", "k"])
            assert result.output == b"v\n"


SESSION = """
import os
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

network = Network().create()
one = DockerContainer("busybox").with_command("sleep 600").with_network(network).start()
wrapped = one.get_wrapped_container()
wrapped.reload()
print(wrapped.status, flush=True)
os._exit(0)  # without the end of a session
"""


def test_ryuk_removes_what_an_interrupted_session_leaves(
    ryuk_engine: PrivateEngine, ryuk: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env=ryuk,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "running\n"), done.stderr
    eventually(lambda: not left_by_testcontainers(ryuk_engine), "Ryuk has removed everything", 30)
