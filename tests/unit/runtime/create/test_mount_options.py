"""Option strings of mounts, alone and combined."""

import os

import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.mounts import MOUNT_ATTR, MOUNT_ATTR__ATIME, MS
from jaula.runtime.create import mount_options
from jaula.runtime.create.mount_options import MountOptions, parse_options
from jaula.spec import runtime_spec

A = MOUNT_ATTR
ATIME = MOUNT_ATTR__ATIME
TABLE = [
    ("ro", MountOptions(set=A.RDONLY)),
    ("rw", MountOptions(clear=A.RDONLY)),
    ("nosuid", MountOptions(set=A.NOSUID)),
    ("suid", MountOptions(clear=A.NOSUID)),
    ("nodev", MountOptions(set=A.NODEV)),
    ("dev", MountOptions(clear=A.NODEV)),
    ("noexec", MountOptions(set=A.NOEXEC)),
    ("exec", MountOptions(clear=A.NOEXEC)),
    ("nosymfollow", MountOptions(set=A.NOSYMFOLLOW)),
    ("symfollow", MountOptions(clear=A.NOSYMFOLLOW)),
    ("nodiratime", MountOptions(set=A.NODIRATIME)),
    ("diratime", MountOptions(clear=A.NODIRATIME)),
    ("noatime", MountOptions(set=A.NOATIME, clear=ATIME)),
    ("strictatime", MountOptions(set=A.STRICTATIME, clear=ATIME)),
    ("relatime", MountOptions(clear=ATIME)),
    ("atime", MountOptions(clear=ATIME)),
    ("rro", MountOptions(recursive_set=A.RDONLY)),
    ("rrw", MountOptions(recursive_clear=A.RDONLY)),
    ("rnosuid", MountOptions(recursive_set=A.NOSUID)),
    ("rsuid", MountOptions(recursive_clear=A.NOSUID)),
    ("rnodev", MountOptions(recursive_set=A.NODEV)),
    ("rdev", MountOptions(recursive_clear=A.NODEV)),
    ("rnoexec", MountOptions(recursive_set=A.NOEXEC)),
    ("rexec", MountOptions(recursive_clear=A.NOEXEC)),
    ("rnosymfollow", MountOptions(recursive_set=A.NOSYMFOLLOW)),
    ("rsymfollow", MountOptions(recursive_clear=A.NOSYMFOLLOW)),
    ("rnodiratime", MountOptions(recursive_set=A.NODIRATIME)),
    ("rdiratime", MountOptions(recursive_clear=A.NODIRATIME)),
    ("rnoatime", MountOptions(recursive_set=A.NOATIME, recursive_clear=ATIME)),
    ("rrelatime", MountOptions(recursive_clear=ATIME)),
    ("rstrictatime", MountOptions(recursive_set=A.STRICTATIME, recursive_clear=ATIME)),
    ("private", MountOptions(propagation=((MS.PRIVATE, False),))),
    ("rprivate", MountOptions(propagation=((MS.PRIVATE, True),))),
    ("slave", MountOptions(propagation=((MS.SLAVE, False),))),
    ("rslave", MountOptions(propagation=((MS.SLAVE, True),))),
    ("shared", MountOptions(propagation=((MS.SHARED, False),))),
    ("rshared", MountOptions(propagation=((MS.SHARED, True),))),
    ("unbindable", MountOptions(propagation=((MS.UNBINDABLE, False),))),
    ("runbindable", MountOptions(propagation=((MS.UNBINDABLE, True),))),
    ("sync", MountOptions(superblock=MS.SYNCHRONOUS)),
    ("sync,async", MountOptions()),
    ("dirsync", MountOptions(superblock=MS.DIRSYNC)),
    ("lazytime", MountOptions(superblock=MS.LAZYTIME)),
    ("mand", MountOptions(superblock=MS.MANDLOCK)),
    ("iversion", MountOptions(superblock=MS.I_VERSION)),
    ("defaults", MountOptions()),
    ("silent,loud,norelatime", MountOptions()),
    ("bind", MountOptions(bind=True)),
    ("rbind", MountOptions(bind=True, recursive=True)),
    ("remount", MountOptions(remount=True)),
    ("idmap", MountOptions(idmap=True)),
    ("ridmap", MountOptions(idmap=True, idmap_recursive=True)),
    ("tmpcopyup", MountOptions(copy_up=True)),
    ("size=64m", MountOptions(data=(("size", "64m"),))),
    ("newinstance", MountOptions(data=(("newinstance", None),))),
    ("lowerdir=a=b", MountOptions(data=(("lowerdir", "a=b"),))),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text for text, _ in TABLE])
def test_each_option_sets_its_flags(text: str, expected: MountOptions) -> None:
    assert parse_options(tuple(text.split(","))) == expected


