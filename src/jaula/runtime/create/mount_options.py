"""Parse the option strings of a mount into flags for the kernel.

Follows runtime-spec config.md "Linux mount options", mount(8), mount_setattr(2). An option that is
not a generic mount option is data for the file system. A later option overrides an earlier one.

Facts about locked flags (mount_namespaces(7)): a mount that a less privileged mount namespace gets
keeps read-only, nosuid, nodev, noexec and its access times. To clear one there is EPERM. The kernel
locks access times whatever they are. A mount made with the host's view may still go from relatime,
the default, to noatime.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.mounts import MOUNT_ATTR, MOUNT_ATTR__ATIME, MS
from jaula.spec.runtime_spec import Mount

_ATTRIBUTES: dict[str, tuple[int, int]] = {  # option: (attributes set, attributes cleared)
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
_FLAGS = frozenset({"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"})
_IGNORED = frozenset({"defaults", "silent", "loud", "norelatime", "rnorelatime"})
_IGNORED_ON_BIND = frozenset(
    {"acl", "noacl", "mode", "size", "uid", "gid", "nr_inodes", "nr_blocks"}
)  # file system options, which a bind mount inherits
_ON_BIND = ("rw", "suid", "dev", "exec", "symfollow")
_LOCKED = (  # (attribute, flag of statvfs(3), option)
    (MOUNT_ATTR.RDONLY, os.ST_RDONLY, "ro"),
    (MOUNT_ATTR.NOSUID, os.ST_NOSUID, "nosuid"),
    (MOUNT_ATTR.NODEV, os.ST_NODEV, "nodev"),
    (MOUNT_ATTR.NOEXEC, os.ST_NOEXEC, "noexec"),
    (MOUNT_ATTR.NODIRATIME, os.ST_NODIRATIME, "nodiratime"),
)
_ATIME_OPTIONS = {
    MOUNT_ATTR.NOATIME: "noatime",
    MOUNT_ATTR.STRICTATIME: "strictatime",
    0: "relatime",
}


class MountOptions(msgspec.Struct, frozen=True):
    """Parsed option strings of one mount."""

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

    @property
    def shared(self) -> bool:
        """Whether what is mounted in the mount appears at its source."""
        return any(flag == MS.SHARED for flag, _ in self.propagation)


def _recursive(option: str) -> tuple[int, int] | None:
    """Return the attributes of ``rro``, ``rnosuid`` and so on; None for other options."""
    return _ATTRIBUTES.get(option[1:]) if option[:1] == "r" and option not in _ATTRIBUTES else None


def parse_options(options: tuple[str, ...]) -> MountOptions:
    """Parse OCI mount options; unknown options become data for the file system."""
    mount_bits, tree_bits = [0, 0], [0, 0]
    propagation: list[tuple[int, bool]] = []
    superblock = 0
    bind = recursive = remount = idmap = idmap_recursive = copy_up = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        recursive_bits = _recursive(option)
        if option in _ATTRIBUTES or recursive_bits is not None:
            attributes = mount_bits if recursive_bits is None else tree_bits
            set_bits, clear_bits = _ATTRIBUTES[option] if recursive_bits is None else recursive_bits
            attributes[0] = attributes[0] & ~clear_bits | set_bits
            attributes[1] = attributes[1] & ~set_bits | clear_bits
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in SUPERBLOCK:
            flag, sets = SUPERBLOCK[option]
            superblock = superblock | flag if sets else superblock & ~flag
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
        mount_bits[0],
        mount_bits[1],
        tree_bits[0],
        tree_bits[1],
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
    """Return the options of a mount, with those implied by its type and id mappings.

    :raises InvalidRequest: when options contradict each other or the type.
    """
    options = parse_options(mount.options)
    if mount.type == "bind":
        options = structs.replace(options, bind=True)
    if mount.uid_mappings or mount.gid_mappings:
        options = structs.replace(options, idmap=True)
    prefix = f"mount at {mount.destination}"
    if options.bind and not options.remount:
        unknown = [key for key, _ in options.data if key not in _IGNORED_ON_BIND]
        if unknown:
            raise InvalidRequest(
                f"{prefix}: a bind mount has no option {unknown[0]!r}",
                hint="remove it: it belongs to the source's file system",
            )
    elif options.idmap:
        raise InvalidRequest(f"{prefix}: only bind mounts can be id-mapped")
    if options.copy_up and mount.type != "tmpfs":
        raise InvalidRequest(f"{prefix}: tmpcopyup is an option of tmpfs, not of {mount.type}")
    return options


def with_cleared_flags(mount: Mount, *, less_privileged: bool = False) -> Mount:
    """Return a bind mount whose options clear the flags of its source that they do not name.

    As in runc and mount(8), a bind mount that names any flag gets these flags alone. One that names
    none keeps those of its source. So does one of a container that is ``less_privileged``: it has a
    user namespace, where the flags are locked. The engine's mounts always keep them.
    """
    options = parse_options(mount.options)
    if not (options.bind or mount.type == "bind") or options.remount or less_privileged:
        return mount
    if not (options.set | options.clear):
        return mount
    return structs.replace(mount, options=(*_ON_BIND, *mount.options))


def mount_flags(flags: int) -> tuple[str, ...]:
    """Return the options that a remount must repeat, from the mount's flags of statvfs(3).

    A remount that names no option of the access times keeps them (mount(2)).
    """
    return tuple(
        name for bit, flag, name in _LOCKED if flags & flag and bit != MOUNT_ATTR.NODIRATIME
    )


def locked_flags(attributes: tuple[int, int], flags: int) -> tuple[str, ...]:
    """Return the options of a mount that a change would clear, and a user namespace must keep.

    ``attributes`` are those set and cleared, ``flags`` the mount's of statvfs(3). A change sets an
    attribute after it has cleared it.
    """
    set_bits, clear_bits = attributes
    kept = [
        name for bit, flag, name in _LOCKED if flags & flag and clear_bits & bit and ~set_bits & bit
    ]
    before, after = _atime(flags), set_bits & MOUNT_ATTR__ATIME
    if clear_bits & MOUNT_ATTR__ATIME and after not in (before, before or MOUNT_ATTR.NOATIME):
        kept.append(_ATIME_OPTIONS[before])
    return tuple(kept)


def statvfs_flags(options: Iterable[str]) -> int:
    """Return the flags of statvfs(3) of a mount from its options in mountinfo."""
    names = {name: flag for _, flag, name in _LOCKED}
    names |= {"noatime": os.ST_NOATIME, "relatime": os.ST_RELATIME}
    return sum(names.get(option, 0) for option in set(options))


def _atime(flags: int) -> int:
    """Return the attribute of the access times of a mount from its flags of statvfs(3)."""
    if flags & os.ST_NOATIME:
        return int(MOUNT_ATTR.NOATIME)
    return 0 if flags & os.ST_RELATIME else int(MOUNT_ATTR.STRICTATIME)


def known_options() -> tuple[str, ...]:
    """Return every option that :func:`parse_options` recognises itself, sorted."""
    recursive = {f"r{name}" for name in _ATTRIBUTES} - set(_ATTRIBUTES)
    return tuple(sorted({*_ATTRIBUTES, *recursive, *PROPAGATION, *SUPERBLOCK, *_FLAGS, *_IGNORED}))
