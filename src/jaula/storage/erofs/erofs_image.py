"""Writer of EROFS metadata images.

An image has the inodes, directories, symbolic links and extended attributes of a file tree. The
contents of regular files are in another file, the blob, which is device 1 of the image. Devices 2
and up are blobs of other images, which have contents that this one has as well. All are given to
mount(2): the image as source and each blob as option ``device``, in their order. Linux 6.12 mounts
files directly, older kernels need loop devices.

Follows the kernel's ``fs/erofs/erofs_fs.h`` and ``Documentation/filesystems/erofs.rst``: block size
4096, inodes of 32 and 64 bytes, inline tails, inline extended attributes, inodes based on chunks
with indexes of 8 bytes. The output depends on the entries only, not on clock or host.

Layout of the image::

    block 0     superblock at 1024, device table at 1152
    block 1     inodes; after each one its attributes, and then its chunk indexes or inline data
    then        blocks of directories and of long symbolic links

Facts about EROFS: inline data must not cross a block. Names in a directory are sorted by bytes,
``.`` and ``..`` included. A compact inode has no time in Linux before 6.16, so it is used for
files with the time of the superblock only. Numbers of blocks have 32 bits: neither the image nor
the blob can exceed 16 TiB. The UUID is made of the content: overlayfs keeps the inode numbers of
files at a copy-up only if the UUIDs of its layers differ.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BLOCK_SIZE = 4096  # bytes
BLOCK_BITS = 12

HOLE = -1
"""The offset of a chunk of zeros that the blob does not have."""

MAX_BLOB_SIZE = (2**32 - 1) * BLOCK_SIZE  # bytes
MAX_FILE_SIZE = MAX_BLOB_SIZE  # bytes, also with holes
MAX_DEVICES = 16
"""The blobs of an image. Each one is opened by a mount."""
MAX_NAME = 255  # bytes
MAX_LINK = 4095  # bytes of the target of a symbolic link

_MAGIC = 0xE0F5E1E2
_COMPAT_SB_CHKSUM = 0x1
_COMPAT_MTIME = 0x2
_INCOMPAT_CHUNKED_FILE = 0x4
_INCOMPAT_DEVICE_TABLE = 0x8
_SUPERBLOCK_OFFSET = 1024  # bytes
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_DEVICE_SLOT = struct.Struct("<64sII56x")
_META_BLOCK = 1  # block with the first inode

_COMPACT = struct.Struct("<HHHHIIIIHH4x")
_EXTENDED = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBx")
_CHUNK_INDEX = struct.Struct("<HHI")
_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR_ENTRY = struct.Struct("<BBH")
_NID_SIZE = 32  # bytes: an inode number is an offset in units of these

_FLAT_PLAIN, _FLAT_INLINE, _CHUNK_BASED = 0, 2, 4
_CHUNK_INDEXES = 0x20
_MAX_CHUNK_BITS = 31  # of a chunk in blocks
_BLOB_DEVICE = 1
_NO_BLOCK = 0xFFFFFFFF
_MAX_INLINE = 2048  # bytes: a longer tail would leave larger gaps than its own block has

_XATTR_PREFIXES = (("user.", 1), ("trusted.", 4), ("security.", 6))
_XATTR_NAMES = {"system.posix_acl_access": 2, "system.posix_acl_default": 3}

_FILE_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


class Entry(msgspec.Struct):
    """A file of the tree.

    ``path`` is relative to the root, without ``.``, ``..`` and empty components; b"" is the root
    directory. ``mode`` has the type and the permissions, as ``st_mode``. ``mtime`` is in
    nanoseconds since the epoch. ``xattrs`` are attributes by their full name, as of listxattr(2):
    ``user.``, ``trusted.`` and ``security.`` ones and POSIX ACLs.

    Fields of one type of files:

    * ``hard_link`` is the path of another entry, which is no directory. Both names are one inode,
      and all other fields of this entry are ignored.
    * ``size`` (bytes), ``chunks`` and ``chunk_size`` are of regular files. ``chunks`` has the
      offset in the blob of each chunk, a multiple of :data:`BLOCK_SIZE`, or :data:`HOLE`. All
      chunks have ``chunk_size`` bytes, a power of two of at least :data:`BLOCK_SIZE`; the last may
      be shorter. ``chunk_size`` 0 means one chunk with the whole file. The blob has the last block
      of a file completely, or ends before. ``devices`` has the number of the device of each chunk;
      if it is empty, all chunks are in device 1.
    * ``link`` is the target of a symbolic link.
    * ``rdev`` is the device number of a device, as ``st_rdev``. A character device 0 is a whiteout
      of overlayfs.
    """

    path: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: Mapping[str, bytes] = {}
    size: int = 0
    chunks: Sequence[int] = ()
    chunk_size: int = 0
    devices: Sequence[int] = ()
    link: bytes = b""
    rdev: int = 0
    hard_link: bytes | None = None


def write(
    entries: Iterable[Entry],
    file: BinaryIO,
    *,
    blob_size: int = 0,
    blob_tag: bytes = b"",
    shared_sizes: Sequence[int] = (),
) -> int:
    """Write the image of ``entries`` to ``file``, and return its size in bytes.

    ``entries`` have the root directory and the directory of each file, in any order. ``blob_size``
    is in bytes; 0 means that it is not known. ``blob_tag`` is stored with the device (64 bytes at
    most, by convention a digest); the kernel does not read it. ``shared_sizes`` are the bytes of
    the devices 2 and up.

    :raises ValueError: when entries contradict each other or the limits of the format. Nothing is
        written then.
    """
    if len(blob_tag) > 64:
        raise ValueError("the tag of the blob has more than 64 bytes")
    if not 0 <= blob_size <= MAX_BLOB_SIZE:
        raise ValueError(f"a blob of {blob_size} bytes exceeds the format")
    if len(shared_sizes) >= MAX_DEVICES:
        raise ValueError(f"the image has more than {MAX_DEVICES} blobs")
    sizes = (blob_size or MAX_BLOB_SIZE, *shared_sizes)
    inodes = _build_tree(entries, sizes)
    epoch = Counter(inode.entry.mtime for inode in inodes).most_common(1)[0][0]
    metadata_size = _place(inodes, epoch)
    metadata_blocks = _blocks(metadata_size)
    block = _META_BLOCK + metadata_blocks
    for inode in inodes:
        if inode.blocks:
            inode.start_block = block
            block += inode.blocks
    if block >= _NO_BLOCK:
        raise ValueError("the metadata of the tree exceeds 16 TiB")

    metadata = bytearray(metadata_blocks * BLOCK_SIZE)
    for inode in inodes:
        encoded = inode.encode(epoch)
        metadata[inode.position : inode.position + len(encoded)] = encoded
    data = bytearray()
    for inode in inodes:
        if inode.blocks:
            size = inode.blocks * BLOCK_SIZE
            data += inode.data()[:size].ljust(size, b"\0")
    import hashlib  # with OpenSSL, which is faster for large images

    digest = hashlib.sha256(metadata)
    digest.update(data)
    slots = [_DEVICE_SLOT.pack(blob_tag, _blocks(blob_size), 0)]
    slots += [_DEVICE_SLOT.pack(b"", _blocks(size), 0) for size in shared_sizes]
    digest.update(b"".join(slots))
    uuid = digest.digest()[:16]
    file.write(_first_block(len(inodes), epoch, block, inodes[0].nid, slots, uuid))
    file.write(metadata)
    file.write(data)
    return block * BLOCK_SIZE


class _Inode:
    """An inode of the image. ``position`` is its offset in the metadata area, in bytes."""

    __slots__ = (
        "blocks",
        "children",
        "entry",
        "extended",
        "inline",
        "nlink",
        "parent",
        "position",
        "size",
        "start_block",
        "xattrs",
    )

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.children: list[tuple[bytes, _Inode]] = []
        self.parent = self
        self.nlink = 1
        self.position = 0
        self.blocks = 0  # blocks of directory entries or of a link
        self.start_block = _NO_BLOCK
        self.inline = 0  # bytes
        self.size = 0
        self.extended = True
        self.xattrs = _encode_xattrs(entry)

    @property
    def nid(self) -> int:
        return self.position // _NID_SIZE

    @property
    def header_size(self) -> int:
        """The bytes before inline data or chunk indexes."""
        return (_EXTENDED if self.extended else _COMPACT).size + len(self.xattrs)

    @property
    def footprint(self) -> int:
        """The bytes in the metadata area."""
        if self.entry.chunks:
            return _align(self.header_size, 8) + len(self.entry.chunks) * _CHUNK_INDEX.size
        return self.header_size + self.inline

    def data(self) -> bytes:
        """Return the contents of a directory or the target of a link."""
        if stat.S_ISLNK(self.entry.mode):
            return self.entry.link
        return _encode_directory(self.children)

    def encode(self, epoch: int) -> bytes:
        """Return the inode with attributes, and with chunk indexes or inline data."""
        entry = self.entry
        rest = b""
        layout = _FLAT_PLAIN
        union = self.start_block
        if entry.chunks:
            layout = _CHUNK_BASED
            union = _CHUNK_INDEXES | (_chunk_size(entry) // BLOCK_SIZE).bit_length() - 1
            devices = entry.devices or (_BLOB_DEVICE,) * len(entry.chunks)
            rest = b"".join(map(_encode_chunk, devices, entry.chunks))
        elif self.inline:
            layout = _FLAT_INLINE
            rest = self.data()[self.blocks * BLOCK_SIZE :]
        elif stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
            union = _encode_device(entry.rdev)
        format = layout << 1 | int(self.extended)
        xattr_count = (len(self.xattrs) - _XATTR_HEADER.size) // 4 + 1 if self.xattrs else 0
        if self.extended:
            seconds, nanoseconds = divmod(entry.mtime, 10**9)
            header = _EXTENDED.pack(
                format, xattr_count, entry.mode, 0, self.size, union, self.nid & 0xFFFFFFFF,
                entry.uid, entry.gid, seconds, nanoseconds, self.nlink,
            )  # fmt: skip
        else:
            header = _COMPACT.pack(
                format, xattr_count, entry.mode, self.nlink, self.size, 0, union,
                self.nid & 0xFFFFFFFF, entry.uid, entry.gid,
            )  # fmt: skip
        head = header + self.xattrs
        if entry.chunks:
            head = head.ljust(_align(len(head), 8), b"\0")
        return head + rest


# -- the tree -----------------------------------------------------------------------------------


def _build_tree(entries: Iterable[Entry], sizes: Sequence[int]) -> list[_Inode]:
    """Return the inodes, root directory first, in the order of a walk.

    ``sizes`` are the bytes of the devices, from device 1 on.
    """
    by_path: dict[bytes, _Inode] = {}
    hard_links: list[Entry] = []
    for entry in entries:
        if entry.path in by_path:
            raise ValueError(f"two entries for {entry.path!r}")
        if entry.hard_link is not None:
            hard_links.append(entry)
            continue
        _check(entry, sizes)
        by_path[entry.path] = _Inode(entry)
    root = by_path.get(b"")
    if root is None or not stat.S_ISDIR(root.entry.mode):
        raise ValueError("the tree has no root directory")

    names: dict[bytes, _Inode] = dict(by_path)
    for entry in hard_links:
        target = by_path.get(entry.hard_link or b"")
        if target is None or stat.S_ISDIR(target.entry.mode):
            raise ValueError(f"{entry.path!r} is a hard link to {entry.hard_link!r}, not a file")
        if entry.path in names:
            raise ValueError(f"two entries for {entry.path!r}")
        names[entry.path] = target
        target.nlink += 1

    for path, inode in names.items():
        if not path:
            continue
        parent_path, _, name = path.rpartition(b"/")
        _check_name(path, name)
        parent = by_path.get(parent_path)
        if parent is None or not stat.S_ISDIR(parent.entry.mode):
            raise ValueError(f"the directory of {path!r} is not in the tree")
        parent.children.append((name, inode))
        if stat.S_ISDIR(inode.entry.mode):
            inode.parent = parent
            parent.nlink += 1
    return _sort(root, len(by_path))


def _sort(root: _Inode, count: int) -> list[_Inode]:
    """Return the inodes by directory, and sort the entries of each one."""
    inodes: list[_Inode] = []
    seen: set[int] = set()
    pending = [root]
    while pending:
        directory = pending.pop()
        inodes.append(directory)
        directory.nlink += 1
        directory.children += ((b".", directory), (b"..", directory.parent))
        directory.children.sort(key=lambda child: child[0])
        subdirectories = []
        for name, child in directory.children:
            if stat.S_ISDIR(child.entry.mode):
                if name not in (b".", b".."):
                    subdirectories.append(child)
            elif id(child) not in seen:
                if child.nlink > 1:
                    seen.add(id(child))
                inodes.append(child)
        pending += reversed(subdirectories)
    if len(inodes) != count:
        raise ValueError("the tree has a directory that is not below its root")
    return inodes


def _check(entry: Entry, sizes: Sequence[int]) -> None:
    """Check the fields of an entry that is not a hard link."""
    mode, path = entry.mode, entry.path
    if stat.S_IFMT(mode) not in _FILE_TYPES or mode >> 16:
        raise ValueError(f"{path!r} has the invalid mode {mode:#o}")
    if not (0 <= entry.uid < 2**32 and 0 <= entry.gid < 2**32):
        raise ValueError(f"{path!r} has an invalid owner {entry.uid}:{entry.gid}")
    if not -(2**63) <= entry.mtime // 10**9 < 2**63:
        raise ValueError(f"{path!r} has a time of more than 64 bits")
    if stat.S_ISREG(mode):
        _check_chunks(entry, sizes)
    elif entry.chunks or (entry.size and not stat.S_ISLNK(mode)):
        raise ValueError(f"{path!r} is not a regular file and has contents")
    if stat.S_ISLNK(mode) and (not 0 < len(entry.link) <= MAX_LINK or b"\0" in entry.link):
        raise ValueError(f"{path!r} has an invalid target of {len(entry.link)} bytes")


def _check_chunks(entry: Entry, sizes: Sequence[int]) -> None:
    path, size = entry.path, entry.size
    if not 0 <= size <= MAX_FILE_SIZE:
        raise ValueError(f"{path!r} has {size} bytes, which exceeds the format")
    chunk_size = _chunk_size(entry)
    if chunk_size & chunk_size - 1 or not 0 <= chunk_size.bit_length() - 13 <= _MAX_CHUNK_BITS:
        raise ValueError(f"{path!r} has an invalid chunk size of {chunk_size} bytes")
    expected = -(-size // chunk_size)
    if len(entry.chunks) != expected:
        raise ValueError(f"{path!r} has {len(entry.chunks)} chunks instead of {expected}")
    if entry.devices and len(entry.devices) != expected:
        raise ValueError(f"{path!r} has {expected} chunks and {len(entry.devices)} devices")
    for number, offset in enumerate(entry.chunks):
        device = entry.devices[number] if entry.devices else _BLOB_DEVICE
        if not 0 < device <= len(sizes):
            raise ValueError(f"{path!r} has a chunk in device {device}, which the image lacks")
        end = offset + min(chunk_size, size - number * chunk_size)
        if offset != HOLE and (offset % BLOCK_SIZE or not 0 <= offset < end <= sizes[device - 1]):
            raise ValueError(f"{path!r} has a chunk at {offset}, which the blob cannot have")


def _check_name(path: bytes, name: bytes) -> None:
    valid = 0 < len(name) <= MAX_NAME and name not in (b".", b"..") and b"\0" not in name
    if not valid or path.startswith(b"/"):
        raise ValueError(f"{path[:300]!r} does not end with a valid name")


def _chunk_size(entry: Entry) -> int:
    """Return the size of a file's chunks; of one chunk the next power of two."""
    if entry.chunk_size:
        return entry.chunk_size
    return max(BLOCK_SIZE, 1 << (entry.size - 1).bit_length()) if entry.size else BLOCK_SIZE


