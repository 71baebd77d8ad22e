"""Containers of a docker whose files are not read from the disk: by its API, with each driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engine import PrivateEngine
from harness.foreign_dockerd import ForeignDockerd

pytestmark = [
    pytest.mark.takeover,
    pytest.mark.needs("dockerd", "docker", "runc"),
    pytest.mark.xdist_group("foreign-dockerd"),
]

CHANGE = (
    "echo new > /etc/new; chown 5:6 /etc/new; chmod 4750 /etc/new; rm /etc/passwd; mkdir -p /a/b;"
    " echo x > /a/b/f; ln /a/b/f /a/hard; ln -s b/f /a/soft; mkfifo /a/pipe; chmod 700 /a/b;"
    " echo in > /data/volume; echo own > /c/own; echo hidden > /c/memory/x"
)
SHOW = (
    "stat -c '%n %u %g %a' /etc/new; cat /etc/new; ls /etc/passwd; cat /a/hard /a/soft;"
    " stat -c '%h %F' /a/b/f /a/pipe; stat -c %a /a/b; cat /data/volume /c/own;"
    " ls /c/memory"
)
SHOWN = [
    "/etc/new 5 6 4750", "new", "x", "x", "2 regular file", "1 fifo", "700", "in", "own",
]  # fmt: skip


@pytest.fixture(params=["vfs", "containerd"])
def dockerd(
    busybox_archive: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[ForeignDockerd]:
    flags = ["--storage-driver", "vfs"]
    if request.param == "containerd":
        settings = tmp_path / "daemon.json"
        settings.write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
        flags = ["--config-file", str(settings)]
    with ForeignDockerd(busybox_archive, flags) as docker:
        yield docker


def test_files_of_containers_are_taken_over(dockerd: ForeignDockerd, new_engine: Any) -> None:
    dockerd("volume", "create", "data")
    mounts = ("-v", "data:/data", "--tmpfs", "/c/memory")
    dockerd("run", "--name", "changed", *mounts, "busybox", "sh", "-c", CHANGE)
    dockerd("create", "--name", "unchanged", "busybox", "true")
    target: PrivateEngine = new_engine()
    words = ("migrate-from", "docker", "--host", dockerd.address, "--yes")
    done = target.cli("jaula", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without its own files" not in done.stdout
    done = target.cli("jaula", "debug", "changed", "sh", "-c", SHOW)
    assert done.stdout.splitlines() == SHOWN, done.stderr
    assert "/etc/passwd: No such file" in done.stderr
    listed = target.cli("docker", "diff", "unchanged").stdout
    assert listed == ""
