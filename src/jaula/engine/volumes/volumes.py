"""The use cases of volumes: the routes of ``/volumes/...``."""

from __future__ import annotations

import re
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from jaula.engine.model.label_filters import Filters, check_names, has_labels, truth
from jaula.engine.threads import TrackedStream, consume, in_thread
from jaula.engine.volumes.mount_sources import parse_driver_options
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.request_context import check_client
from jaula.spec.api_documents import VolumeCreate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import BinaryIO

    from jaula.engine.model.services import Services
    from jaula.storage.volume_directories import Volume

Document = dict[str, Any]
Labels = dict[str, str]
_ANONYMOUS = "com.docker.volume.anonymous"
_TRANSACTION = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Volumes:
    """All volumes of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(
        self, body: VolumeCreate, owner: str = "", *, transaction: str = ""
    ) -> Document:
        """Create a volume of ``owner``, the client, or return the one of that name.

        ``transaction`` is a word of the client, with which it removes only what it has created.

        :raises NotFound: when the driver is not ``local``.
        :raises InvalidRequest: when a driver option or the word is not valid.
        """
        if transaction and not _TRANSACTION.fullmatch(transaction):
            raise InvalidRequest("transaction: must be 32 hexadecimal digits")
        if body.driver not in ("", "local"):
            raise NotFound(f"plugin {body.driver!r} not found: the only driver is local")
        parse_driver_options(body.driver_opts)
        labels = dict(body.labels)
        if not body.name:
            labels[_ANONYMOUS] = ""
        volume, is_new = await in_thread(
            self._services.volumes.create,
            body.name,
            labels,
            body.driver_opts,
            owner,
            transaction,
        )
        if is_new:
            self._services.events.emit("volume", "create", volume.name, {"driver": "local"})
        else:
            try:
                await self._services.volume_references.claim(volume.name, transaction)
            except NotFound:  # its transaction has just removed it
                return await self.create(body, owner, transaction=transaction)
        return _document(volume)

    async def import_(
        self,
        name: str,
        labels: Labels,
        created_at: str,
        stream: AsyncIterator[bytes],
        owner: str = "",
    ) -> Document:
        """Create a volume of ``owner`` with the files of a tar archive, completely or not at all.

        Owners in the archive are ids inside containers. The first entry may be the directory.
        ``created_at`` is RFC 3339, '' for now.

        :raises Conflict: when the name is in use.
        :raises InvalidRequest: when the name or the archive is not valid.
        """
        tracked = TrackedStream(stream)

        def work(file: BinaryIO, emit: Callable[[Volume], None]) -> None:
            assert isinstance(file, BufferedReader)
            store = self._services.volumes
            volume = store.import_(
                name,
                labels,
                file,
                check=lambda: tracked.read_end(file),
                created_at=created_at,
                owner=owner,
            )
            emit(volume)

        created = [each async for each in consume(aiter(tracked), work)]
        volume = created[0]
        self._services.events.emit("volume", "create", volume.name, {"driver": "local"})
        return _document(volume)

    async def list(self, filters: Filters) -> Document:
        """Return the volumes that pass ``name``, ``label``, ``driver`` and ``dangling``."""
        return await in_thread(self.read_list, filters)

    def read_list(self, filters: Filters) -> Document:
        """Read the document of every volume, and return those of :meth:`list`. Runs in a thread.

        :raises ClientGone: when the client of the request left meanwhile.
        """
        selected = self._select(filters)
        return {"Volumes": [_document(volume) for volume in selected], "Warnings": None}

    def _select(self, filters: Filters, *, unused: bool = False) -> tuple[Volume, ...]:
        _check(filters)
        used = self._services.volume_references.users()
        return tuple(
            volume
            for volume in self._services.volumes.read_all(check_client)
            if not (unused and volume.name in used)
            and all(_fits(volume, key, values, used) for key, values in filters.items())
        )

    def inspect(self, name: str) -> Document:
        """Return one volume.

        :raises NotFound: when there is no such volume.
        """
        return _document(self._services.volumes.get(name))

    def find(self, name: str) -> Volume | None:
        """Return the volume of a name, None if there is none."""
        try:
            return self._services.volumes.get(name)
        except NotFound:
            return None

    async def remove(
        self,
        name: str,
        *,
        force: bool,
        transaction: str | None = None,
        id: str | None = None,
    ) -> None:
        """Remove a volume.

        With ``transaction`` only if that has created it, with ``id`` only that volume: another
        client may have its name now.

        :raises Conflict: when a container has it.
        :raises NotFound: when there is no such volume, unless ``force`` is set.
        """
        try:
            await self._services.volume_references.remove(name, transaction=transaction, id=id)
        except NotFound:
            if not force:
                raise
            return
        self._services.events.emit("volume", "destroy", name, {"driver": "local"})

    async def prune(
        self, filters: Filters, selects: Callable[[Volume], bool] = lambda _: True
    ) -> Document:
        """Remove unused volumes that ``selects`` accepts: anonymous ones, with ``all`` each one.

        A volume that a container takes, or that another client removes meanwhile, is left out.

        :raises ClientGone: when the client of the request left meanwhile. The rest stays, as with
            Docker.
        """
        all_volumes = "all" in filters and truth("all", filters["all"])
        selectors = {key: values for key, values in filters.items() if key != "all"}
        selected = await in_thread(self._select, selectors, unused=True)
        removed, freed = [], 0
        for volume in selected:
            if not (all_volumes or _ANONYMOUS in volume.labels) or not selects(volume):
                continue
            check_client()
            try:
                size = await in_thread(self._services.volumes.usage, volume.name, check_client)
                await self.remove(volume.name, force=False, id=volume.id)
            except (Conflict, NotFound, FileNotFoundError):
                continue
            freed += max(0, size)
            removed.append(volume.name)
        self._services.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return {"VolumesDeleted": removed, "SpaceReclaimed": freed}


def _document(volume: Volume) -> Document:
    return {
        "CreatedAt": volume.created_at.replace("+00:00", "Z"),  # as Go writes UTC
        "Driver": "local",
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
        "Owner": volume.owner,
        "Id": volume.id,
    }


def _fits(volume: Volume, key: str, values: list[str], used: dict[str, list[str]]) -> bool:
    match key:
        case "name":
            return any(value in volume.name for value in values)
        case "driver":
            return "local" in values
        case "dangling":
            return truth(key, values) == (volume.name not in used)
        case "label" | "label!":
            return has_labels(volume.labels, values) == (key == "label")
    raise AssertionError(key)  # _check refused it


def _check(filters: Filters) -> None:
    check_names(filters, ("name", "driver", "dangling", "label", "label!"))
    if "dangling" in filters:
        truth("dangling", filters["dangling"])
