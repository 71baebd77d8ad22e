"""The outputs of a build: an image in the store, or files that the client receives.

Each output is an internal step in the client's progress. Source of the names in a response:
moby/buildkit ``exporter/containerimage/exptypes`` (``containerimage.digest`` and others). As in
moby, the digest of an image in the store is its id; a pushed image has the digest of its manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from jaula.engine.builder import copy
from jaula.engine.builder.local_context import ended, started
from jaula.engine.threads import in_thread, produce
from jaula.errors import InvalidRequest
from jaula.images.archive.save import layer_chunks
from jaula.images.archive.write import write_archive
from jaula.images.reference import familiar, parse
from jaula.storage.tar.writer import write_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

    from jaula.engine.builder.image_state import ImageState
    from jaula.engine.builder.session import LocalSession, Report
    from jaula.engine.builder.sources import BuildSources
    from jaula.engine.model.services import Services
    from jaula.images.store.store import Image
    from jaula.spec.build import BuildExport

_CONFIG_DIGEST, _DIGEST = "containerimage.config.digest", "containerimage.digest"
_NAME = "image.name"
_TITLES = {
    "image": "exporting to image",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
}


class Exporter:
    """The outputs of one build. ``config`` is the configuration of its image."""

    def __init__(
        self,
        services: Services,
        sources: BuildSources,
        state: ImageState,
        config: bytes,
        report: Report,
        store: Callable[[tuple[str, ...]], Awaitable[Image]],
    ) -> None:
        self._services = services
        self._sources = sources
        self._state = state
        self._config = config
        self._report = report
        self._store = store

    async def run(self, export: BuildExport, response: dict[str, str]) -> Image | None:
        """Write one output and add its values to ``response``; return the image if it is stored.

        :raises InvalidRequest: when the client does not accept it.
        """
        title = _TITLES.get(export.kind)
        if title is None:
            raise InvalidRequest(
                f"the exporter {export.kind[:64]!r} is not supported",
                hint=f"must be one of {', '.join(_TITLES)}",
            )
        await self._report(started(title))
        try:
            image = await self._write(export, title, response)
        except Exception as error:
            await self._report(ended(title, str(error)))
            raise
        await self._report(ended(title))
        return image

    async def _write(
        self, export: BuildExport, title: str, response: dict[str, str]
    ) -> Image | None:
        match export.kind:
            case "image":
                return await self._image(export, title, response)
            case "local":
                await self._local(export)
            case "tar":
                await self._session.send_file(export.id, {}, self._tar())
            case _:
                await self._archive(export, response)
        return None

    @property
    def _session(self) -> LocalSession:
        if self._sources.local is None:
            raise InvalidRequest("this export needs a session of the client")
        return self._sources.local.session

    async def _image(self, export: BuildExport, title: str, response: dict[str, str]) -> Image:
        await self._step(title, "exporting layers")
        image = await self._store(export.names)
        await self._step(title, f"writing image {image.id}")
        response[_CONFIG_DIGEST] = response[_DIGEST] = image.id
        if export.names:
            response[_NAME] = ",".join(parse(name).canonical for name in export.names)
            for name in export.names:
                await self._step(title, f"naming to {parse(name).canonical}")
        if export.push:
            await self._push(export, title, response)
        return image

    async def _push(self, export: BuildExport, title: str, response: dict[str, str]) -> None:
        for name in export.names:
            async for message in self._sources.push(name):
                await self._report({"internal": title, **message})
                digest = message.get("aux", {}).get("Digest")
                if digest:
                    response[_DIGEST] = digest

    async def _step(self, title: str, text: str) -> None:
        await self._report({"internal": title, "status": text, "complete": True})

    def _root(self) -> AbstractContextManager[int]:
        return copy.open_layers(self._services, self._state.diff_ids)

    async def _local(self, export: BuildExport) -> None:
        opened = self._root()
        root = await in_thread(opened.__enter__)
        try:
            await self._session.send_directory(export.id, root)
        finally:
            await in_thread(opened.__exit__, None, None, None)

    def _tar(self) -> AsyncIterator[bytes]:
        def work(emit: Callable[[bytes], None]) -> None:
            with self._root() as root:
                write_tree(root, lambda data: emit(bytes(data)))

        return produce(work)

    async def _archive(self, export: BuildExport, response: dict[str, str]) -> None:
        digest = "sha256:" + hashlib.sha256(self._config).hexdigest()
        metadata = {_CONFIG_DIGEST: digest, _DIGEST: digest}
        if export.names:
            metadata[_NAME] = ",".join(parse(name).canonical for name in export.names)
        response.update(metadata)
        await self._session.send_file(export.id, metadata, self._image_archive(export))

    def _image_archive(self, export: BuildExport) -> AsyncIterator[bytes]:
        store, state = self._services.images, self._state
        names = [text for name in export.names if (text := familiar(name))]
        blobs = {layer.diff_id: layer.blob.digest for layer in state.layers}

        def work(emit: Callable[[Any], None]) -> None:
            layers = [(diff_id, store.layers.info(diff_id).tar_size) for diff_id in state.diff_ids]
            write_archive(
                lambda data: emit(bytes(data)),
                [(self._config, layers, names)],
                lambda diff_id: layer_chunks(store, blobs[diff_id], diff_id),
            )

        return produce(work)
