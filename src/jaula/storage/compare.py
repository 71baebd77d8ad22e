"""Two trees of files compared entry by entry: everything that an archive says about a file.

Content, type, mode, owner, links, device numbers, attributes and times; what is missing and what is
too much. Both are read through directory descriptors, no link is followed.

Left out: a security module's labels, which the host gives, and what no archive states: the times of
some directories, everything about whiteouts but that they are there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

import msgspec

from jaula.storage.trees import is_whiteout, open_subdirectory, walk

_PIECE = 1 << 20
_LABELS = ("security.selinux", "security.apparmor", "security.SMACK64")
_MOST = 1000  # deviations that are told of one tree
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Difference(msgspec.Struct, frozen=True):
    """A path, absolute in its tree, and what is wrong with it."""

    path: str
    problem: str


def compare_trees(
    found: int, wanted: int, *, timed: Collection[bytes], root: bool = True
) -> list[Difference]:
    """What of ``found`` is not as in ``wanted``, both descriptors of directories.

    ``timed`` are the directories (relative, the root is empty) whose times count; ``root`` says
    whether the facts of the tree's own directory do.
    """
    comparing = _Comparing(found, wanted, timed)
    told: list[Difference] = []
    for deviation in comparing.run(root):
        told.append(deviation)
        if len(told) == _MOST:
            told.append(
                Difference("/", f"more than {_MOST} differences; the others are not listed")
            )
            break
    return told


class _Comparing:
    def __init__(self, found: int, wanted: int, timed: Collection[bytes]) -> None:
        self._found = found
        self._wanted = wanted
        self._timed = timed
        self._links: dict[int, int] = {}  # inode of a wanted file with several names: the found one

    def run(self, root: bool) -> Iterator[Difference]:
        if root:
            yield from self._facts(b"", b".", self._found, self._wanted)
        for path, folder, entries in walk(self._wanted):
            there = open_subdirectory(self._found, path)
            try:
                names = set(map(os.fsencode, os.listdir(there)))
                for entry in tuple(entries):
                    name, facts = entry
                    place = path + b"/" + name if path else name
                    if name not in names:
                        yield _told(place, "it is missing")
                        entries.remove(entry)
                        continue
                    names.discard(name)
                    kind = stat.S_IFMT(os.stat(name, dir_fd=there, follow_symlinks=False).st_mode)
                    if kind != stat.S_IFMT(facts.st_mode):
                        other = _KINDS[stat.S_IFMT(facts.st_mode)]
                        yield _told(place, f"it is a {_KINDS[kind]}, not a {other}")
                        entries.remove(entry)
                        continue
                    if not is_whiteout(facts):
                        yield from self._facts(place, name, there, folder)
                    elif not is_whiteout(os.stat(name, dir_fd=there, follow_symlinks=False)):
                        yield _told(place, "it is a device, not a whiteout")
                for name in sorted(names):
                    yield _told(path + b"/" + name if path else name, "it is not in the layer")
            finally:
                os.close(there)

    def _facts(self, place: bytes, name: bytes, there: int, folder: int) -> Iterator[Difference]:
        """Compare ``name`` in two directories, where it is of one kind."""
        found = os.stat(name, dir_fd=there, follow_symlinks=False)
        wanted = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(wanted.st_mode)
        if stat.S_IFMT(found.st_mode) != kind:
            yield _told(
                place, f"it is a {_KINDS[stat.S_IFMT(found.st_mode)]}, not a {_KINDS[kind]}"
            )
            return
        for what, one, other in (
            ("mode", oct(stat.S_IMODE(found.st_mode)), oct(stat.S_IMODE(wanted.st_mode))),
            ("owner", f"{found.st_uid}:{found.st_gid}", f"{wanted.st_uid}:{wanted.st_gid}"),
            ("device", str(found.st_rdev), str(wanted.st_rdev)),
        ):
            if one != other:
                yield _told(place, f"its {what} is {one}, not {other}")
        timed = kind != stat.S_IFDIR or place in self._timed
        if timed and found.st_mtime_ns != wanted.st_mtime_ns:
            yield _told(place, "its time differs")
        if _attributes(there, name) != _attributes(folder, name):
            yield _told(place, "its extended attributes differ")
        if kind == stat.S_IFLNK and (
            os.readlink(name, dir_fd=there) != os.readlink(name, dir_fd=folder)
        ):
            yield _told(place, "it leads elsewhere")
        if kind != stat.S_IFDIR:
            yield from self._data(place, name, there, folder, found, wanted)

    def _data(
        self,
        place: bytes,
        name: bytes,
        there: int,
        folder: int,
        found: os.stat_result,
        wanted: os.stat_result,
    ) -> Iterator[Difference]:
        if found.st_nlink != wanted.st_nlink:
            yield _told(place, f"it has {found.st_nlink} names, not {wanted.st_nlink}")
        if wanted.st_nlink > 1:
            first = self._links.setdefault(wanted.st_ino, found.st_ino)
            if first != found.st_ino:
                yield _told(place, "it is a file of its own, not a hard link")
        if not stat.S_ISREG(wanted.st_mode):
            return
        if found.st_size != wanted.st_size:
            yield _told(place, f"it has {found.st_size} bytes, not {wanted.st_size}")
        elif found.st_size and not _same_content(there, folder, name):
            yield _told(place, "its content differs")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _told(place: bytes, problem: str) -> Difference:
    return Difference("/" + place.decode(errors="backslashreplace"), problem)


def _attributes(folder: int, name: bytes) -> dict[str, bytes]:
    where = b"/proc/self/fd/%d/%s" % (folder, name)
    return {
        attribute: os.getxattr(where, attribute, follow_symlinks=False)
        for attribute in os.listxattr(where, follow_symlinks=False)
        if not attribute.startswith(_LABELS)
    }


def _same_content(one_folder: int, other_folder: int, name: bytes) -> bool:
    one = os.open(name, _READ, dir_fd=one_folder)
    try:
        other = os.open(name, _READ, dir_fd=other_folder)
        try:
            while True:
                piece = os.read(one, _PIECE)
                if piece != os.read(other, _PIECE):
                    return False
                if not piece:
                    return True
        finally:
            os.close(other)
    finally:
        os.close(one)
