"""A directory of the store's own, held open while something is made or removed in it.

The paths are the engine's (layers, volumes, snapshots): only their last component is checked to be
no link. What a container or an image wrote is walked by :mod:`jaula.storage.trees`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaula.storage.trees import DIRECTORY_FLAGS, remove_tree


@contextmanager
def open_directory(path: str | Path, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of the directory, closed at the end."""
    descriptor = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_new(parent: int, name: str, data: bytes) -> None:
    """Write a small file that must not be there yet; nobody else may read it."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def remove_entries(directory: Path, names: Iterable[str]) -> bool:
    """Remove ``names`` from a directory, and itself once it is empty; whether it was there."""
    try:
        parent = os.open(directory, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return False
    try:
        for name in names:
            remove_tree(parent, name.encode())
    finally:
        os.close(parent)
    try:
        directory.rmdir()
    except OSError:
        return True  # it holds more, which is its owner's to remove
    return True


def list_with_prefix(directory: Path, *marks: str, before: int | None = None) -> list[str]:
    """Names that start with one of ``marks``; last changed ``before`` a moment, in nanoseconds."""
    found = []
    for entry in os.scandir(directory):
        if not entry.name.startswith(marks):
            continue
        try:
            changed = entry.stat(follow_symlinks=False).st_ctime_ns
        except FileNotFoundError:
            continue
        if before is None or changed < before:
            found.append(entry.name)
    return sorted(found)


def remove_with_prefix(directory: Path, *marks: str) -> list[str]:
    """Remove all whose name starts with one of ``marks``: what a crash left half-made."""
    swept = list_with_prefix(directory, *marks)
    with open_directory(directory) as parent:
        for name in swept:
            remove_tree(parent, name.encode())
    return swept
