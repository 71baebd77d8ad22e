"""``--userns-remap``: the ids of containers, from a user's ranges in subuid(5) and subgid(5).

Source: docker docs, "Isolate containers with a user namespace". Docker's ``default`` means the user
``dockremap``; here it means ``jaula``. In Docker all containers share the range; here each
container gets its own part of it.
"""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest
from jaula.rootless import subids
from jaula.rootless.subids import Range

DEFAULT = "jaula"
FILES = ("/etc/subuid", "/etc/subgid")
_CONTAINER_IDS = 65536


def choose(users: tuple[Range, ...], groups: tuple[Range, ...], name: str) -> Range:
    """Return the largest range that is in both lists, since uids and gids are mapped alike. Pure.

    :raises InvalidRequest: when no range is large enough for one container.
    """
    common = [
        Range(start, end - start)
        for user_range in users
        for group_range in groups
        for start in [max(user_range.start, group_range.start)]
        for end in [min(user_range.start + user_range.size, group_range.start + group_range.size)]
        if end - start >= _CONTAINER_IDS
    ]
    if not common:
        raise InvalidRequest(
            f"--userns-remap: {name} has no {_CONTAINER_IDS} ids that are in both"
            f" {FILES[0]} and {FILES[1]}",
            hint=f"add a line such as {name}:1000000000:1000000000 to each",
        )
    return max(common, key=lambda candidate: candidate.size)


def read(name: str) -> Range:
    """Return the range of a user of the host, by name or uid.

    :raises InvalidRequest: when the user does not exist or has no usable range.
    """
    import pwd

    name = DEFAULT if name == "default" else name.partition(":")[0]
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise InvalidRequest(f"--userns-remap: this host has no user {name!r}") from None
    users, groups = (_ranges(path, entry.pw_name, entry.pw_uid) for path in FILES)
    return choose(users, groups, entry.pw_name)


def _ranges(path: str, name: str, uid: int) -> tuple[Range, ...]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return subids.ranges(file.read(1 << 20), name, uid)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidRequest(f"--userns-remap: {path}: {os.strerror(error.errno or 0)}") from None
