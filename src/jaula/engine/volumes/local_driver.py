"""What a volume with options of the ``local`` driver is a mount of. Pure.

Source: moby ``volume/local/local_unix.go``: ``type``, ``device`` and ``o`` are those of mount(8);
``type`` and ``device`` need each other, and ``o`` needs both. ``o=bind`` makes it a bind of a
directory of the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.runtime.create import mount_options
from jaula.runtime.create.mount_options import MountOptions

DRIVER_OPTIONS = ("type", "device", "o", "size")
_MEMORY = ("tmpfs", "ramfs")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph")


class VolumeSource(msgspec.Struct, frozen=True):
    """A file system, or a directory of the host where ``options.bind``."""

    type: str
    device: str
    options: MountOptions

    @property
    def writable(self) -> bool:
        return not self.options.set & MOUNT_ATTR.RDONLY

    @property
    def in_memory(self) -> bool:
        """Whether its content is gone when it is mounted nowhere any more."""
        return self.type in _MEMORY and not self.options.bind


def parse_driver_options(options: Mapping[str, str]) -> VolumeSource | None:
    """The source of a volume with these options; None for a plain directory.

    :raises InvalidRequest: an option that there is not, or that is missing.
    """
    for name in sorted(options):
        if name not in DRIVER_OPTIONS:
            raise InvalidRequest(
                f'invalid option: "{name}"',
                hint=f"the local driver has {', '.join(DRIVER_OPTIONS)}",
            )
    if "size" in options:
        raise InvalidRequest(
            "quota size requested but no quota support", hint="o=size=10m with type=tmpfs"
        )
    if not options:
        return None
    for name in ("device", "type"):
        if not options.get(name):
            raise InvalidRequest(f'missing required option: "{name}"')
    words = tuple(word for word in options.get("o", "").split(",") if word)
    if any("\0" in text for text in options.values()):
        raise InvalidRequest("a volume's option holds a NUL byte")
    source = VolumeSource(options["type"], options["device"], mount_options.parse_options(words))
    _check(source)
    return source


def _check(source: VolumeSource) -> None:
    found = source.options
    if found.remount or found.idmap or found.copy_up or found.propagation:
        raise InvalidRequest(
            "a volume is mounted once: remount, idmap and propagation have no place"
        )
    if found.bind:
        if found.data:
            raise InvalidRequest(f"a bind has no option {found.data[0][0]!r}")
        if not source.device.startswith("/"):
            raise InvalidRequest(f"the device of a bind is an absolute path, not {source.device!r}")
    elif source.type in ("none", "bind"):
        raise InvalidRequest(f"type {source.type} is for binds", hint="o=bind")


def mount_data(source: VolumeSource, address: str = "") -> tuple[tuple[str, str | None], ...]:
    """The options of the file system; ``address`` is the server's in figures."""
    found = [(key, value) for key, value in source.options.data if key != "addr" or not address]
    return (*found, *((("addr", address),) if address else ()))


def server_name(source: VolumeSource) -> str:
    """The host name that has to be looked up for a file system of the network; empty for none."""
    if source.type not in _NETWORK:
        return ""
    for key, value in source.options.data:
        if key == "addr" and value:
            return value
    return source.device.rpartition(":/")[0].strip("[]") if source.type.startswith("nfs") else ""
