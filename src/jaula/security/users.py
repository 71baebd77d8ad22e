"""Resolve ``--user`` and ``--group-add`` in a container's passwd and group files.

Follows passwd(5), group(5) and Docker for the grammar ``NAME|UID[:GROUP|GID]``. A number is always
an id. A number without an entry gets group 0 and home ``/``. Without a group, the groups that list
the user are added.

Statement I8: the files belong to the container, so they are hostile. They are opened inside its
root, never through a symbolic link, and only if they are regular files. They are read up to a
limit. A malformed line is skipped (C would parse it as 0, which is root).

The primary group is always one of the additional groups. Otherwise a process could drop it to evade
a mode that denies access to the group (CVE-2022-2990).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel.paths import open_in_root

MAX_BYTES = 1 << 20
MAX_ID = (1 << 31) - 1
MAX_GROUPS = 65536
"""NGROUPS_MAX (linux/limits.h)."""

_NAME_LIMIT = 256


class ResolvedUser(msgspec.Struct, frozen=True):
    """A user with ids inside the container."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


class PasswdEntry(msgspec.Struct, frozen=True):
    """A line of passwd."""

    name: str
    uid: int
    gid: int
    home: str


class GroupEntry(msgspec.Struct, frozen=True):
    """A line of group."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve(root_fd: int, user: str, groups: Sequence[str] = ()) -> ResolvedUser:
    """Look up a user below ``root_fd``. An empty ``user`` is root.

    :raises InvalidRequest: when a name is malformed or has no entry, or a file is not regular or
        is larger than 1 MiB.
    """
    name_or_uid, _, group = user.partition(":")
    uid_number, gid_number = _number("user", name_or_uid), _number("group", group)
    additional_groups = [(text, _number("group", text)) for text in groups]
    if any(not text for text, _ in additional_groups):
        raise InvalidRequest("an additional group is empty")

    entry = _find_entry(read_file(root_fd, "etc/passwd"), name_or_uid, uid_number)
    if entry is None and name_or_uid and uid_number is None:
        raise InvalidRequest(
            f"unable to find user {name_or_uid}: no matching entries in passwd file"
        )
    uid = entry.uid if entry else uid_number or 0
    gid = entry.gid if entry else 0
    name = entry.name if entry else ""

    additional: list[int] = []
    if group or name or additional_groups:
        entries = list(parse_group(read_file(root_fd, "etc/group")))
        if group:
            gid = _gid(entries, group, gid_number)
        elif name:
            additional += [row.gid for row in entries if name in row.members]
        additional += [_gid(entries, text, number) for text, number in additional_groups]
    gids = tuple(dict.fromkeys([gid, *additional]))
    if len(gids) > MAX_GROUPS:
        raise InvalidRequest(f"user {name_or_uid or 'root'} is in more than {MAX_GROUPS} groups")
    return ResolvedUser(uid, gid, gids, entry.home if entry else "/", name)


def _find_entry(text: str, name_or_uid: str, number: int | None) -> PasswdEntry | None:
    uid = 0 if not name_or_uid else number
    for entry in parse_passwd(text):
        if entry.uid == uid if uid is not None else entry.name == name_or_uid:
            return entry
    return None


def _gid(entries: Sequence[GroupEntry], text: str, number: int | None) -> int:
    if number is not None:
        return number
    for row in entries:
        if row.name == text:
            return row.gid
    raise InvalidRequest(f"unable to find group {text}: no matching entries in group file")


def _number(kind: str, text: str) -> int | None:
    """Parse an id. Return None for a name.

    :raises InvalidRequest: when ``text`` is neither.
    """
    if text.isascii() and text.isdigit():
        if len(text) > 10 or int(text) > MAX_ID:
            raise InvalidRequest(
                f"invalid {kind} {text[:32]}: uids and gids must be in range 0-{MAX_ID}"
            )
        return int(text)
    if text[:1] in ("-", "+"):
        raise InvalidRequest(
            f"invalid {kind} {text[:32]}: a {kind} is a name or a number without a sign"
        )
    if len(text) > _NAME_LIMIT or any(c in ":,/" or not c.isprintable() or c == " " for c in text):
        raise InvalidRequest(
            f"invalid {kind} {text[:64]!r}: not a name or a number", hint="NAME|UID[:GROUP|GID]"
        )
    return None


def parse_passwd(text: str) -> Iterator[PasswdEntry]:
    """Yield the entries of /etc/passwd. Malformed lines are skipped."""
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 6 or not fields[0] or line.startswith("#"):
            continue
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is None or gid is None:
            continue
        home = fields[5]
        if not home.startswith("/") or not home.isprintable():
            home = "/"
        yield PasswdEntry(fields[0], uid, gid, home)


def parse_group(text: str) -> Iterator[GroupEntry]:
    """Yield the entries of /etc/group. Malformed lines are skipped."""
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 4 or not fields[0] or line.startswith("#"):
            continue
        if (gid := _id(fields[2])) is not None:
            members = tuple(name for name in fields[3].strip().split(",") if name)
            yield GroupEntry(fields[0], gid, members)


def _id(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MAX_ID:
        return None
    return int(text)


def read_file(root_fd: int, path: str) -> str:
    """Return the content of a container's file, '' if it does not exist.

    The path is resolved to an ``O_PATH`` descriptor first. It is opened through that descriptor
    only if it is a regular file, because opening a device or a FIFO can have side effects.

    :raises InvalidRequest: when it is not a regular file or is larger than 1 MiB.
    """
    try:
        path_fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InvalidRequest(f"/{path} of the container cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(path_fd).st_mode):
            raise InvalidRequest(f"/{path} of the container is not a regular file")
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(path_fd)
    data = bytearray()
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
            if len(data) > MAX_BYTES:
                raise InvalidRequest(f"/{path} of the container is larger than {MAX_BYTES} bytes")
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape")
