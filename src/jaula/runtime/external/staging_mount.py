"""A place for prepared mounts, in a mount namespace of the calling process's own.

Another runtime takes mounts by path, and reaches them as the container's root, who may not enter
the engine's directories. So they lie on a small tmpfs that anybody may pass through, mounted over a
directory of the host's where only this process and its children see it.
"""

from __future__ import annotations

import os
import stat

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.runtime.create import devices
from jaula.spec.runtime import Device

PLACES = ("/mnt", "/media", "/srv", "/opt", "/tmp")


def choose(needed: tuple[str, ...], places: tuple[str, ...] = PLACES) -> str:
    """A directory that may be covered, since no path in ``needed`` lies in it.

    Raises ``RuntimeFailure`` where there is none.
    """
    for place in places:
        resolved = os.path.realpath(place)
        if not os.path.isdir(resolved) or resolved == "/":
            continue
        if not any(_inside(os.path.realpath(path), resolved) for path in needed if path[:1] == "/"):
            return resolved
    raise RuntimeFailure(
        "no directory of the host can be covered for a runtime's mounts",
        hint=f"make one of {', '.join(places)}",
    )


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


_LOCKED = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
"""Options of mounts that a less privileged mount namespace cannot take away."""


class StagingMount:
    """The tmpfs, and what was put there.

    ``binds`` are paths by index, ``locked`` the options that each has and a user namespace must
    keep, ``devices`` by the path inside, ``namespaces`` by type.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = f"{directory}/root"
        self.binds: dict[int, str] = {}
        self.locked: dict[int, tuple[str, ...]] = {}
        self.devices: dict[str, str] = {}
        self.namespaces: dict[str, str] = {}

    @classmethod
    def make(cls, needed: tuple[str, ...]) -> StagingMount:
        """Move to a mount namespace of our own and mount it there. Raises ``OSError``."""
        return cls._at(choose(needed))

    @classmethod
    def again(cls, root: str) -> StagingMount:
        """The same places, empty, for a call that wants to find the directory of the root."""
        scratch = cls._at(os.path.dirname(root))
        os.mkdir(scratch.root, 0o711)
        return scratch

    @classmethod
    def _at(cls, directory: str) -> StagingMount:
        namespaces.unshare(namespaces.CLONE.NEWNS)
        mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
        mounts.mount("jaula", directory, "tmpfs", MS.NOSUID | MS.NOEXEC, "mode=0711,size=1m")
        return cls(directory)

    def take_root(self, tree: int) -> None:
        """Attach the root file system."""
        os.mkdir(self.root, 0o711)
        mounts.move_mount(tree, self.root)

    def take_bind(self, index: int, tree: int) -> None:
        """Attach a prepared mount of a directory or a file."""
        place = f"{self.directory}/{index}"
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.mkdir(place, 0o711)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mounts.move_mount(tree, place)
        self.binds[index] = place
        flags = os.statvfs(place).f_flag
        self.locked[index] = tuple(name for name, flag in _LOCKED.items() if flags & flag)

    def take_namespace(self, kind: str, fd: int) -> None:
        """Bind a namespace, for runtimes that take it by path.

        ``/proc/PID/fd/N`` would not do: runc reads the id map beside a path below ``/proc/PID``.
        """
        place = f"{self.directory}/{kind}"
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mounts.mount(f"/proc/self/fd/{fd}", place, None, MS.BIND)
        self.namespaces[kind] = place

    def make_device(self, device: Device, owner: tuple[int, int]) -> None:
        """A node; ``owner`` is the host's uid and gid of the container's root."""
        place = f"{self.directory}/device{len(self.devices)}"
        mode = stat.S_IMODE(device.file_mode if device.file_mode is not None else 0o666)
        os.mknod(place, devices.TYPES[device.type] | mode, os.makedev(device.major, device.minor))
        os.chmod(place, mode)  # mknod applies the umask
        os.chown(place, owner[0] + (device.uid or 0), owner[1] + (device.gid or 0))
        self.devices[device.path] = place
