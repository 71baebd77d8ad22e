"""A tmpfs for prepared mounts, in a mount namespace of the calling process's own.

An external runtime takes mounts by path and reaches them as the container's root, who may not enter
the engine's directories. So they are attached on a small tmpfs that every user may traverse. It is
mounted over a host directory, where only this process and its children see it.
"""

from __future__ import annotations

import os
import stat

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.runtime.create import mount_options
from jaula.runtime.create.device_nodes import FILE_TYPES
from jaula.spec.runtime_spec import Device

CANDIDATES = ("/mnt", "/media", "/srv", "/opt", "/tmp")


def choose_directory(
    required_paths: tuple[str, ...], candidates: tuple[str, ...] = CANDIDATES
) -> str:
    """Return a directory to mount over, with no path of ``required_paths`` below it.

    :raises RuntimeFailure: when there is none.
    """
    for path in candidates:
        resolved = os.path.realpath(path)
        if not os.path.isdir(resolved) or resolved == "/":
            continue
        if not any(
            _inside(os.path.realpath(name), resolved) for name in required_paths if name[:1] == "/"
        ):
            return resolved
    raise RuntimeFailure(
        "no host directory is free for the mounts of an external runtime",
        hint=f"create one of {', '.join(candidates)}",
    )


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


class StagingMount:
    """The tmpfs, and the paths of what is attached on it.

    ``binds`` are paths by index, ``locked`` the options of each that a user namespace must keep,
    ``devices`` paths by the path inside, ``namespaces`` paths by type.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = f"{directory}/root"
        self.binds: dict[int, str] = {}
        self.locked: dict[int, tuple[str, ...]] = {}
        self.devices: dict[str, str] = {}
        self.namespaces: dict[str, str] = {}

    @classmethod
    def make(cls, required_paths: tuple[str, ...]) -> StagingMount:
        """Enter a new mount namespace and mount the tmpfs there.

        :raises OSError: when mounting fails.
        """
        return cls._at(choose_directory(required_paths))

    @classmethod
    def reopen(cls, root: str) -> StagingMount:
        """Mount an empty tmpfs at the same path, for a call that needs the root's directory."""
        staging = cls._at(os.path.dirname(root))
        os.mkdir(staging.root, 0o711)
        return staging

    @classmethod
    def _at(cls, directory: str) -> StagingMount:
        namespaces.unshare(namespaces.CLONE.NEWNS)
        mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
        mounts.mount("jaula", directory, "tmpfs", MS.NOSUID | MS.NOEXEC, "mode=0711,size=1m")
        return cls(directory)

    def attach_root(self, tree: int) -> None:
        """Attach the root file system."""
        os.mkdir(self.root, 0o711)
        mounts.move_mount(tree, self.root)

    def attach_bind(self, index: int, tree: int) -> None:
        """Attach a prepared mount of a directory or a file."""
        path = f"{self.directory}/{index}"
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.mkdir(path, 0o711)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mounts.move_mount(tree, path)
        self.binds[index] = path
        self.locked[index] = mount_options.mount_flags(os.statvfs(path).f_flag)

    def bind_namespace(self, namespace_type: str, fd: int) -> None:
        """Bind a namespace, for runtimes that take it by path.

        ``/proc/PID/fd/N`` does not work: runc reads the id map beside a path below ``/proc/PID``.
        """
        path = f"{self.directory}/{namespace_type}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mounts.mount(f"/proc/self/fd/{fd}", path, None, MS.BIND)
        self.namespaces[namespace_type] = path

    def make_device(self, device: Device, owner: tuple[int, int]) -> None:
        """Create a device node; ``owner`` is the host's uid and gid of the container's root."""
        path = f"{self.directory}/device{len(self.devices)}"
        mode = stat.S_IMODE(device.file_mode if device.file_mode is not None else 0o666)
        os.mknod(path, FILE_TYPES[device.type] | mode, os.makedev(device.major, device.minor))
        os.chmod(path, mode)  # mknod applies the umask
        os.chown(path, owner[0] + (device.uid or 0), owner[1] + (device.gid or 0))
        self.devices[device.path] = path
