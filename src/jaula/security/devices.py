"""Which device nodes a container has, and which devices it may use.

Follows the OCI runtime specification (``config-linux.md``, Default Devices) and Docker for
``--device HOST[:INSIDE][:rwm]``. The nodes are made by the runtime, the rules are enforced by the
devices cgroup.

Unlike Docker, making nodes of any other number (``c *:* m``) is not allowed: such a node would be
useless to the container and useful to whoever finds it on the host (statement I10).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from jaula.errors import InvalidRequest
from jaula.spec.runtime import Device, DeviceCgroup

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
        (136, None),  # terminals of it
    )
)
"""What is allowed; everything else is denied by the engine's first rule."""

_IDS = 65536
_NOBODY = 65534  # the kernel's overflow id


def parse_device(text: str) -> tuple[tuple[Device, DeviceCgroup], ...]:
    """The nodes and the permissions that ``--device`` asks for.

    ``/dev/kvm``, ``/dev/kvm:rw``, ``/dev/sda:/dev/disk`` and ``/dev/sda:/dev/disk:r`` are
    understood; a directory means every device below it. Raises ``InvalidRequest`` for another form
    and for what is no device on the host.
    """
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidRequest(f"invalid device specification: {text}", hint="HOST[:INSIDE][:rwm]")
    host, inside, access = parts[0], parts[0], "rwm"
    if len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) >= 2:
        inside = parts[1] or host
    if len(parts) == 3:
        access = parts[2]
        if not _is_access(access):
            raise InvalidRequest(f"invalid device mode: {access}", hint="letters of rwm, once each")
    path = _inside(inside, text)
    problem = f'error gathering device information while adding custom device "{host}": '
    try:
        facts = os.stat(host if host.startswith("/") else "")
    except (OSError, ValueError):
        raise InvalidRequest(f"{problem}no such file or directory") from None
    if stat.S_ISDIR(facts.st_mode):
        if os.path.realpath(host) == "/dev":
            raise InvalidRequest(f"{problem}it is every device of the host", hint="name some")
        found = tuple(_below(os.path.normpath(host), path, access))
    else:
        found = tuple(_node(facts, path, access))
    if not found:
        raise InvalidRequest(f"{problem}not a device node")
    return found


def _below(directory: str, inside: str, access: str) -> Iterator[tuple[Device, DeviceCgroup]]:
    """The devices of a directory of the host and of those in it; links are not followed."""
    for parent, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = f"{parent}/{name}"
            with contextlib.suppress(FileNotFoundError):  # a device that was just taken away
                yield from _node(os.lstat(path), inside + path[len(directory) :], access)


def _node(facts: os.stat_result, path: str, access: str) -> Iterator[tuple[Device, DeviceCgroup]]:
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(facts.st_mode))
    if kind is None:
        return
    major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    node = Device(
        path=path,
        type=kind,
        major=major,
        minor=minor,
        file_mode=stat.S_IMODE(facts.st_mode),
        uid=_known(facts.st_uid),
        gid=_known(facts.st_gid),
    )
    yield node, DeviceCgroup(allow=True, type=kind, major=major, minor=minor, access=access)


def _known(owner: int) -> int:
    """An id as a container with 65,536 of them has it; what is beyond belongs to nobody there."""
    return owner if owner < _IDS else _NOBODY


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _inside(path: str, text: str) -> str:
    """The path in the container: absolute and without a way up."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not path.startswith("/") or ".." in names or not names or "\0" in path:
        raise InvalidRequest(
            f"invalid device specification: {text}", hint="the path inside must be absolute"
        )
    return "/" + "/".join(names)
