"""The user of a container's program, looked up in the container's own passwd and group files.

Follows passwd(5), group(5) and Docker for the grammar ``NAME|UID[:GROUP|GID]``. A number is always
an id; a number without an entry gets group 0 and home ``/``. Without a group, the groups that list
the user are added. Statement I8: the files belong to the container, so they are hostile. They are
opened inside its root, never through a link or as anything but a regular file, and read up to a
limit. A line that does not follow the grammar is skipped (where C would read 0, which is root).

A container of a pod has Kubernetes' rule instead (KEP-3619). With the policy Merge the groups that
list the user are added with a group as well, with Strict never.

The primary group is always among the additional ones, since a group that is only primary could be
dropped to evade a mode that denies the group (CVE-2022-2990).

A container that never ran has the files of its image. So the result for one image and user is the
same for all such containers, and is cached.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.userns import join
from jaula.errors import InvalidRequest, Unsupported
from jaula.kernel.openat2 import open_in_root
from jaula.state.container_records import ContainerRecord, UserFacts

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_CACHE_SIZE = 512  # users
_Key = tuple[str, str, tuple[str, ...], str]


class UserLookup:
    """Looks up users and groups, with a cache of bounded size."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._cache: OrderedDict[_Key, UserFacts] = OrderedDict()

    def of(self, record: ContainerRecord) -> UserFacts:
        """Return the user of a container that does not run.

        :raises InvalidRequest: when the user does not follow the grammar or is not in the files.
        """
        user, groups = record.body.user, record.body.host_config.group_add
        policy = record.pod.groups_policy if record.pod else DOCKER
        if record.started_at or any(m.destination.startswith("/etc") for m in record.mounts):
            return self._look(record, user, groups, policy)
        key = (record.image, user, groups, policy)
        user_facts = self._cache.get(key)
        if user_facts is None:
            user_facts = self._cache[key] = self._look(record, user, groups, policy)
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        return user_facts

    def inside(self, container: Container, user: str, groups: tuple[str, ...]) -> UserFacts:
        """Return the user in a running container.

        :raises InvalidRequest: when the user does not follow the grammar or is not in the files.
        """
        try:
            root = join.open_root(container)
        except Unsupported:  # the process of an external runtime is not in the container
            return self._look(container.record, user, groups, DOCKER)
        try:
            return _facts(resolve_user(root, user, groups))
        finally:
            os.close(root)

    def _look(
        self, record: ContainerRecord, user: str, groups: tuple[str, ...], policy: str
    ) -> UserFacts:
        from jaula.storage.drivers.storage_driver import open_root

        snapshots = self._services.snapshots
        source = snapshots.root(record.id) if record.started_at else snapshots.view(record.layers)
        with open_root(source) as root:
            return _facts(resolve_user(root, user, groups, policy))


def _facts(resolved: ResolvedUser) -> UserFacts:
    return UserFacts(resolved.uid, resolved.gid, tuple(resolved.additional_gids), resolved.home)


# -- passwd and group files ----------------------------------------------------------------------


MAX_BYTES = 1 << 20  # of one file
MAX_ID = (1 << 31) - 1
MAX_GROUPS = 65536
"""NGROUPS_MAX (linux/limits.h)."""

_NAME_LIMIT = 256  # characters
DOCKER, MERGE, STRICT = "", "Merge", "Strict"
"""Whether the groups that list the user are added: without a group, always, never."""


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


def resolve_user(
    root_fd: int, user: str, groups: Sequence[str] = (), policy: str = DOCKER
) -> ResolvedUser:
    """Look up a user below ``root_fd``; an empty ``user`` is root.

    :raises InvalidRequest: when the text does not follow the grammar or is not in the files, or a
        file is not regular or larger than 1 MiB.
    """
    name_or_id, _, group = user.partition(":")
    requested_uid, requested_gid = _number("user", name_or_id), _number("group", group)
    extra = [(text, _number("group", text)) for text in groups]
    if any(not text for text, _ in extra):
        raise InvalidRequest("an additional group is empty")

    entry = _find_entry(read_user_file(root_fd, "etc/passwd"), name_or_id, requested_uid)
    if entry is None and name_or_id and requested_uid is None:
        raise InvalidRequest(
            f"unable to find user {name_or_id}: no matching entries in passwd file"
        )
    uid = entry.uid if entry else requested_uid or 0
    gid = entry.gid if entry else 0
    name = entry.name if entry else ""

    additional: list[int] = []
    if group or name or extra:
        listed = list(parse_group(read_user_file(root_fd, "etc/group")))
        if group:
            gid = _gid(listed, group, requested_gid)
        if name and (policy == MERGE or (policy == DOCKER and not group)):
            additional += [row.gid for row in listed if name in row.members]
        additional += [_gid(listed, text, number) for text, number in extra]
    gids = tuple(dict.fromkeys([gid, *additional]))
    if len(gids) > MAX_GROUPS:
        raise InvalidRequest(f"user {name_or_id or 'root'} is in more than {MAX_GROUPS} groups")
    return ResolvedUser(uid, gid, gids, entry.home if entry else "/", name)


def _find_entry(text: str, name_or_id: str, number: int | None) -> PasswdEntry | None:
    uid = 0 if not name_or_id else number
    for entry in parse_passwd(text):
        if entry.uid == uid if uid is not None else entry.name == name_or_id:
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
    """Return the id that ``text`` is, or None for a name.

    :raises InvalidRequest: when it is neither.
    """
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
    """Yield the well-formed lines; others are skipped."""
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
    """Yield the well-formed lines; others are skipped."""
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
    """Return the text of a file of the container, '' if it does not exist.

    The path is opened with O_PATH first. The file is opened for reading only if it is regular, and
    through that descriptor: opening a device or a FIFO can already do harm.
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
