"""Bind mounts with propagation: ``rshared`` to the host and from it, ``rslave`` from it only.

The engine's host is a mount namespace of the tests, so that no other program of the machine changes
the propagation of its mounts.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import PrivateEngine
from jaula.kernel import mountinfo


@dataclass
class Host:
    """A mount namespace that the process ``pid`` holds."""

    pid: int

    @property
    def namespace(self) -> str:
        return f"/proc/{self.pid}/ns/mnt"

    def run(self, *command: str) -> None:
        subprocess.run(["nsenter", f"--mount={self.namespace}", *command], check=True)

    def path(self, path: Path) -> Path:
        """Return the path of a file of the host for a process outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def mounted(self, path: Path) -> list[str]:
        """Return the file systems that are mounted at ``path``."""
        return [
            mount.fstype
            for mount in mountinfo.read(f"/proc/{self.pid}/mountinfo")
            if mount.target == str(path)
        ]

    @contextlib.contextmanager
    def tmpfs(self, path: Path, propagation: str) -> Iterator[Path]:
        """Mount a tmpfs with a directory ``sub`` at ``path``."""
        path.mkdir()
        self.run("mount", "-t", "tmpfs", "tmpfs", str(path))
        try:
            self.run("mount", f"--make-{propagation}", str(path))
            self.run("mkdir", str(path / "sub"))
            yield path
        finally:
            self.run("umount", "--recursive", str(path))


HOST_USERNS = ("--userns", "host", "--privileged")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield Host(holder.pid)
        holder.communicate()


@pytest.fixture(scope="module")
def engine(worker_index: int, host: Host) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 61) % 250 + 1, mntns=host.namespace)
    with leaks.nothing_left(private):
        yield private


@pytest.fixture
def busybox(engine: PrivateEngine) -> str:
    return load_image(engine, "busybox")


@pytest.fixture
def shared(host: Host, tmp_path: Path) -> Iterator[Path]:
    """Yield a shared tmpfs of the host, with a directory ``sub``."""
    with host.tmpfs(tmp_path / "shared", "shared") as path:
        yield path


@pytest.fixture
def private(host: Host, tmp_path: Path) -> Iterator[Path]:
    """Yield a private tmpfs of the host."""
    with host.tmpfs(tmp_path / "private", "private") as path:
        yield path


def execute(engine: PrivateEngine, name: str, *command: str) -> str:
    done = engine.cli("jaula", "exec", "--privileged", name, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["shared", "rshared"])
def test_what_is_mounted_inside_reaches_the_host(
    engine: PrivateEngine, host: Host, busybox: str, shared: Path, mode: str
) -> None:
    flags = (*HOST_USERNS, "-v", f"{shared}:/data:{mode}")
    with containers.running(engine, busybox, flags=flags) as name:
        assert host.mounted(shared / "sub") == []
        execute(engine, name, "mount", "-t", "tmpfs", "tmpfs", "/data/sub")
        execute(engine, name, "touch", "/data/sub/file")
        assert host.mounted(shared / "sub") == ["tmpfs"]
        assert host.path(shared / "sub/file").exists()
        execute(engine, name, "umount", "/data/sub")
        assert host.mounted(shared / "sub") == []


def test_a_slave_receives_the_mounts_of_the_host_and_passes_none_on(
    engine: PrivateEngine, host: Host, busybox: str, shared: Path
) -> None:
    slaves = ("-v", f"{shared}:/slave:rslave", "-v", f"{shared}:/private")
    with (
        containers.running(engine, busybox, flags=slaves) as own_userns,
        containers.running(engine, busybox, flags=(*HOST_USERNS, *slaves)) as host_userns,
        containers.running(
            engine, busybox, flags=(*HOST_USERNS, "-v", f"{shared}:/shared:rshared")
        ) as peer,
    ):
        host.run("mount", "-t", "tmpfs", "tmpfs", str(shared / "sub"))
        host.path(shared / "sub/file").write_text("")
        for name in (own_userns, host_userns):
            assert execute(engine, name, "ls", "/slave/sub", "/private/sub").split() == [
                *("/private/sub:", "/slave/sub:", "file")
            ]
        assert execute(engine, peer, "ls", "/shared/sub") == "file\n"
        execute(engine, host_userns, "mount", "-t", "tmpfs", "tmpfs", "/slave")
        execute(engine, host_userns, "mount", "-t", "ramfs", "ramfs", "/private/sub")
        assert host.mounted(shared / "sub") == ["tmpfs"]


def test_a_source_that_is_not_shared_is_refused_with_dockers_text(
    engine: PrivateEngine, busybox: str, private: Path
) -> None:
    bind = f"{private}/sub:/data:rshared"
    done = engine.cli("docker", "run", "--rm", *HOST_USERNS, "-v", bind, busybox, "true")
    assert done.returncode == 125
    text = f"path {private}/sub is mounted on {private} but it is not a shared mount"
    assert text in done.stderr


@pytest.mark.parametrize("mode", ["shared", "rshared"])
def test_a_container_with_its_own_user_namespace_is_refused(
    engine: PrivateEngine, busybox: str, shared: Path, mode: str
) -> None:
    bind = f"{shared}:/data:{mode}"
    done = engine.cli("jaula", "run", "--rm", "--privileged", "-v", bind, busybox, "true")
    assert done.returncode == 125
    slave = mode.replace("shared", "slave")
    assert (
        f"invalid propagation {mode} of the mount at /data: mounts of a container with its own user"
        f" namespace cannot reach the host (use --userns=host, or {slave} to receive the host's"
        " mounts only)"
    ) in done.stderr


@pytest.mark.parametrize("flags", [(), ("--userns", "host")])
@pytest.mark.parametrize("directory", ["private", "shared"])
def test_a_mount_that_is_newer_than_the_engine_can_be_bound(
    engine: PrivateEngine,
    host: Host,
    busybox: str,
    request: pytest.FixtureRequest,
    directory: str,
    flags: tuple[str, ...],
) -> None:
    path: Path = request.getfixturevalue(directory)
    host.path(path).chmod(0o777)
    words = ("run", "--rm", *flags, "-v", f"{path}:/m", "-v", f"{path}/sub:/sub:ro", busybox)
    done = engine.cli("jaula", *words, "sh", "-c", "echo data > /m/file && stat -f -c %T /sub")
    assert (done.returncode, done.stdout) == (0, "tmpfs\n"), done.stderr
    assert host.path(path / "file").read_text() == "data\n"
