"""Parts of the host in the container: system directories and control sockets.

Evidence: the sources of the mounts, resolved on the host. A process that can use an engine's
control socket is root of the host; a bound /etc, /proc or / is the host itself. A reader of the
shadow file or of keys becomes another user, and a writer of a cron table or of a unit decides what
root executes. The engine permits such mounts on request, so they are relaxations and are named.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence

from jaula.features.verify.checks.mounts import file_identity, stat_identity
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.state.container_records import ENGINE_SOCKET

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
"""The directories of the benchmark, and those with keys, sockets and the state of services."""

SOCKETS = (
    "/run/jaula/jaula.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
)
"""Sockets that give the right to start processes as root of the host."""

SOCKET_NAMES = frozenset(os.path.basename(path) for path in SOCKETS) | {
    "buildkitd.sock",
    "cri-dockerd.sock",
    "libvirt-sock",
    "unix.socket",
}
"""Names of control sockets, wherever they are: rootless engines, LXD, other roots."""

READERS = (
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/kubernetes",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/krb5.keytab",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/proc/kcore",
    "/root/.ssh",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/jaula",
    "/var/lib/kubelet",
    "/var/lib/rancher",
)
"""Files with keys, passwords, memory or the state of engines: a reader can become root."""

WRITERS = (
    "/bin",
    "/boot",
    "/etc/NetworkManager",
    "/etc/alternatives",
    "/etc/apparmor.d",
    "/etc/apt",
    "/etc/bash.bashrc",
    "/etc/binfmt.d",
    "/etc/cni",
    "/etc/cron.allow",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/dbus-1",
    "/etc/default",
    "/etc/docker",
    "/etc/environment",
    "/etc/fstab",
    "/etc/group",
    "/etc/grub.d",
    "/etc/init.d",
    "/etc/initramfs-tools",
    "/etc/jaula",
    "/etc/kernel",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/logrotate.conf",
    "/etc/logrotate.d",
    "/etc/modprobe.d",
    "/etc/modules",
    "/etc/modules-load.d",
    "/etc/network",
    "/etc/nsswitch.conf",
    "/etc/pam.conf",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/polkit-1",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.local",
    "/etc/security",
    "/etc/selinux",
    "/etc/skel",
    "/etc/subgid",
    "/etc/subuid",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/etc/udev",
    "/etc/update-motd.d",
    "/etc/xdg/autostart",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt/cni",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/run/systemd",
    "/run/udev",
    "/sbin",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "/sys/module",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/spool/anacron",
    "/var/spool/at",
    "/var/spool/cron",
)
"""Files that programs of root execute, load or obey: a writer can become root."""

KEYS = frozenset({".ssh", ".gnupg", ".aws", ".kube", ".docker"})
"""Names of directories with a user's keys, in any home directory."""
HOMES = ("/home", "/root")
MAX_ENTRIES = 1000

