"""The Landlock rules of a container, matched with files as the kernel does: by inode.

A rule marks the inode of its path, and holds for it and everything below it (landlock(7)). The
kernel goes from the file's directory entry up to the root; so does :meth:`LandlockRules.granted`,
with device and inode numbers. A symbolic link counts as its target. The rules are those of the
moment: a file that was replaced after the process started has another inode than the rule's.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from jaula.kernel.openat2 import open_in_root
from jaula.spec.annotations import PathRule, Ruleset

_NOT_REPLACED = (stat.S_ISSOCK, stat.S_ISFIFO)
_DIRECTORIES = 4096  # whose status is kept


class Place(NamedTuple):
    """A file in a container: its path without symbolic links, and its status."""

    path: str
    status: os.stat_result


def locate(root: int, path: str | bytes) -> Place | None:
    """Return where a path leads to, None if it does not exist. ``root`` is a descriptor."""
    try:
        found = open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return Place(os.readlink(f"/proc/self/fd/{found}"), os.fstat(found))
    finally:
        os.close(found)


class LandlockRules:
    """The rules of one domain in the root of a running container."""

    def __init__(self, root: int, domain: Ruleset) -> None:
        """Find the files of the rules. ``root`` is a descriptor, which has to stay open."""
        self._root = root
        self._rights: dict[tuple[int, int], list[tuple[str, int]]] = {}
        self._directories: dict[str, tuple[int, int]] = {}
        for rule in domain.paths:
            self._add(rule)

    def _add(self, rule: PathRule) -> None:
        place = locate(self._root, rule.path)
        if place is not None:
            self._mark(place, rule.access)
            if not any(check(place.status.st_mode) for check in _NOT_REPLACED):
                return
        path = rule.path.rstrip("/")
        while rule.create and (path := path.rpartition("/")[0]):
            place = locate(self._root, path)
            if place is not None:
                if stat.S_ISDIR(place.status.st_mode):
                    self._mark(place, rule.create)
                return

    def _mark(self, place: Place, access: int) -> None:
        self._rights.setdefault(_key(place.status), []).append((place.path, access))

    def granted(self, place: Place) -> tuple[int, str]:
        """Return the rights on a file, and a rule's path that is another hard link of the file.

        The rights do not include those of the hard link: overlayfs gives each hard link of a lower
        layer an inode of its own.
        """
        rights, linked = 0, ""
        single = stat.S_ISDIR(place.status.st_mode) or place.status.st_nlink <= 1
        for path, access in self._rights.get(_key(place.status), ()):
            if single or path == place.path:
                rights |= access
            else:
                linked = path
        path = place.path
        while path.rstrip("/"):
            path = os.path.dirname(path)
            for _, access in self._rights.get(self._directory(path), ()):
                rights |= access
        return rights, linked

    def _directory(self, path: str) -> tuple[int, int]:
        key = self._directories.get(path)
        if key is None:
            place = locate(self._root, path)
            key = _key(place.status) if place else (0, 0)
            if len(self._directories) < _DIRECTORIES:
                self._directories[path] = key
        return key


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
