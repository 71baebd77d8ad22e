"""The state of the host that an engine depends on. No decision is made here.

Sources: subuid(5), newuidmap(1), user_namespaces(7), Documentation/admin-guide/sysctl/user.rst and
kernel.rst, systemd's pam_systemd(8) for the runtime directory and loginctl(1) for lingering.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jaula import cgroups, feature
from jaula.kernel import namespaces
from jaula.kernel.cpuinfo import cpu_features
from jaula.kernel.namespaces import CLONE
from jaula.rootless import subids, xdg_paths

if TYPE_CHECKING:
    from jaula.features.checkpoint.runtime.probe import CriuReport

SYSCTLS = (
    "user.max_user_namespaces",
    "user.max_net_namespaces",
    "user.max_mnt_namespaces",
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
)
PROGRAMS = ("newuidmap", "newgidmap", "pasta", "slirp4netns", "nft", "ps")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program(msgspec.Struct, frozen=True):
    """An installed program. ``raised``: it is set-user-ID root or has file capabilities."""

    path: str
    raised: bool = False


class HostReport(msgspec.Struct, frozen=True):
    """The host from one user's point of view. None and empty values: not available on this host."""

    uid: int
    name: str
    distribution: tuple[str, ...] = ()  # os-release's ID, then ID_LIKE
    kernel: tuple[int, int] = (0, 0)
    subuids: int = 0  # number of ids
    subgids: int = 0
    next_subid: int = 100_000  # the first id after all ranges
    programs: dict[str, Program] = {}  # the installed ones
    libnftables: bool = False
    sysctls: dict[str, int] = {}  # the existing ones
    namespace: str = ""  # why a user namespace with capabilities cannot be created; "": it can
    no_new_privileges: bool = False
    tun: str = ""  # why /dev/net/tun cannot be opened; "": it can
    runtime_variable: str = ""  # XDG_RUNTIME_DIR
    runtime_directory: str = ""  # why it is unusable; "": it is usable
    run: str = ""  # the directory of the engine's socket
    root: str = ""
    root_writable: bool = True
    unified: bool = False  # every controller is on cgroup v2
    controllers: frozenset[str] = frozenset()  # of root, or those delegated to the user
    user_manager: bool = False  # the systemd instance of the user answers
    systemd: bool = False
    lingers: bool = False
    architecture: str = ""
    cpu_features: tuple[str, ...] = ()  # that all processors have
    criu: CriuReport | None = None  # None: not probed, since only root can dump


def _probe_criu() -> CriuReport | None:
    if feature.load("checkpoint") is None:
        return None
    from jaula.features.checkpoint.runtime.probe import probe  # imports protobuf

    return probe()


def read() -> HostReport:
    """Return the report for the effective user."""
    uid = os.geteuid()
    name = _name(uid)
    cgroup_root = _unified()
    return HostReport(
        uid=uid,
        name=name,
        distribution=distribution(_text("/etc/os-release") or _text("/usr/lib/os-release")),
        kernel=kernel(os.uname().release),
        subuids=_count("/etc/subuid", name, uid),
        subgids=_count("/etc/subgid", name, uid),
        next_subid=next_subid(_text("/etc/subuid") + "\n" + _text("/etc/subgid")),
        programs={n: program for n in PROGRAMS if (program := _program(n))},
        libnftables=_has_libnftables(),
        sysctls={n: value for n in SYSCTLS if (value := _number(n)) is not None},
        namespace=_try_namespace(uid),
        architecture=os.uname().machine,
        cpu_features=cpu_features(),
        criu=_probe_criu() if uid == 0 else None,
        no_new_privileges="NoNewPrivs:\t1" in _text("/proc/self/status"),
        tun=_openable("/dev/net/tun"),
        runtime_variable=os.environ.get("XDG_RUNTIME_DIR", ""),
        runtime_directory=_directory_problem(os.environ.get("XDG_RUNTIME_DIR", ""), uid),
        run=xdg_paths.run(),
        root=xdg_paths.root(),
        root_writable=_writable(xdg_paths.root()),
        unified=cgroup_root is not None,
        controllers=_controllers(cgroup_root, uid),
        user_manager=_answers(f"/run/user/{uid}/bus")
        or _answers(f"/run/user/{uid}/systemd/private"),
        systemd=os.path.isdir("/run/systemd/system"),
        lingers=os.path.exists(f"/var/lib/systemd/linger/{name}"),
    )


def kernel(release: str) -> tuple[int, int]:
    """Parse ``6.12.3-amd64`` to (6, 12). Pure."""
    numbers = [part for part in release.replace("-", ".").split(".")[:2] if part.isdigit()]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)


def distribution(text: str) -> tuple[str, ...]:
    """Return ID and ID_LIKE of os-release(5). Pure."""
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    words = [fields.get("ID", ""), *fields.get("ID_LIKE", "").strip("\"'").split()]
    return tuple(word.strip("\"'") for word in words if word)


def next_subid(text: str) -> int:
    """Return the first id from 100000 on after every range of subuid and subgid files. Pure."""
    after = 100_000
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            after = max(after, int(fields[1]) + int(fields[2]))
    return after


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(sysctl: str) -> int | None:
    text = _text("/proc/sys/" + sysctl.replace(".", "/")).strip()
    return int(text) if text.isdigit() else None


def _count(path: str, name: str, uid: int) -> int:
    return sum(entry.size for entry in subids.ranges(_text(path), name, uid))


def _program(name: str) -> Program | None:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SEARCH}")
    if path is None:
        return None
    raised = bool(os.stat(path).st_mode & stat.S_ISUID and os.stat(path).st_uid == 0)
    try:
        raised = raised or bool(os.getxattr(path, "security.capability"))
    except OSError:
        return Program(path, raised)
    return Program(path, raised)


def _has_libnftables() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libnftables.so.1")
    except OSError:
        return False
    return True


def _try_namespace(uid: int) -> str:
    """Create a user namespace and use a capability in it, in a child process.

    Return the error text, or an empty string.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            namespaces.unshare(CLONE.NEWUSER)
            namespaces.unshare(CLONE.NEWNET | CLONE.NEWNS)
        except OSError as error:
            os.write(write_end, f"{error.strerror} (uid {uid})".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        error_text = pipe.read(4096)
    os.waitpid(pid, 0)
    return error_text.decode(errors="replace")


def _openable(path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _directory_problem(path: str, uid: int) -> str:
    if not path:
        return ""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    if status.st_uid != uid:
        return f"it is owned by user {status.st_uid}"
    return "" if os.access(path, os.W_OK) else "it is not writable"


def _writable(path: str) -> bool:
    """Return whether a directory can be used or created."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def _unified() -> str | None:
    try:
        return cgroups.unified_mount()
    except OSError:
        return None


def _controllers(cgroup_root: str | None, uid: int) -> frozenset[str]:
    if cgroup_root is None:
        return frozenset()
    slices = f"user.slice/user-{uid}.slice/user@{uid}.service/" if uid else ""
    return frozenset(_text(f"{cgroup_root}/{slices}cgroup.controllers").split())


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