INFO = CheckInfo(
    id="sources",
    layer="mounts",
    title="Parts of the host",
    reason="An engine's control socket, or a system directory, gives control of the host "
    "regardless of the other layers.",
    references=("I16", "I17", "CIS 5.6", "CIS 5.32", "CVE-2014-3499"),
    evidence="sources of the mounts, stat(2) on the host",
    advice="bind only the file that is needed, read-only; do not bind an engine's socket",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for directories, one for secrets and one for sockets."""
    own = container.state_directory
    readers = (*READERS, own) if own else READERS
    tables = sorted({*SYSTEM, *readers, *WRITERS})
    sources = []
    writable = set()
    for mount in container.inspect.get("Mounts") or ():
        source, target = str(mount.get("Source") or ""), str(mount.get("Destination"))
        if mount.get("RW", True):
            writable.add(target)
        if mount.get("Type") == "bind":
            sources.append((os.path.realpath(source), target))
        elif mount.get("Type") == "volume":
            sources += [(path, target) for path in _volume_sources(container, target, tables)]
    system = [
        f"-v {source}:{target}"
        for source, target in sources
        if source in SYSTEM
        or is_secret(source, readers)
        or (target in writable and is_obeyed(source))
    ]
    sockets = [f"-v {source}:{target}" for source, target in sources if exposes_socket(source)]
    secrets = [
        f"-v {source}:{target}"
        for source, target in sources
        if source not in SYSTEM and (is_secret(source, readers) or is_home(source))
    ]
    evidence = f"stat(2) of {quantity(len(sources), 'source')}"
    for name, binds in (
        ("host directories", system),
        ("host secrets", secrets),
        ("control sockets", sockets),
    ):
        by = ", ".join(binds) or None
        yield Result(
            name, "mounts", by or "none", f"{len(binds)} bound" if binds else "none", evidence,
            verdict_of(True, by),
        )  # fmt: skip
    yield from _engine_socket(container)


def _engine_socket(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the container's own socket to the engine, with the right that it has."""
    targets = [
        str(mount.get("Destination"))
        for mount in container.inspect.get("Mounts") or ()
        if mount.get("Type") == ENGINE_SOCKET
    ]
    if not targets:
        return
    grant = container.inspect.get("EngineSocket") or {}
    words = [f"access {grant.get('Access', 'unknown')}", f"others {grant.get('Others', 'unknown')}"]
    if remove := grant.get("Remove"):
        words.append(f"remove {', '.join(map(str, remove))}")
    yield Result(
        "engine socket", "mounts", f"--mount type={ENGINE_SOCKET} at {', '.join(targets)}",
        ", ".join(words), f"the policy, {grant.get('Entry', 'no entry')}",
        verdict_of(True, f"--mount type={ENGINE_SOCKET}"),
    )  # fmt: skip


def is_secret(source: str, readers: Sequence[str]) -> bool:
    """Return whether a reader of a source can become root, or another user, of the host. Pure."""
    return any(_related(source, path) for path in readers) or not KEYS.isdisjoint(source.split("/"))


def is_home(source: str) -> bool:
    """Return whether a source is a home directory, or has all of them. Pure."""
    return source in HOMES or os.path.dirname(source) == "/home"


def is_obeyed(source: str) -> bool:
    """Return whether a writer of a source decides what root of the host executes. Pure."""
    return any(_related(source, path) for path in WRITERS)


def _related(source: str, secret: str) -> bool:
    """Return whether a source is a secret path, in it, or contains it. Pure."""
    first, second = source.rstrip("/") + "/", secret.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)


def _volume_sources(
    container: AuditedContainer, destination: str, tables: Sequence[str]
) -> list[str]:
    """Return the paths of the host in ``tables`` that a volume binds by its options."""
    try:
        identity = file_identity(container, destination)
    except FileNotFoundError:
        return []  # the mount inventory reports it
    return [path for path in tables if _identity(path) == identity]


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        return stat_identity(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def exposes_socket(source: str) -> bool:
    """Return whether ``source`` is, or contains, a control socket of the host."""
    try:
        source_status = os.stat(source)
    except FileNotFoundError:
        return False
    for path in SOCKETS:
        try:
            socket_status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if (socket_status.st_dev, socket_status.st_ino) == (
            source_status.st_dev,
            source_status.st_ino,
        ):
            return True
        inside = os.path.realpath(path).startswith(source.rstrip("/") + "/")
        if inside and stat.S_ISDIR(source_status.st_mode):
            return True
    if stat.S_ISSOCK(source_status.st_mode):
        return os.path.basename(source) in SOCKET_NAMES
    return stat.S_ISDIR(source_status.st_mode) and _holds_socket(source)


def _holds_socket(directory: str) -> bool:
    """Return whether one of the first entries of a directory is a control socket by its name."""
    with os.scandir(directory) as entries:
        return any(
            entry.name in SOCKET_NAMES and stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
            for entry in itertools.islice(entries, MAX_ENTRIES)
        )
