"""Landlock's structures and ABI versions."""

from __future__ import annotations

import ctypes

import pytest

from jaula.kernel import landlock
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS, LANDLOCK_ACCESS_NET, LANDLOCK_SCOPE


@pytest.mark.parametrize(
    ("structure", "size", "offsets"),
    [
        (landlock.landlock_ruleset_attr, 24, (0, 8, 16)),
        (landlock.landlock_path_beneath_attr, 12, (0, 8)),
        (landlock.landlock_net_port_attr, 16, (0, 8)),
    ],
)
def test_structures_have_the_kernel_s_layout(
    structure: type[ctypes.Structure], size: int, offsets: tuple[int, ...]
) -> None:
    assert ctypes.sizeof(structure) == size
    names = [field[0] for field in structure._fields_]
    assert tuple(getattr(structure, name).offset for name in names) == offsets


@pytest.mark.parametrize(
    ("abi", "newest", "net", "scoped", "flags"),
    [
        (1, LANDLOCK_ACCESS_FS.MAKE_SYM, 0, 0, 0),
        (2, LANDLOCK_ACCESS_FS.REFER, 0, 0, 0),
        (3, LANDLOCK_ACCESS_FS.TRUNCATE, 0, 0, 0),
        (4, LANDLOCK_ACCESS_FS.TRUNCATE, 3, 0, 0),
        (5, LANDLOCK_ACCESS_FS.IOCTL_DEV, 3, 0, 0),
        (6, LANDLOCK_ACCESS_FS.IOCTL_DEV, 3, 3, 0),
        (7, LANDLOCK_ACCESS_FS.IOCTL_DEV, 3, 3, 7),
        (99, LANDLOCK_ACCESS_FS.IOCTL_DEV, 3, 3, 7),
    ],
)
def test_each_version_supports_all_rights_up_to_its_newest(
    abi: int, newest: int, net: int, scoped: int, flags: int
) -> None:
    assert landlock.supported_rights(abi) == ((int(newest) << 1) - 1, net, scoped, flags)


def test_no_landlock_supports_nothing() -> None:
    assert landlock.supported_rights(0) == (0, 0, 0, 0)


def test_the_newest_version_supports_every_named_right() -> None:
    known = landlock.supported_rights(7)
    assert known.access_fs == sum(LANDLOCK_ACCESS_FS)
    assert known.access_net == sum(LANDLOCK_ACCESS_NET)
    assert known.scoped == sum(LANDLOCK_SCOPE)
    assert known.restrict_self == sum(landlock.LANDLOCK_RESTRICT_SELF)
