"""Plan the namespaces of a container: new ones, and existing ones joined by descriptor.

Follows runtime-spec config-linux.md, "Namespaces", "Time Offsets", and namespaces(7).

Facts about the order: joining a namespace takes CAP_SYS_ADMIN over the user namespace that owns it.
With the host's privileges the container's own user namespace is joined last, since the host's
namespaces are out of reach afterwards. An unprivileged user has privileges only inside, and joins
the user namespace first.
"""

from __future__ import annotations

import os

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel import namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime.create import user_namespace_maps
from jaula.runtime.create.clone_process import FdStack
from jaula.spec.runtime_spec import IDMapping, Linux, Namespace

KINDS = {
    "user": CLONE.NEWUSER,
    "network": CLONE.NEWNET,
    "pid": CLONE.NEWPID,
    "mount": CLONE.NEWNS,
    "ipc": CLONE.NEWIPC,
    "uts": CLONE.NEWUTS,
    "cgroup": CLONE.NEWCGROUP,
    "time": CLONE.NEWTIME,
}
FILE_SYSTEMS = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
"""File systems that show a namespace, with its type; only its owner can mount them."""
_NAMES = {flag: name for name, flag in namespaces.KINDS.items()}


class NamespacePlan(msgspec.Struct, frozen=True):
    """Descriptors to join in order, flags of new namespaces, and the user namespace if any."""

    join: tuple[tuple[int, CLONE], ...]
    create: CLONE
    user_fd: int | None
    own_mounts: bool
    uid_mappings: tuple[IDMapping, ...]
    gid_mappings: tuple[IDMapping, ...]
    foreign: dict[str, int]  # joined ones by type that another user namespace owns

    @property
    def owner(self) -> tuple[int, int]:
        """The host's uid and gid of the container's root."""
        return user_namespace_maps.host_id(self.uid_mappings, 0), user_namespace_maps.host_id(
            self.gid_mappings, 0
        )


def plan(
    linux: Linux,
    sandbox: tuple[int, int] | None,
    fd_stack: FdStack,
    *,
    namespace_fds: dict[str, int] | None = None,
    unprivileged: bool = False,
) -> NamespacePlan:
    """Open and create the namespaces of a spec; ``fd_stack`` owns the descriptors.

    ``sandbox`` is a prepared pair of user and network namespace, joined where the spec asks for new
    ones. ``namespace_fds`` are descriptors of namespaces that are joined: those for which the spec
    names paths, and prepared ones. A path below /proc/PID may meanwhile lead to another process; a
    descriptor cannot.

    :raises InvalidRequest: when the spec is invalid.
    :raises RuntimeFailure: when a namespace cannot be opened or created.
    """
    create = CLONE(0)
    join: list[tuple[int, CLONE]] = []
    user_fd: int | None = None
    uids, gids = linux.uid_mappings, linux.gid_mappings
    for entry in linux.namespaces:
        if entry.type not in KINDS:
            raise InvalidRequest(f"unknown namespace type {entry.type!r}")
        flag = KINDS[entry.type]
        if entry.path and entry.type not in (namespace_fds or {}) and _is_own(entry.path, flag):
            continue
        fd = _joined(entry, namespace_fds or {}, fd_stack)
        if entry.type == "user":
            if fd >= 0:
                user_fd = fd
                if not uids:
                    uids, gids = user_namespace_maps.read(fd)
            elif sandbox is not None:
                user_fd = sandbox[0]
            else:
                user_fd = fd_stack.add(user_namespace_maps.make(linux, unprivileged=unprivileged))
        elif fd >= 0:
            join.append((fd, flag))
        elif entry.type == "network" and sandbox is not None:
            join.append((sandbox[1], flag))
        else:
            create |= flag
    own_mounts = bool(create & CLONE.NEWNS)
    if not own_mounts and not any(flag == CLONE.NEWNS for _, flag in join):
        create |= CLONE.NEWNS  # the mounts of the spec are never made on the host
        own_mounts = True
    if user_fd is not None:
        position = 0 if unprivileged else len(join)
        join.insert(position, (user_fd, CLONE.NEWUSER))
    foreign = {
        kind: fd
        for fd, flag in join
        for kind in FILE_SYSTEMS.values()
        if KINDS[kind] == flag and user_fd is not None and not _owns(user_fd, fd)
    }
    return NamespacePlan(tuple(join), create, user_fd, own_mounts, uids, gids, foreign)


def _owns(user_fd: int, fd: int) -> bool:
    """Return whether a user namespace owns a namespace."""
    try:
        owner = namespaces.owner(fd)
    except PermissionError:
        return False  # it is outside of the caller's own user namespace
    try:
        return os.path.samestat(os.fstat(owner), os.fstat(user_fd))
    finally:
        os.close(owner)


def _joined(entry: Namespace, namespace_fds: dict[str, int], fd_stack: FdStack) -> int:
    """Return a descriptor of an existing namespace; -1 if a new one is requested."""
    if entry.type in namespace_fds:
        return namespace_fds[entry.type]
    if not entry.path:
        return -1
    return fd_stack.add(_open(entry.type, entry.path))


def _open(kind: str, path: str) -> int:
    """Open a namespace and check its type; never block on a FIFO or device in its place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise RuntimeFailure(f"{kind} namespace {path}: {error.strerror}") from error
    try:
        actual = namespaces.nstype(fd)
    except OSError:
        os.close(fd)
        raise InvalidRequest(f"{kind} namespace {path}: not a namespace") from None
    if actual != KINDS[kind]:
        os.close(fd)
        raise InvalidRequest(f"{kind} namespace {path}: is of type '{_NAMES[actual]}'")
    return fd


def _is_own(path: str, flag: CLONE) -> bool:
    """Return whether a path is our own user namespace, which cannot be joined again."""
    if flag != CLONE.NEWUSER:
        return False
    try:
        target, own = os.stat(path), os.stat(f"/proc/self/ns/{_NAMES[flag]}")
    except OSError:
        return False
    return (target.st_dev, target.st_ino) == (own.st_dev, own.st_ino)


def time_offsets(linux: Linux) -> bytes:
    """Return the text for /proc/PID/timens_offsets; empty if the spec sets none."""
    return b"".join(
        b"%s %d %d\n" % (clock.encode(), offset.secs, offset.nanosecs)
        for clock, offset in linux.time_offsets.items()
    )
