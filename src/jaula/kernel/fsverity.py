"""fs-verity: files that cannot change, and whose data is compared with a digest at each read.

Source: ``linux/fsverity.h`` and ``Documentation/filesystems/fsverity.rst``. ext4, f2fs and btrfs
have it, if the kernel has ``CONFIG_FS_VERITY`` (Linux 5.4, btrfs 5.15).

Facts about fs-verity: a file must not be open for writing when it is enabled, and never opens for
writing afterwards. Its data is written to the disk before. A read of a block that does not match
the Merkle tree fails with EIO. The file can be unlinked and renamed, and another file can take its
name: only a comparison of the digest shows that. A read from the page cache is not compared again.
"""

from __future__ import annotations

import errno
import fcntl
import struct

SHA256 = 1  # FS_VERITY_HASH_ALG_SHA256
_ENABLE = 0x40806685
_MEASURE = 0xC0046686
_BLOCK_SIZE = 4096  # bytes of a block of the Merkle tree

_enable_arg = struct.Struct("=IIIIQIIQ88x")
_digest = struct.Struct("=HH")
_MAX_DIGEST = 64  # bytes

UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
"""Errors of a file system or kernel without fs-verity."""


def enable(fd: int) -> None:
    """Enable fs-verity with SHA-256 for a file that is open for reading.

    :raises OSError: ETXTBSY when the file is open for writing; one of :data:`UNSUPPORTED`.
    """
    fcntl.ioctl(fd, _ENABLE, _enable_arg.pack(1, SHA256, _BLOCK_SIZE, 0, 0, 0, 0, 0))


def measure(fd: int) -> str:
    """Return the digest of a file, ``sha256:HEX``. It is that of the descriptor, not of the data.

    :raises OSError: ENODATA when the file does not have fs-verity; one of :data:`UNSUPPORTED`.
    """
    buffer = bytearray(_digest.pack(0, _MAX_DIGEST) + bytes(_MAX_DIGEST))
    fcntl.ioctl(fd, _MEASURE, buffer)
    algorithm, size = _digest.unpack_from(buffer)
    name = "sha256" if algorithm == SHA256 else f"algorithm-{algorithm}"
    return f"{name}:{buffer[_digest.size : _digest.size + size].hex()}"
