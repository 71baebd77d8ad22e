"""Checkpoints of containers whose cgroups are scopes of systemd."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.checkpoints import CheckedContainer
from harness.engine import PrivateEngine, SliceEngine

pytestmark = [pytest.mark.vm, pytest.mark.criu, pytest.mark.needs("/run/systemd/system")]

CHECKS = ("threads", "tree", "pipes", "memory", "timers", "files")
LIMITS = ("--memory", "300m", "--pids-limit", "77")


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[SliceEngine]:
    driver = ("--exec-opt", "native.cgroupdriver=systemd")
    private = SliceEngine((worker_index + 97) % 250 + 1, extra_flags=driver)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
    systemctl("stop", f"{private.tag}.slice")


@pytest.fixture
def kept(node: PrivateEngine) -> Iterator[CheckedContainer]:
    container = CheckedContainer(node, ("--tmpfs", "/work", "-v", "/data", *LIMITS), CHECKS)
    container.rounds(3)
    yield container
    container.remove()


def systemctl(*words: str) -> str:
    program = str(shutil.which("systemctl"))
    return subprocess.run([program, *words], capture_output=True, text=True, check=False).stdout


def scope(node: PrivateEngine, name: str) -> str:
    """Return the unit of a container's first process."""
    text = Path(f"/proc/{containers.pid(node, name)}/cgroup").read_text()
    unit = text.rstrip("\n").rpartition("/")[2]
    assert unit.endswith(".scope"), text
    return unit


def check_unit(unit: str) -> None:
    properties = ("ActiveState", "MemoryMax", "TasksMax")
    flags = [word for name in properties for word in ("-p", name)]
    lines = systemctl("show", *flags, unit).split()
    assert set(lines) == {"ActiveState=active", f"MemoryMax={300 << 20}", "TasksMax=77"}


def test_a_restored_container_is_in_its_scope_again(
    node: SliceEngine, kept: CheckedContainer
) -> None:
    unit, before = scope(node, kept.name), kept.confinement()
    for name in ("one", "two"):
        kept.create(name=name)
        assert systemctl("is-active", unit) != "active\n"
        kept.start(name=name)
        kept.advance()
        assert scope(node, kept.name) == unit
        check_unit(unit)
        assert kept.confinement() == before


def test_a_rollback_and_a_clone_have_scopes(node: SliceEngine, kept: CheckedContainer) -> None:
    kept.jaula("snapshot", kept.name, "warm")
    kept.advance()
    kept.jaula("rollback", kept.name, "warm")
    kept.rounds(1)
    check_unit(scope(node, kept.name))
    copy = kept.jaula("clone", "--name", f"{kept.name}-copy", kept.name, "warm")
    assert copy
    try:
        unit = scope(node, f"{kept.name}-copy")
        assert unit != scope(node, kept.name)
        check_unit(unit)
    finally:
        kept.jaula("rm", "-f", "-v", f"{kept.name}-copy")


def test_a_restore_that_is_refused_leaves_no_unit(
    node: SliceEngine, kept: CheckedContainer
) -> None:
    unit = scope(node, kept.name)
    kept.create()
    (memory,) = (node.root / "lib/checkpoints").glob("*/one/images/pages-1.img")
    with memory.open("r+b") as file:
        file.write(b"x")
    assert "was changed" in kept.refused("start", "--checkpoint", "one", kept.name)
    assert systemctl("is-active", unit) != "active\n"
    assert unit not in systemctl("list-units", "--all", "--plain", "--no-legend")
