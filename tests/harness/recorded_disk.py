"""A block device that records every write and flush, and disks as a power failure leaves them.

A loop device is on a file of a FUSE file system, which this module serves. So each write of the
file system that is mounted on the device arrives here, and so does each flush (fsync), in order.

A power failure after the first N records leaves all writes before the last flush among them, and
any part of the writes after it: a disk with a cache reorders. Source: the kernel's
``Documentation/block/writeback_cache_control.rst``; ``include/uapi/linux/fuse.h``;
``dm-log-writes`` does the same in a device mapper target, which not every kernel has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = 4096  # bytes; a disk writes such a block completely or not at all
MAX_WRITE = 128 << 10  # bytes of one request
_RECORD = struct.Struct("<qqq")  # offset on the disk or FLUSH, length, offset in the data file
FLUSH = -1

_GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 3, 4, 14, 15, 16
_RELEASE, _FSYNC, _FLUSH_FILE, _INIT, _DESTROY, _FORGET = 18, 20, 25, 26, 38, 2
_BIG_WRITES = 1 << 5


class NotPossible(Exception):
    """This kernel cannot record a disk; the text has the reason."""


class Recorder:
    """The server of the FUSE file system: one regular file with the content of ``disk``."""

    def __init__(self, directory: Path, channel: int) -> None:
        self._channel = channel
        self._disk = os.open(directory / "disk.img", os.O_RDWR)
        self._size = os.fstat(self._disk).st_size
        append = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        self._records = os.open(directory / "records", append, 0o600)
        self._data = os.open(directory / "data", append, 0o600)
        self._end = 0

    def serve(self) -> None:
        """Answer requests until the file system is unmounted."""
        while True:
            try:
                request = os.read(self._channel, MAX_WRITE + BLOCK)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            _, opcode, unique = struct.unpack_from("<IIQ", request)
            if opcode == _FORGET:
                continue
            try:
                body = self._answer(opcode, memoryview(request)[40:])
                status = 0
            except OSError as error:
                body, status = b"", -(error.errno or errno.EIO)
            head = struct.pack("<IiQ", 16 + len(body), status, unique)
            os.write(self._channel, head + body)
            if opcode == _DESTROY:
                return

    def _answer(self, opcode: int, body: memoryview) -> bytes:
        if opcode == _INIT:
            head = struct.pack("<IIIIHHIIHHI", 7, 31, 0, _BIG_WRITES, 0, 0, MAX_WRITE, 1, 0, 0, 0)
            return head + bytes(28)
        if opcode in (_GETATTR, _SETATTR):
            times = (0,) * 3
            attributes = struct.pack(
                "<6Q10I",
                1,
                self._size,
                self._size >> 9,
                *times,
                *times,
                0o100600,
                1,
                0,
                0,
                0,
                BLOCK,
                0,
            )
            return struct.pack("<QII", 3600, 0, 0) + attributes
        if opcode == _OPEN:
            return struct.pack("<QII", 0, 0, 0)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(self._disk, size, offset)
        if opcode == _WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            self._record(offset, body[40 : 40 + size])
            return struct.pack("<II", size, 0)
        if opcode == _FSYNC:
            os.write(self._records, _RECORD.pack(FLUSH, 0, self._end))
            return b""
        if opcode in (_RELEASE, _FLUSH_FILE, _DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not implemented")

    def _record(self, offset: int, data: memoryview) -> None:
        os.pwrite(self._disk, data, offset)
        os.write(self._data, data)
        os.write(self._records, _RECORD.pack(offset, len(data), self._end))
        self._end += len(data)


class RecordedDisk:
    """A file system on a recorded block device, mounted at ``top``, and its replays."""

    def __init__(self, directory: Path, kind: str = "ext4", size: int = 256 << 20) -> None:
        self.top = directory / "top"
        self._directory = directory
        self._kind = kind
        self._server: subprocess.Popen[bytes] | None = None
        for name in ("top", "replay"):
            (directory / name).mkdir(parents=True)
        image = directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
        _copy(image, directory / "durable.img")

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount the recorded disk.

        :raises NotPossible: when this kernel has no FUSE.
        """
        device = self._directory / "device"
        device.touch()
        try:
            channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NotPossible(f"this kernel has no FUSE: {error.strerror}") from error
        options = f"fd={channel},rootmode=100600,user_id=0,group_id=0,allow_other"
        words = ["mount", "-i", "-t", "fuse", "-o", options, "recorder", str(device)]
        subprocess.run(words, check=True, pass_fds=(channel,))
        program = "from harness.recorded_disk import serve; serve()"
        self._server = subprocess.Popen(
            [sys.executable, "-c", program, str(self._directory), str(channel)],
            pass_fds=(channel,),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        os.close(channel)
        try:
            with _mounted(device, self.top):
                yield self.top
        finally:
            subprocess.run(["umount", str(device)], check=True)
            self._server.wait(20)

    def position(self) -> int:
        """Return the number of records so far."""
        return (self._directory / "records").stat().st_size // _RECORD.size

    def sync(self) -> None:
        """Write everything to the disk."""
        subprocess.run(["sync", "-f", str(self.top)], check=True)

    def replays(self, cuts: list[int], choice: random.Random) -> Iterator[tuple[int, Path]]:
        """Yield each of ``cuts``, in order, with the mounted disk as that power failure leaves it.

        ``choice`` decides which of the writes after the last flush are lost.
        """
        durable, replay = self._directory / "durable.img", self._directory / "replay.img"
        applied = 0
        rows = list(_RECORD.iter_unpack((self._directory / "records").read_bytes()))
        with (self._directory / "data").open("rb") as data:
            for cut in sorted(cuts):
                flush = max(
                    (n for n in range(applied, cut) if rows[n][0] == FLUSH), default=applied
                )
                _apply(durable, data.fileno(), rows[applied:flush])
                applied = flush
                _copy(durable, replay)
                _apply(replay, data.fileno(), rows[flush:cut], lose=choice)
                with _mounted(replay, self._directory / "replay"):
                    yield cut, self._directory / "replay"


def _apply(
    image: Path,
    data: int,
    rows: list[tuple[int, int, int]],
    *,
    lose: random.Random | None = None,
) -> None:
    """Apply writes to a disk. ``lose``: all of them, none, or a part of the blocks of each."""
    share = lose.choice((0.0, 1.0, 0.5)) if lose is not None else 1.0
    disk = os.open(image, os.O_WRONLY)
    try:
        for offset, length, start in rows:
            if offset == FLUSH or not share:
                continue
            for at in range(0, length, BLOCK if share < 1 else length):
                if lose is None or share == 1 or lose.random() < share:
                    size = min(BLOCK if share < 1 else length, length - at)
                    os.pwrite(disk, os.pread(data, size, start + at), offset + at)
    finally:
        os.close(disk)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


@contextlib.contextmanager
def _mounted(image: Path, top: Path) -> Iterator[None]:
    words = ["mount", "-o", "loop", str(image), str(top)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise NotPossible(f"no mount on a loop device: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(top)], check=True)


def serve() -> None:
    """Serve the file system whose directory and channel are the arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Recorder(Path(sys.argv[1]), int(sys.argv[2])).serve()
