"""jaula-selinux where SELinux enforces: with its module the service starts containers.

The policy of the machine has the module already (``$VMLAB_SEMODULES``), so it is removed first.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packages import debian
from packages.debian import NEW, PROJECT, run

ENFORCE = Path("/sys/fs/selinux/enforce")
pytestmark = [
    pytest.mark.vm,
    pytest.mark.xdist_group("packages"),
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        "JAULA_VM" not in os.environ
        or not NEW.is_dir()
        or not Path("/run/systemd/system").is_dir()
        or not ENFORCE.exists(),
        reason="needs a virtual machine with systemd and SELinux, and scripts/upgrade-debs",
    ),
]
IMAGE = PROJECT / ".venv/test-images/busybox.tar"
# A user-mode Linux has no nftables.
CONTAINER = ("--network", "none", "busybox")


def label(pid: str | int) -> str:
    """Return the SELinux label of a process."""
    return Path(f"/proc/{pid}/attr/current").read_text().rstrip("\0\n")


def modules() -> list[str]:
    return run("semodule", "--list").split()


def test_the_service_starts_no_container_without_the_module() -> None:
    assert ENFORCE.read_text() == "1"
    if "jaula" in modules():
        run("semodule", "--remove", "jaula")
    run("dpkg", "-i", debian.package(NEW))
    run("jaula", "load", "-i", IMAGE)
    engine = run("systemctl", "show", "--value", "-p", "MainPID", "jaula.service").strip()
    assert ":initrc_t:" in label(engine)
    assert "ran" not in run("jaula", "run", "--rm", *CONTAINER, "echo", "ran", check=False)


def test_the_package_loads_the_module_and_containers_are_confined() -> None:
    run("dpkg", "-i", debian.package(NEW, "jaula-selinux"))
    assert "jaula" in modules()
    run("jaula", "run", "-d", "--name", "one", *CONTAINER, "sleep", "600")
    assert ":container_t:" in label(debian.init_pids()["/one"])
    assert run("jaula", "exec", "one", "echo", "inside") == "inside\n"
    run("jaula", "rm", "-f", "one")


def test_a_removal_unloads_the_module() -> None:
    run("dpkg", "-P", "jaula-selinux")
    assert "jaula" not in modules()
    run("dpkg", "-P", "jaula")
