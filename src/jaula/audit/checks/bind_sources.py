"""What of the host is bound into the container: directories of the system, sockets that are root.

Evidence: the sources of the mounts, resolved on the host. Whoever speaks to an engine's control
socket is root of the host; a bound /etc, /proc or / is the host itself. The engine does as it is
told, so such a mount is asked for, and named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jaula.audit.checks.mounts import file_identity, stat_identity
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

SYSTEM = (
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var/lib",
)
"""The benchmark's list, and what holds keys, sockets and the state of services."""

SOCKETS = (
    "/run/jaula/jaula.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
)
"""Whoever may speak here can start processes as root of the host."""

INFO = CheckInfo(
    id="sources",
    layer="mounts",
    title="Parts of the host",
    reason="A control socket of an engine, or a directory of the host's system, gives the host "
    "away, whatever the other layers are.",
    references=("I16", "I17", "CIS 5.6", "CIS 5.32", "CVE-2014-3499"),
    evidence="sources of the mounts, stat(2) on the host",
    advice="bind the one file that is needed, read-only; give no container an engine's socket",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row for directories, one for sockets."""
    sources = []
    for mount in container.inspect.get("Mounts") or ():
        source, target = str(mount.get("Source") or ""), str(mount.get("Destination"))
        if mount.get("Type") == "bind":
            sources.append((os.path.realpath(source), target))
        elif mount.get("Type") == "volume":
            sources += [(path, target) for path in _shown(container, target)]
    system = [f"-v {source}:{target}" for source, target in sources if source in SYSTEM]
    sockets = [f"-v {source}:{target}" for source, target in sources if exposes_socket(source)]
    evidence = f"stat(2) of {len(sources)} sources"
    for name, found in (("host directories", system), ("control sockets", sockets)):
        by = ", ".join(found) or None
        yield Result(
            name, "mounts", by or "none", f"{len(found)} bound" if found else "none", evidence,
            verdict_of(True, by),
        )  # fmt: skip


def _shown(container: AuditedContainer, destination: str) -> list[str]:
    """The directory of the system that a volume is a bind of, by its options."""
    try:
        here = file_identity(container, destination)
    except FileNotFoundError:
        return []  # which the inventory of mounts tells
    return [
        path for path in SYSTEM if os.path.exists(path) and stat_identity(os.stat(path)) == here
    ]


def exposes_socket(source: str) -> bool:
    """Whether a control socket is, or lies below, ``source`` on the host."""
    try:
        bound = os.stat(source)
    except FileNotFoundError:
        return False
    for path in SOCKETS:
        try:
            there = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if (there.st_dev, there.st_ino) == (bound.st_dev, bound.st_ino):
            return True
        inside = os.path.realpath(path).startswith(source.rstrip("/") + "/")
        if inside and stat.S_ISDIR(bound.st_mode):
            return True
    return stat.S_ISSOCK(bound.st_mode) and os.path.basename(source) in {
        os.path.basename(path) for path in SOCKETS
    }
