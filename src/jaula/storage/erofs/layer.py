"""A layer as EROFS: the files ``metadata`` and ``blob`` in its directory, mounted at ``fs``.

The files ``blob.2`` and up are blobs of other layers, to which the image refers
(:mod:`jaula.storage.erofs.chunks`).

With fs-verity the kernel compares each block that it reads of both files with a digest, so data
that was changed on the disk is an error (EIO) and never reaches a container. The digests of the
files are in the document of the layer, and are compared before each mount.

Facts about EROFS: Linux 6.12 mounts files without a loop device (``EROFS_FS_BACKED_BY_FILE``). The
files must be on a file system with a page cache of its own, so tmpfs and overlayfs are refused. A
user namespace cannot mount it. File contents are in the page cache twice, as part of the blob too,
unless the mount has ``directio``. Files with fs-verity do not have direct reads.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import FULL, CorruptState, Unsupported
from jaula.kernel import fsverity, mounts
from jaula.storage.erofs.chunks import LIST, OWN, SharedBlobs, blob_name, write_list
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.trees import open_directory, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jaula.storage.erofs.erofs_tree import BlobWriter

METADATA, BLOB, ROOT = "metadata", "blob", "fs"
MAX_FILES = 500_000
"""The files of a layer. Its tree is in memory while it is packed, 2 KB for a file."""
_ATTRIBUTE_INODES = 66  # of an attribute with a value of 64 KiB
_TREE_SIZE = 256 << 20  # bytes of long symbolic links
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BUFFER = 1 << 20  # bytes
_PROBE = ".probe-erofs"


class ErofsFiles(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fs-verity digests of the files of a layer, '' without fs-verity.

    ``shared`` are those of the devices 2 and up. ``stored`` is the bytes of contents in the
    layer's own blob; it is None for a layer of an engine that did not share chunks.
    """

    metadata: str = ""
    blob: str = ""
    shared: tuple[str, ...] = ()
    stored: int | None = None

    def blobs(self) -> Iterator[tuple[str, str]]:
        """Yield name and digest of each device, in their order."""
        for device, digest in enumerate((self.blob, *self.shared), OWN):
            yield blob_name(device), digest


@contextmanager
def open_blob(directory: int, shared: SharedBlobs | None = None) -> Iterator[BlobWriter]:
    """Create the blob of a layer in its directory, and yield a writer of it.

    Chunks that the blobs ``shared`` have are not written.
    """
    from jaula.storage.erofs.erofs_tree import BlobWriter

    descriptor = os.open(BLOB, _NEW, 0o600, dir_fd=directory)
    try:
        yield BlobWriter(descriptor, shared)
    finally:
        os.close(descriptor)


@contextmanager
def open_tree() -> Iterator[int]:
    """Yield an empty directory in memory, for a tree whose contents are in a blob.

    It is a mount without a name, which the kernel removes with its descriptor. A tree on the disk
    would make inodes that are deleted at once: ext4 does not use such an inode again for a while,
    and searches past them for each new one.
    """
    options = (("mode", "0755"), ("nr_inodes", str(MAX_FILES)), ("size", str(_TREE_SIZE)))
    mount = mounts.new_filesystem("tmpfs", options)
    try:
        with open_directory(".", dir_fd=mount) as root:
            yield root
    finally:
        os.close(mount)


def is_full(tree: int) -> bool:
    """Return whether a directory of :func:`open_tree` has no room for a file or an attribute.

    tmpfs counts a KiB of attributes as an inode.
    """
    status = os.fstatvfs(tree)
    return status.f_ffree < _ATTRIBUTE_INODES or not status.f_bavail


def create(directory: int, root: int, blob: BlobWriter) -> None:
    """Complete the files in a layer's directory from the tree ``root``.

    :raises OSError: when the disk is full.
    :raises ValueError: when a file exceeds the limits of EROFS.
    """
    from jaula.storage.erofs.erofs_tree import pack

    with os.fdopen(os.open(METADATA, _NEW, 0o600, dir_fd=directory), "wb", _BUFFER) as metadata:
        pack(root, metadata, blob)
    write_list(directory, blob.chunks)


def finish(directory: int, blob: BlobWriter, *, verity: bool) -> ErofsFiles:
    """Protect the files and make ``fs`` an empty directory; a tree there is removed.

    No process may have the files open for writing.

    :raises OSError: when the file system does not have fs-verity.
    """
    shared = [blob_name(OWN + 1 + number) for number in range(len(blob.shared_sizes))]
    files = ErofsFiles(shared=("",) * len(shared), stored=blob.stored)
    if verity:
        files = ErofsFiles(
            _protect(directory, METADATA),
            _protect(directory, BLOB),
            tuple(_measure(directory, name) for name in shared),
            blob.stored,
        )
    remove_tree(directory, ROOT.encode())
    os.mkdir(ROOT, 0o755, dir_fd=directory)
    return files


def _protect(directory: int, name: str) -> str:
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        fsverity.enable(descriptor)
        return fsverity.measure(descriptor)
    finally:
        os.close(descriptor)


