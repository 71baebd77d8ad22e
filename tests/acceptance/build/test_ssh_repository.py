"""Builds of repositories that a real sshd serves, with the client's keys.

ssh(1) runs below git in the sandbox: its filter, its Landlock rules, its ids and its memory limit
apply to key exchange, host keys and the agent.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import git_server, ssh_server
from harness.engine import PrivateEngine
from harness.ssh_server import SshServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [
    pytest.mark.skipif(
        not ssh_server.is_installed(),
        reason=f"no {ssh_server.SSHD}: scripts/setup does not install openssh-server, whose service"
        " would listen on this machine",
    ),
    pytest.mark.needs("ssh-keygen"),
]
KINDS = ("ed25519", "rsa", "ecdsa")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("keys")
    made = {kind: ssh_server.new_key(top / kind, kind) for kind in KINDS}
    return {**made, "unknown": ssh_server.new_key(top / "unknown", "ed25519")}


@pytest.fixture
def server(tmp_path: Path, busybox: str, keys: dict[str, Path]) -> Iterator[SshServer]:
    """Serve ``made``, a context with a submodule, and the files of that."""
    top, own = tmp_path / "top", tmp_path / "server"
    top.mkdir()
    own.mkdir()
    inner = git_server.repository(tmp_path, "inner", {"b": "from the submodule\n"})
    files = {"Dockerfile": f"FROM {busybox}\nCOPY . /c\nRUN cat /c/a /c/m/b\n", "a": "from git\n"}
    outer = git_server.repository(tmp_path, "outer", files)
    git_server.git(outer, "submodule", "add", "-q", "--name", "m", str(inner), "m")
    git_server.git(outer, "config", "-f", ".gitmodules", "submodule.m.url", "../inner.git")
    git_server.commit(outer, {})
    for place in (inner, outer):
        git_server.git(tmp_path, "clone", "-q", "--bare", str(place), str(top / place.name))
    with ssh_server.served(own, top, [keys[kind] for kind in KINDS]) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_is_a_context(
    jaula: Run, server: SshServer, keys: dict[str, Path], kind: str
) -> None:
    flags = ("--network", "host", "--ssh", f"default={keys[kind]}", "--no-cache")
    done = jaula("build", "--progress", "plain", *flags, server.url("outer"))
    assert done.returncode == 0, (done, server.log.read_text())
    assert "from git" in done.stdout + done.stderr
    assert "from the submodule" in done.stdout + done.stderr


def test_docker_builds_it_too(
    engine: PrivateEngine, server: SshServer, keys: dict[str, Path]
) -> None:
    flags = ("--network", "host", "--ssh", f"default={keys['ed25519']}", "--no-cache")
    done = engine.cli(
        *("docker", "build", "--progress", "plain", *flags, server.url("outer")),
        env=engine.environment() | {"DOCKER_BUILDKIT": "1"},
    )
    assert done.returncode == 0, (done, server.log.read_text())
    assert "from the submodule" in done.stderr


def test_add_fetches_it(jaula: Run, busybox: str, server: SshServer, keys: dict[str, Path]) -> None:
    text = f"FROM {busybox}\nADD {server.url('inner')}#main /c\nRUN cat /c/b\n"
    flags = ("--network", "host", "--ssh", f"default={keys['ed25519']}", "--no-cache")
    done = jaula("build", "--progress", "plain", *flags, "-", input=text)
    assert done.returncode == 0, (done, server.log.read_text())
    assert "from the submodule" in done.stdout + done.stderr


@pytest.mark.parametrize("has_key", [True, False], ids=["a key that is not accepted", "no key"])
def test_a_client_without_the_key_is_told_that_the_server_denies_it(
    jaula: Run, server: SshServer, keys: dict[str, Path], has_key: bool
) -> None:
    flags = ("--ssh", f"default={keys['unknown']}") if has_key else ()
    done = jaula("build", "--network", "host", *flags, server.url("outer"))
    assert done.returncode != 0
    assert "Permission denied (publickey)" in done.stderr, (done, server.log.read_text())


def test_the_port_of_the_host_is_refused_without_its_network(
    jaula: Run, server: SshServer, keys: dict[str, Path]
) -> None:
    done = jaula("build", "--ssh", f"default={keys['ed25519']}", server.url("outer"))
    assert done.returncode != 0
    assert "an address of the host itself" in done.stderr, done
    assert "Accepted" not in server.log.read_text()
