"""Image files of CRIU: what another program has written is read with bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2

ENTRY = images_pb2.PstreeEntry(pid=1, ppid=0, pgid=1, sid=1, threads=[1])


def opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


def test_messages_are_read_as_they_were_written() -> None:
    data = criu_images.encode("pstree.img", [ENTRY, ENTRY])
    assert criu_images.decode(data, "pstree.img", images_pb2.PstreeEntry) == [ENTRY, ENTRY]


def test_unknown_fields_survive() -> None:
    mount = images_pb2.Mount(
        fstype=1, mnt_id=2, root_dev=3, parent_mnt_id=4, flags=5, root="/", mountpoint="/proc",
        source="proc", options="",
    )  # fmt: skip
    raw = mount.SerializeToString() + b"\xf8\x01\x07"  # field 31
    data = (
        criu_images.encode("mountpoints-1.img", [mount])[:8] + len(raw).to_bytes(4, "little") + raw
    )
    (read,) = criu_images.decode(data, "mountpoints-1.img", images_pb2.Mount)
    assert read.SerializeToString() == raw


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_truncated_file_is_refused(cut: int) -> None:
    data = criu_images.encode("pstree.img", [ENTRY])[:-cut]
    with pytest.raises(InvalidRequest):
        criu_images.decode(data, "pstree.img", images_pb2.PstreeEntry)


@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_one_error(tail: bytes) -> None:
    head = criu_images.encode("files.img", [])
    try:
        read = criu_images.decode(head + tail, "files.img", images_pb2.File)
    except InvalidRequest:
        return
    assert all(message.IsInitialized() for message in read)


@given(st.binary(max_size=300))
def test_any_bytes_as_pipe_data_are_data_or_one_error(tail: bytes) -> None:
    head = (0x54564319).to_bytes(4, "little") + (0x56453709).to_bytes(4, "little")
    try:
        kept = criu_images.without_pipes(head + tail, ())
    except InvalidRequest:
        return
    assert kept == head + tail


def test_the_data_of_a_pipe_is_dropped() -> None:
    head = (0x54564319).to_bytes(4, "little") + (0x56453709).to_bytes(4, "little")

    def entry(number: int, data: bytes) -> bytes:
        body = images_pb2.PipeData(pipe_id=number, bytes=len(data)).SerializeToString()
        return len(body).to_bytes(4, "little") + body + data

    data = head + entry(7, b"logged") + entry(8, b"kept")
    assert criu_images.without_pipes(data, (7,)) == head + entry(8, b"kept")


def test_another_kind_of_file_is_refused() -> None:
    data = criu_images.encode("pstree.img", [ENTRY])
    with pytest.raises(InvalidRequest, match=r"files\.img is not an image"):
        criu_images.decode(data, "files.img", images_pb2.File)


@pytest.mark.parametrize(
    "name", ["netns-1.img", "iptables-9.img", "nftables-9.img", "route-9.img", "x", "autofs-1.img"]
)
def test_an_unknown_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InvalidRequest, match="unknown file"):
        criu_images.names(opened(tmp_path))


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_only_plain_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "files.img"
    if kind == "link":
        path.symlink_to("/etc/shadow")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(InvalidRequest, match="not a plain file"):
        criu_images.names(opened(tmp_path))
    with pytest.raises(InvalidRequest):
        criu_images.read(opened(tmp_path), "files.img", images_pb2.File)


def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criu_images, "MAX_IMAGE", 100)
    (tmp_path / "files.img").write_bytes(criu_images.encode("files.img", []) + bytes(200))
    with pytest.raises(InvalidRequest, match="larger"):
        criu_images.read(opened(tmp_path), "files.img", images_pb2.File)
