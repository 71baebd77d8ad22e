"""Compare two file trees, entry by entry, in all that an archive stores about a file.

Compared are content, type, mode, owner, links, device numbers, extended attributes and times.
Missing and additional files are reported. Both trees are read through directory descriptors, and
no symbolic link is followed.

Not compared are labels of security modules, which the host sets, and what an archive does not
store: the times of some directories, and the metadata of whiteouts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

import msgspec

from jaula.storage.trees import is_whiteout, open_subdirectory, walk

_CHUNK = 1 << 20
_LABELS = ("security.selinux", "security.apparmor", "security.SMACK64")
_MAX_DIFFERENCES = 1000  # reported for one tree
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Difference(msgspec.Struct, frozen=True):
    """A path, absolute in its tree, and how it differs."""

    path: str
    problem: str


def compare_trees(
    actual: int, expected: int, *, timed_directories: Collection[bytes], root: bool = True
) -> list[Difference]:
    """Return how the directory ``actual`` differs from ``expected``. Both are descriptors.

    ``timed_directories`` are the relative paths of the directories whose times are compared; the
    root's is empty. ``root`` says whether the metadata of the root directory is compared.
    """
    comparison = _Comparison(actual, expected, timed_directories)
    differences: list[Difference] = []
    for difference in comparison.run(root):
        differences.append(difference)
        if len(differences) == _MAX_DIFFERENCES:
            differences.append(
                Difference(
                    "/", f"more than {_MAX_DIFFERENCES} differences; the others are not listed"
                )
            )
            break
    return differences


class _Comparison:
    def __init__(self, actual: int, expected: int, timed_directories: Collection[bytes]) -> None:
        self._actual = actual
        self._expected = expected
        self._timed = timed_directories
        self._links: dict[int, int] = {}  # inodes of hard links: expected -> actual

    def run(self, root: bool) -> Iterator[Difference]:
        if root:
            yield from self._metadata(b"", b".", self._actual, self._expected)
        for path, expected_dir, entries in walk(self._expected):
            actual_dir = open_subdirectory(self._actual, path)
            try:
                names = set(map(os.fsencode, os.listdir(actual_dir)))
                for entry in tuple(entries):
                    name, status = entry
                    file_path = path + b"/" + name if path else name
                    if name not in names:
                        yield _difference(file_path, "it is missing")
                        entries.remove(entry)
                        continue
                    names.discard(name)
                    kind = stat.S_IFMT(
                        os.stat(name, dir_fd=actual_dir, follow_symlinks=False).st_mode
                    )
                    if kind != stat.S_IFMT(status.st_mode):
                        other = _KINDS[stat.S_IFMT(status.st_mode)]
                        yield _difference(file_path, f"it is a {_KINDS[kind]}, not a {other}")
                        entries.remove(entry)
                        continue
                    if not is_whiteout(status):
                        yield from self._metadata(file_path, name, actual_dir, expected_dir)
                    elif not is_whiteout(os.stat(name, dir_fd=actual_dir, follow_symlinks=False)):
                        yield _difference(file_path, "it is a device, not a whiteout")
                for name in sorted(names):
                    yield _difference(
                        path + b"/" + name if path else name, "it is not in the layer"
                    )
            finally:
                os.close(actual_dir)

    def _metadata(
        self, file_path: bytes, name: bytes, actual_dir: int, expected_dir: int
    ) -> Iterator[Difference]:
        """Compare the file ``name`` of two directories."""
        actual = os.stat(name, dir_fd=actual_dir, follow_symlinks=False)
        expected = os.stat(name, dir_fd=expected_dir, follow_symlinks=False)
        kind = stat.S_IFMT(expected.st_mode)
        if stat.S_IFMT(actual.st_mode) != kind:
            yield _difference(
                file_path, f"it is a {_KINDS[stat.S_IFMT(actual.st_mode)]}, not a {_KINDS[kind]}"
            )
            return
        for field, one, other in (
            ("mode", oct(stat.S_IMODE(actual.st_mode)), oct(stat.S_IMODE(expected.st_mode))),
            ("owner", f"{actual.st_uid}:{actual.st_gid}", f"{expected.st_uid}:{expected.st_gid}"),
            ("device", str(actual.st_rdev), str(expected.st_rdev)),
        ):
            if one != other:
                yield _difference(file_path, f"its {field} is {one}, not {other}")
        has_time = kind != stat.S_IFDIR or file_path in self._timed
        if has_time and actual.st_mtime_ns != expected.st_mtime_ns:
            yield _difference(file_path, "its time differs")
        if _attributes(actual_dir, name) != _attributes(expected_dir, name):
            yield _difference(file_path, "its extended attributes differ")
        if kind == stat.S_IFLNK and (
            os.readlink(name, dir_fd=actual_dir) != os.readlink(name, dir_fd=expected_dir)
        ):
            yield _difference(file_path, "its link target differs")
        if kind != stat.S_IFDIR:
            yield from self._data(file_path, name, actual_dir, expected_dir, actual, expected)

    def _data(
        self,
        file_path: bytes,
        name: bytes,
        actual_dir: int,
        expected_dir: int,
        actual: os.stat_result,
        expected: os.stat_result,
    ) -> Iterator[Difference]:
        if actual.st_nlink != expected.st_nlink:
            yield _difference(file_path, f"it has {actual.st_nlink} names, not {expected.st_nlink}")
        if expected.st_nlink > 1:
            first = self._links.setdefault(expected.st_ino, actual.st_ino)
            if first != actual.st_ino:
                yield _difference(file_path, "it is a file of its own, not a hard link")
        if not stat.S_ISREG(expected.st_mode):
            return
        if actual.st_size != expected.st_size:
            yield _difference(file_path, f"it has {actual.st_size} bytes, not {expected.st_size}")
        elif actual.st_size and not _same_content(actual_dir, expected_dir, name):
            yield _difference(file_path, "its content differs")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _difference(file_path: bytes, problem: str) -> Difference:
    return Difference("/" + file_path.decode(errors="backslashreplace"), problem)


def _attributes(directory: int, name: bytes) -> dict[str, bytes]:
    file = b"/proc/self/fd/%d/%s" % (directory, name)
    return {
        attribute: os.getxattr(file, attribute, follow_symlinks=False)
        for attribute in os.listxattr(file, follow_symlinks=False)
        if not attribute.startswith(_LABELS)
    }


def _same_content(first_dir: int, second_dir: int, name: bytes) -> bool:
    one = os.open(name, _READ, dir_fd=first_dir)
    try:
        other = os.open(name, _READ, dir_fd=second_dir)
        try:
            while True:
                chunk = os.read(one, _CHUNK)
                if chunk != os.read(other, _CHUNK):
                    return False
                if not chunk:
                    return True
        finally:
            os.close(other)
    finally:
        os.close(one)
