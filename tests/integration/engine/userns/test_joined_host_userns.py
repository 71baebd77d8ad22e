"""Containers that join namespaces of a container with ``--userns=host``, and the reverse."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness import containers
from harness.engine import PrivateEngine

KINDS = {"network": "net", "ipc": "ipc", "pid": "pid", "uts": "uts"}


@pytest.fixture(scope="module")
def lender(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    flags = ("--userns", "host", "--ipc", "shareable", "--hostname", "lender")
    words = ("sh", "-c", "touch /dev/mqueue/queue; exec sleep 86000")
    with containers.running(engine, busybox, *words, flags=flags) as name:
        yield name


SEEN = {
    "network": ("ls /sys/class/net | sort | xargs", "eth0 lo"),
    "ipc": ("ls /dev/mqueue", "queue"),
    "pid": ("tr '\\0' ' ' < /proc/1/cmdline; kill -9 1 2>/dev/null || echo kept", "kept"),
    "uts": ("hostname; hostname other 2>/dev/null || echo kept", "lender"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_joins_one_in_the_hosts_user_namespace(
    engine: PrivateEngine, busybox: str, lender: str, kind: str
) -> None:
    script, expected = SEEN[kind]
    with containers.running(engine, busybox, flags=(f"--{kind}", f"container:{lender}")) as name:
        process, other = containers.pid(engine, name), containers.pid(engine, lender)
        entry = f"ns/{KINDS[kind]}"
        assert os.readlink(f"/proc/{process}/{entry}") == os.readlink(f"/proc/{other}/{entry}")
        assert os.readlink(f"/proc/{process}/ns/user") != os.readlink(f"/proc/{other}/ns/user")
        output = engine.cli("jaula", "exec", name, "sh", "-c", script).stdout
        rows = engine.cli("jaula", "verify", name).stdout.splitlines()
    assert expected in output
    assert [row for row in rows if row.endswith("FAILS")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_in_the_hosts_user_namespace_joins_another(
    engine: PrivateEngine, busybox: str, kind: str
) -> None:
    with containers.running(engine, busybox, flags=("--ipc", "shareable")) as other:
        flags = (f"--{kind}", f"container:{other}", "--userns", "host")
        entry = f"/proc/self/ns/{KINDS[kind]}"
        joined = containers.run(engine, busybox, "readlink", entry, flags=flags).strip()
        assert joined == os.readlink(f"/proc/{containers.pid(engine, other)}/ns/{KINDS[kind]}")
