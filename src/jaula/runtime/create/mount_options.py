"""Option strings of a mount, read into what the kernel is asked for.

Follows runtime-spec config.md "Linux mount options", mount(8), mount_setattr(2). What is no option
of every mount is data of the file system. An option that comes later wins over an earlier one.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.mounts import MOUNT_ATTR, MOUNT_ATTR__ATIME, MS
from jaula.spec.runtime import Mount

_SET: dict[str, tuple[int, int]] = {  # option: (attributes set, attributes cleared)
    "ro": (MOUNT_ATTR.RDONLY, 0),
    "rw": (0, MOUNT_ATTR.RDONLY),
    "nosuid": (MOUNT_ATTR.NOSUID, 0),
    "suid": (0, MOUNT_ATTR.NOSUID),
    "nodev": (MOUNT_ATTR.NODEV, 0),
    "dev": (0, MOUNT_ATTR.NODEV),
    "noexec": (MOUNT_ATTR.NOEXEC, 0),
    "exec": (0, MOUNT_ATTR.NOEXEC),
    "nosymfollow": (MOUNT_ATTR.NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR.NOSYMFOLLOW),
    "nodiratime": (MOUNT_ATTR.NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR.NODIRATIME),
    "noatime": (MOUNT_ATTR.NOATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR.STRICTATIME, MOUNT_ATTR__ATIME),
    "nostrictatime": (0, MOUNT_ATTR__ATIME),
    "relatime": (0, MOUNT_ATTR__ATIME),
    "atime": (0, MOUNT_ATTR__ATIME),
}
PROPAGATION: dict[str, tuple[int, bool]] = {  # option: (flag, recursive)
    f"{prefix}{name}": (int(flag), prefix == "r")
    for prefix in ("", "r")
    for name, flag in (
        ("private", MS.PRIVATE),
        ("slave", MS.SLAVE),
        ("shared", MS.SHARED),
        ("unbindable", MS.UNBINDABLE),
    )
}
SUPERBLOCK: dict[str, tuple[int, bool]] = {  # option: (flag of mount(2), whether it sets it)
    "sync": (MS.SYNCHRONOUS, True),
    "async": (MS.SYNCHRONOUS, False),
    "dirsync": (MS.DIRSYNC, True),
    "lazytime": (MS.LAZYTIME, True),
    "nolazytime": (MS.LAZYTIME, False),
    "mand": (MS.MANDLOCK, True),
    "nomand": (MS.MANDLOCK, False),
    "iversion": (MS.I_VERSION, True),
    "noiversion": (MS.I_VERSION, False),
}
_SWITCHES = frozenset({"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"})
_IGNORED = frozenset({"defaults", "silent", "loud", "norelatime", "rnorelatime"})
_ONLY_BIND = frozenset({"acl", "noacl"})  # of some file systems; a bind takes what is below it


class MountOptions(msgspec.Struct, frozen=True):
    """What the option strings of one mount ask for."""

    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: tuple[tuple[int, bool], ...] = ()  # in order: (flag, recursive)
    superblock: int = 0  # flags of mount(2)
    bind: bool = False
    recursive: bool = False
    remount: bool = False
    idmap: bool = False
    idmap_recursive: bool = False
    copy_up: bool = False
    data: tuple[tuple[str, str | None], ...] = ()


def _recursive(option: str) -> tuple[int, int] | None:
    """The attributes of ``rro``, ``rnosuid`` and so on; ``relatime`` and ``ro`` are none."""
    return _SET.get(option[1:]) if option[:1] == "r" and option not in _SET else None


def parse_options(options: tuple[str, ...]) -> MountOptions:
    """Read OCI mount options; what is no known flag goes to the file system."""
    one, tree = [0, 0], [0, 0]
    propagation: list[tuple[int, bool]] = []
    superblock = 0
    bind = recursive = remount = idmap = idmap_recursive = copy_up = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        below = _recursive(option)
        if option in _SET or below is not None:
            kept = one if below is None else tree
            on, off = _SET[option] if below is None else below
            kept[0] = kept[0] & ~off | on
            kept[1] = kept[1] & ~on | off
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in SUPERBLOCK:
            flag, on_ = SUPERBLOCK[option]
            superblock = superblock | flag if on_ else superblock & ~flag
        elif option in ("bind", "rbind"):
            bind, recursive = True, recursive or option == "rbind"
        elif option == "remount":
            remount = True
        elif option in ("idmap", "ridmap"):
            idmap, idmap_recursive = True, option == "ridmap"
        elif option == "tmpcopyup":
            copy_up = True
        elif option not in _IGNORED:
            key, separator, value = option.partition("=")
            data.append((key, value if separator else None))
    return MountOptions(
        one[0],
        one[1],
        tree[0],
        tree[1],
        tuple(propagation),
        superblock,
        bind,
        recursive,
        remount,
        idmap,
        idmap_recursive,
        copy_up,
        tuple(data),
    )


def for_mount(mount: Mount) -> MountOptions:
    """The options of a mount, with what its type and its own id mappings imply.

    Raises ``InvalidRequest`` for a combination that means nothing.
    """
    options = parse_options(mount.options)
    if mount.type == "bind":
        options = structs.replace(options, bind=True)
    if mount.uid_mappings or mount.gid_mappings:
        options = structs.replace(options, idmap=True)
    about = f"mount at {mount.destination}"
    if options.bind and not options.remount:
        unknown = [key for key, _ in options.data if key not in _ONLY_BIND]
        if unknown:
            raise InvalidRequest(
                f"{about}: a bind mount has no option {unknown[0]!r}",
                hint="leave it out: it is for the file system that the source lies on",
            )
    elif options.idmap:
        raise InvalidRequest(f"{about}: only bind mounts can be id-mapped")
    if options.copy_up and mount.type != "tmpfs":
        raise InvalidRequest(f"{about}: tmpcopyup is an option of tmpfs, not of {mount.type}")
    return options


def known_options() -> tuple[str, ...]:
    """Every option that :func:`parse_options` understands itself, sorted."""
    recursive = {f"r{name}" for name in _SET} - set(_SET)
    return tuple(sorted({*_SET, *recursive, *PROPAGATION, *SUPERBLOCK, *_SWITCHES, *_IGNORED}))
