"""Map owners of files on the disk to ids inside the containers of a source."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from contextlib import suppress

from jaula.features.migrate_from.read_only import ReadOnlyTree

Owner = Callable[[int, int], tuple[int, int]]


def rootless_owner(tree: ReadOnlyTree) -> Owner | None:
    """Return the map of a rootless engine, None for that of root.

    Its containers have the user as root, and the subordinate ids of the user from 1 on. A process
    in a user namespace with that map sees the ids inside already.
    """
    fd = tree.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        uid, gid = os.fstat(fd).st_uid, os.fstat(fd).st_gid
    finally:
        os.close(fd)
    if uid == 0:
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    uids = _subordinate("/etc/subuid", name, uid)
    gids = _subordinate("/etc/subgid", name, uid)
    return lambda u, g: (_inside(u, uid, uids), _inside(g, gid, gids))


def _subordinate(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    """Return the ranges of a user in subuid(5), as first id and number."""
    ranges = []
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] in (name, str(uid)):
                ranges.append((int(fields[1]), int(fields[2])))
    return ranges


def _inside(number: int, own: int, ranges: list[tuple[int, int]]) -> int:
    if number == own:
        return 0
    first = 1
    for start, count in ranges:
        if start <= number < start + count:
            return first + number - start
        first += count
    return number


def remapped_owner(root: str) -> Owner:
    """Return the map of a docker of root.

    With ``userns-remap`` docker's data directory is named by the first uid and gid of the range,
    and owners on the disk are shifted by these.
    """
    match = re.fullmatch(r".*/([0-9]{4,10})\.([0-9]{4,10})/?", root, re.ASCII | re.DOTALL)
    if match is None:
        return lambda uid, gid: (uid, gid)
    first_uid, first_gid = map(int, match.groups())
    return lambda uid, gid: (
        uid - first_uid if uid >= first_uid else uid,
        gid - first_gid if gid >= first_gid else gid,
    )
