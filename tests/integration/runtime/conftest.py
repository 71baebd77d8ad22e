"""A zygote of the tests' own and a busybox root to start containers in."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.container_runner import ContainerRunner
from harness.engine import SPARE_SHIMS
from jaula.runtime.runtime_client import Runtime
from jaula.runtime_interfaces import runtime_interfaces


@pytest.fixture(scope="session")
def runner() -> Iterator[ContainerRunner]:
    base = Path(tempfile.mkdtemp(prefix="jlt-rt-", dir="/var/tmp"))
    base.chmod(0o711)
    layer = base / "layer"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (layer / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", layer / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (layer / "bin" / applet).symlink_to("busybox")
    runtime = Runtime.launch(runtime_interfaces, spare_shims=int(SPARE_SHIMS or 1))
    runner = ContainerRunner(base, runtime)
    yield runner
    runtime.close()
    left = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-path", f"*{runner.cgroup_parent}/*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for hierarchy in Path("/sys/fs/cgroup").glob(f"*{runner.cgroup_parent}"):
        hierarchy.rmdir()
    shutil.rmtree(base)
    assert not left, f"cgroups left behind: {left}"
