"""The v2 driver: creates a cgroup and enables the controllers along its path.

Source: kernel ``admin-guide/cgroup-v2.rst``, "Enabling and Disabling" and "No Internal Process
Constraint": a cgroup other than the root that holds processes cannot enable controllers for its
children. If that is the top of the visible tree (a container, a delegated unit), its processes are
moved to a leaf next to the new cgroup. In any other cgroup it is an error.
"""

from __future__ import annotations

import errno
import os

from jaula.cgroups import cgroup_directory, cgroup_files, cgroup_limits, cgroup_path
from jaula.cgroups.cgroup_driver import Usage
from jaula.cgroups.v2.cgroup_v2 import V2Cgroup
from jaula.errors import Conflict, JaulaError, NotAuthorized, NotFound, Unsupported

LEAF = "jaula-init"
"""Leaf for the processes of the topmost cgroup."""

_ENABLE_ERRNOS = (
    errno.EBUSY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EINVAL,
    errno.ENOENT,
    errno.EOPNOTSUPP,
)
_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")


class V2Driver:
    """The v2 hierarchy, by a descriptor of its mount point."""

    name = "cgroupfs"
    version = 2

    def __init__(self, mount: str, *, rootless: bool = False) -> None:
        """Open the hierarchy; ``rootless`` sets no device rules and checks who may move processes.

        Device rules need a privilege that a rootless engine does not have.
        """
        self.mount = mount
        self.root = os.open(mount, cgroup_directory.DIRECTORY)
        self._rootless = rootless

    def create(self, path: str) -> V2Cgroup:
        relative = cgroup_path.relative(path)
        parents = cgroup_path.ancestors(relative)
        self._delegate(self.root, "/")
        for ancestor in parents:
            self._make_ancestor(ancestor)
        self._make(relative)
        if self._rootless:
            try:
                check_migration(self.mount, f"/{relative}")
            except BaseException:
                os.rmdir(relative, dir_fd=self.root)
                raise
        return self._open(relative)

    def adopt(self, path: str) -> V2Cgroup:
        """Return a cgroup that the service manager created and keeps a process in.

        The manager enables the controllers that it knows; the others are enabled if possible.

        :raises NotFound: when the cgroup does not exist.
        """
        relative = cgroup_path.relative(path)
        for ancestor in (".", *cgroup_path.ancestors(relative)):
            directory = os.open(ancestor, cgroup_directory.DIRECTORY, dir_fd=self.root)
            try:
                self._enable_available(directory)
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
            return self._open(relative)
        except FileNotFoundError as error:
            raise NotFound(f"no such cgroup: /{relative}") from error

    def usage(self, path: str) -> Usage:
        with self.open(path) as cgroup:
            return cgroup.usage()

    def controllers(self) -> frozenset[str]:
        return frozenset(cgroup_files.read(self.root, "cgroup.controllers").split()) | {
            "devices",
            "freezer",
        }

    def features(self) -> frozenset[str]:
        """Return the features of the available controllers.

        ``swap`` and ``io.weight`` depend on the first cgroup that has the file.
        """
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
        supported = {
            feature
            for controller, names in provided.items()
            if controller in present
            for feature in names
        }
        probes = (("swap", "memory.swap.max"), ("io.weight", "io.weight"))
        supported |= {
            feature for feature, file in probes if cgroup_directory.has_file(self.root, file)
        }
        return frozenset(supported)

    def warnings(self) -> tuple[str, ...]:
        return cgroup_limits.warnings(self.features(), self.version)

    def _open(self, relative: str) -> V2Cgroup:
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
    def _enable_available(directory: int) -> None:
        """Enable each available controller for the children, ignoring refusals."""
        available = cgroup_files.read(directory, "cgroup.controllers").split()
        enabled = cgroup_files.read(directory, "cgroup.subtree_control").split()
        for name in _CONTROLLERS:
            if name in available and name not in enabled:
                try:
                    cgroup_files.write(directory, "cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    if error.errno not in _ENABLE_ERRNOS:
                        raise

    def _delegate(self, directory: int, path: str) -> None:
        """Enable the available controllers for the children of ``path``."""
        available = cgroup_files.read(directory, "cgroup.controllers").split()
        enabled = cgroup_files.read(directory, "cgroup.subtree_control").split()
        missing = [name for name in _CONTROLLERS if name in available and name not in enabled]
        if not missing:
            return
        try:
            cgroup_files.write(
                directory, "cgroup.subtree_control", " ".join(f"+{n}" for n in missing)
            )
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return  # above the delegated tree; a limit that needs a controller is refused
            if error.errno == errno.EBUSY:
                self._move_processes_to_leaf(directory, path)
                self._delegate_each(directory, path, missing)
            elif error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                self._delegate_each(directory, path, missing)
            else:
                raise _not_delegated(path, missing, error) from error

    @staticmethod
    def _delegate_each(directory: int, path: str, missing: list[str]) -> None:
        """Enable controllers one by one, so that an unavailable one does not disable the others.

        A limit that needs an unavailable controller is refused later.
        """
        for name in missing:
            try:
                cgroup_files.write(directory, "cgroup.subtree_control", f"+{name}")
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL):
                    raise _not_delegated(path, [name], error) from error

    def _move_processes_to_leaf(self, directory: int, path: str) -> None:
        """Move the processes of the topmost cgroup to a leaf of their own.

        :raises Conflict: when ``path`` is not the topmost cgroup.
        """
        processes = cgroup_files.pids(cgroup_files.read(directory, "cgroup.procs"))
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
                    cgroup_files.write(leaf, "cgroup.procs", str(pid))
                except ProcessLookupError:
                    continue  # it has exited
        finally:
            os.close(leaf)


def _forbidden(relative: str, error: OSError) -> JaulaError:
    return NotAuthorized(
        f"cannot create cgroup /{relative}: {error.strerror}",
        hint="the engine needs root, or a delegated cgroup",
    )


def _not_delegated(path: str, names: list[str], error: OSError) -> JaulaError:
    controllers = ", ".join(names)
    message = f"cannot enable {controllers} below cgroup {path}: {error.strerror}"
    if error.errno == errno.EBUSY:
        return Conflict(message, hint="it holds processes of its own")
    return Unsupported(message)


def common_ancestor(own: str, target: str) -> str:
    """Return the closest common ancestor of two cgroups, "" for the root. Pure."""
    shared: list[str] = []
    for left, right in zip(own.split("/")[1:], target.split("/")[1:], strict=False):
        if left != right or not left:
            break
        shared.append(left)
    return "".join(f"/{part}" for part in shared)


def check_migration(mount: str, target: str) -> None:
    """Check that the caller may move a process from its own cgroup to ``target``.

    Source: kernel ``admin-guide/cgroup-v2.rst`` "Delegation Containment": the process must be the
    user's, and ``cgroup.procs`` of both the target and the closest common ancestor must be
    writable. A user who logged in outside the delegated tree can create cgroups in it but not enter
    them.

    :raises NotAuthorized: when the caller cannot enter ``target``.
    """
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as text:
        own = cgroup_path.own_cgroup(text.read())
    ancestor = common_ancestor(own, target)
    if os.access(f"{mount}{ancestor}/cgroup.procs", os.W_OK, effective_ids=True):
        return
    raise NotAuthorized(
        f"cannot move a process from cgroup {own} to {target}: permission denied, "
        f"cgroup.procs of their common ancestor {ancestor or '/'} is not writable",
        hint="start the caller in the delegated tree: systemd-run --user --scope COMMAND",
    )
