"""What an engine depends on, read from the host: no decision is made here.

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

import msgspec

from jaula import cgroups
from jaula.kernel import namespaces
from jaula.kernel.namespaces import CLONE
from jaula.rootless import paths, subids

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
    """A helper. ``raised``: it has root's rights by its set-user-ID bit or a file capability."""

    path: str
    raised: bool = False


class HostReport(msgspec.Struct, frozen=True):
    """The host as one user sees it. None: there is no such thing here."""

    uid: int
    name: str
    distribution: tuple[str, ...] = ()  # os-release's ID, then ID_LIKE
    kernel: tuple[int, int] = (0, 0)
    subuids: int = 0  # how many
    subgids: int = 0
    next_subid: int = 100_000  # the first that no range has
    programs: dict[str, Program] = {}  # those that are there
    libnftables: bool = False
    sysctls: dict[str, int] = {}  # those that there are
    namespace: str = ""  # why a user namespace with rights in it cannot be made; "": it can
    no_new_privileges: bool = False
    tun: str = ""  # why /dev/net/tun cannot be opened; "": it can
    runtime_variable: str = ""  # XDG_RUNTIME_DIR
    runtime_directory: str = ""  # what is wrong with it; "": nothing
    run: str = ""  # where the engine's socket will be
    root: str = ""
    root_writable: bool = True
    unified: bool = False  # every controller is on cgroup v2
    controllers: frozenset[str] = frozenset()  # of root, or those delegated to the user
    user_manager: bool = False  # the user's own systemd answers
    systemd: bool = False
    lingers: bool = False


def read() -> HostReport:
    """The facts for the user that asks."""
    uid = os.geteuid()
    name = _name(uid)
    tree = _unified()
    return HostReport(
        uid=uid,
        name=name,
        distribution=distribution(_text("/etc/os-release") or _text("/usr/lib/os-release")),
        kernel=kernel(os.uname().release),
        subuids=_count("/etc/subuid", name, uid),
        subgids=_count("/etc/subgid", name, uid),
        next_subid=next_subid(_text("/etc/subuid") + "\n" + _text("/etc/subgid")),
        programs={n: found for n in PROGRAMS if (found := _program(n))},
        libnftables=_has_libnftables(),
        sysctls={n: value for n in SYSCTLS if (value := _number(n)) is not None},
        namespace=_try_namespace(uid),
        no_new_privileges="NoNewPrivs:\t1" in _text("/proc/self/status"),
        tun=_openable("/dev/net/tun"),
        runtime_variable=os.environ.get("XDG_RUNTIME_DIR", ""),
        runtime_directory=_wrong(os.environ.get("XDG_RUNTIME_DIR", ""), uid),
        run=paths.run(),
        root=paths.root(),
        root_writable=_writable(paths.root()),
        unified=tree is not None,
        controllers=_controllers(tree, uid),
        user_manager=_answers(f"/run/user/{uid}/bus")
        or _answers(f"/run/user/{uid}/systemd/private"),
        systemd=os.path.isdir("/run/systemd/system"),
        lingers=os.path.exists(f"/var/lib/systemd/linger/{name}"),
    )


def kernel(release: str) -> tuple[int, int]:
    """``6.12.3-amd64`` as (6, 12). Pure."""
    numbers = [part for part in release.replace("-", ".").split(".")[:2] if part.isdigit()]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)


def distribution(text: str) -> tuple[str, ...]:
    """ID and ID_LIKE of os-release(5). Pure."""
    found = dict(line.partition("=")[::2] for line in text.splitlines())
    words = [found.get("ID", ""), *found.get("ID_LIKE", "").strip("\"'").split()]
    return tuple(word.strip("\"'") for word in words if word)


def next_subid(text: str) -> int:
    """The first id from 100000 on behind every range of subuid and subgid files. Pure."""
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
    return sum(found.size for found in subids.ranges(_text(path), name, uid))


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
    """Make a user namespace and use a right in it, in a child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            namespaces.unshare(CLONE.NEWUSER)
            namespaces.unshare(CLONE.NEWNET | CLONE.NEWNS)
        except OSError as error:
            os.write(writing, f"{error.strerror} (uid {uid})".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read(4096)
    os.waitpid(pid, 0)
    return said.decode(errors="replace")


def _openable(path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _wrong(path: str, uid: int) -> str:
    if not path:
        return ""
    try:
        facts = os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    if facts.st_uid != uid:
        return f"it belongs to user {facts.st_uid}"
    return "" if os.access(path, os.W_OK) else "it cannot be written to"


def _writable(path: str) -> bool:
    """Whether a directory can be used or made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def _unified() -> str | None:
    try:
        return cgroups.unified_mount()
    except OSError:
        return None


def _controllers(tree: str | None, uid: int) -> frozenset[str]:
    if tree is None:
        return frozenset()
    slices = f"user.slice/user-{uid}.slice/user@{uid}.service/" if uid else ""
    return frozenset(_text(f"{tree}/{slices}cgroup.controllers").split())


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
