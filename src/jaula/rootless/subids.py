"""The ids that an ordinary user may give to others: subuid(5), subgid(5), user_namespaces(7).

The engine's user namespace holds the user's own id as 0 and, behind it, every id of the user's
ranges, in the order of the files. Containers see the same ids: an id-mapped mount of a host's file
system takes a privilege that no user namespace gives, so what is on disk has one owner for all of
them (see docs/rootless.md).
"""

from __future__ import annotations

from typing import NamedTuple

from jaula.errors import Unsupported

MIN_IDS = 65536
"""Fewer leave an image's usual owners, up to nobody's 65534, without an id."""

IdMap = list[tuple[int, int, int]]
"""Lines of an id map: first id inside, first outside, how many."""


class Range(NamedTuple):
    """``size`` ids from ``start`` on."""

    start: int
    size: int


def ranges(text: str, name: str, uid: int) -> tuple[Range, ...]:
    """The ranges that a file of the form ``NAME|UID:START:COUNT`` gives to one user.

    Lines of another form are passed over, as newuidmap(1) does.
    """
    found = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if owner not in (name, str(uid)) or not owner:
            continue
        if all(n.isascii() and n.isdigit() for n in (start, count)) and int(count):
            found.append(Range(int(start), int(count)))
    return tuple(dict.fromkeys(found))


def id_map(own: int, given: tuple[Range, ...]) -> IdMap:
    """The map of the engine's namespace: 0 is the user, the ranges follow."""
    rows = [(0, own, 1)]
    first = 1
    for each in given:
        rows.append((first, each.start, each.size))
        first += each.size
    return rows


def map_size(rows: IdMap) -> int:
    """How many ids there are from 0 on."""
    return sum(count for _, _, count in rows)


def read_id_maps(name: str, uid: int, gid: int) -> tuple[IdMap, IdMap]:
    """The maps of users and groups. Raises ``Unsupported`` where a user has no ranges."""
    maps = []
    for path, own in (("/etc/subuid", uid), ("/etc/subgid", gid)):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        given = ranges(text, name, uid)
        if not given:
            kind = path.removeprefix("/etc/sub")
            raise Unsupported(
                f"user {name} has no range of ids in {path}, and containers need one",
                hint=f"as root: usermod --add-sub{kind}s 100000-165535 {name}; "
                "jaula doctor tells what else is missing",
            )
        maps.append(id_map(own, given))
    return maps[0], maps[1]
