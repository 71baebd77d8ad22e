"""The file transfer of BuildKit's clients: what is received, refused, reused and sent."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.build.builder.build_session import ExtraFile
from jaula.features.build.buildkit.file_receiver import (
    DEVICE,
    DIRECTORY,
    PIPE,
    SETUID,
    SOCKET,
    SYMLINK,
    FileReceiver,
    mode_of,
)
from jaula.features.build.buildkit.file_sender import FileSender, fin
from jaula.features.build.buildkit.proto.session_pb2 import Packet, Stat

TIME = 1_700_000_000_123_456_789
Entry = tuple[bytes, int, bytes]
"""Path, mode, and the content or the target of a link."""


def entry(path: bytes, mode: int = 0o644, size: int = 0, **more: object) -> bytes:
    value = Stat(path=path, mode=mode, size=size, modTime=TIME, **more)
    return Packet(type=Packet.PACKET_STAT, stat=value).SerializeToString()


def data(number: int, content: bytes = b"") -> bytes:
    return Packet(type=Packet.PACKET_DATA, ID=number, data=content).SerializeToString()


LAST = Packet(type=Packet.PACKET_STAT).SerializeToString()
FIN = Packet(type=Packet.PACKET_FIN).SerializeToString()


class Transfer:
    """A receiver, and what it asks for."""

    def __init__(self, root: Path, previous: Path | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.sent: list[bytes] = []
        self._fd = os.open(root, os.O_RDONLY)
        old = -1 if previous is None else os.open(previous, os.O_RDONLY)
        self.receiver = FileReceiver(self._fd, self.sent.append, old)
        if old >= 0:
            os.close(old)

    def take(self, *messages: bytes) -> None:
        self.receiver.take(list(messages))

    def requested(self) -> list[int]:
        packets = [Packet.FromString(message) for message in self.sent]
        return [p.ID for p in packets if p.type == Packet.PACKET_REQ]

    @property
    def ending(self) -> bool:
        return bool(self.sent) and self.sent[-1] == FIN

    def close(self) -> None:
        self.receiver.close()
        os.close(self._fd)


@pytest.fixture
def transfer(tmp_path: Path) -> Iterator[Transfer]:
    before = set(os.listdir("/proc/self/fd"))
    made = Transfer(tmp_path / "root")
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_a_tree_is_received(transfer: Transfer) -> None:
    transfer.take(
        entry(b"a", 0o600, 5),
        entry(b"d", DIRECTORY | 0o750),
        entry(b"d/big", 0o755 | SETUID, 100_000),
        entry(b"d/e", DIRECTORY | 0o700),
        entry(b"d/e/empty", 0o640),
        entry(b"d/link", SYMLINK | 0o777, linkname=b"../a"),
        entry(b"d/pipe", PIPE | 0o600),
        entry(b"d/sock", SOCKET | 0o600),
        entry(b"z\xff\n", 0o644, 1),
        LAST,
    )
    assert transfer.requested() == [0, 2, 8]
    transfer.take(data(0, b"12"), data(2, b"x" * 60_000), data(0, b"345"), data(8, b"!"), data(8))
    transfer.take(data(0), data(2, b"y" * 40_000))
    assert not transfer.ending
    transfer.take(data(2))
    assert transfer.ending
    assert not transfer.receiver.done
    transfer.take(FIN)
    assert transfer.receiver.done
    root = transfer.root
    assert (root / "a").read_bytes() == b"12345"
    assert (root / "d/big").read_bytes() == b"x" * 60_000 + b"y" * 40_000
    assert (root / "d/big").stat().st_mode == stat.S_IFREG | 0o4755
    assert (root / "a").stat().st_mode == stat.S_IFREG | 0o600
    assert (root / "d/e/empty").stat().st_size == 0
    assert (root / "d/link").readlink() == Path("../a")
    assert stat.S_ISFIFO((root / "d/pipe").stat().st_mode)
    assert not (root / "d/sock").exists()
    assert os.path.exists(os.fsencode(root) + b"/z\xff\n")
    for path in ("a", "d", "d/e", "d/e/empty", "d/big"):
        assert (root / path).stat().st_mtime_ns == TIME, path


def test_a_hard_link_may_come_before_the_content(transfer: Transfer) -> None:
    transfer.take(entry(b"a", size=3), entry(b"b", linkname=b"a"), LAST)
    assert transfer.requested() == [0]
    transfer.take(data(0, b"abc"), data(0), FIN)
    assert (transfer.root / "b").read_bytes() == b"abc"
    assert (transfer.root / "a").stat().st_ino == (transfer.root / "b").stat().st_ino


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/etc/passwd",
        b"..",
        b"../x",
        b".",
        b"a/../../x",
        b"missing/x",
        b"d/",
        b"d//x",
        b"d/.",
        b"d/..",
        b"d/../x",
        b"x\0y",
        b"x" * 5000,
        b"y" * 300,
    ],
)
def test_a_path_that_leads_out_is_refused(transfer: Transfer, path: bytes) -> None:
    transfer.take(entry(b"d", DIRECTORY | 0o755))
    with pytest.raises(JaulaError):
        transfer.take(entry(path, size=1), LAST, data(1, b"x"))


@pytest.mark.parametrize("below", [entry(b"l/x"), entry(b"l/x", size=1), entry(b"l/d", DIRECTORY)])
def test_a_symbolic_link_is_never_followed(
    transfer: Transfer, tmp_path: Path, below: bytes
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    transfer.take(entry(b"l", SYMLINK, linkname=os.fsencode(outside)))
    with pytest.raises(InvalidRequest):
        transfer.take(below, LAST)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../outside", b"l", b"d", b"no", b"", b"d/.."])
def test_a_hard_link_stays_inside(transfer: Transfer, tmp_path: Path, target: bytes) -> None:
    (tmp_path / "outside").write_text("secret")
    link = entry(b"l", SYMLINK, linkname=os.fsencode(tmp_path / "outside"))
    transfer.take(entry(b"d", DIRECTORY | 0o755), link)
    if target == b"l":  # the link itself, not the file behind it
        transfer.take(entry(b"x", linkname=target))
        assert (transfer.root / "x").is_symlink()
        return
    if not target:
        return
    with pytest.raises(JaulaError):
        transfer.take(entry(b"x", linkname=target))


@pytest.mark.parametrize(
    "messages",
    [
        [entry(b"b"), entry(b"a")],
        [entry(b"a"), entry(b"a")],
        [entry(b"d", DIRECTORY), entry(b"e"), entry(b"d/x")],
        [LAST, entry(b"a")],
        [data(0, b"x")],
        [entry(b"a", size=1), data(1, b"x")],
        [entry(b"a", size=1), data(0, b"x"), data(0), data(0)],
        [entry(b"a"), data(0, b"x")],
        [FIN],
        [entry(b"a", size=1), LAST, FIN],
        [entry(b"n", DEVICE | 0o600, devmajor=1, devminor=3)],
        [Packet(type=Packet.PACKET_REQ, ID=0).SerializeToString()],
    ],
)
def test_packets_out_of_order_end_the_transfer(transfer: Transfer, messages: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        transfer.take(*messages)


def test_an_error_of_the_client_is_reported(transfer: Transfer) -> None:
    error = Packet(type=Packet.PACKET_ERR, data=b"disk on fire").SerializeToString()
    with pytest.raises(Unavailable, match="disk on fire"):
        transfer.take(error)


def test_a_directory_that_is_too_deep_is_refused(transfer: Transfer) -> None:
    paths = [b"/".join([b"d"] * depth) for depth in range(1, 600)]
    with pytest.raises(InvalidRequest, match="too deep"):
        transfer.take(*(entry(path, DIRECTORY | 0o755) for path in paths))


def test_many_open_files_do_not_need_many_descriptors(transfer: Transfer) -> None:
    names = [b"%03d" % n for n in range(200)]
    transfer.take(*(entry(name, size=2) for name in names), LAST)
    transfer.take(*(data(n, b"a") for n in range(200)))
    assert len(os.listdir("/proc/self/fd")) < 100
    transfer.take(*(data(n, b"b") for n in range(200)), *(data(n) for n in range(200)), FIN)
    assert all((transfer.root / os.fsdecode(name)).read_bytes() == b"ab" for name in names)


def test_attributes_of_the_host_are_not_set(transfer: Transfer) -> None:
    attributes = {"user.x": b"1", "trusted.overlay.opaque": b"y", "security.selinux": b"z"}
    transfer.take(entry(b"a", xattrs=attributes), LAST)
    assert set(os.listxattr(transfer.root / "a")) <= {"user.x"}


# -- the next transfer -----------------------------------------------------------------------------


def test_unchanged_files_are_linked_from_the_previous_transfer(tmp_path: Path) -> None:
    first = Transfer(tmp_path / "first")
    tree = [entry(b"a", size=1), entry(b"d", DIRECTORY | 0o755), entry(b"d/x", size=2)]
    first.take(*tree, LAST, data(0, b"a"), data(0), data(2, b"xx"), data(2), FIN)
    first.close()
    second = Transfer(tmp_path / "second", tmp_path / "first")
    second.take(entry(b"a", 0o600, 1), *tree[1:], entry(b"n", size=1), LAST)
    assert second.requested() == [0, 3]  # another mode, and a new one
    second.take(data(0, b"A"), data(0), data(3, b"n"), data(3), FIN)
    second.close()
    assert (tmp_path / "second/d/x").stat().st_ino == (tmp_path / "first/d/x").stat().st_ino
    assert (tmp_path / "first/a").read_bytes() == b"a"
    assert (tmp_path / "second/a").read_bytes() == b"A"


def test_a_link_in_the_previous_transfer_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "x"
    secret.write_text("secret")
    os.utime(secret, ns=(TIME, TIME))
    secret.chmod(0o644)
    first = Transfer(tmp_path / "first")
    first.take(
        entry(b"d", SYMLINK, linkname=os.fsencode(outside)),
        entry(b"x", SYMLINK, linkname=os.fsencode(secret)),
        LAST,
        FIN,
    )
    first.close()
    second = Transfer(tmp_path / "second", tmp_path / "first")
    second.take(entry(b"d", DIRECTORY | 0o755), entry(b"d/x", size=6), entry(b"x", size=6), LAST)
    assert second.requested() == [1, 2]
    second.close()


# -- sending ---------------------------------------------------------------------------------------


def sent(
    root: Path, answers: Iterable[int], prefix: bytes = b"", extra: Iterable[ExtraFile] = ()
) -> tuple[list[Stat], dict[int, bytes]]:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        sender = FileSender(descriptor, prefix, extra)
        packets = [Packet.FromString(message) for message in sender.entries()]
        assert not packets[-1].HasField("stat")
        content = {}
        for number in answers:
            request = Packet(type=Packet.PACKET_REQ, ID=number).SerializeToString()
            parts = [Packet.FromString(message) for message in sender.content(request) or ()]
            assert not parts[-1].data
            content[number] = b"".join(part.data for part in parts)
        assert sender.content(FIN) is None
        return [packet.stat for packet in packets[:-1]], content
    finally:
        os.close(descriptor)


def test_a_tree_is_sent_in_the_order_of_a_walk(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"x" * 70_000)
    (tmp_path / "d.txt").write_text("text")
    (tmp_path / "d" / "l").symlink_to("/etc/passwd")
    os.link(tmp_path / "d.txt", tmp_path / "z")
    (tmp_path / "d.txt").chmod(0o4711)
    entries, content = sent(tmp_path, [2, 4])
    assert [e.path for e in entries] == [b"d", b"d/e", b"d/e/f", b"d/l", b"d.txt", b"z"]
    assert content == {2: b"x" * 70_000, 4: b"text"}
    assert entries[3].linkname == b"/etc/passwd" and entries[3].mode & SYMLINK
    assert entries[5].linkname == b"d.txt" and not entries[5].size
    assert entries[4].mode == SETUID | 0o711
    assert mode_of(entries[4].mode) == 0o4711


@pytest.mark.parametrize("number", [0, 1, 7, 1 << 31])
def test_a_file_that_was_not_offered_or_was_sent_is_refused(tmp_path: Path, number: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    sender = FileSender(descriptor)
    list(sender.entries())
    if number == 1:
        list(sender.content(Packet(type=Packet.PACKET_REQ, ID=1).SerializeToString()) or ())
    with pytest.raises(InvalidRequest):
        sender.content(Packet(type=Packet.PACKET_REQ, ID=number).SerializeToString())
    os.close(descriptor)


def test_further_files_are_sent_in_order_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("text")
    os.link(tmp_path / "d" / "f", tmp_path / "z")
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "below").write_text("replaced")
    extra = [ExtraFile(b"same", b"new" * 20_000, TIME), ExtraFile(b"a", b"", TIME)]
    extra.append(ExtraFile(b"zz", b"last", TIME))
    entries, content = sent(tmp_path, [1, 4, 6], b"p", extra)
    paths = [b"p", b"p/a", b"p/d", b"p/d/f", b"p/same", b"p/z", b"p/zz"]
    assert [e.path for e in entries] == paths
    assert content == {1: b"", 4: b"new" * 20_000, 6: b"last"}
    assert entries[0].mode & DIRECTORY and entries[4].mode == 0o600
    assert entries[4].size == 60_000 and entries[4].modTime == TIME
    assert entries[5].linkname == b"p/d/f"


def test_the_last_packet() -> None:
    assert Packet.FromString(fin()).type == Packet.PACKET_FIN
