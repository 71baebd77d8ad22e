"""Export a checkpoint as an archive, and import one.

An archive is accepted if this engine has written it (its MAC is right), or if its manifest is
signed by a key that the policy names for the image (:mod:`jaula.images.trust.policy`). That is
decided from the first members of the stream. No other byte of it is used before.
"""

from __future__ import annotations

import shutil
from io import BufferedReader
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import clone
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.threads import consume, in_thread, produce
from jaula.errors import InvalidRequest
from jaula.spec.api_params import ImportedCheckpoint
from jaula.storage import checkpoint_archive
from jaula.storage.checkpoint_archive import ArchiveReader, TreeReader
from jaula.storage.checkpoints import MANIFEST, check_name, decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import BinaryIO

    from jaula.engine.containers.checkpoint import Checkpoints
    from jaula.engine.containers.clone import AuthorizeBody, Clones
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.spec.api import CheckpointClone
    from jaula.storage.checkpoints import CheckpointAddress, Manifest


class CheckpointArchives:
    """Archives of the checkpoints of one engine."""

    def __init__(self, services: Services, checkpoints: Checkpoints, clones: Clones) -> None:
        self._services = services
        self._checkpoints = checkpoints
        self._clones = clones

    async def manifest(self, container: Container, name: str, directory: str = "") -> bytes:
        """Return the bytes of a manifest, which a client signs.

        :raises RuntimeFailure: when the checkpoint does not exist or was changed.
        """
        manifest = await self._checkpoints.open(container, name, directory, action="export")
        path = self._services.checkpoints.images(manifest).parent / MANIFEST
        return await in_thread(path.read_bytes)

    async def export(
        self, container: Container, name: str, directory: str, signature: bytes
    ) -> AsyncIterator[bytes]:
        """Return the archive of a checkpoint whose files were verified.

        :raises RuntimeFailure: when the checkpoint does not exist or was changed.
        """
        manifest = await self._checkpoints.open(container, name, directory, action="export")
        path = self._services.checkpoints.images(manifest).parent

        def work(emit: Callable[[bytes], None]) -> None:
            checkpoint_archive.write(
                path, manifest, lambda data: emit(bytes(data)), signature=signature
            )

        return produce(work)

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        options: CheckpointClone,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
        authorize_existing: Callable[[str], object],
    ) -> ImportedCheckpoint:
        """Read an archive; create its container, unless it exists here, and the checkpoint.

        With a name or a network in the options, the container is always a new one
        (:func:`jaula.engine.containers.clone.clone_request`).

        :raises NotAuthorized: when the archive is not trusted, or the caller may not have such a
            container.
        :raises InvalidRequest: when the archive is damaged.
        :raises Conflict: when the name, the checkpoint or a volume exists.
        """
        directory = await in_thread(self._services.checkpoints.incoming)
        try:
            manifest = await self._read(stream, directory)
            return await self._create(
                manifest,
                directory,
                options,
                owner=owner,
                authorize=authorize,
                authorize_existing=authorize_existing,
            )
        finally:
            await in_thread(shutil.rmtree, directory)

    async def _read(self, stream: AsyncIterator[bytes], directory: Path) -> Manifest:
        """Extract a trusted archive below a directory and return its manifest."""

        def work(file: BinaryIO, emit: Callable[[Manifest], None]) -> None:
            assert isinstance(file, BufferedReader)
            emit(self.extract(ArchiveReader(file), directory))

        manifests = [manifest async for manifest in consume(stream, work)]
        return manifests[0]

    def extract(self, reader: ArchiveReader | TreeReader, directory: Path) -> Manifest:
        """Extract a trusted archive below a directory and return its manifest. Blocks.

        The reader is closed.

        :raises NotAuthorized: when the archive is not trusted.
        :raises InvalidRequest: when it is damaged.
        """
        try:
            manifest = self._trusted(reader)
            reader.extract(manifest, directory)
        finally:
            reader.close()
        return manifest

    def _trusted(self, reader: ArchiveReader | TreeReader) -> Manifest:
        """Return the manifest of an archive.

        :raises NotAuthorized: when it is not trusted.
        """
        head = reader.head()
        if self._services.checkpoints.is_mac(head.manifest, head.mac):
            return decode(head.manifest)
        policy = self._services.image_policy
        signers = policy.checkpoint_signers(head.manifest, head.signature)
        manifest = decode(head.manifest)
        description = manifest.description
        policy.check_checkpoint(description.body.image if description else "", signers)
        return manifest

    async def _create(
        self,
        manifest: Manifest,
        directory: Path,
        options: CheckpointClone,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
        authorize_existing: Callable[[str], object],
    ) -> ImportedCheckpoint:
        check_name(manifest.name)
        self._checkpoints.check_host(manifest)
        store = self._services.checkpoints
        if not options.name and not options.network_mode:
            existing = self._services.container_store.get(manifest.container)
            if existing is not None:
                authorize_existing(existing.id)
                async with existing.lock:
                    await in_thread(store.link, manifest, directory)
                return ImportedCheckpoint(existing.id, manifest.name, created=False)
        description = clone.held_description(manifest)
        if options.name or options.network_mode:
            manifest, body = self._clones.request(manifest, options)
            name = options.name
        else:
            body, name = clone.import_request(description, {}), description.name
            manifest = self._with_local_addresses(manifest)
        created = await self._clones.create(
            manifest,
            body,
            name,
            owner=owner,
            authorize=authorize,
            adopt=lambda adopted: store.link(adopted, directory),
        )
        return ImportedCheckpoint(created.id, manifest.name, True, created.warnings)

    def _with_local_addresses(self, manifest: Manifest) -> Manifest:
        """Return the manifest without addresses that no network of this engine has.

        :raises InvalidRequest: when connections need one of them.
        """
        kept = tuple(each for each in manifest.addresses if self._has_subnet(each))
        if manifest.tcp_established and kept != manifest.addresses:
            missing = next(each for each in manifest.addresses if each not in kept)
            raise InvalidRequest(
                f"the connections of checkpoint {manifest.name} need the address {missing.ipv4} on"
                f" network {missing.network}, and that network has another subnet here",
                hint="create the network with that subnet, or the checkpoint with --tcp-close",
            )
        return msgspec.structs.replace(manifest, addresses=kept)

    def _has_subnet(self, address: CheckpointAddress) -> bool:
        known = address.network == DEFAULT or self._services.network_store.get(address.network)
        if not known or not address.ipv4:
            return False
        subnet = self._services.network_manager.ensure(address.network).subnet
        return ip_address(address.ipv4) in subnet
