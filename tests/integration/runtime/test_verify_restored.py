"""The verification of restored processes reads the kernel, and fails for each row that differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime.check_images import Expected
from jaula.features.checkpoint.runtime.verify_restored import verify
from jaula.kernel import mountinfo
from jaula.kernel.apparmor_files import parse_current
from jaula.kernel.mounts import MS

KINDS = frozenset({"pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"})


@pytest.fixture(scope="module")
def pid(engine: PrivateEngine, busybox: str) -> Iterator[int]:
    """Run a container like one that was restored; yield the pid of its init."""
    done = engine.cli("jaula", "run", "-d", "--name", "verified", busybox, "sleep", "1000")
    assert done.returncode == 0, done.stderr
    yield containers.pid(engine, "verified")
    engine.cli("jaula", "rm", "-f", "verified")


def profile(pid: int) -> str:
    """Return the AppArmor profile of a process; '' on a machine without AppArmor."""
    try:
        return parse_current(Path(f"/proc/{pid}/attr/apparmor/current").read_text())[0]
    except OSError:
        return ""


def arguments(pid: int) -> dict[str, Any]:
    mounts = mountinfo.read(f"/proc/{pid}/mountinfo")
    expected = Expected(
        namespaces=KINDS,
        ids=65536,
        bounding=int(containers.status(pid)["CapBnd"], 16),
        no_new_privileges=False,
        filter=b"some program",
        external=frozenset(),
        mounts={"/proc": int(MS.NOSUID | MS.NODEV | MS.NOEXEC), "/sys": int(MS.RDONLY)},
        mount_points=frozenset(mount.target for mount in mounts),
        rlimits={},
        oom_score_adj=0,
        roots={mount.target: frozenset({mount.root}) for mount in mounts},
        apparmor=profile(pid),
    )
    return {
        "init": pid,
        "pids": (pid,),
        "expected": expected,
        "maps": tuple(Path(f"/proc/{pid}/{name}").read_text() for name in ("uid_map", "gid_map")),
        "masked": ("/proc/keys", "/sys/firmware"),
        "cgroup": Path(f"/proc/{pid}/cgroup").read_text(),
        "joined": {},
    }


def test_a_confined_process_is_accepted(pid: int) -> None:
    verify(**arguments(pid))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"bounding": 0}, "CapPrm"),
        ({"no_new_privileges": True}, "no_new_privs"),
        ({"namespaces": KINDS - {"network"}}, "network namespace"),
        ({"mount_points": frozenset({"/proc"})}, "unexpected mount"),
        ({"mounts": {"/proc": int(MS.RDONLY)}}, "not ro"),
        ({"mounts": {"/absent": 0}}, "missing"),
        ({"apparmor": "other"}, "LSM label is .*, not other"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_difference_from_the_spec_is_found(
    pid: int, members: dict[str, Any], words: str
) -> None:
    given = arguments(pid)
    given["expected"] = msgspec.structs.replace(given["expected"], **members)
    with pytest.raises(RuntimeFailure, match=words):
        verify(**given)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("maps", ("0 0 65536", "0 0 65536"), "uid_map"),
        ("masked", ("/proc/uptime",), "not masked"),
        ("cgroup", "0::/elsewhere\n", "another cgroup"),
        ("pids", (), "not in the container's cgroup"),
        ("pids", "self", "namespace"),
    ],
)
def test_each_other_difference_is_found(pid: int, name: str, value: Any, words: str) -> None:
    given = arguments(pid)
    given[name] = (pid, "self") if value == "self" else value
    with pytest.raises(RuntimeFailure, match=words):
        verify(**given)


def test_a_process_without_a_filter_is_found(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--security-opt", "seccomp=unconfined")
    words = ("run", "-d", "--name", "unfiltered", *flags, busybox, "sleep", "1000")
    assert engine.cli("jaula", *words).returncode == 0
    try:
        with pytest.raises(RuntimeFailure, match="filter of system calls"):
            verify(**arguments(containers.pid(engine, "unfiltered")))
    finally:
        engine.cli("jaula", "rm", "-f", "unfiltered")
