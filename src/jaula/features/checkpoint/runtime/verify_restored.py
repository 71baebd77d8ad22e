"""Verify the processes of a restored container in the kernel, before they run.

CRIU has restored credentials, filters and namespaces in its notification ``pre-resume``, and the
processes are still stopped. What is read here is what the kernel enforces, whatever the images
said. CRIU ignores the answer to this notification, so the caller kills the processes on a failure.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping

from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime.check_images import OPTIONS, Expected
from jaula.kernel import mountinfo
from jaula.kernel.apparmor_files import parse_current
from jaula.kernel.namespaces import namespace_id

_FILES = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_IDS = ("Uid", "Gid", "Groups")
_UNMAPPED = (1 << 32) - 1
APPARMOR, SELINUX = "attr/apparmor/current", "attr/current"
"""Files of a task's labels below its directory in /proc."""


def verify(
    init: int,
    pids: Collection[int],
    expected: Expected,
    maps: tuple[str, str],
    masked: Collection[str],
    cgroup: str,
    joined: Mapping[str, int],
) -> None:
    """Check every process of a container against its spec.

    ``maps`` are uid_map and gid_map of the container, as rows of three numbers. ``masked`` are
    paths that a mount must cover. ``cgroup`` is what /proc/PID/cgroup must show. ``joined`` are
    descriptors of the namespaces of another container, by type.

    :raises RuntimeFailure: for the first row that does not hold.
    """
    if init not in pids:
        raise _failed(init, "it is not in the container's cgroup")
    kinds = {kind: name for kind, name in _FILES.items() if os.path.exists(f"/proc/self/ns/{name}")}
    first = {name: namespace_id(init, name) for name in kinds.values()}
    labels = _labels(expected)
    for pid in pids:
        for kind, name in kinds.items():
            if namespace_id(pid, name) != first[name] or not _is_right(
                first[name], kind, expected, joined
            ):
                raise _failed(pid, f"it is in another {kind} namespace than the spec says")
        _verify_status(pid, expected, labels)
        if "user" in expected.namespaces | expected.joined:
            for name, rows in zip(("uid_map", "gid_map"), maps, strict=True):
                if _words(f"/proc/{pid}/{name}") != rows.split():
                    raise _failed(pid, f"its {name} is not the container's")
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            if file.read() != cgroup:
                raise _failed(pid, "it is in another cgroup")
    _verify_mounts(init, expected, masked)


def _is_right(found: str, kind: str, expected: Expected, joined: Mapping[str, int]) -> bool:
    if kind in expected.joined:
        return found.endswith(f":[{os.fstat(joined[kind]).st_ino}]")
    is_host = found == namespace_id("self", _FILES[kind])
    return is_host != (kind in expected.namespaces)


def _failed(pid: int, problem: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"the restored process {pid} is not confined as the container: {problem};"
        " the container was killed"
    )


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def _labels(expected: Expected) -> dict[str, str]:
    """Return the label that each task has by each security module, by its file below /proc.

    A process of a container without a profile keeps that of the engine, as this process does.
    """
    found = {}
    profile = _label("/proc/self", APPARMOR)
    if profile or expected.apparmor:
        found[APPARMOR] = expected.apparmor or profile
    if expected.selinux:
        found[SELINUX] = expected.selinux
    return found


def _label(task: str, name: str) -> str:
    """Return a label of a task; '' if the kernel has none of that module."""
    try:
        with open(f"{task}/{name}", encoding="utf-8", errors="replace") as file:
            return parse_current(file.read())[0]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL) and os.path.exists(task):
            return ""
        raise


def _verify_status(pid: int, expected: Expected, labels: Mapping[str, str]) -> None:
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8", errors="replace") as file:
            status = dict(line.split(":\t", 1) for line in file.read().split("\n") if ":\t" in line)
        if status.get("State", "").startswith("Z"):
            continue
        for name in _SETS:
            if int(status[name], 16) & ~expected.bounding:
                raise _failed(pid, f"{name} is {status[name]}")
        if expected.no_new_privileges and status["NoNewPrivs"].strip() != "1":
            raise _failed(pid, "no_new_privs is not set")
        if expected.filter is not None and status["Seccomp"].strip() != "2":
            raise _failed(pid, "it has no filter of system calls")
        _verify_ids(pid, status, expected)
        for name, label in labels.items():
            if (found := _label(f"/proc/{pid}/task/{task}", name)) != label:
                raise _failed(pid, f"its LSM label is {found or 'missing'}, not {label}")


def _verify_ids(pid: int, status: dict[str, str], expected: Expected) -> None:
    """Check that no id is one of the host's own; without a user namespace any is."""
    if not expected.ids:
        return
    starts = [_words(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map")]
    for name, rows in zip(_IDS, (starts[0], starts[1], starts[1]), strict=True):
        numbers = [int(word) for word in rows]
        ranges = [(numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3)]
        for word in status[name].split():
            if not any(start <= int(word) < start + size for start, size in ranges):
                raise _failed(pid, f"{name} is {status[name].strip()}")


def _verify_mounts(init: int, expected: Expected, masked: Collection[str]) -> None:
    mounts = {mount.target: mount for mount in mountinfo.read(f"/proc/{init}/mountinfo")}
    for target, mount in mounts.items():
        if target != "/" and target not in expected.mount_points:
            raise _failed(init, f"an unexpected mount at {target}")
        # The roots of cgroup mounts are relative to the namespace of the reader.
        if mount.fstype not in ("cgroup", "cgroup2") and not expected.allows_root(
            target, mount.fstype, mount.root
        ):
            raise _failed(init, f"the mount at {target} shows {mount.root}")
        if any(each.startswith("shared:") for each in mount.propagation):
            raise _failed(init, f"the mount at {target} is shared")
    for target, attributes in expected.mounts.items():
        if target not in mounts:
            raise _failed(init, f"the mount at {target} is missing")
        options = mounts[target].options
        for flag, word in OPTIONS.items():
            if attributes & flag and word not in options:
                raise _failed(init, f"the mount at {target} is not {word}")
    for path in masked:
        found = os.stat(f"/proc/{init}/root{path}")
        is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
        if not is_null and not (stat.S_ISDIR(found.st_mode) and mounts[path].fstype == "tmpfs"):
            raise _failed(init, f"{path} is not masked")
