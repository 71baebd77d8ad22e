"""All containers by id, name and id prefix; new ids and names.

A look-up by id or name costs the same with ten and with ten thousand containers. The store decides
which names are in use: a name that is reserved during a create cannot be taken twice.

The grammar of names is Docker's (``[a-zA-Z0-9][a-zA-Z0-9_.-]+``). Generated names consist of an
adjective and an animal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import msgspec

from jaula.caller_quota import OwnedSizes
from jaula.engine.model.container import Container
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound
from jaula.security.lsm.selinux_mcs import choose, level, pair
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.pod import PodMetadata
from jaula.state.container_records import ContainerRecord, ResolvedRequest, stored
from jaula.state.database import Database

TABLE = "containers"


class ContainerStore:
    """The containers of one engine, kept in step with the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, Container] = {}
        self.names: dict[str, str] = {}
        self._steps: dict[str, Container] = {}
        self._levels: dict[str, tuple[int, int]] = {}
        self._members: dict[str, dict[str, Container]] = {}  # by sandbox, then by id
        self.sizes = OwnedSizes()  # of the records as they are stored, without build steps

    def load(self, resolve: Callable[[ContainerCreate], ResolvedRequest]) -> None:
        """Read every record.

        A record of an engine that did not store resolved requests gets one from ``resolve``, and is
        written at once. The database cannot do that in its own migrations, since they are below the
        engine. The body of such a record is complete, with ids for other containers.

        :raises CorruptState: when a record cannot be read, or its request cannot be resolved.
        """
        sizes = self._database.sizes(TABLE)
        for _, record in self._database.all(TABLE, ContainerRecord):
            if record.resolved_request is None:
                record = _migrated(record, resolve)
                sizes[record.id] = self._database.put(TABLE, record.id, stored(record))
            record = _without_copied_log(record)
            if record.build:
                self._steps[record.id] = Container(record)
                continue
            self._insert(Container(record))
            self.sizes.set(record.id, record.owner, sizes[record.id])
            self.names[record.name] = record.id
            if (categories := pair(record.level)) is not None:
                self._levels[record.id] = categories

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._by_id

    def layers(self) -> frozenset[str]:
        """Return the diff ids of the layers of all containers. Safe in any thread."""
        containers = (*tuple(self._by_id.values()), *tuple(self._steps.values()))
        return frozenset(layer for c in containers for layer in c.record.all_layers)

    def mounted_stacks(self) -> frozenset[tuple[str, ...]]:
        """Return the layers of each image that is mounted in a container. Safe in any thread."""
        return frozenset(
            mount.layers
            for container in tuple(self._by_id.values())
            for mount in container.record.mounts
            if mount.layers
        )

    def users_of(self, layer: str) -> list[str]:
        """Return the names of the running containers with a layer. Safe in any thread."""
        containers = (*tuple(self._by_id.values()), *tuple(self._steps.values()))
        return [c.name for c in containers if c.live and layer in c.record.all_layers]

    def get(self, container_id: str) -> Container | None:
        """Return the container with a full id, or None."""
        return self._by_id.get(container_id)

    def pod_of(self, record: ContainerRecord) -> PodMetadata | None:
        """Return the identity of the pod of a container; None without one, or without a sandbox."""
        sandbox = record if record.pod is None else None
        if record.pod is not None and (container := self.get(record.pod.sandbox)) is not None:
            sandbox = container.record
        if sandbox is None or sandbox.sandbox is None:
            return None
        return sandbox.sandbox.request.metadata

    def members(self, sandbox_id: str) -> list[Container]:
        """Return the containers of a pod without its sandbox."""
        return list(self._members.get(sandbox_id, {}).values())

    def find(self, ref: str) -> Container:
        """Return the container for ``ref`` (name, id or unique id prefix).

        :raises NotFound: when there is none.
        :raises InvalidRequest: when it is empty, or several ids have the prefix.
        """
        if not ref:
            raise InvalidRequest('invalid name or ID supplied: ""')
        plain = ref.removeprefix("/")
        container = self._by_id.get(plain) or self._by_id.get(self.names.get(plain, ""))
        if container is not None:
            return container
        if plain and not plain.strip("0123456789abcdef"):
            matches = [c for key, c in self._by_id.items() if key.startswith(plain)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidRequest(f"multiple IDs found with provided prefix: {plain}")
        raise NotFound(f"No such container: {ref}")

    def reserve(self, name: str, container_id: str) -> None:
        """Reserve a name for a container.

        :raises Conflict: when another container has it.
        """
        self.check_free(name)
        self.names[name] = container_id

    def check_free(self, name: str) -> None:
        """Check that no container has a name.

        :raises Conflict: when one has.
        """
        owner = self.names.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container'
                f' "{owner}". You have to remove (or rename) that container to be able to reuse'
                " that name."
            )

    def release(self, name: str, container_id: str) -> None:
        """Release a name, if it is this container's."""
        if self.names.get(name) == container_id:
            del self.names[name]

    def take_level(self, container_id: str, *, requested: str = "") -> str:
        """Reserve an SELinux level for a container until :meth:`free_level`.

        ``requested`` is a level that the request names. No other container gets it.

        :raises Unavailable: when all levels are in use.
        """
        categories = pair(requested) if requested else choose(set(self._levels.values()))
        if categories is None:
            return requested
        self._levels[container_id] = categories
        return requested or level(*categories)

    def free_level(self, container_id: str) -> None:
        """Release a container's level."""
        self._levels.pop(container_id, None)

    def add(self, container: Container) -> None:
        """Write a new container, whose name was reserved."""
        self.save(container)
        self._insert(container)

    def _insert(self, container: Container) -> None:
        self._by_id[container.id] = container
        if (pod := container.record.pod) is not None:
            self._members.setdefault(pod.sandbox, {})[container.id] = container

    def add_step(self, container: Container) -> None:
        """Write a build step: no list shows it, and the next engine kills it."""
        self.save(container)
        self._steps[container.id] = container

    def steps(self) -> tuple[Container, ...]:
        """Return all build steps."""
        return tuple(self._steps.values())

    def save(self, container: Container) -> None:
        """Write the record in one transaction."""
        record = container.record
        written = stored(record)
        size = self._database.put(TABLE, container.id, written, durable=not record.is_transient)
        if not record.build:
            self.sizes.set(container.id, record.owner, size)

    def forget(self, container: Container) -> None:
        """Remove the record and release the name."""
        durable = not container.record.is_transient
        self._database.delete(TABLE, container.id, durable=durable)
        self._by_id.pop(container.id, None)
        self._steps.pop(container.id, None)
        self.sizes.drop(container.id)
        if (pod := container.record.pod) is not None:
            members = self._members.get(pod.sandbox, {})
            members.pop(container.id, None)
            if not members:
                self._members.pop(pod.sandbox, None)
        self.free_level(container.id)
        self.release(container.name, container.id)


