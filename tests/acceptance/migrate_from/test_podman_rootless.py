"""A user's podman is taken over by the user's engine: ids of the user's range are those inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.docker_root import listing
from harness.rootless import RootlessHost

pytestmark = [
    pytest.mark.takeover,
    pytest.mark.needs("podman"),
    pytest.mark.xdist_group("rootless"),
]


@pytest.fixture
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made
        made.run("podman", "system", "migrate")  # ends the process that keeps its user namespace


def test_a_users_podman_is_taken_over(host: RootlessHost, busybox_archive: Path) -> None:
    policy = host.home / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    archive = host.home / "busybox.tar"
    archive.write_bytes(busybox_archive.read_bytes())
    archive.chmod(0o644)
    settings = host.home / ".config/containers"
    host.run("mkdir", "-p", str(settings))
    (settings / "containers.conf").write_text(
        '[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\n'
    )

    def podman(*words: str) -> str:
        done = host.run("podman", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    podman("load", "-q", "--signature-policy", str(policy), "-i", str(archive))
    podman("volume", "create", "data")
    script = 'cd "$1" && echo content > f && chown 5:6 f && chmod 600 f'
    data = podman("volume", "inspect", "-f", "{{.Mountpoint}}", "data")
    podman("unshare", "sh", "-c", script, "sh", data)
    show = "stat -c '%u %g %a' /data/f /own; cat /data/f"
    podman("create", "--name", "web", "-v", "data:/data", "busybox", "sh", "-c", show)
    upper = podman("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "web")
    podman("unshare", "sh", "-c", 'echo own > "$1/own"; chown 7 "$1/own"', "sh", upper)
    root = host.home / ".local/share/containers/storage"
    before = listing(root)

    done = host.jaula("migrate-from", "podman", "--yes")
    assert "0 failed, 0 refused" in done.stdout, done.stdout
    assert listing(root) == before
    out = host.jaula("start", "-a", "web").stdout
    assert out == "5 6 600\n7 0 644\ncontent\n"
