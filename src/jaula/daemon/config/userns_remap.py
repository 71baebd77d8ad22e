"""``--userns-remap``: ids of containers' users, as subuid(5) and subgid(5) give them to somebody.

Source: docker docs, "Isolate containers with a user namespace". ``default`` means ``dockremap``
there; here it means ``jaula``. With Docker all containers share what they get by this; here each
one has a part of it of its own.
"""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest
from jaula.rootless import subids
from jaula.rootless.subids import Range

DEFAULT = "jaula"
FILES = ("/etc/subuid", "/etc/subgid")
_PART = 65536  # ids of one container


def choose(users: tuple[Range, ...], groups: tuple[Range, ...], name: str) -> Range:
    """The largest range of ids that both have, for containers' users and groups are alike. Pure.

    Raises ``InvalidRequest`` where not even one container has room.
    """
    common = [
        Range(start, end - start)
        for one in users
        for two in groups
        for start in [max(one.start, two.start)]
        for end in [min(one.start + one.size, two.start + two.size)]
        if end - start >= _PART
    ]
    if not common:
        raise InvalidRequest(
            f"--userns-remap: {name} has no {_PART} ids that {FILES[0]} and {FILES[1]} both give",
            hint=f"a line such as {name}:1000000000:1000000000 in each",
        )
    return max(common, key=lambda found: found.size)


def read(name: str) -> Range:
    """The range of a user of the host, by name or id. Raises ``InvalidRequest``."""
    import pwd

    name = DEFAULT if name == "default" else name.partition(":")[0]
    try:
        known = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise InvalidRequest(f"--userns-remap: this host has no user {name!r}") from None
    users, groups = (_ranges(path, known.pw_name, known.pw_uid) for path in FILES)
    return choose(users, groups, known.pw_name)


def _ranges(path: str, name: str, uid: int) -> tuple[Range, ...]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return subids.ranges(file.read(1 << 20), name, uid)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidRequest(f"--userns-remap: {path}: {os.strerror(error.errno or 0)}") from None