def _without_copied_log(record: ContainerRecord) -> ContainerRecord:
    """Return a record whose resolved request has a log only if that is not the body's."""
    if record.resolved.log != record.host_config.log_config:
        return record
    resolved = msgspec.structs.replace(record.resolved, log=None)
    return msgspec.structs.replace(record, resolved_request=resolved)


def _migrated(
    record: ContainerRecord, resolve: Callable[[ContainerCreate], ResolvedRequest]
) -> ContainerRecord:
    try:
        return msgspec.structs.replace(record, resolved_request=resolve(record.body))
    except InvalidRequest as error:
        raise CorruptState(
            f"the request of container {record.name} cannot be resolved: {error.message}",
            hint="remove the container with the engine that created it",
        ) from error


# -- names and ids -------------------------------------------------------------------------------


_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)


def check_name(name: str) -> str:
    """Return the name without the slash that old clients put before it.

    :raises InvalidRequest: when it does not follow the grammar.
    """
    plain = name.removeprefix("/")
    if not _NAME.fullmatch(plain) or len(plain) > 255:
        raise InvalidRequest(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="a name has two characters or more" if len(plain) == 1 else None,
        )
    return plain


def new_id() -> str:
    """Return 64 hexadecimal digits, whose short form (12) is not a decimal number.

    As Docker learned, tools mistake a short id that looks like a number for one.
    """
    while True:
        value = os.urandom(32).hex()
        if not value[:12].isdecimal():
            return value


def short(container_id: str) -> str:
    """Return the short form of an id."""
    return container_id[:12]
