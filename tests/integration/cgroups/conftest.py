"""A driver for the host's cgroups, cgroups for tests, and processes in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from harness.cgroup_driver import cgroup_driver
from jaula import cgroups
from jaula.cgroups.cgroup_driver import Cgroup, CgroupDriver
from jaula.errors import NotFound

Start = Callable[..., "subprocess.Popen[bytes]"]
SYSTEMD = "/run/systemd/system"  # sd_booted(3)


@pytest.fixture(
    scope="session",
    params=[
        "host",
        pytest.param("v2", marks=pytest.mark.vm),
        pytest.param("systemd", marks=[pytest.mark.vm, pytest.mark.needs(SYSTEMD)]),
    ],
)
def driver(request: pytest.FixtureRequest) -> CgroupDriver:
    """Return the driver for the host's version; with ``-m vm`` that must be v2."""
    if request.param == "systemd":
        if not os.path.isdir(SYSTEMD):
            pytest.skip(f"systemd does not run on this host: there is no {SYSTEMD}")
        return cgroups.select(systemd=True, rootless=False)
    result = cgroup_driver()
    if request.param == "v2":
        assert result.version == 2, "the tests marked vm need a machine with cgroup v2"
    return result


@pytest.fixture(scope="session")
def parent(driver: CgroupDriver) -> Iterator[str]:
    name = f"/jlt{os.getpid()}{uuid.uuid4().hex[:6]}"
    name += ".slice" if driver.name == "systemd" else ""
    yield name
    with contextlib.suppress(NotFound):
        driver.open(name).destroy()


@pytest.fixture
def path(parent: str) -> str:
    return f"{parent}/{uuid.uuid4().hex}" + (".scope" if parent.endswith(".slice") else "")


@pytest.fixture
def cgroup(driver: CgroupDriver, path: str) -> Iterator[Cgroup]:
    made = driver.create(path)
    yield made
    made.kill()
    made.destroy()
    made.close()


@pytest.fixture
def start(driver: CgroupDriver) -> Iterator[Start]:
    """Run a Python program as a process that entered ``cgroup`` before its exec."""
    running: list[subprocess.Popen[bytes]] = []

    def run(cgroup: Cgroup, program: str, settle: bool = True) -> subprocess.Popen[bytes]:
        descriptors = cgroup.open_attach_fds()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdout=subprocess.PIPE,
                pass_fds=descriptors,
                preexec_fn=lambda: cgroups.enter(descriptors),
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        running.append(process)
        if settle:
            cgroup.release_pause_process()
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
