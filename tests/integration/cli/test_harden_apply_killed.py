"""``harden apply`` is killed at each request: nothing is lost, and the next command ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers
from harness.containers import unique
from harness.engine import PrivateEngine
from jaula.cli.client.api_client import Client
from jaula.features.harden import apply_profile
from jaula.features.harden.cli.harden_apply import EngineApi
from jaula.spec.confinement_profile import load

TEXT = 'name = "simple"\n[limits]\npids = 50\n'
CALLS = 11  # requests of an apply until the old container is removed, at least
Act = Callable[[], None]


class Interrupted(EngineApi):
    """A client that does something at one of its requests, before or after it is sent."""

    def __init__(self, host: str, number: int, act: Act, *, after: bool) -> None:
        super().__init__(Client(host))
        self.left, self.act, self.after = number, act, after

    def request(self, method: str, path: str, query: Any = (), body: object = None) -> bytes:
        self.left -= 1
        if self.left == 0 and not self.after:
            self.act()
        answer = super().request(method, path, query, body)
        if self.left == 0 and self.after:
            self.act()
        return answer


def apply_in_child(engine: PrivateEngine, name: str, number: int, act: Act, *, after: bool) -> int:
    """Apply the profile in a child that acts at one request; return its status as of wait(2)."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        apply_profile.SETTLE = apply_profile.POLL = 0.2
        api = Interrupted(engine.host, number, act, after=after)
        apply_profile.apply(api, name, TEXT, load(TEXT.encode(), "x"), timeout=5)
    except BaseException as error:  # noqa: BLE001 - a forked child must not return
        print(error, file=sys.stderr)
        os._exit(1)
    os._exit(0)


def kill_client() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def containers_of(engine: PrivateEngine, name: str) -> dict[str, str]:
    rows = engine.request("GET", "/containers/json?all=1").json()
    return {
        row["Names"][0][1:]: row["State"] for row in rows if row["Names"][0].startswith(f"/{name}")
    }


@pytest.fixture
def volume(engine: PrivateEngine) -> Iterator[str]:
    name = unique("v")
    yield name
    engine.request("DELETE", f"/volumes/{name}?force=1")


def start(engine: PrivateEngine, busybox: str, volume: str, *, running: bool = True) -> str:
    name = unique()
    command = ("run", "-d") if running else ("create",)
    place = ("--name", name, "--stop-timeout", "0", "-v", f"{volume}:/data")
    shell = ("sh", "-c", "[ -e /data/x ] || echo kept > /data/x; exec sleep 600")
    done = engine.cli("jaula", *command, *place, busybox, *shell)
    assert done.returncode == 0, done.stderr
    return name


def remove(engine: PrivateEngine, name: str) -> None:
    for each in containers_of(engine, name):
        engine.request("DELETE", f"/containers/{each}?force=1")


