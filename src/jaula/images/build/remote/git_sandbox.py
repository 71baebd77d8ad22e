"""git(1) where it can do no harm: a program of its own, started by :mod:`~.repositories`.

``gitcage.py UID GID DIRECTORY-FD -- PROGRAM ARGUMENT...`` puts the directory at /tmp of a new mount
namespace, becomes that user with no capability and no way to gain one, lets Landlock (where the
kernel has it) take away all but reading the system and writing there, and executes the program.

What git reads comes from strangers: a fault in it then meets an empty room. It has the host's
network, which it is there for; whom it may ask is decided by the addresses that it is given.
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
_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/run/systemd/resolve")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
_READ = FS.EXECUTE | FS.READ_FILE | FS.READ_DIR
_OF_FILES = FS.EXECUTE | FS.WRITE_FILE | FS.READ_FILE | FS.TRUNCATE | FS.IOCTL_DEV
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, 1800),  # seconds
)


def enter(uid: int, gid: int, directory: int) -> None:
    """Go into the room, for good. Raises ``OSError``."""
    room = mounts.clone_tree(".", dir_fd=directory)
    namespaces.unshare(CLONE.NEWNS | CLONE.NEWIPC)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    mounts.mount_setattr(room, set=mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV)
    mounts.move_mount(room, ROOM)
    os.chdir(ROOM)
    process.close_on_exec_from(3)
    for which, most in _LIMITS:
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))
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
        return  # a kernel without it: the user and the mount namespace remain
    known = landlock.supported_rights(version)
    rules = landlock.create_ruleset(known.access_fs, 0, known.scoped)
    for path in _READABLE:
        _allow(rules, path, _READ & known.access_fs)
    for path in _DEVICES:
        _allow(rules, path, (_OF_FILES & ~FS.EXECUTE) & known.access_fs)
    _allow(rules, ROOM, known.access_fs)
    landlock.restrict_self(rules)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        landlock.add_path_beneath(rules, place, rights)
    finally:
        os.close(place)


def main() -> None:
    """Enter and execute; the reason on standard error and status 125 where that fails."""
    uid, gid, directory = map(int, sys.argv[1:4])
    words = sys.argv[5:]
    try:
        enter(uid, gid, directory)
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write(f"{words[0]} cannot be confined: {error}\n")
    sys.stderr.flush()
    os._exit(125)


if __name__ == "__main__":
    main()
