"""The runtime under test and its callers.

JAULA_TEST_RUNTIME names another OCI runtime for the same tests, such as /usr/sbin/runc. A test that
fails with both is wrong. A test that fails with one concerns that one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.buildah import Buildah
from harness.callers.containerd import Containerd
from harness.callers.dockerd import Dockerd, RemappedDockerd
from harness.callers.podman import Podman, RootlessPodman
from harness.engine import PROJECT


@pytest.fixture(scope="session")
def oci_runtime() -> Path:
    path = Path(os.environ.get("JAULA_TEST_RUNTIME") or PROJECT / "jaula-runtime")
    assert os.access(path, os.X_OK), f"there is no runtime at {path}"
    return path


@pytest.fixture(scope="session")
def podman(oci_runtime: Path, busybox_archive: Path) -> Iterator[Podman]:
    with Podman(oci_runtime, busybox_archive) as caller:
        yield caller


@pytest.fixture(scope="session")
def rootless(oci_runtime: Path, busybox_archive: Path) -> Iterator[RootlessPodman]:
    with RootlessPodman(oci_runtime, busybox_archive) as caller:
        if not caller.reaches_runtime():
            pytest.skip(f"an unprivileged user may not read the files of {oci_runtime}")
        yield caller


@pytest.fixture(scope="session")
def containerd(oci_runtime: Path, busybox_archive: Path) -> Iterator[Containerd]:
    with Containerd(oci_runtime, busybox_archive) as caller:
        yield caller


@pytest.fixture(scope="session")
def dockerd(oci_runtime: Path, busybox_archive: Path) -> Iterator[Dockerd]:
    with Dockerd(oci_runtime, busybox_archive) as caller:
        yield caller


@pytest.fixture(scope="module")
def remapped(oci_runtime: Path, busybox_archive: Path) -> Iterator[RemappedDockerd]:
    with RemappedDockerd(oci_runtime, busybox_archive) as caller:
        yield caller


@pytest.fixture(scope="session")
def buildah(oci_runtime: Path, busybox_archive: Path) -> Iterator[Buildah]:
    with Buildah(oci_runtime, busybox_archive) as caller:
        yield caller
