"""Directories in place of many paths: the rules by which a profile names files. Pure.

A path that ends with ``/`` is a directory with everything below it; depth is the number of its
components. The rules, in this order:

1. Below /proc all files are one directory, since process ids change. So are those below /dev/pts,
   /dev/shm and /dev/mqueue, and those that depend on the host or the environment: control groups,
   processors, time zones and locales. Every other file of /dev is an item.
2. A shared library stands for its directory, since an update changes its name.
3. :data:`FILES` files of one directory are that directory, if its depth is 2 or more.
4. :data:`DIRECTORIES` directories in one directory are that directory, if its depth is 3 or more.
5. If there are more than ``limit`` items, or :data:`MAX_TEXT` characters, the numbers and depths
   are reduced until they fit. The root is never an item.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

FILES = 8
DIRECTORIES = 4
LIMIT = 512  # items of one list
MAX_TEXT = 1 << 16  # characters of one list
WHOLE = (
    "/proc/",
    "/dev/pts/",
    "/dev/shm/",
    "/dev/mqueue/",
    "/sys/fs/cgroup/",
    "/sys/devices/system/cpu/",
    "/usr/share/zoneinfo/",
    "/usr/lib/locale/",
)
_LIBRARY = re.compile(r"/[^/]+\.so(\.[0-9]+)*\Z")


class _Rule(NamedTuple):
    files: int
    files_depth: int
    directories: int
    directories_depth: int


_RULES = (
    _Rule(FILES, 2, DIRECTORIES, 3),
    _Rule(4, 2, 3, 3),
    _Rule(2, 2, 2, 3),
    _Rule(1, 2, 2, 2),
    _Rule(1, 1, 1, 1),
)


def depth(path: str) -> int:
    """Return the number of components."""
    return len([part for part in path.split("/") if part])


def parent(path: str) -> str:
    """Return the directory of a path, with its ``/``."""
    return path.rstrip("/").rpartition("/")[0] + "/"


def covers(item: str, path: str) -> bool:
    """Return whether an item is a path, or a directory above it."""
    return item == path or (item.endswith("/") and path.startswith(item)) or item == path + "/"


def fits(items: Iterable[str], limit: int = LIMIT) -> bool:
    """Return whether items are short and few enough for a list."""
    distinct = set(items)
    return len(distinct) <= limit and sum(map(len, distinct)) <= MAX_TEXT


def generalize(paths: Iterable[str], limit: int = LIMIT) -> dict[str, str] | None:
    """Return the item of each path; None if no rule gives a list that fits."""
    given = {path for path in paths if path != "/"}
    for rule in _RULES:
        result = _apply(given, rule)
        if fits(result.values(), limit):
            return result
    return None


def _apply(paths: set[str], rule: _Rule) -> dict[str, str]:
    items = {path: _special(path) for path in paths}
    ordinary = [path for path, item in items.items() if item == path and not path.endswith("/")]
    files = Counter(parent(path) for path in ordinary if not path.startswith("/dev/"))
    for path in ordinary:
        directory = parent(path)
        if files[directory] >= rule.files and depth(directory) >= rule.files_depth:
            items[path] = directory
    directories = {item for item in items.values() if item.endswith("/")}
    deepest = max((depth(directory) for directory in directories), default=0)
    for level in range(deepest, rule.directories_depth, -1):
        above = Counter(parent(each) for each in directories if depth(each) == level)
        for directory, number in above.items():
            if number >= rule.directories and not directory.startswith(("/dev/", "/proc/")):
                directories = {
                    each for each in directories if not each.startswith(directory)
                } | {directory}  # fmt: skip
    return {path: _cover(item, directories) for path, item in items.items()}


def _special(path: str) -> str:
    for directory in WHOLE:
        if covers(directory, path):
            return directory
    if _LIBRARY.search(path) and depth(path) > 2:
        return parent(path)
    return path


def _cover(item: str, directories: set[str]) -> str:
    """Return the highest of the directories that includes an item, or the item."""
    parts = item.split("/")
    for number in range(2, len(parts)):
        directory = "/".join(parts[:number]) + "/"
        if directory in directories:
            return directory
    return item