def test_later_propagation_is_applied_after_earlier() -> None:
    assert parse_options(("slave", "shared")).propagation == ((MS.SLAVE, False), (MS.SHARED, False))


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (runtime_spec.Mount("/d", "/s", "bind", ("subvol=1",)), "no option 'subvol'"),
        (runtime_spec.Mount("/d", "/s", None, ("rbind", "huge=never")), "no option 'huge'"),
        (runtime_spec.Mount("/d", "tmpfs", "tmpfs", ("idmap",)), "only bind mounts"),
        (runtime_spec.Mount("/d", "/s", "bind", ("tmpcopyup",)), "an option of tmpfs"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(mount: runtime_spec.Mount, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        mount_options.for_mount(mount)


def test_own_mappings_make_a_mount_id_mapped() -> None:
    rows = (runtime_spec.IDMapping(0, 1000, 1),)
    mount = runtime_spec.Mount("/d", "/s", "bind", (), uid_mappings=rows, gid_mappings=rows)
    options = mount_options.for_mount(mount)
    assert options.bind
    assert options.idmap
    assert not options.idmap_recursive


def test_every_known_option_is_parsed() -> None:
    for option in mount_options.known_options():
        assert not parse_options((option,)).data, option


@pytest.mark.parametrize("options", [("bind", "mode=0700"), ("rbind", "size=64k", "uid=5")])
def test_options_of_a_new_file_system_are_ignored_on_a_bind(options: tuple[str, ...]) -> None:
    assert mount_options.for_mount(runtime_spec.Mount("/d", "/s", None, options)).bind


def flags(*options: str, kind: str = "bind", less_privileged: bool = False) -> tuple[int, int]:
    mount = mount_options.with_cleared_flags(
        runtime_spec.Mount("/d", "/s", kind, options), less_privileged=less_privileged
    )
    parsed = parse_options(mount.options)
    return parsed.set, parsed.clear


def test_a_bind_that_names_a_flag_has_no_other() -> None:
    every = MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV | MOUNT_ATTR.NOEXEC
    every |= MOUNT_ATTR.NOSYMFOLLOW
    assert flags("nosuid") == (MOUNT_ATTR.NOSUID, every & ~MOUNT_ATTR.NOSUID)
    assert flags("rbind", "ro", "nodev", kind="none") == (
        MOUNT_ATTR.RDONLY | MOUNT_ATTR.NODEV,
        every & ~(MOUNT_ATTR.RDONLY | MOUNT_ATTR.NODEV),
    )
    assert flags("rw") == (0, every)


def test_a_bind_that_names_no_flag_keeps_those_of_its_source() -> None:
    assert flags("rbind", "rprivate", "rro") == (0, 0)
    assert flags("nosuid", kind="tmpfs") == (MOUNT_ATTR.NOSUID, 0)
    assert flags("bind", "remount", "ro") == (MOUNT_ATTR.RDONLY, 0)


def test_a_bind_of_a_less_privileged_container_keeps_the_flags_of_its_source() -> None:
    assert flags("nosuid", less_privileged=True) == (MOUNT_ATTR.NOSUID, 0)
    assert flags("rw", less_privileged=True) == (0, MOUNT_ATTR.RDONLY)


SOURCE_FLAGS = {
    "ro": os.ST_RDONLY,
    "nosuid": os.ST_NOSUID,
    "nodev": os.ST_NODEV,
    "noexec": os.ST_NOEXEC,
}


@pytest.mark.parametrize("flag", SOURCE_FLAGS)
def test_a_flag_of_the_source_is_locked_against_its_opposite(flag: str) -> None:
    opposite = {"ro": "rw"}.get(flag, flag.removeprefix("no"))
    relatime = os.ST_RELATIME
    for name, bit in SOURCE_FLAGS.items():
        for option in (flag, opposite):
            change = parse_options((option,))
            kept = mount_options.locked_flags((change.set, change.clear), bit | relatime)
            assert kept == ((flag,) if name == flag and option == opposite else ())
    assert mount_options.mount_flags(SOURCE_FLAGS[flag] | relatime) == (flag,)


@pytest.mark.parametrize(
    ("source", "option", "kept"),
    [
        (os.ST_RELATIME, "relatime", ()),
        (os.ST_RELATIME, "atime", ()),
        (os.ST_RELATIME, "noatime", ()),
        (os.ST_RELATIME, "strictatime", ("relatime",)),
        (os.ST_NOATIME, "noatime", ()),
        (os.ST_NOATIME, "relatime", ("noatime",)),
        (os.ST_NOATIME, "strictatime", ("noatime",)),
        (0, "strictatime", ()),
        (0, "noatime", ("strictatime",)),
        (os.ST_RELATIME | os.ST_NODIRATIME, "nodiratime", ()),
        (os.ST_RELATIME | os.ST_NODIRATIME, "diratime", ("nodiratime",)),
        (os.ST_RELATIME, "nodiratime", ()),
        (os.ST_RELATIME, "diratime", ()),
        (os.ST_RELATIME, "ro", ()),
    ],
)
def test_access_times_are_locked_but_for_the_default(
    source: int, option: str, kept: tuple[str, ...]
) -> None:
    change = parse_options((option,))
    assert mount_options.locked_flags((change.set, change.clear), source) == kept


def test_the_options_of_a_mount_table_are_flags() -> None:
    words = ("rw", "nosuid", "nodev", "relatime", "idmapped")
    assert mount_options.statvfs_flags(words) == os.ST_NOSUID | os.ST_NODEV | os.ST_RELATIME
