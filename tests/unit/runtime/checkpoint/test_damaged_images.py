"""Images with bytes of chance: they are read, or refused with one error."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime import check_images, criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.kernel.mounts import MS

FILTER = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
EXPECTED = check_images.Expected(
    namespaces=frozenset({"pid", "network", "ipc", "uts", "mount", "user", "cgroup"}),
    ids=65536,
    bounding=0xA80425FB,
    no_new_privileges=False,
    filter=FILTER,
    external=frozenset({"/dev"}),
    mounts={"/proc": int(MS.NOSUID)},
    mount_points=frozenset({"/proc", "/dev"}),
    rlimits={},
    oom_score_adj=-1000,
    apparmor="jaula-default",
)


def _ids(first: int) -> images_pb2.Ids:
    names = ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup")
    spaces = {f"{name}_ns_id": first + index for index, name in enumerate(names)}
    return images_pb2.Ids(vm_id=1, files_id=1, fs_id=1, sighand_id=1, **spaces)


def _mount(path: str, number: int, fstype: int, key: str = "") -> images_pb2.Mount:
    made = images_pb2.Mount(
        fstype=fstype, mnt_id=number, root_dev=1, parent_mnt_id=1, flags=int(MS.NOSUID), root="/",
        mountpoint=path, source="x", options="",
    )  # fmt: skip
    if key:
        made.ext_key = key
    return made


def _core() -> images_pb2.Core:
    creds = images_pb2.Credentials(
        uid=0, gid=0, euid=0, egid=0, suid=0, sgid=0, fsuid=0, fsgid=0, secbits=0, groups=[0],
        cap_prm=[0x5FB, 0], cap_eff=[0x5FB, 0], cap_bnd=[0x5FB, 0],
    )  # fmt: skip
    limits = images_pb2.Rlimits(rlimits=[images_pb2.Rlimit(cur=0, max=0)] * 16)
    return images_pb2.Core(
        mtype=1,
        thread_core=images_pb2.ThreadCore(creds=creds, seccomp_mode=2, seccomp_filter=0, cg_set=2),
        tc=images_pb2.TaskCore(task_state=1, rlimits=limits, oom_score_adj=0),
    )


CONTENT = {
    "inventory.img": [images_pb2.Inventory(img_version=2, root_ids=_ids(1), root_cg_set=1)],
    "pstree.img": [images_pb2.PstreeEntry(pid=1, ppid=0, pgid=1, sid=1, threads=[1])],
    "ids-1.img": [_ids(11)],
    "core-1.img": [_core()],
    "userns-16.img": [images_pb2.UserNamespace()],
    "cgroup.img": [images_pb2.Cgroup(sets=[images_pb2.CgroupSet(id=2)])],
    "seccomp.img": [
        images_pb2.Seccomp(seccomp_filters=[images_pb2.SeccompFilter(filter=FILTER, flags=1)])
    ],
    "mountpoints-14.img": [_mount("/", 1, 17), _mount("/proc", 2, 1), _mount("/dev", 3, 5, "/dev")],
    "files.img": [
        images_pb2.File(type=1, id=1, reg=images_pb2.RegularFile(id=1, name=b"/bin/sh", mnt_id=1))
    ],
}
DATA = {name: criu_images.encode(name, messages) for name, messages in CONTENT.items()}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def _check(directory: Path, changed: str = "", data: bytes = b"") -> None:
    for name, content in DATA.items():
        (directory / name).write_bytes(data if name == changed else content)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        check_images.check(criu_images.read_all(fd), EXPECTED)
    finally:
        os.close(fd)


def assert_one_error(directory: Path, name: str, data: bytes) -> None:
    """Assert that an image is accepted, or refused with one line."""
    message = ""
    try:
        _check(directory, name, data)
    except InvalidRequest as error:
        message = error.message
    assert "\n" not in message
    assert len(message) < 1000


def test_the_undamaged_images_are_accepted(directory: Path) -> None:
    _check(directory)


@pytest.mark.parametrize("name", sorted(DATA))
def test_every_byte_of_a_string_may_be_no_text(directory: Path, name: str) -> None:
    data = DATA[name]
    for offset in range(len(data)):
        assert_one_error(directory, name, data[:offset] + b"\x80" + data[offset + 1 :])


def test_a_name_of_a_file_may_have_any_bytes(directory: Path) -> None:
    file = images_pb2.File(
        type=1, id=1, reg=images_pb2.RegularFile(id=1, name=b"/data/caf\xe9", mnt_id=1)
    )
    _check(directory, "files.img", criu_images.encode("files.img", [file]))


@given(
    st.sampled_from(sorted(DATA)),
    st.integers(min_value=0, max_value=400),
    st.binary(min_size=0, max_size=12),
    st.integers(min_value=0, max_value=12),
)
def test_bytes_of_chance_are_accepted_or_one_error(
    directory: Path, name: str, offset: int, new: bytes, removed: int
) -> None:
    data = DATA[name]
    offset %= len(data)
    assert_one_error(directory, name, data[:offset] + new + data[offset + removed :])


@given(st.sampled_from(sorted(DATA)), st.binary(max_size=200))
def test_messages_of_chance_are_accepted_or_one_error(
    directory: Path, name: str, body: bytes
) -> None:
    head = DATA[name][: 4 if name == "inventory.img" else 8]
    assert_one_error(directory, name, head + len(body).to_bytes(4, "little") + body)