def check_restored(engine: PrivateEngine, name: str, before: str, *, running: bool = True) -> None:
    """Check that the old or the new container has the name, runs as before and has its data."""
    state = containers_of(engine, name)
    assert list(state) == [name]
    document = containers.inspect(engine, name)
    is_new = document["HostConfig"].get("ProfileName") == "simple"
    assert is_new is (document["Id"] != before)
    assert document["State"]["Running"] is running
    if running:
        assert engine.cli("jaula", "exec", name, "cat", "/data/x").stdout == "kept\n"


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(False, id="before"),
        pytest.param(True, id="after", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("number", range(1, CALLS + 1))
def test_a_killed_client_is_recovered(
    engine: PrivateEngine, busybox: str, volume: str, number: int, after: bool
) -> None:
    name = start(engine, busybox, volume)
    try:
        before = containers.inspect(engine, name)["Id"]
        status = apply_in_child(engine, name, number, kill_client, after=after)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        done = engine.cli("jaula", "harden", "apply", "--recover", name)
        assert done.returncode == 0, done.stderr
        check_restored(engine, name, before)
        again = engine.cli("jaula", "harden", "apply", "--recover", name)
        assert f"no apply to {name} was interrupted" in again.stderr
    finally:
        remove(engine, name)


@pytest.mark.parametrize("number", [4, 6])
def test_a_stopped_container_is_restored_stopped(
    engine: PrivateEngine, busybox: str, volume: str, number: int
) -> None:
    name = start(engine, busybox, volume, running=False)
    try:
        before = containers.inspect(engine, name)["Id"]
        status = apply_in_child(engine, name, number, kill_client, after=False)
        assert os.WIFSIGNALED(status)
        assert len(containers_of(engine, name)) == 2
        assert engine.cli("jaula", "harden", "apply", "--recover", name).returncode == 0
        check_restored(engine, name, before, running=False)
    finally:
        remove(engine, name)


def test_the_next_apply_ends_the_interrupted_one(
    engine: PrivateEngine, busybox: str, volume: str, tmp_path: Path
) -> None:
    name = start(engine, busybox, volume)
    file = tmp_path / "simple.toml"
    file.write_text(TEXT)
    try:
        apply_in_child(engine, name, 6, kill_client, after=False)  # the name is free
        assert name not in containers_of(engine, name)
        done = engine.cli("jaula", "harden", "apply", str(file), name)
        assert done.returncode == 0, done.stderr
        assert f"undid an interrupted apply: {name} is " in done.stderr
        assert list(containers_of(engine, name)) == [name]
        assert containers.inspect(engine, name)["Id"] == done.stdout.strip()
        assert engine.cli("jaula", "exec", name, "cat", "/data/x").stdout == "kept\n"
    finally:
        remove(engine, name)


def test_a_new_container_that_stopped_later_is_undone(
    engine: PrivateEngine, busybox: str, volume: str
) -> None:
    name = start(engine, busybox, volume)
    try:
        before = containers.inspect(engine, name)["Id"]
        apply_in_child(engine, name, 8, kill_client, after=False)
        new = containers.inspect(engine, name)["Id"]
        assert new != before
        engine.cli("jaula", "stop", "-t", "0", name)
        assert engine.cli("jaula", "harden", "apply", "--recover", name).returncode == 0
        check_restored(engine, name, before)
    finally:
        remove(engine, name)


def test_a_container_of_another_client_is_not_the_new_one(
    engine: PrivateEngine, busybox: str, volume: str
) -> None:
    """It got the name of the old container, which is not removed for it."""
    name = start(engine, busybox, volume)
    try:
        before = containers.inspect(engine, name)["Id"]
        apply_in_child(engine, name, 6, kill_client, after=False)  # the name is free
        (new,) = (each for each in containers_of(engine, name) if ".with-profile-" in each)
        engine.request("DELETE", f"/containers/{new}?force=1")
        done = engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "600")
        assert done.returncode == 0, done.stderr
        refused = engine.cli("jaula", "harden", "apply", "--recover", name)
        assert refused.returncode != 0
        assert "cannot be undone" in refused.stderr
        assert containers.inspect(engine, name)["Id"] == done.stdout.strip()
        assert containers.inspect(engine, name)["State"]["Running"]
        assert engine.request("GET", f"/containers/{before}/json").status == 200
        engine.request("DELETE", f"/containers/{name}?force=1")
        recovered = engine.cli("jaula", "harden", "apply", "--recover", name)
        assert recovered.returncode == 0, recovered.stderr
        check_restored(engine, name, before)
    finally:
        remove(engine, name)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8])
def test_a_killed_engine_is_recovered(
    new_engine: Callable[..., PrivateEngine], number: int
) -> None:
    engine = new_engine()
    busybox = load_image(engine, "busybox")
    name = start(engine, busybox, unique("v"))
    before = containers.inspect(engine, name)["Id"]
    status = apply_in_child(
        engine, name, number, lambda: os.kill(engine.process.pid, signal.SIGKILL), after=False
    )
    assert os.waitstatus_to_exitcode(status) == 1
    engine.kill()
    engine.start()
    done = engine.cli("jaula", "harden", "apply", "--recover", name)
    assert done.returncode == 0, done.stderr
    check_restored(engine, name, before)
