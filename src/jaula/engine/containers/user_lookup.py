"""Who a container's program runs as: looked up in the container's own files, remembered.

A container that never ran has the files of its image, so the answer for one image and user is the
same for all of them and needs no look into a file system. Statement I8 is kept by
:mod:`jaula.security.users`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from jaula.engine.oci_spec.inputs import UserFacts
from jaula.engine.userns import join
from jaula.security import users
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
            return _facts(users.resolve_user(root, user, groups))
        finally:
            os.close(root)

    def _look(self, record: ContainerRecord, user: str, groups: tuple[str, ...]) -> UserFacts:
        from jaula.storage.drivers.driver import open_root

        snapshots = self._parts.snapshots
        source = snapshots.root(record.id) if record.started_at else snapshots.view(record.layers)
        with open_root(source) as root:
            return _facts(users.resolve_user(root, user, groups))


def _facts(found: users.ResolvedUser) -> UserFacts:
    return UserFacts(found.uid, found.gid, tuple(found.additional_gids), found.home)
