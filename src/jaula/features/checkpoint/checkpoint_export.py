"""Export a checkpoint as an archive, and import one.

An archive is accepted if this engine has written it (its MAC is right), or if its manifest is
signed by a key that the policy names for the image (:mod:`jaula.features.trust.signature_policy`).
That is decided from the first members of the stream. No other byte of it is used before.

The archive's author chooses the image that it names. So the policy also judges the image of the
container that gets the checkpoint, before it gets it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
from io import BufferedReader
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula import feature
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.threads import consume, in_thread, produce, shielded
from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.features.checkpoint import checkpoint_archive, clone_container
from jaula.features.checkpoint.checkpoint_archive import ArchiveReader, TreeReader
from jaula.features.checkpoint.checkpoint_store import (
    MANIFEST,
    check_name,
    checkpoint_store,
    decode,
)
from jaula.spec.api_params import ImportedCheckpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import BinaryIO

    from jaula.engine.containers.bounds import AuthorizeBody
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_store import CheckpointAddress, Manifest
    from jaula.features.checkpoint.checkpoints import Checkpoints
    from jaula.features.checkpoint.clone_container import Clones
    from jaula.features.trust.signature_policy import ImagePolicy, TrustRule
    from jaula.spec.api_documents import CheckpointClone


class TrustedCheckpoint(NamedTuple):
    """A manifest, and the rules one of whose keys has signed it.

    ``signers`` is None if this engine has written it: then the policy has nothing to decide.
    """

    manifest: Manifest
    signers: tuple[TrustRule, ...] | None


class CheckpointArchives:
    """Archives of the checkpoints of one engine."""

    def __init__(self, services: Services, checkpoints: Checkpoints, clones: Clones) -> None:
        self._services = services
        self._checkpoints = checkpoints
        self._clones = clones

    def _policy(self) -> ImagePolicy:
        """Return the image policy, which decides about checkpoints of other engines.

        :raises InvalidRequest: when the feature is not installed.
        """
        feature.require("trust", "a checkpoint of another engine")
        from jaula.features.trust.signature_policy import image_policy

        return self._services.service(image_policy)

    async def manifest(self, container: Container, name: str, directory: str = "") -> bytes:
        """Return the bytes of a manifest, which a client signs.

        :raises RuntimeFailure: when the checkpoint does not exist or was changed.
        """
        manifest = await self._checkpoints.open(container, name, directory, action="export")
        path = self._services.service(checkpoint_store).images(manifest).parent / MANIFEST
        return await in_thread(path.read_bytes)

    async def export(
        self, container: Container, name: str, directory: str, signature: bytes
    ) -> AsyncIterator[bytes]:
        """Return the archive of a checkpoint whose files were verified.

        :raises RuntimeFailure: when the checkpoint does not exist or was changed.
        """
        manifest = await self._checkpoints.open(container, name, directory, action="export")
        path = self._services.service(checkpoint_store).images(manifest).parent

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
        (:func:`jaula.features.checkpoint.clone_container.clone_request`).

        :raises NotAuthorized: when the archive is not trusted, or the caller may not have such a
            container.
        :raises InvalidRequest: when the archive is damaged.
        :raises Conflict: when the name, the checkpoint or a volume exists.
        """
        directory = self._services.service(
            checkpoint_store
        ).incoming()  # a cancelled thread would leave it
        try:
            checkpoint = await self._read(stream, directory)
            return await self._create(
                checkpoint,
                directory,
                options,
                owner=owner,
                authorize=authorize,
                authorize_existing=authorize_existing,
            )
        finally:
            await in_thread(shutil.rmtree, directory)

    async def _read(self, stream: AsyncIterator[bytes], directory: Path) -> TrustedCheckpoint:
        """Extract a trusted archive below a directory."""

        def work(file: BinaryIO, emit: Callable[[TrustedCheckpoint], None]) -> None:
            assert isinstance(file, BufferedReader)
            emit(self.extract(ArchiveReader(file), directory))

        checkpoints = [checkpoint async for checkpoint in consume(stream, work)]
        return checkpoints[0]

    def extract(self, reader: ArchiveReader | TreeReader, directory: Path) -> TrustedCheckpoint:
        """Extract a trusted archive below a directory. Blocks.

        The image of the container that gets it is not judged: see :meth:`check_image`. The reader
        is closed.

        :raises NotAuthorized: when the archive is not trusted.
        :raises InvalidRequest: when it is damaged.
        """
        try:
            checkpoint = self._trusted(reader)
            reader.extract(checkpoint.manifest, directory)
        finally:
            reader.close()
        return checkpoint

    def _trusted(self, reader: ArchiveReader | TreeReader) -> TrustedCheckpoint:
        """Return the manifest of an archive, and who has signed it.

        :raises NotAuthorized: when it is not trusted.
        """
        head = reader.head()
        if self._services.service(checkpoint_store).is_mac(head.manifest, head.mac):
            return TrustedCheckpoint(decode(head.manifest), None)
        policy = self._policy()
        signers = policy.checkpoint_signers(head.manifest, head.signature)
        manifest = decode(head.manifest)
        description = manifest.description
        policy.check_checkpoint(description.body.image if description else "", signers)
        return TrustedCheckpoint(manifest, signers)

    def check_image(self, signers: tuple[TrustRule, ...] | None, asked: str, id: str) -> None:
        """Check that the policy trusts a checkpoint for the image of the container that gets it.

        ``asked`` is the reference by which the container was created, or will be, and ``id`` its
        image.

        :raises NotAuthorized: when it does not.
        """
        if signers is None:
            return
        try:
            image = self._services.images.resolve(id)
        except (CorruptState, NotFound):
            image = None  # removed since the container was created: its reference decides
        self._policy().check_checkpoint(asked, signers, image)

    async def _create(
        self,
        checkpoint: TrustedCheckpoint,
        directory: Path,
        options: CheckpointClone,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
        authorize_existing: Callable[[str], object],
    ) -> ImportedCheckpoint:
        manifest, signers = checkpoint
        check_name(manifest.name)
        self._checkpoints.check_host(manifest)
        store = self._services.service(checkpoint_store)
        if not options.name and not options.network_mode:
            existing = self._services.container_store.get(manifest.container)
            if existing is not None:
                authorize_existing(existing.id)
                _check_same_image(manifest, existing)
                record = existing.record
                self.check_image(signers, record.body.image, record.image)
                await self._add(existing, manifest, directory)
                return ImportedCheckpoint(existing.id, manifest.name, created=False)
        description = clone_container.held_description(manifest)
        self.check_image(signers, self._clones.image(description), description.image_id)
        if options.name or options.network_mode:
            manifest, body = self._clones.request(manifest, options)
            name = options.name
        else:
            body, name = clone_container.import_request(description, {}), description.name
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

    async def _add(self, container: Container, manifest: Manifest, directory: Path) -> None:
        """Give a container that exists a checkpoint, as a whole or not at all.

        :raises NotFound: when the container was removed meanwhile.
        :raises InvalidRequest: when it has one of that name.
        """
        services, word = self._services, os.urandom(16).hex()
        store = services.service(checkpoint_store)
        link = functools.partial(store.link, transaction=word)
        async with container.lock:
            if container.id not in services.container_store:
                raise NotFound(f"No such container: {container.name}")
            try:
                await in_thread(link, manifest, directory)
            except asyncio.CancelledError:
                await shielded(in_thread(store.undo, container.id, manifest.name, word))
                raise

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


def _check_same_image(manifest: Manifest, container: Container) -> None:
    """Check that a checkpoint is of the image that its container has here.

    :raises InvalidRequest: when it is of another one.
    """
    description, image = manifest.description, container.record.image
    stated = {manifest.image, description.image_id if description is not None else manifest.image}
    if other := stated - {image}:
        raise InvalidRequest(
            f"the checkpoint is of the image {min(other)[:80]}, and container {container.name} has"
            f" the image {image}",
            hint="import it with --name, as a new container",
        )