# -- placement ----------------------------------------------------------------------------------


def _place(inodes: list[_Inode], epoch: int) -> int:
    """Set position, form and inline bytes of each inode. Return the bytes of the area."""
    position = 0
    for inode in inodes:
        entry = inode.entry
        if stat.S_ISDIR(entry.mode):
            inode.size = _directory_size(inode.children)
        elif stat.S_ISLNK(entry.mode):
            inode.size = len(entry.link)
        else:
            inode.size = entry.size
        inode.extended = not (
            entry.mtime == epoch
            and entry.uid < 2**16
            and entry.gid < 2**16
            and inode.nlink < 2**16
            and inode.size < 2**32
        )
        if not stat.S_ISREG(entry.mode) and inode.size:
            inode.blocks, inode.inline = divmod(inode.size, BLOCK_SIZE)
            if inode.inline > _MAX_INLINE:
                inode.blocks, inode.inline = inode.blocks + 1, 0
        header_size = inode.header_size
        if inode.inline and (position + header_size) % BLOCK_SIZE + inode.inline > BLOCK_SIZE:
            data = _align(position + header_size, BLOCK_SIZE)
            position = _align(data - header_size, _NID_SIZE)
        elif inode.extended and position % BLOCK_SIZE + _EXTENDED.size > BLOCK_SIZE:
            position = _align(position, BLOCK_SIZE)
        inode.position = position
        position = _align(position + inode.footprint, _NID_SIZE)
    return position


