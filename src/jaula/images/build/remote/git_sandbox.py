"""A sandbox for git(1): a program of its own, started by :mod:`~.git`.

``git_sandbox.py UID GID DIRECTORY-FD -- PROGRAM ARGUMENT...`` mounts the directory at /tmp of a new
mount namespace, and becomes that user with no capability and no way to gain one. Landlock, if the
kernel has it, then allows only reading the system and writing to the directory. Last it executes
the program.

git processes untrusted data. An exploited fault in it finds nothing to access. It keeps the host's
network, which it needs; the addresses that it is given limit its peers.
"""

from __future__ import annotations

import os
import resource
import sys

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, __file__.rpartition("/jaula/")[0])

from jaula.kernel import capabilities, landlock, mounts, namespaces, process
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE

ROOM = "/tmp"
"""The mount point of the directory that git may write to."""
_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/run/systemd/resolve")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
_READ = FS.EXECUTE | FS.READ_FILE | FS.READ_DIR
_FILE_RIGHTS = FS.EXECUTE | FS.WRITE_FILE | FS.READ_FILE | FS.TRUNCATE | FS.IOCTL_DEV
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, 1800),  # seconds
)


def enter(uid: int, gid: int, directory: int) -> None:
    """Enter the sandbox, irreversibly.

    :raises OSError: if a system call fails.
    """
    tree = mounts.clone_tree(".", dir_fd=directory)
    namespaces.unshare(CLONE.NEWNS | CLONE.NEWIPC)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    mounts.mount_setattr(tree, set=mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV)
    mounts.move_mount(tree, ROOM)
    os.chdir(ROOM)
    process.close_on_exec_from(3)
    for which, limit in _LIMITS:
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    os.umask(0o022)
    _become(uid, gid)
    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    _confine()


def _become(uid: int, gid: int) -> None:
    capabilities.clear_ambient()
    capabilities.drop_bounding(0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    capabilities.capset(0, 0, 0)


def _confine() -> None:
    try:
        version = landlock.abi_version()
    except OSError:
        return  # without Landlock: user and mount namespace still confine git
    supported = landlock.supported_rights(version)
    rules = landlock.create_ruleset(supported.access_fs, 0, supported.scoped)
    for path in _READABLE:
        _allow(rules, path, _READ & supported.access_fs)
    for path in _DEVICES:
        _allow(rules, path, (_FILE_RIGHTS & ~FS.EXECUTE) & supported.access_fs)
    _allow(rules, ROOM, supported.access_fs)
    landlock.restrict_self(rules)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        landlock.add_path_beneath(rules, fd, rights)
    finally:
        os.close(fd)


def main() -> None:
    """Enter the sandbox and execute the program. Report a failure with exit status 125."""
    uid, gid, directory = map(int, sys.argv[1:4])
    command = sys.argv[5:]
    try:
        enter(uid, gid, directory)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be confined: {error}\n")
    sys.stderr.flush()
    os._exit(125)


if __name__ == "__main__":
    main()