def _measure(directory: int, name: str) -> str:
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        return fsverity.measure(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_mount(directory: int, expected: ErofsFiles) -> Iterator[int]:
    """Yield a detached mount of the layer in ``directory``.

    :raises CorruptState: when a file is missing or damaged, or does not have the expected digest.
    :raises OSError: when the kernel cannot mount it for another reason.
    """
    with ExitStack() as files:
        metadata = _open(directory, METADATA, expected.metadata)
        files.callback(os.close, metadata)
        blobs = []
        for name, digest in expected.blobs():
            blobs.append(_open(directory, name, digest))
            files.callback(os.close, blobs[-1])
        mount = _mount(metadata, *blobs, direct=not expected.blob)
    try:
        yield mount
    finally:
        os.close(mount)


def check_digests(directory: int, expected: ErofsFiles) -> None:
    """Compare the fs-verity digests of a layer's files; without digests only open them.

    :raises CorruptState: when a file is missing, or does not have the digest.
    """
    for name, digest in ((METADATA, expected.metadata), *expected.blobs()):
        os.close(_open(directory, name, digest))
    if expected.stored is not None:
        os.close(_open(directory, LIST, ""))


def unmount(path: str) -> None:
    """Unmount all layers at ``path``. Containers keep their own mounts of them."""
    while True:
        try:
            mounts.umount2(path, mounts.MNT.DETACH | mounts.MNT.NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount point
                raise
            return


def _open(directory: int, name: str, expected: str) -> int:
    """Open a file of a layer and compare its digest, if there is one.

    :raises CorruptState: when the file is missing, or does not have the digest.
    """
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        raise CorruptState(f"the file {name} of the layer is missing") from None
    if not expected:
        return descriptor
    try:
        actual = fsverity.measure(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.ENODATA, *fsverity.UNSUPPORTED):
            raise CorruptState(
                f"the file {name} of the layer does not have fs-verity any more: it was replaced"
            ) from error
        raise
    if actual != expected:
        os.close(descriptor)
        raise CorruptState(
            f"the file {name} of the layer has the fs-verity digest {actual} instead of {expected}"
        )
    return descriptor


def _mount(metadata: int, *blobs: int, direct: bool) -> int:
    """Return a detached mount; with ``direct`` the blobs are read directly if that is possible.

    :raises CorruptState: when the image is damaged.
    """
    if direct:
        try:
            return _mount_with(metadata, blobs, ("ro", "directio"))
        except OSError as error:
            if error.errno != errno.EINVAL:  # an older kernel, or another file system
                raise
    try:
        return _mount_with(metadata, blobs, ("ro",))
    except OSError as error:
        if error.errno in (errno.EUCLEAN, errno.EIO, errno.EINVAL):
            raise CorruptState(f"the file {METADATA} of the layer is damaged: {error}") from error
        raise


def _mount_with(metadata: int, blobs: tuple[int, ...], flags: tuple[str, ...]) -> int:
    context = mounts.fsopen("erofs")
    try:
        # The opened files are mounted, not those that have their names by now.
        mounts.fsconfig_set_string(context, "source", f"/proc/self/fd/{metadata}")
        for blob in blobs:
            mounts.fsconfig_set_string(context, "device", f"/proc/self/fd/{blob}")
        for flag in flags:
            mounts.fsconfig_set_flag(context, flag)
        mounts.fsconfig_create(context)
        attributes = mounts.MOUNT_ATTR.RDONLY | mounts.MOUNT_ATTR.NODEV | mounts.MOUNT_ATTR.NOSUID
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)


def probe(directory: Path, *, verity: bool) -> None:
    """Make and mount a layer with an empty tree below ``directory``.

    :raises Unsupported: when the kernel or the file system cannot do that.
    """
    place = f"{filesystem_name(directory)} at {directory}"
    name = f"{_PROBE}-{os.urandom(6).hex()}"
    with open_directory(directory) as parent:
        os.mkdir(name, 0o700, dir_fd=parent)
        try:
            with open_directory(name, dir_fd=parent) as layer:
                try:
                    with open_tree() as root, open_blob(layer) as blob:
                        create(layer, root, blob)
                    files = finish(layer, blob, verity=verity)
                except OSError as error:
                    if error.errno in FULL:
                        return  # an engine starts on a full disk; a new layer is refused there
                    if error.errno not in fsverity.UNSUPPORTED:
                        raise
                    raise Unsupported(
                        f"verity=on needs fs-verity, which {place} does not have: {error.strerror}",
                        hint="unmount an ext4 file system and run 'tune2fs -O verity DEVICE', or "
                        "use btrfs; the kernel needs CONFIG_FS_VERITY",
                    ) from error
                try:
                    with open_mount(layer, files):
                        pass
                except (OSError, CorruptState) as error:
                    raise Unsupported(
                        f"the kernel cannot mount EROFS files on {place}: {error}",
                        hint="use Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE, and "
                        "ext4, xfs or btrfs",
                    ) from error
        finally:
            remove_tree(parent, name.encode())
