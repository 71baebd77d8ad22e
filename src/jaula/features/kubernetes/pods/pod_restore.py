"""Containers of pods that go on from a checkpoint.

CRI has no call for it. CRI-O and containerd take the path of an archive as the image of
CreateContainer, or an image whose manifest has an annotation and whose only layer has the members
of the archive; StartContainer restores it. Here a label of the image will do as well. The archive
names the image that the container is created from; everything else is the client's request. So the
container is confined as this request says, and CRIU is not run if the images are of another
confinement.

An archive is trusted as in an import (:mod:`jaula.features.checkpoint.checkpoint_export`).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula.engine.containers import shm
from jaula.engine.threads import in_own_thread, in_thread, shielded
from jaula.errors import CorruptState, InvalidRequest, JaulaError, NotFound, resource_error
from jaula.features.checkpoint.checkpoint_archive import ArchiveReader, TreeReader
from jaula.features.checkpoint.checkpoint_store import SHM_TAR, checkpoint_store
from jaula.features.checkpoint.clone_container import held_description
from jaula.storage import checkpoint_files
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_export import CheckpointArchives, TrustedCheckpoint
    from jaula.features.checkpoint.checkpoint_store import (
        CheckpointStore,
        ContainerDescription,
        Manifest,
    )
    from jaula.features.trust.signature_policy import TrustRule
    from jaula.state.container_records import ContainerRecord

NAME = "restored"
"""The name of the checkpoint from which a container is started."""

ANNOTATIONS = frozenset(
    {
        "io.kubernetes.cri-o.annotations.checkpoint.name",  # CRI-O
        "org.criu.checkpoint.container.name",  # containerd, and newer ones of CRI-O
    }
)
"""Annotations of the manifest of an image that carries a checkpoint, or labels of the image."""


class OpenedCheckpoint(NamedTuple):
    """A trusted checkpoint whose files are in a directory of the store."""

    manifest: Manifest
    signers: tuple[TrustRule, ...] | None
    directory: Path
    store: CheckpointStore

    @property
    def description(self) -> ContainerDescription:
        """The container of the checkpoint."""
        return held_description(self.manifest)

    def adopt(self, manifest: Manifest) -> Manifest:
        """Give the checkpoint to the container of a manifest. Blocks."""
        return self.store.link(manifest, self.directory)


def find(services: Services, image: str) -> str | None:
    """Return where the checkpoint is that the name of an image means; None for a plain image.

    The result is the path of an archive, or of the root of a layer, which ends with a slash.

    :raises InvalidRequest: when an image with the annotation has several layers.
    """
    if image.startswith("/"):
        return image.rstrip("/")
    try:
        found = services.images.resolve(image, None)
        annotations = services.images.manifest(found).annotations
    except (NotFound, CorruptState):
        return None  # reported when the container is created, if it cannot be
    names = {*found.config.labels, *({} if annotations is msgspec.UNSET else annotations)}
    if not names & ANNOTATIONS:
        return None
    if len(found.layers) != 1:
        raise InvalidRequest(
            f"the image {image[:200]} carries a checkpoint in {len(found.layers)} layers",
            hint="build it from scratch with the archive as its only layer",
        )
    return f"{services.layers.path(found.layers[0])}/"


@asynccontextmanager
async def opened(
    services: Services, archives: CheckpointArchives, path: str
) -> AsyncIterator[OpenedCheckpoint]:
    """Yield the checkpoint at a path of :func:`find`. Its files are removed at the end.

    Its connections are closed in the restored container: it has another address, and their peers
    have the container that was left running.

    :raises NotAuthorized: when the archive is not trusted.
    :raises InvalidRequest: when it cannot be read, or is damaged.
    """
    store = services.service(checkpoint_store)
    directory = store.incoming()  # not in a thread: a cancellation would leave it
    try:
        manifest, signers = await in_own_thread(lambda: _extract(archives, path, directory))
        manifest = msgspec.structs.replace(
            manifest,
            name=NAME,
            addresses=(),
            tcp_established=False,
            tcp_close=manifest.tcp_established or manifest.tcp_close,
        )
        yield OpenedCheckpoint(manifest, signers, directory, store)
    finally:
        await shielded(in_own_thread(lambda: shutil.rmtree(directory)))


def _extract(archives: CheckpointArchives, path: str, directory: Path) -> TrustedCheckpoint:
    if path.endswith("/"):
        with open_directory(path) as root:
            return archives.extract(TreeReader(root), directory)
    if "\0" in path:
        raise InvalidRequest(f"the checkpoint {path[:200]!r} contains a NUL byte")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise InvalidRequest(f"the checkpoint {path[:200]!r}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidRequest(f"the checkpoint {path[:200]!r} is not a regular file")
    with open(fd, "rb") as file:
        return archives.extract(ArchiveReader(file), directory)


@asynccontextmanager
async def shared_memory(services: Services, record: ContainerRecord) -> AsyncIterator[None]:
    """Put the files of /dev/shm that a checkpoint has into that of the pod.

    Files that exist are the pod's and stay. If the context fails, the new ones are removed, and
    none that another container has made in their place.

    :raises Unavailable: when /dev/shm is full.
    """
    path = shm.shared(services, record) if record.resolved.namespaces.ipc.container else None
    archive = (
        services.service(checkpoint_store).files(
            services.service(checkpoint_store).read(record.id, NAME)
        )
        / SHM_TAR
    )
    if path is None or not archive.exists():
        yield
        return
    made = await in_thread(_extract_shm, archive, path)
    try:
        yield
    except BaseException:
        with open_directory(path) as directory:
            checkpoint_files.remove_shm(directory, made)
        raise


def _extract_shm(archive: Path, path: str) -> dict[str, int]:
    try:
        with open_directory(path) as directory, archive.open("rb") as file:
            return checkpoint_files.extract_shm(file, directory)
    except OSError as error:
        what = "the files of /dev/shm cannot be written"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
