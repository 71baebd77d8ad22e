"""Landlock domains with lists of paths and ports: a restored container is in the same one."""

from __future__ import annotations

import time

import pytest

from harness import containers
from harness.checkpoints import CheckedContainer
from harness.containers import running
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

TRIES = """
cd /tmp; echo kept >/tmp/kept; exec 5</tmp/kept
try() { name=$1; shift; "$@" >/dev/null 2>&1 && echo $name yes || echo $name no; }
while :; do
    try listed cat /tmp/kept; try unlisted cat /var/secret; try directory ls /var
    try write sh -c 'echo x >/tmp/new'; try elsewhere sh -c 'echo x >/var/new'
    try execute /bin/true; try copied /tmp/true; try working ls .
    try other httpd -p 8081; sleep 0.2; echo end
done
"""
LISTS = ("execute=/bin", "read=/tmp", "write=/tmp", "tcp-bind=8080", "scope-signal")


def answers(engine: PrivateEngine, name: str, after: int) -> tuple[int, dict[str, str]]:
    """Return the length of the log, and the answers of a whole round after that of ``after``."""
    deadline = time.monotonic() + 30
    while True:
        log = engine.cli("jaula", "logs", name).stdout
        rounds = log[after:].split("end\n")
        if len(rounds) > 2:
            return len(log), dict(line.split() for line in rounds[1].splitlines())
        assert time.monotonic() < deadline, log
        time.sleep(0.2)


def test_what_the_lists_permit_and_refuse_is_as_before(engine: PrivateEngine, busybox: str) -> None:
    flags = tuple(word for each in LISTS for word in ("--security-opt", f"landlock={each}"))
    command = ("sh", "-c", f"echo secret >/var/secret; {TRIES}")
    with running(engine, busybox, *command, flags=(*flags, "--tmpfs", "/tmp:exec")) as name:
        end, before = answers(engine, name, 0)
        assert (
            before["listed"] == before["write"] == before["execute"] == before["working"] == "yes"
        )
        assert set(map(before.get, ("unlisted", "directory", "elsewhere", "other"))) == {"no"}
        for checkpoint in ("one", "two"):
            done = engine.cli("jaula", "checkpoint", "create", name, checkpoint)
            assert done.returncode == 0, done.stderr
            done = engine.cli("jaula", "start", "--checkpoint", checkpoint, name)
            assert done.returncode == 0, done.stderr
            end, after = answers(engine, name, end)
            assert after == before
            done = engine.cli("jaula", "verify", name)
            assert done.returncode == 0, done.stdout


def test_a_program_with_libraries_and_threads_in_lists(engine: PrivateEngine) -> None:
    lists = ("execute=/usr", "read=/checks.py", "write=/work", "write=/dev/shm", "read=/lib")
    flags = tuple(word for each in lists for word in ("--security-opt", f"landlock={each}"))
    checks = ("threads", "tree", "memory", "pipes", "connections")
    container = CheckedContainer(engine, ("--tmpfs", "/work", *flags), checks)
    try:
        container.rounds(3)
        before = container.confinement()
        container.create("--tcp-established")
        container.start()
        container.advance()
        assert container.confinement() == before
        assert containers.inspect(engine, container.name)["State"]["Running"]
    finally:
        container.remove()
