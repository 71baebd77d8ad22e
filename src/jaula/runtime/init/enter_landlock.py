"""Enter a Landlock domain: the last step that a process takes with its privileges.

The rules come from an annotation of the spec (:mod:`jaula.spec.annotations`), for init and, if they
say so, for exec'd processes. :func:`prepare` runs with the host's view and encodes everything. The
other functions run in the process itself.

Facts about the order: the paths are the container's, so the root has been entered and every mount
exists, since the domain forbids mounting. Entering takes CAP_SYS_ADMIN in the user namespace, or
no_new_privs, which is set later; so it comes before the capabilities are dropped. It also comes
before the seccomp filter, which need not allow these calls, and after the working directory is
created, which may be below a read-only path. What follows (chdir, writing labels to open files,
execve) is not checked, or is allowed by the rules.

Facts about the standard descriptors: they may be files of the host (/dev/null, a terminal, a log),
and programs open them again by name (/dev/stdin, /proc/1/fd/1). So each gets its own rule, for that
one file and for the mode that it is open in. Pipes and sockets need none.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaula.errors import RuntimeFailure
from jaula.kernel import landlock, mounts
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.landlock import LANDLOCK_RESTRICT_SELF as FLAG
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.spec.annotations import LANDLOCK_ANNOTATION, decode_ruleset

FILE_RIGHTS = int(FS.EXECUTE | FS.WRITE_FILE | FS.READ_FILE | FS.TRUNCATE | FS.IOCTL_DEV)
_READ_RIGHTS = int(FS.READ_FILE | FS.IOCTL_DEV)
_WRITE_RIGHTS = int(FS.WRITE_FILE | FS.TRUNCATE | FS.IOCTL_DEV)
_RIGHTS_BY_MODE = {
    os.O_RDONLY: _READ_RIGHTS,
    os.O_WRONLY: _WRITE_RIGHTS,
    os.O_RDWR: _READ_RIGHTS | _WRITE_RIGHTS,
}
_LOG_FLAGS = int(FLAG.LOG_NEW_EXEC_ON | FLAG.LOG_SUBDOMAINS_OFF)
"""Log denials of this domain, but not of sandboxes that the container's programs create."""

_UNREACHABLE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP)


OpenPath = Callable[[bytes], "int | None"]
"""Returns an O_PATH descriptor of a path of the container, None if it cannot be reached."""


class CompiledLandlock(NamedTuple):
    """Rules as the kernel's numbers."""

    handled_access_fs: int
    handled_access_net: int
    scoped: int
    flags: int
    paths: tuple[tuple[bytes, int, int], ...]  # path, rights, rights to create it
    ports: tuple[tuple[int, int], ...]

    def enter(self) -> None:
        """Open the paths of the rules, and enter the domain.

        :raises OSError: when the kernel refuses.
        """
        restrict(self, open_rules(self))


def prepare(annotations: Mapping[str, str], *, for_exec: bool = False) -> CompiledLandlock | None:
    """Return the rules of a spec; None if it has none for this process.

    :raises InvalidRequest: when the annotation is malformed.
    :raises RuntimeFailure: when this kernel cannot enforce the rules.
    """
    text = annotations.get(LANDLOCK_ANNOTATION)
    if text is None:
        return None
    rules = decode_ruleset(text)
    if for_exec and not rules.joined:
        return None
    try:
        abi = landlock.abi_version()
    except OSError:
        raise RuntimeFailure(
            "the spec asks for Landlock, which this kernel does not support"
        ) from None
    supported = landlock.supported_rights(abi)
    if (
        rules.handled_access_fs & ~supported.access_fs
        or rules.handled_access_net & ~supported.access_net
        or rules.scoped & ~supported.scoped
    ):
        raise RuntimeFailure(f"the spec asks for more than Landlock ABI {abi} supports")
    return CompiledLandlock(
        rules.handled_access_fs,
        rules.handled_access_net,
        rules.scoped,
        _LOG_FLAGS & supported.restrict_self,
        tuple((os.fsencode(rule.path), rule.access, rule.create) for rule in rules.paths),
        tuple((rule.port, rule.access) for rule in rules.ports),
    )


def open_rules(
    prepared: CompiledLandlock,
    open_path: OpenPath | None = None,
    reopened: tuple[int, ...] = (0, 1, 2),
) -> int:
    """Return a ruleset descriptor for paths and for open descriptors.

    ``open_path`` opens a path of the container; without it the current root is meant.

    A path that does not exist or cannot be reached gets no rights. Links are followed inside the
    root, magic links never: no path can leave the root.

    :raises OSError: when a rule cannot be added.
    """
    rules = landlock.create_ruleset(
        prepared.handled_access_fs, prepared.handled_access_net, prepared.scoped
    )
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if open_path is None:
        open_path = functools.partial(open_below, root)
    try:
        for path, access, create in prepared.paths:
            _add_path(rules, open_path, path, access, create)
        if prepared.handled_access_fs:
            for fd in reopened:
                _allow_reopen(rules, fd, prepared.handled_access_fs)
        for port, access in prepared.ports:
            if access:
                landlock.add_net_port(rules, port, access)
    except BaseException:
        os.close(rules)
        raise
    finally:
        os.close(root)
    return rules


def _add_path(rules: int, open_path: OpenPath, path: bytes, access: int, create: int) -> None:
    """Add one rule; ``create`` goes to the nearest existing directory above, never to the root."""
    path_fd = open_path(path)
    if path_fd is not None:
        try:
            mode = os.fstat(path_fd).st_mode
            if not stat.S_ISDIR(mode):
                access &= FILE_RIGHTS
            if access:
                landlock.add_path_beneath(rules, path_fd, access)
        finally:
            os.close(path_fd)
        if not (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
            return
    while create and (path := path.rstrip(b"/").rpartition(b"/")[0]):
        path_fd = open_path(path)
        if path_fd is None:
            continue
        try:
            if stat.S_ISDIR(os.fstat(path_fd).st_mode):
                landlock.add_path_beneath(rules, path_fd, create)
        finally:
            os.close(path_fd)
        return


def open_below(root: int, path: bytes) -> int | None:
    """Return a descriptor of a path below the root, None if it cannot be reached.

    :raises OSError: when the kernel refuses for another reason.
    """
    try:
        return openat2(
            root,
            path.lstrip(b"/") or b".",
            os.O_PATH | os.O_CLOEXEC,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS,
        )
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return None
        raise


def _allow_reopen(rules: int, fd: int, handled: int) -> None:
    """Allow an open file, but not a directory, to be opened again."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode) and not stat.S_ISFIFO(mode):
        return
    access = _RIGHTS_BY_MODE.get(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, 0) & handled
    if not access:
        return
    try:
        landlock.add_path_beneath(rules, fd, access)
    except OSError as error:
        if (
            error.errno != errno.EBADFD
        ):  # a file system without paths, which Landlock never restricts
            raise


def restrict(prepared: CompiledLandlock, rules: int) -> None:
    """Enter the domain and check that it is enforced; close ``rules``.

    The kernel shows no process its domain, so its effect is the proof: in a domain mount(2) fails
    with EPERM before its arguments are checked, and these arguments are never valid.

    :raises OSError: when the kernel refuses.
    :raises RuntimeFailure: when the domain has no effect.
    """
    landlock.restrict_self(rules, prepared.flags)
    os.close(rules)
    if not prepared.handled_access_fs:
        return
    try:
        mounts.mount(None, "/", None, mounts.MS.MOVE)
    except OSError as error:
        if error.errno == errno.EPERM:
            return
    raise RuntimeFailure("landlock: the domain was entered but is not enforced")
