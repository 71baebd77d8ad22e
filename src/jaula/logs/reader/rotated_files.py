"""The files of one log: ``log``, ``log.1``, ``log.2.gz`` ..., a higher number being older.

Names are Docker's (json-file's ``max-file`` and ``compress``). A file keeps its inode when it is
renamed, and when it is packed the new one tells the inode of the plain one
(:func:`jaula.logs.gzip_file.source_inode`): a reader goes from file to file by that while names move.

Facts about crashes: a file that is there in both forms is whole in both. Readers take the plain
one, the next rotation the packed one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from jaula.logs import gzip_file
from jaula.logs.gzip_file import SUFFIX

PART = ".gz.part"
"""The end of the name of a file that is being packed; whoever opens the log to write removes it."""
_TRIES = 10  # while names move under a reader's feet


def parse_name(name: str, base: str) -> tuple[int, bool] | None:
    """Which file of the log ``base`` is called ``name``, and whether packed; None if it is none."""
    if name == base:
        return 0, False
    if not name.startswith(f"{base}."):
        return None
    digits = name[len(base) + 1 :].removesuffix(SUFFIX)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 5 and digits[0] != "0"):
        return None
    return int(digits), name.endswith(SUFFIX)


def oldest_first(names: Iterable[str], base: str) -> list[str]:
    """Those of the log ``base``, oldest first, each once; ``base`` is always the last."""
    found = {0: base}
    for name in names:
        if (which := parse_name(name, base)) and (not which[1] or which[0] not in found):
            found[which[0]] = name
    return [found[which] for which in sorted(found, reverse=True)]


def newest_plain(names: Iterable[str], base: str) -> int:
    """The number of the newest file that was rotated and not packed; 0 where there is none."""
    found = [which for name in names if (which := parse_name(name, base)) and which[0]]
    packed = {which for which, is_packed in found if is_packed}
    return min((which for which, _ in found if which not in packed), default=0)


def plan_renames(names: Iterable[str], base: str, max_file: int) -> list[tuple[str, str]]:
    """Renames that make room for a new ``base``, in their order; '' is the name of what goes.

    Whichever of them is the last that is done, no record is there twice or in another's place. What
    goes is removed first: ext4 writes a file out that is renamed over another (auto_da_alloc), for
    which the container would wait.
    """
    found: dict[int, list[str]] = {}
    for name in sorted(names):
        if which := parse_name(name, base):
            found.setdefault(which[0], []).append(name)
    plan: list[tuple[str, str]] = []
    for place in sorted(found, reverse=True):
        *others, name = found[place]  # the packed one is the last in the order of names
        plan += [(other, "") for other in others]
        end = SUFFIX if name.endswith(SUFFIX) else ""
        plan.append((name, f"{base}.{place + 1}{end}" if place + 1 < max_file else ""))
    return plan


def list_directory(path: str) -> list[str]:
    """The names in the directory of the log."""
    try:
        return os.listdir(os.path.dirname(path) or ".")
    except FileNotFoundError:
        return []


def log_files(path: str) -> list[str]:
    """``path`` and its rotated files that exist, oldest first."""
    directory, base = os.path.split(path)
    return [os.path.join(directory, name) for name in oldest_first(list_directory(path), base)]


def open_file(name: str) -> int:
    """A descriptor to read; of the packed form where it was packed since the name was found."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(name, flags)
    except FileNotFoundError:
        return os.open(name.removesuffix(SUFFIX) + SUFFIX, flags)


def index_of(names: list[str], inode: int) -> int | None:
    """Which of ``names`` (oldest first) is the file of ``inode``, or what that was packed into.

    The inode must be held open: then a newer file cannot have got the same one.
    """
    for index, name in enumerate(names):
        try:
            if os.stat(name).st_ino == inode:
                return index
        except FileNotFoundError:
            continue  # being rotated at this moment
    for index in reversed(range(len(names))):
        try:
            descriptor = open_file(names[index])
        except FileNotFoundError:
            continue
        try:
            if gzip_file.source_inode(descriptor) == inode:
                return index
        finally:
            os.close(descriptor)
    return None


def open_neighbour(path: str, inode: int, step: int) -> int | None:
    """A descriptor of the file ``step`` after the one of ``inode``; None where there is none.

    After a file that was rotated away altogether comes the oldest that is left.
    """
    for _ in range(_TRIES):
        names, at = _found(path, inode)
        if at is None and step <= 0:
            return None
        wanted = 0 if at is None else at + step
        if not 0 <= wanted < len(names):
            return None
        try:
            descriptor = open_file(names[wanted])
        except FileNotFoundError:
            continue
        if at is None or distance(path, inode, os.fstat(descriptor).st_ino) == step:
            return descriptor
        os.close(descriptor)  # names have moved between the look and the opening
    return None


def distance(path: str, inode: int, other: int) -> int | None:
    """How many files ``other`` comes after ``inode``; None where one was rotated away."""
    names, here = _found(path, inode)
    there = None if here is None else index_of(names, other)
    if there is None:
        names, there = _found(path, other)
        here = None if there is None else index_of(names, inode)
    return None if here is None or there is None else there - here


def _found(path: str, inode: int) -> tuple[list[str], int | None]:
    """The files and which of them is the one of ``inode``; it may be missed while names move."""
    for _ in range(_TRIES):
        names = log_files(path)
        if (at := index_of(names, inode)) is not None:
            return names, at
    return names, None
