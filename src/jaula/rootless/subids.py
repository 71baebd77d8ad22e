"""The subordinate ids of an ordinary user: subuid(5), subgid(5), user_namespaces(7).

The engine's user namespace maps the user's own id to 0, followed by all ids of the user's ranges in
the order of the files. All containers have the same ids: an id-mapped mount of a host's file system
needs a privilege that no user namespace grants, so files on disk have the same owner for all of
them (see docs/rootless.md).
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.errors import Unsupported

MIN_IDS = 65536
"""With fewer ids, some owners of common images, up to nobody's 65534, have no id."""

IdMap = list[tuple[int, int, int]]
"""Lines of an id map: first id inside, first id outside, count."""


class Range(NamedTuple):
    """``size`` ids from ``start`` on."""

    start: int
    size: int


def ranges(text: str, name: str, uid: int) -> tuple[Range, ...]:
    """Return the ranges of one user in a file with lines ``NAME|UID:START:COUNT``.

    Malformed lines are ignored, as newuidmap(1) does.
    """
    result = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if owner not in (name, str(uid)) or not owner:
            continue
        if all(n.isascii() and n.isdigit() for n in (start, count)) and int(count):
            result.append(Range(int(start), int(count)))
    return tuple(dict.fromkeys(result))


def id_map(own_id: int, subid_ranges: tuple[Range, ...]) -> IdMap:
    """Return the engine's id map: the user as 0, then the ranges."""
    rows = [(0, own_id, 1)]
    first = 1
    for subids in subid_ranges:
        rows.append((first, subids.start, subids.size))
        first += subids.size
    return rows


def map_size(rows: IdMap) -> int:
    """Return the number of ids in a map."""
    return sum(count for _, _, count in rows)


def read_id_maps(name: str, uid: int, gid: int) -> tuple[IdMap, IdMap]:
    """Return the uid map and the gid map of a user.

    :raises Unsupported: when the user has no ranges.
    """
    maps = []
    for path, own_id in (("/etc/subuid", uid), ("/etc/subgid", gid)):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        subid_ranges = ranges(text, name, uid)
        if not subid_ranges:
            kind = path.removeprefix("/etc/sub")
            raise Unsupported(
                f"user {name} has no range of ids in {path}, which containers need",
                hint=f"as root: usermod --add-sub{kind}s 100000-165535 {name}; "
                "jaula doctor shows what else is missing",
            )
        maps.append(id_map(own_id, subid_ranges))
    return maps[0], maps[1]
