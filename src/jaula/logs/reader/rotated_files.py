"""The files of one log: ``log``, ``log.1``, ``log.2.gz`` and so on. A higher number is older.

Names are Docker's (json-file's ``max-file`` and ``compress``). A rename keeps the inode of a file,
and a compressed file stores the inode of its plain file
(:func:`jaula.logs.gzip_file.source_inode`). Readers follow inodes, because names change.

Facts about crashes: if a file exists in both forms, both are whole. Readers use the plain one, the
next rotation keeps the compressed one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from jaula.logs import gzip_file
from jaula.logs.gzip_file import SUFFIX

PART = ".gz.part"
"""Suffix of a file that is being compressed. The writer removes a leftover one when it starts."""
_ATTEMPTS = 10  # names may change during a lookup


def parse_name(name: str, base: str) -> tuple[int, bool] | None:
    """Return a file's number and whether it is compressed, or None if it is not of log ``base``."""
    if name == base:
        return 0, False
    if not name.startswith(f"{base}."):
        return None
    digits = name[len(base) + 1 :].removesuffix(SUFFIX)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 5 and digits[0] != "0"):
        return None
    return int(digits), name.endswith(SUFFIX)


def oldest_first(names: Iterable[str], base: str) -> list[str]:
    """Return the names of log ``base``, oldest first, each number once. ``base`` is the last."""
    by_number = {0: base}
    for name in names:
        if (parsed := parse_name(name, base)) and (not parsed[1] or parsed[0] not in by_number):
            by_number[parsed[0]] = name
    return [by_number[number] for number in sorted(by_number, reverse=True)]


def newest_plain(names: Iterable[str], base: str) -> int:
    """Return the number of the newest rotated file that is not compressed, 0 if there is none."""
    rotated = [parsed for name in names if (parsed := parse_name(name, base)) and parsed[0]]
    compressed = {number for number, is_compressed in rotated if is_compressed}
    return min((number for number, _ in rotated if number not in compressed), default=0)


def plan_renames(names: Iterable[str], base: str, max_file: int) -> list[tuple[str, str]]:
    """Return the renames, in order, that free the name ``base``. '' as a new name means removal.

    A crash after any of them leaves no entry twice and none out of order. Files are removed before
    the renames: ext4 flushes a file that is renamed over another (auto_da_alloc), and the
    container would wait for that.
    """
    by_number: dict[int, list[str]] = {}
    for name in sorted(names):
        if parsed := parse_name(name, base):
            by_number.setdefault(parsed[0], []).append(name)
    plan: list[tuple[str, str]] = []
    for number in sorted(by_number, reverse=True):
        *duplicates, name = by_number[number]  # the compressed one sorts last
        plan += [(duplicate, "") for duplicate in duplicates]
        suffix = SUFFIX if name.endswith(SUFFIX) else ""
        plan.append((name, f"{base}.{number + 1}{suffix}" if number + 1 < max_file else ""))
    return plan


def list_directory(path: str) -> list[str]:
    """Return the names in the directory of the log."""
    try:
        return os.listdir(os.path.dirname(path) or ".")
    except FileNotFoundError:
        return []


def log_files(path: str) -> list[str]:
    """Return ``path`` and its existing rotated files, oldest first."""
    directory, base = os.path.split(path)
    return [os.path.join(directory, name) for name in oldest_first(list_directory(path), base)]


def open_file(name: str) -> int:
    """Open a file to read, or its compressed form if it was compressed since the listing."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(name, flags)
    except FileNotFoundError:
        return os.open(name.removesuffix(SUFFIX) + SUFFIX, flags)


def index_of(names: list[str], inode: int) -> int | None:
    """Return the index of the file with ``inode``, or of its compressed form, in ``names``.

    ``names`` are oldest first. The inode must be open, so that a newer file cannot reuse it.
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
    """Open the file that is ``step`` files after the one with ``inode``; None if there is none.

    The successor of a removed file is the oldest that remains.
    """
    for _ in range(_ATTEMPTS):
        names, index = _locate(path, inode)
        if index is None and step <= 0:
            return None
        target = 0 if index is None else index + step
        if not 0 <= target < len(names):
            return None
        try:
            descriptor = open_file(names[target])
        except FileNotFoundError:
            continue
        if index is None or distance(path, inode, os.fstat(descriptor).st_ino) == step:
            return descriptor
        os.close(descriptor)  # names have changed between the lookup and the open
    return None


def distance(path: str, inode: int, other_inode: int) -> int | None:
    """Return how many files ``other_inode`` is after ``inode``, None if one was removed."""
    names, first = _locate(path, inode)
    second = None if first is None else index_of(names, other_inode)
    if second is None:
        names, second = _locate(path, other_inode)
        first = None if second is None else index_of(names, inode)
    return None if first is None or second is None else second - first


def _locate(path: str, inode: int) -> tuple[list[str], int | None]:
    """Return the files and the index of ``inode``. It may be missed while names change."""
    for _ in range(_ATTEMPTS):
        names = log_files(path)
        if (index := index_of(names, inode)) is not None:
            return names, index
    return names, None
