"""Who a container's program runs as: looked up in the container's own files, remembered.

A container that never ran has the files of its image, so the answer for one image and user is the
same for all of them and needs no look into a file system. Statement I8 is kept by
:mod:`jaula.engine.containers.user_lookup`.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.oci_spec.inputs import UserFacts
from jaula.engine.userns import join
from jaula.errors import InvalidRequest
from jaula.kernel.paths import open_in_root
from jaula.state.records import ContainerRecord

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_REMEMBERED = 512


class UserLookup:
    """Look-ups of users and groups, with a memory of bounded size."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._known: OrderedDict[tuple[str, str, tuple[str, ...]], UserFacts] = OrderedDict()

    def of(self, record: ContainerRecord) -> UserFacts:
        """The user of a container that does not run now.

        :raises InvalidRequest: not of the grammar, or not in the container's files.
        """
        user, groups = record.body.user, record.body.host_config.group_add
        if record.started_at or any(m.destination.startswith("/etc") for m in record.mounts):
            return self._look(record, user, groups)
        key = (record.image, user, groups)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._look(record, user, groups)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def inside(self, container: Container, user: str, groups: tuple[str, ...]) -> UserFacts:
        """The user as a running container knows it."""
        root = join.open_root(container)
        try:
            return _facts(resolve_user(root, user, groups))
        finally:
            os.close(root)

    def _look(self, record: ContainerRecord, user: str, groups: tuple[str, ...]) -> UserFacts:
        from jaula.storage.drivers.driver import open_root

        snapshots = self._parts.snapshots
        source = snapshots.root(record.id) if record.started_at else snapshots.view(record.layers)
        with open_root(source) as root:
            return _facts(resolve_user(root, user, groups))


def _facts(found: ResolvedUser) -> UserFacts:
    return UserFacts(found.uid, found.gid, tuple(found.additional_gids), found.home)


MAX_BYTES = 1 << 20
MAX_ID = (1 << 31) - 1
MAX_GROUPS = 65536
"""NGROUPS_MAX (linux/limits.h)."""

_NAME_LIMIT = 256


class ResolvedUser(msgspec.Struct, frozen=True):
    """Ids as they are inside the container."""

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


def resolve_user(root_fd: int, user: str, groups: Sequence[str] = ()) -> ResolvedUser:
    """Look a user up below ``root_fd``; an empty ``user`` is root.

    Raises ``InvalidRequest`` for what is not of the grammar or not in the files, and for files
    that are not regular or larger than 1 MiB.
    """
    who, _, group = user.partition(":")
    wanted_uid, wanted_gid = _number("user", who), _number("group", group)
    extra = [(text, _number("group", text)) for text in groups]
    if any(not text for text, _ in extra):
        raise InvalidRequest("an additional group is empty")

    entry = _find_entry(read_user_file(root_fd, "etc/passwd"), who, wanted_uid)
    if entry is None and who and wanted_uid is None:
        raise InvalidRequest(f"unable to find user {who}: no matching entries in passwd file")
    uid = entry.uid if entry else wanted_uid or 0
    gid = entry.gid if entry else 0
    name = entry.name if entry else ""

    additional: list[int] = []
    if group or name or extra:
        listed = list(parse_group(read_user_file(root_fd, "etc/group")))
        if group:
            gid = _gid(listed, group, wanted_gid)
        elif name:
            additional += [row.gid for row in listed if name in row.members]
        additional += [_gid(listed, text, number) for text, number in extra]
    gids = tuple(dict.fromkeys([gid, *additional]))
    if len(gids) > MAX_GROUPS:
        raise InvalidRequest(f"user {who or 'root'} is in more than {MAX_GROUPS} groups")
    return ResolvedUser(uid, gid, gids, entry.home if entry else "/", name)


def _find_entry(text: str, who: str, number: int | None) -> PasswdEntry | None:
    uid = 0 if not who else number
    for entry in parse_passwd(text):
        if entry.uid == uid if uid is not None else entry.name == who:
            return entry
    return None


def _gid(listed: Sequence[GroupEntry], text: str, number: int | None) -> int:
    if number is not None:
        return number
    for row in listed:
        if row.name == text:
            return row.gid
    raise InvalidRequest(f"unable to find group {text}: no matching entries in group file")


def _number(what: str, text: str) -> int | None:
    """The id that ``text`` is, or None for a name; raises ``InvalidRequest`` for neither."""
    if text.isascii() and text.isdigit():
        if len(text) > 10 or int(text) > MAX_ID:
            raise InvalidRequest(
                f"invalid {what} {text[:32]}: uids and gids must be in range 0-{MAX_ID}"
            )
        return int(text)
    if text[:1] in ("-", "+"):
        raise InvalidRequest(
            f"invalid {what} {text[:32]}: a {what} is a name or a number without a sign"
        )
    if len(text) > _NAME_LIMIT or any(c in ":,/" or not c.isprintable() or c == " " for c in text):
        raise InvalidRequest(
            f"invalid {what} {text[:64]!r}: not a name or a number", hint="NAME|UID[:GROUP|GID]"
        )
    return None


def parse_passwd(text: str) -> Iterator[PasswdEntry]:
    """Well-formed lines; others are passed over."""
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
    """Well-formed lines; others are passed over."""
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


def read_user_file(root_fd: int, path: str) -> str:
    """A file of the container's, or nothing where there is none.

    It is found first and opened only once it is known to be a regular file, through the
    descriptor that was looked at: opening a device or a FIFO can already do harm.
    """
    try:
        found = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InvalidRequest(f"/{path} of the container cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise InvalidRequest(f"/{path} of the container is not a regular file")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    data = bytearray()
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
            if len(data) > MAX_BYTES:
                raise InvalidRequest(f"/{path} of the container is larger than {MAX_BYTES} bytes")
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape")
