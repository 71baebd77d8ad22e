"""Users without a delegated cgroup: containers without a cgroup, and errors for limits."""

from __future__ import annotations

import subprocess
import sys

NOBODY = 65534
PROGRAM = """
from jaula import cgroups
from jaula.cgroups.cgroup_path import resolve
from jaula.errors import JaulaError
from jaula.spec.runtime_spec import DeviceCgroup, Memory, Resources

driver = cgroups.select(systemd=False, rootless=True)
own = open('/proc/self/cgroup').read()
path = resolve(None, 'jlt-nobody', systemd=False, rootless=True, own=own)
with driver.create(path) as cgroup:
    print(cgroup.apply(Resources(devices=(DeviceCgroup(allow=False, access='rwm'),))))
    print(cgroup.open_attach_fds(), cgroup.pids(), cgroup.locations())
    try:
        cgroup.apply(Resources(memory=Memory(limit=1 << 20)))
    except JaulaError as error:
        print(error)
    cgroup.kill()
    cgroup.destroy()
with driver.open(path) as again:
    print(again.pids())
"""


def test_a_user_without_a_cgroup_cannot_set_limits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        cwd="/",
    )
    assert done.stderr == ""
    first, second, refused, last = done.stdout.splitlines()
    assert (first, second, last) == ("()", "() () {}", "()")
    assert refused.startswith(
        "cannot limit memory: the container has no cgroup (cannot create cgroup"
    )
    assert "systemd-run --user --scope" in refused