def _blocks(size: int) -> int:
    return -(-size // BLOCK_SIZE)


def _align(number: int, unit: int) -> int:
    return -(-number // unit) * unit


# -- encoding -----------------------------------------------------------------------------------


def _split(children: list[tuple[bytes, _Inode]]) -> list[list[tuple[bytes, _Inode]]]:
    """Return the entries of a directory by block."""
    blocks = []
    block: list[tuple[bytes, _Inode]] = []
    used = 0
    for child in children:
        size = _DIRENT.size + len(child[0])
        if used + size > BLOCK_SIZE:
            blocks.append(block)
            block, used = [], 0
        block.append(child)
        used += size
    blocks.append(block)
    return blocks


def _directory_size(children: list[tuple[bytes, _Inode]]) -> int:
    blocks = _split(children)
    last = sum(_DIRENT.size + len(name) for name, _ in blocks[-1])
    return (len(blocks) - 1) * BLOCK_SIZE + last


def _encode_directory(children: list[tuple[bytes, _Inode]]) -> bytes:
    encoded = []
    blocks = _split(children)
    for number, block in enumerate(blocks):
        name_offset = len(block) * _DIRENT.size
        dirents = bytearray()
        for name, inode in block:
            file_type = _FILE_TYPES[stat.S_IFMT(inode.entry.mode)]
            dirents += _DIRENT.pack(inode.nid, name_offset, file_type)
            name_offset += len(name)
        dirents += b"".join(name for name, _ in block)
        last = number == len(blocks) - 1
        encoded.append(bytes(dirents) if last else bytes(dirents.ljust(BLOCK_SIZE, b"\0")))
    return b"".join(encoded)


def _encode_chunk(device: int, offset: int) -> bytes:
    if offset == HOLE:
        return _CHUNK_INDEX.pack(0, 0, _NO_BLOCK)
    return _CHUNK_INDEX.pack(0, device, offset >> BLOCK_BITS)


def _encode_device(number: int) -> int:
    """Return a device number as the kernel's ``new_encode_dev``."""
    major, minor = os.major(number), os.minor(number)
    return ((minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)) & 0xFFFFFFFF


def _encode_xattrs(entry: Entry) -> bytes:
    if not entry.xattrs:
        return b""
    encoded = bytearray(_XATTR_HEADER.pack(0, 0))
    for name, value in sorted(entry.xattrs.items()):
        index, suffix = _split_xattr(entry.path, name)
        if len(suffix) > MAX_NAME or len(value) >= 2**16:
            raise ValueError(f"{entry.path!r} has an attribute {name[:300]!r} that is too long")
        encoded += _XATTR_ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        encoded += bytes(-len(encoded) % 4)
    if (len(encoded) - _XATTR_HEADER.size) // 4 + 1 >= 2**16:
        raise ValueError(f"the attributes of {entry.path!r} have more than 256 KiB")
    return bytes(encoded)


def _split_xattr(path: bytes, name: str) -> tuple[int, bytes]:
    """Return the index of an attribute's prefix and the rest of its name."""
    if name in _XATTR_NAMES:
        return _XATTR_NAMES[name], b""
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return index, name.removeprefix(prefix).encode(errors="surrogateescape")
    raise ValueError(f"{path!r} has the attribute {name[:300]!r}, which EROFS cannot store")


def _first_block(
    inodes: int, epoch: int, blocks: int, root_nid: int, slots: Sequence[bytes], uuid: bytes
) -> bytes:
    seconds, nanoseconds = divmod(epoch, 10**9)
    device_offset = _SUPERBLOCK_OFFSET + _SUPERBLOCK.size
    block = bytearray(BLOCK_SIZE)
    _SUPERBLOCK.pack_into(
        block,
        _SUPERBLOCK_OFFSET,
        _MAGIC,
        0,  # checksum
        _COMPAT_SB_CHKSUM | _COMPAT_MTIME,
        BLOCK_BITS,
        0,  # no extension of the superblock
        root_nid,
        inodes,
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        blocks,
        _META_BLOCK,
        0,  # no shared attributes
        uuid,
        bytes(16),  # volume name
        _INCOMPAT_CHUNKED_FILE | _INCOMPAT_DEVICE_TABLE,
        0,  # no compression
        len(slots),  # devices beside this file
        device_offset // _DEVICE_SLOT.size,
        0,  # directory blocks of one block
        0,  # no prefixes of attributes
        0,
        0,
    )
    table = b"".join(slots)
    block[device_offset : device_offset + len(table)] = table
    checksum = _crc32c(bytes(block[_SUPERBLOCK_OFFSET:]))
    struct.pack_into("<I", block, _SUPERBLOCK_OFFSET + 4, checksum)
    return bytes(block)


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of ``data`` without the final complement."""
    table = _crc32c_table()
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = checksum >> 8 ^ table[(checksum ^ byte) & 0xFF]
    return checksum
