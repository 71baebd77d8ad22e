"""Namespaces: each of the eight is the container's own, or shared because of a flag.

Evidence: the links in /proc/<pid>/ns compared with those of the host's process 1 (namespaces(7)),
and for own ones the owning user namespace (ioctl_nsfs(2), NS_GET_USERNS), whose root controls the
namespace.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, verdict_of

NS_GET_USERNS = 0xB701

KINDS: tuple[tuple[str, str, str, str], ...] = (
    ("user", "user", "UsernsMode", "--userns"),
    ("mnt", "mount", "", ""),
    ("pid", "pid", "PidMode", "--pid"),
    ("net", "network", "NetworkMode", "--network"),
    ("ipc", "ipc", "IpcMode", "--ipc"),
    ("uts", "uts", "UTSMode", "--uts"),
    ("cgroup", "cgroup", "CgroupnsMode", "--cgroupns"),
    ("time", "time", "", ""),
)
"""(entry of /proc/<pid>/ns, OCI type, HostConfig key, flag)."""


INFO = CheckInfo(
    id="namespaces",
    layer="namespaces",
    title="Namespaces",
    reason=(
        "A namespace shared with the host is not a boundary: its processes, interfaces, names "
        "or queues are visible and can be changed from the container."
    ),
    references=("I9", "CIS 5.10", "CIS 5.16", "CIS 5.17", "CIS 5.21", "CIS 5.31", "namespaces(7)"),
    evidence="links in /proc/<pid>/ns, ioctl_nsfs(2) NS_GET_USERNS",
    advice=(
        "start it without --pid=host, --network=host, --ipc=host, --uts=host, "
        "--userns=host, --cgroupns=host"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for each kind."""
    listed = {namespace.type: namespace for namespace in container.linux.namespaces}
    for kind, oci, key, flag in KINDS:
        mode = container.text(key) if key else ""
        entry = listed.get(oci)
        if kind == "time" and entry is None:
            continue  # a kernel without them, or another runtime; the clocks are the host's anyway
        actual = container.link(f"ns/{kind}")
        host = _host(container, kind)
        evidence = container.path(f"ns/{kind}")
        shares_host = mode == "host"
        joins = mode.startswith("container:")
        if shares_host:
            relaxed_by = container.flag(f"{flag}=host")
            requested = f"the host's ({relaxed_by})"
            holds = actual == host and entry is None
        elif joins or (entry is not None and entry.path):
            shared = container.shared_with(mode)
            requested = f"that of {shared}" if container.pod else f"{mode or 'joined'} ({flag})"
            requested = requested if joins else "of a joined container"
            relaxed_by = f"{flag}={mode}" if joins else "joining a container"
            holds = actual != host and entry is not None and bool(entry.path)
            if holds and entry is not None and entry.path and os.path.exists(entry.path):
                holds = os.stat(entry.path).st_ino == int(actual.rpartition("[")[2].rstrip("]"))
            if holds and (owner := container.joined(mode)) is not None:
                holds = actual == owner.namespaces[kind]
            if not joins and not any(
                container.text(k).startswith("container:") for _, _, k, _ in KINDS if k
            ):
                holds = False  # no flag requested it
        else:
            requested, relaxed_by = "its own", None
            holds = actual != host and entry is not None
            if holds and container.own_user_namespace and not _owned(container, kind):
                yield Result(
                    f"namespace {kind}", "namespaces", "its own, owned by its user namespace",
                    f"{actual}, owned by another user namespace", f"NS_GET_USERNS {evidence}",
                    Verdict.FAILS,
                )  # fmt: skip
                continue
        effective = f"{actual}, " + ("the host's" if actual == host else f"host {host}")
        yield Result(
            f"namespace {kind}", "namespaces", requested, effective, evidence,
            verdict_of(holds, relaxed_by),
        )  # fmt: skip


def _host(container: AuditedContainer, kind: str) -> str:
    """Return the host's namespace: that of process 1, or of this process if not readable."""
    try:
        return os.readlink(f"{container.proc_root}/1/ns/{kind}")
    except PermissionError:  # process 1 has a capability that the reader lacks
        return os.readlink(f"{container.proc_root}/self/ns/{kind}")


def _owned(container: AuditedContainer, kind: str) -> bool:
    """Return whether the container's user namespace owns its namespace of this kind."""
    if kind == "user":
        return True
    fd = os.open(container.path(f"ns/{kind}"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = fcntl.ioctl(fd, NS_GET_USERNS)
    finally:
        os.close(fd)
    try:
        return os.fstat(owner).st_ino == os.stat(container.path("ns/user")).st_ino
    finally:
        os.close(owner)
