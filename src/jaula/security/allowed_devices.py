"""The device nodes of a container, and its device cgroup rules.

Follows the OCI runtime specification (``config-linux.md``, Default Devices) and Docker for
``--device HOST[:CONTAINER][:rwm]``. The runtime creates the nodes. The devices cgroup enforces the
rules.

Unlike Docker, ``mknod`` of any other device (``c *:* m``) is not allowed. Such a node would be
useless in the container, but a host process that finds it could use it (statement I10).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from jaula.errors import InvalidRequest
from jaula.spec.runtime_spec import Device, DeviceCgroup

DEFAULT_DEVICES: tuple[Device, ...] = tuple(
    Device(path=f"/dev/{name}", type="c", major=major, minor=minor, file_mode=0o666, uid=0, gid=0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)

DEFAULT_RULES: tuple[DeviceCgroup, ...] = tuple(
    DeviceCgroup(allow=True, type="c", major=major, minor=minor, access="rwm")
    for major, minor in (
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),  # /dev/console
        (5, 2),  # /dev/ptmx of the container's own devpts
        (136, None),  # terminals of that devpts
    )
)
"""The allow rules. The engine's first rule denies every other device."""

_IDS = 65536
_OVERFLOW_ID = 65534  # the kernel's overflow id


def parse_device(text: str) -> tuple[tuple[Device, DeviceCgroup], ...]:
    """Parse ``--device`` into device nodes and cgroup rules.

    The forms are ``/dev/kvm``, ``/dev/kvm:rw``, ``/dev/sda:/dev/disk`` and
    ``/dev/sda:/dev/disk:r``. A directory means every device below it.

    :raises InvalidRequest: when the form is not valid, or the host path is not a device.
    """
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidRequest(f"invalid device specification: {text}", hint="HOST[:CONTAINER][:rwm]")
    host, container_path, access = parts[0], parts[0], "rwm"
    if len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) >= 2:
        container_path = parts[1] or host
    if len(parts) == 3:
        access = parts[2]
        if not _is_access(access):
            raise InvalidRequest(f"invalid device mode: {access}", hint="letters of rwm, once each")
    path = _container_path(container_path, text)
    message = f'error gathering device information while adding custom device "{host}": '
    try:
        status = os.stat(host if host.startswith("/") else "")
    except (OSError, ValueError):
        raise InvalidRequest(f"{message}no such file or directory") from None
    if stat.S_ISDIR(status.st_mode):
        if os.path.realpath(host) == "/dev":
            raise InvalidRequest(f"{message}it is every device of the host", hint="name some")
        devices = tuple(_below(os.path.normpath(host), path, access))
    else:
        devices = tuple(_node(status, path, access))
    if not devices:
        raise InvalidRequest(f"{message}not a device node")
    return devices


def host_devices() -> tuple[str, ...]:
    """Return the host's device nodes, without those that every container has of its own."""
    devices = []
    for directory, names, entries in os.walk("/dev"):
        names[:] = [n for n in names if n not in ("pts", "shm", "mqueue", "fd", "hugepages")]
        for name in entries:
            path = os.path.join(directory, name)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                continue  # removed meanwhile
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and name not in ("console", "ptmx"):
                devices.append(path)
    return tuple(sorted(devices))


def _below(
    directory: str, container_path: str, access: str
) -> Iterator[tuple[Device, DeviceCgroup]]:
    """Yield the devices below a directory of the host. Symbolic links are not followed."""
    for parent, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = f"{parent}/{name}"
            with contextlib.suppress(FileNotFoundError):  # a device that was just removed
                yield from _node(os.lstat(path), container_path + path[len(directory) :], access)


def _node(status: os.stat_result, path: str, access: str) -> Iterator[tuple[Device, DeviceCgroup]]:
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    node = Device(
        path=path,
        type=kind,
        major=major,
        minor=minor,
        file_mode=stat.S_IMODE(status.st_mode),
        uid=_container_id(status.st_uid),
        gid=_container_id(status.st_gid),
    )
    yield node, DeviceCgroup(allow=True, type=kind, major=major, minor=minor, access=access)


def _container_id(owner: int) -> int:
    """Return an id in a container with 65,536 ids: the overflow id if it is out of range."""
    return owner if owner < _IDS else _OVERFLOW_ID


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _container_path(path: str, text: str) -> str:
    """Return the path in the container, which must be absolute and without ``..``."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not path.startswith("/") or ".." in names or not names or "\0" in path:
        raise InvalidRequest(
            f"invalid device specification: {text}",
            hint="the path in the container must be absolute",
        )
    return "/" + "/".join(names)
