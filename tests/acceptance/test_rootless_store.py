"""Integrity checks and disk limits in an ordinary user's engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rootless import RootlessHost


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


def test_system_check_passes_and_images_are_intact(host: RootlessHost) -> None:
    host.jaula("create", "--name", "c1", "-v", "/data", "busybox")
    assert host.jaula("system", "check", "--contents").stdout == "No problems found.\n"
    assert "intact" in host.jaula("image", "verify", "--all").stdout
    host.jaula("rm", "-v", "c1")


def test_a_changed_layer_is_detected_and_repaired(host: RootlessHost) -> None:
    etc = next((host.home / ".local/share/jaula").glob("**/layers/*/fs/etc"))
    (etc / "more").touch()
    done = host.jaula("image", "verify", "busybox", expect=1)
    assert "/etc/more: it is not in the layer" in done.stdout
    host.jaula("system", "check", "--contents", "--repair")
    host.jaula("image", "verify", "busybox")
    assert host.jaula("run", "--rm", "busybox", "echo", "well").stdout == "well\n"


def test_a_disk_limit_is_refused_with_the_reason(host: RootlessHost) -> None:
    words = ("run", "--rm", "--storage-opt", "size=10m", "busybox", "true")
    done = host.jaula(*words, expect=125)
    assert "a rootless engine cannot set quotas" in done.stderr
