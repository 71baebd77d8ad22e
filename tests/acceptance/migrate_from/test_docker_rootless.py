"""A user's docker that is stopped is taken over by the user's engine, from its directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.docker_root import DockerRoot
from harness.images import busybox_entries
from harness.rootless import RootlessHost

pytestmark = pytest.mark.xdist_group("rootless")


@pytest.fixture
def host() -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        yield made


def give(path: Path, host: RootlessHost) -> None:
    """Give a tree to the user, with the owners that a rootless docker has on the disk."""
    assert host.ids is not None
    first = host.ids[0]

    def outside(number: int) -> int:
        return first + number - 1 if number else host.uid

    for directory, names, files in os.walk(path):
        for name in (".", *names, *files):
            each = Path(directory, name)
            status = each.lstat()
            os.chown(each, outside(status.st_uid), outside(status.st_gid), follow_symlinks=False)
            if not each.is_symlink():
                each.chmod(status.st_mode & 0o7777)  # chown has removed set-user-ID


def test_a_users_docker_is_taken_over(host: RootlessHost) -> None:
    directory = host.home / ".local/share/docker"
    host.run("mkdir", "-p", str(directory.parent))
    root = DockerRoot(directory)
    image = root.image("rootless:1", busybox_entries())
    data = root.volume("rootless-data")
    (data / "f").write_text("content\n")
    os.chown(data / "f", 5, 6)
    show = "stat -c '%u %g %a' /data/f /own; cat /data/f"
    upper = root.container(
        "mine", image, volumes={"/data": "rootless-data"}, Cmd=["sh", "-c", show]
    )
    (upper / "own").write_text("own\n")
    (upper / "own").chmod(0o4755)
    os.chown(upper / "own", 7, 0)
    (upper / "own").chmod(0o4755)
    give(directory, host)
    done = host.jaula("migrate-from", "docker", "--root", str(directory), "--yes")
    assert "0 failed, 0 refused" in done.stdout, done.stdout + done.stderr
    out = host.jaula("start", "-a", "mine").stdout
    assert out == "5 6 644\n7 0 4755\ncontent\n"
