"""Entering a Landlock domain: the last thing that a process does with its privileges.

The rules come in an annotation of the spec (:mod:`jaula.spec.annotations`), for init and, where they
say so, for processes that join. :func:`prepare` runs with the host's view and encodes everything;
the other two run in the process itself.

Facts about the moment: the paths must be the container's, so the root has been entered and every
mount is made, since afterwards none can be. CAP_SYS_ADMIN in the user namespace is needed, or
no_new_privs, which is set later, so it comes before the capabilities are dropped. It comes before
the seccomp filter as well, which need not allow these calls, and after the working directory is
made, which may lie beneath a path that is read-only. What follows (chdir, writing labels to open
files, execve) is not checked, or allowed by the rules.

Facts about the standard descriptors: they may be files of the host (/dev/null, a terminal, a log),
and programs open them again by name (/dev/stdin, /proc/1/fd/1). So each gets a rule of its own, for
that one file and for the mode that it is open in. Pipes and sockets need none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from jaula.errors import RuntimeFailure
from jaula.kernel import landlock, mounts
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.landlock import LANDLOCK_RESTRICT_SELF as FLAG
from jaula.kernel.paths import RESOLVE, openat2
from jaula.spec.annotations import LANDLOCK_ANNOTATION, decode_ruleset

ON_FILES = int(FS.EXECUTE | FS.WRITE_FILE | FS.READ_FILE | FS.TRUNCATE | FS.IOCTL_DEV)
_TO_READ = int(FS.READ_FILE | FS.IOCTL_DEV)
_TO_WRITE = int(FS.WRITE_FILE | FS.TRUNCATE | FS.IOCTL_DEV)
_OPEN_FOR = {os.O_RDONLY: _TO_READ, os.O_WRONLY: _TO_WRITE, os.O_RDWR: _TO_READ | _TO_WRITE}
_LOG = int(FLAG.LOG_NEW_EXEC_ON | FLAG.LOG_SUBDOMAINS_OFF)
"""Refusals are worth a record, those of sandboxes that the container's programs make are not."""

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP)


class CompiledLandlock(NamedTuple):
    """Rules in the kernel's terms."""

    handled_access_fs: int
    handled_access_net: int
    scoped: int
    flags: int
    paths: tuple[tuple[bytes, int], ...]
    ports: tuple[tuple[int, int], ...]

    def enter(self) -> None:
        """Open what the rules name, and enter. Raises ``OSError``."""
        restrict(self, open_rules(self))


def prepare(annotations: Mapping[str, str], *, joining: bool = False) -> CompiledLandlock | None:
    """The rules of a spec; ``None`` where there are none for this process.

    Raises ``InvalidRequest`` for an annotation that is none, and ``RuntimeFailure`` where this
    kernel cannot enforce it.
    """
    text = annotations.get(LANDLOCK_ANNOTATION)
    if text is None:
        return None
    rules = decode_ruleset(text)
    try:
        abi = landlock.abi_version()
    except OSError:
        raise RuntimeFailure(
            "the spec asks for Landlock, which this kernel does not have"
        ) from None
    can = landlock.supported_rights(abi)
    if (
        rules.handled_access_fs & ~can.access_fs
        or rules.handled_access_net & ~can.access_net
        or rules.scoped & ~can.scoped
    ):
        raise RuntimeFailure(f"the spec asks for more than version {abi} of Landlock can do")
    if joining and not rules.joined:
        return None
    return CompiledLandlock(
        rules.handled_access_fs,
        rules.handled_access_net,
        rules.scoped,
        _LOG & can.restrict_self,
        tuple((os.fsencode(rule.path), rule.access) for rule in rules.paths),
        tuple((rule.port, rule.access) for rule in rules.ports),
    )


def open_rules(prepared: CompiledLandlock) -> int:
    """A descriptor of the rules, with the paths of the root that we are in and descriptors 0 to 2.

    A path that is not there, or not to be reached, gets no rights. Links are followed inside the
    root, magic ones never: no path can lead out of it. Raises ``OSError``.
    """
    rules = landlock.create_ruleset(
        prepared.handled_access_fs, prepared.handled_access_net, prepared.scoped
    )
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, access in prepared.paths:
            try:
                place = openat2(
                    root,
                    path.lstrip(b"/") or b".",
                    os.O_PATH | os.O_CLOEXEC,
                    resolve=RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS,
                )
            except OSError as error:
                if error.errno in _NOT_THERE:
                    continue
                raise
            try:
                if not stat.S_ISDIR(os.fstat(place).st_mode):
                    access &= ON_FILES
                if access:
                    landlock.add_path_beneath(rules, place, access)
            finally:
                os.close(place)
        if prepared.handled_access_fs:
            for fd in (0, 1, 2):
                _allow_again(rules, fd, prepared.handled_access_fs)
        for port, access in prepared.ports:
            if access:
                landlock.add_net_port(rules, port, access)
    except BaseException:
        os.close(rules)
        raise
    finally:
        os.close(root)
    return rules


def _allow_again(rules: int, fd: int, handled: int) -> None:
    """Let an open file be opened once more; not a directory."""
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind) and not stat.S_ISFIFO(kind):
        return
    access = _OPEN_FOR.get(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, 0) & handled
    if not access:
        return
    try:
        landlock.add_path_beneath(rules, fd, access)
    except OSError as error:
        if error.errno != errno.EBADFD:  # of a file system without paths, which is never refused
            raise


def restrict(prepared: CompiledLandlock, rules: int) -> None:
    """Enter the domain and see that we are in it; closes ``rules``. Raises ``OSError``.

    The kernel shows no domain to anyone, so its effect is the proof: mount(2) is refused before its
    arguments are looked at, of which these are never valid.
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
    raise RuntimeFailure("landlock: the domain was entered and is not in force")
