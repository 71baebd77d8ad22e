"""The v2 driver: makes a cgroup and switches the controllers on along the way to it.

Source: kernel ``admin-guide/cgroup-v2.rst``, "Enabling and Disabling" and "No Internal Process
Constraint": a cgroup other than the root that holds processes cannot give controllers to those
below. Where that is the top of what we see (a container, a delegated unit), its processes are moved
to a leaf beside ours; where it is somebody else's cgroup, that is an error.
"""

from __future__ import annotations

import errno
import os

from jaula.cgroups import cgroup_path, features, files
from jaula.cgroups import directory as cgroup_directory
from jaula.cgroups.v2.cgroup import V2Cgroup
from jaula.errors import Conflict, JaulaError, NotAuthorized, NotFound, Unsupported

LEAF = "jaula-init"
"""Where processes of the topmost cgroup go when they are in the way."""

_REFUSALS = (
    errno.EBUSY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EINVAL,
    errno.ENOENT,
    errno.EOPNOTSUPP,
)
_WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")


class V2Driver:
    """The tree found on the host, by a descriptor of its mount point."""

    name = "cgroupfs"
    version = 2

    def __init__(self, mount: str, *, rootless: bool = False) -> None:
        """``rootless``: no device rules, which take a privilege, and a look at who may move in."""
        self.mount = mount
        self.root = os.open(mount, cgroup_directory.DIRECTORY)
        self._rootless = rootless

    def create(self, path: str) -> V2Cgroup:
        relative = cgroup_path.relative(path)
        above = cgroup_path.ancestors(relative)
        self._delegate(self.root, "/")
        for ancestor in above:
            self._make_ancestor(ancestor)
        self._make(relative)
        if self._rootless:
            try:
                check_migration(self.mount, f"/{relative}")
            except BaseException:
                os.rmdir(relative, dir_fd=self.root)
                raise
        return self._opened(relative)

    def adopt(self, path: str) -> V2Cgroup:
        """One that the service manager made and keeps a process in; raises ``NotFound``.

        The manager switches on the controllers that it knows; the others are as far as they can be.
        """
        relative = cgroup_path.relative(path)
        for ancestor in (".", *cgroup_path.ancestors(relative)):
            directory = os.open(ancestor, cgroup_directory.DIRECTORY, dir_fd=self.root)
            try:
                self._enable_what_can_be(directory)
            finally:
                os.close(directory)
        adopted = self.open(path)
        if self._rootless:
            try:
                check_migration(self.mount, adopted.path)
            except BaseException:
                adopted.close()
                raise
        return adopted

    def open(self, path: str) -> V2Cgroup:
        relative = cgroup_path.relative(path)
        try:
            return self._opened(relative)
        except FileNotFoundError as error:
            raise NotFound(f"no such cgroup: /{relative}") from error

    def controllers(self) -> frozenset[str]:
        return frozenset(files.read(self.root, "cgroup.controllers").split()) | {
            "devices",
            "freezer",
        }

    def features(self) -> frozenset[str]:
        """From the controllers that are there; ``swap`` by the first cgroup that has the file."""
        present = self.controllers()
        provided = {
            "memory": ("memory", "memory.reservation"),
            "cpu": ("cpu.shares", "cpu.quota"),
            "cpuset": ("cpuset",),
            "pids": ("pids",),
            "io": ("io.throttle",),
            "devices": ("devices",),
            "freezer": ("freezer",),
        }
        found = {
            feature
            for controller, names in provided.items()
            if controller in present
            for feature in names
        }
        probes = (("swap", "memory.swap.max"), ("io.weight", "io.weight"))
        found |= {feature for feature, file in probes if cgroup_directory.has_file(self.root, file)}
        return frozenset(found)

    def warnings(self) -> tuple[str, ...]:
        return features.warnings(self.features(), self.version)

    def _opened(self, relative: str) -> V2Cgroup:
        directory = os.open(relative, cgroup_directory.DIRECTORY, dir_fd=self.root)
        return V2Cgroup(
            f"/{relative}",
            relative,
            self.mount,
            self.root,
            directory,
            without_device_rules=self._rootless,
        )

    def _make_ancestor(self, relative: str) -> None:
        try:
            os.mkdir(relative, 0o755, dir_fd=self.root)
        except FileExistsError:
            pass
        except PermissionError as error:
            raise _forbidden(relative, error) from error
        directory = os.open(relative, cgroup_directory.DIRECTORY, dir_fd=self.root)
        try:
            self._delegate(directory, f"/{relative}")
        finally:
            os.close(directory)

    def _make(self, relative: str) -> None:
        try:
            os.mkdir(relative, 0o755, dir_fd=self.root)
        except FileExistsError:
            cgroup_directory.remove_leftover(self.root, relative)
            os.mkdir(relative, 0o755, dir_fd=self.root)
        except PermissionError as error:
            raise _forbidden(relative, error) from error

    @staticmethod
    def _enable_what_can_be(directory: int) -> None:
        available = files.read(directory, "cgroup.controllers").split()
        enabled = files.read(directory, "cgroup.subtree_control").split()
        for name in _WANTED:
            if name in available and name not in enabled:
                try:
                    files.write(directory, "cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    if error.errno not in _REFUSALS:
                        raise

    def _delegate(self, directory: int, path: str) -> None:
        """Switch on for the children of ``path`` what it has and they lack."""
        available = files.read(directory, "cgroup.controllers").split()
        enabled = files.read(directory, "cgroup.subtree_control").split()
        missing = [name for name in _WANTED if name in available and name not in enabled]
        if not missing:
            return
        try:
            files.write(directory, "cgroup.subtree_control", " ".join(f"+{n}" for n in missing))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return  # above what is delegated to us: a limit that needs one is refused by name
            if error.errno == errno.EBUSY:
                self._make_room(directory, path)
                self._delegate_each(directory, path, missing)
            elif error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                self._delegate_each(directory, path, missing)
            else:
                raise _not_delegated(path, missing, error) from error

    @staticmethod
    def _delegate_each(directory: int, path: str, missing: list[str]) -> None:
        """One by one, so that a controller that cannot be had does not take the others along.

        A limit that needs one which is not on is refused later, by name.
        """
        for name in missing:
            try:
                files.write(directory, "cgroup.subtree_control", f"+{name}")
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                    raise _not_delegated(path, [name], error) from error

    def _make_room(self, directory: int, path: str) -> None:
        """Move the processes of the topmost cgroup to a leaf of their own."""
        processes = files.pids(files.read(directory, "cgroup.procs"))
        if path != "/":
            listed = ", ".join(map(str, processes[:8])) or "another namespace"
            raise Conflict(
                f"cgroup {path} holds processes ({listed}), so it cannot hold limited containers",
                hint="choose another cgroup parent",
            )
        try:
            os.mkdir(LEAF, 0o755, dir_fd=directory)
        except FileExistsError:
            pass
        leaf = os.open(LEAF, cgroup_directory.DIRECTORY, dir_fd=directory)
        try:
            for pid in processes:
                try:
                    files.write(leaf, "cgroup.procs", str(pid))
                except ProcessLookupError:
                    continue  # it ended meanwhile
        finally:
            os.close(leaf)


def _forbidden(relative: str, error: OSError) -> JaulaError:
    return NotAuthorized(
        f"cannot make cgroup /{relative}: {error.strerror}",
        hint="the engine needs root, or a delegated cgroup",
    )


def _not_delegated(path: str, names: list[str], error: OSError) -> JaulaError:
    wanted = ", ".join(names)
    message = f"cannot switch on {wanted} below cgroup {path}: {error.strerror}"
    if error.errno == errno.EBUSY:
        return Conflict(message, hint="it holds processes of its own")
    return Unsupported(message)


def common_ancestor(own: str, target: str) -> str:
    """The closest cgroup that holds both, "" for the root. Pure."""
    shared: list[str] = []
    for left, right in zip(own.split("/")[1:], target.split("/")[1:], strict=False):
        if left != right or not left:
            break
        shared.append(left)
    return "".join(f"/{part}" for part in shared)


def check_migration(mount: str, target: str) -> None:
    """Raise ``NotAuthorized`` where the caller could not enter ``target``."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as text:
        own = cgroup_path.own_cgroup(text.read())
    above = common_ancestor(own, target)
    if os.access(f"{mount}{above}/cgroup.procs", os.W_OK, effective_ids=True):
        return
    raise NotAuthorized(
        f"cannot move a process from cgroup {own} to {target}: permission denied, "
        f"cgroup.procs of {above or '/'}, which holds both, is not writable",
        hint="start the caller in the delegated tree: systemd-run --user --scope COMMAND",
    )
