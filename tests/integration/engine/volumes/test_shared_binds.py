"""Bind mounts with propagation: ``rshared`` to the host and from it, ``rslave`` from it only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from jaula.kernel import mountinfo

HOST_USERNS = ("--userns", "host", "--privileged")


def mounted(path: Path) -> list[str]:
    """Return the file systems that are mounted at ``path`` on the host."""
    return [mount.fstype for mount in mountinfo.read() if mount.target == str(path)]


def is_shared(path: Path) -> bool:
    """Return whether the mount at ``path`` on the host is a shared one."""
    tags = [mount.propagation for mount in mountinfo.read() if mount.target == str(path)]
    return bool(tags) and any(tag.startswith("shared:") for tag in tags[-1])


@contextlib.contextmanager
def tmpfs(path: Path, propagation: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    try:
        subprocess.run(["mount", f"--make-{propagation}", str(path)], check=True)
        assert is_shared(path) is (propagation == "shared")
        (path / "sub").mkdir()
        yield path
    finally:
        kept = is_shared(path)
        subprocess.run(["umount", "--recursive", str(path)], check=True)
        # If a container was refused, this tells a mount that has changed from a wrong check.
        assert kept is (propagation == "shared")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """Yield a shared tmpfs of the host, with a directory ``sub``."""
    with tmpfs(tmp_path / "shared", "shared") as path:
        yield path


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Path]:
    """Yield a private tmpfs of the host."""
    with tmpfs(tmp_path / "private", "private") as path:
        yield path


def execute(engine: PrivateEngine, name: str, *command: str) -> str:
    done = engine.cli("jaula", "exec", "--privileged", name, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["shared", "rshared"])
def test_what_is_mounted_inside_reaches_the_host(
    engine: PrivateEngine, busybox: str, shared: Path, mode: str
) -> None:
    flags = (*HOST_USERNS, "-v", f"{shared}:/data:{mode}")
    with containers.running(engine, busybox, flags=flags) as name:
        assert mounted(shared / "sub") == []
        execute(engine, name, "mount", "-t", "tmpfs", "tmpfs", "/data/sub")
        execute(engine, name, "touch", "/data/sub/file")
        assert mounted(shared / "sub") == ["tmpfs"]
        assert (shared / "sub/file").exists()
        execute(engine, name, "umount", "/data/sub")
        assert mounted(shared / "sub") == []


def test_a_slave_receives_the_mounts_of_the_host_and_passes_none_on(
    shared: Path, new_engine: Callable[..., PrivateEngine]
) -> None:
    engine = new_engine()  # its mount namespace has the shared mount, whatever the host's root is
    busybox = load_image(engine, "busybox")
    slaves = ("-v", f"{shared}:/slave:rslave", "-v", f"{shared}:/private")
    with (
        containers.running(engine, busybox, flags=slaves) as own_userns,
        containers.running(engine, busybox, flags=(*HOST_USERNS, *slaves)) as host_userns,
        containers.running(
            engine, busybox, flags=(*HOST_USERNS, "-v", f"{shared}:/shared:rshared")
        ) as peer,
    ):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(shared / "sub")], check=True)
        (shared / "sub/file").write_text("")
        for name in (own_userns, host_userns):
            assert execute(engine, name, "ls", "/slave/sub", "/private/sub").split() == [
                *("/private/sub:", "/slave/sub:", "file")
            ]
        assert execute(engine, peer, "ls", "/shared/sub") == "file\n"
        execute(engine, host_userns, "mount", "-t", "tmpfs", "tmpfs", "/slave")
        execute(engine, host_userns, "mount", "-t", "ramfs", "ramfs", "/private/sub")
        assert mounted(shared / "sub") == ["tmpfs"]


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
    busybox: str,
    request: pytest.FixtureRequest,
    directory: str,
    flags: tuple[str, ...],
) -> None:
    path: Path = request.getfixturevalue(directory)
    path.chmod(0o777)
    words = ("run", "--rm", *flags, "-v", f"{path}:/m", "-v", f"{path}/sub:/sub:ro", busybox)
    done = engine.cli("jaula", *words, "sh", "-c", "echo data > /m/file && stat -f -c %T /sub")
    assert (done.returncode, done.stdout) == (0, "tmpfs\n"), done.stderr
    assert (path / "file").read_text() == "data\n"
