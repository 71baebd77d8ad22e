"""The outputs of a build: an image in the store, or files that the client receives.

Each output is an internal step in the client's progress. Source of the names in a response:
moby/buildkit ``exporter/containerimage/exptypes`` (``containerimage.digest`` and others). As in
moby, the digest of an image in the store is its id; a pushed image has the digest of its manifest.
An index has its own digest in both cases.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.builder import copy
from jaula.engine.builder.attestations import file_subjects
from jaula.engine.builder.image_index import BuiltIndex, IndexedImage, store_index, write_index
from jaula.engine.builder.image_state import ImageState, SourceDateEpoch
from jaula.engine.builder.local_context import ended, started
from jaula.engine.builder.session import FILE_MODE, ExtraFile
from jaula.engine.threads import in_own_thread, in_thread, produce, shielded
from jaula.errors import InvalidRequest
from jaula.images.archive.save import blob_chunks, layer_chunks
from jaula.images.archive.write import ArchivedIndex, write_archive
from jaula.images.attestation.statement import SPDX, UNKNOWN, Predicate, statement
from jaula.images.platform import format_platform, normalize
from jaula.images.reference import familiar, parse
from jaula.storage.tar.entry import DIRECTORY
from jaula.storage.tar.writer import TarWriter, add_tree, new_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.builder.session import LocalSession, Report
    from jaula.engine.builder.sources import BuildSources
    from jaula.engine.model.services import Services
    from jaula.images.store.quota import Quota
    from jaula.images.store.store import Image
    from jaula.spec.build import BuildExport, BuildOptions

_CONFIG_DIGEST, _DIGEST = "containerimage.config.digest", "containerimage.digest"
_DESCRIPTOR = "containerimage.descriptor"
_NAME = "image.name"
_TITLES = {
    "image": "exporting to image",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
}


class PlatformResult(msgspec.Struct, frozen=True):
    """The result for one platform; ``platform`` is '' if the client did not request one.

    ``config`` is the configuration of its image. ``predicates`` returns its attestations; it
    blocks.
    """

    platform: str
    state: ImageState
    config: bytes
    predicates: Callable[[], list[Predicate]]

    @property
    def directory(self) -> str:
        """The name of its directory among the exported files."""
        return format_platform(normalize(self.state.platform)).replace("/", "_")


class Exporter:
    """The outputs of one build. ``store`` stores a single image under names."""

    def __init__(
        self,
        services: Services,
        sources: BuildSources,
        options: BuildOptions,
        results: Sequence[PlatformResult],
        report: Report,
        store: Callable[[tuple[str, ...]], Awaitable[Image]],
        quota: Quota,
    ) -> None:
        self._services = services
        self._sources = sources
        self._options = options
        self._results = results
        self._report = report
        self._store = store
        self._quota = quota
        self._made: dict[str, list[Predicate]] = {}

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
                for result, files in zip(self._results, await self._files(export), strict=True):
                    await self._local(export, result, files)
            case "tar":
                tar = self._tar(export, await self._files(export))
                await self._session.send_file(export.id, {}, tar)
            case _:
                await self._archive(export, title, response)
        return None

    @property
    def _session(self) -> LocalSession:
        if self._sources.local is None:
            raise InvalidRequest("this export needs a session of the client")
        return self._sources.local.session

    # -- attestations ----------------------------------------------------------------------------

    def _has_index(self, export: BuildExport) -> bool:
        """Return whether an image is stored as an index.

        The default provenance of clients is no reason for one in the local store: its layers would
        be compressed, and no build would end with the image that exists.
        """
        provenance = self._options.provenance
        if self._options.platforms or self._options.sbom:
            return True
        if provenance is None:
            return False
        return not provenance.inline_only or (export.kind == "image" and export.push)

    def _predicates(self, result: PlatformResult) -> list[Predicate]:
        """Return the attestations of a result; they are made once for all outputs. Blocks."""
        if result.platform not in self._made:
            self._made[result.platform] = result.predicates()
        return self._made[result.platform]

    # -- images ----------------------------------------------------------------------------------

    async def _image(self, export: BuildExport, title: str, response: dict[str, str]) -> Image:
        await self._step(title, "exporting layers")
        if self._has_index(export):
            names = [str(parse(name)) for name in export.names]
            index = await self._index(export, title, response)
            image = await in_thread(store_index, self._services.images, index, names, self._quota)
        else:
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

    async def _index(self, export: BuildExport, title: str, response: dict[str, str]) -> BuiltIndex:
        """Store the blobs of an index."""
        images = [
            IndexedImage(r.state.platform, r.state, r.config, partial(self._predicates, r))
            for r in self._results
        ]
        provenance = self._options.provenance
        default = provenance is not None and provenance.inline_only and not self._options.sbom
        index = await shielded(
            in_own_thread(  # compression and scans take long
                partial(
                    write_index,
                    self._services.images,
                    self._sources.lease,
                    images,
                    export.names,
                    self._sources.cancellation,
                    artifact=export.artifact,
                    keep=default and export.kind == "image",
                )
            )
        )
        for entry in index.manifests:
            is_image = entry.platform != UNKNOWN
            kind = "manifest" if is_image else "attestation manifest"
            await self._step(title, f"exporting {kind} {entry.digest}")
        await self._step(title, f"exporting manifest list {index.descriptor.digest}")
        descriptor = base64.b64encode(msgspec.json.encode(index.descriptor)).decode()
        response[_DIGEST], response[_DESCRIPTOR] = index.descriptor.digest, descriptor
        response.pop(_CONFIG_DIGEST, None)
        return index

    async def _push(self, export: BuildExport, title: str, response: dict[str, str]) -> None:
        for name in export.names:
            async for message in self._sources.push(name):
                await self._report({"internal": title, **message})
                digest = message.get("aux", {}).get("Digest")
                if digest:
                    response[_DIGEST] = digest

    async def _step(self, title: str, text: str) -> None:
        await self._report({"internal": title, "status": text, "complete": True})

    async def _archive(self, export: BuildExport, title: str, response: dict[str, str]) -> None:
        if export.kind == "docker" and self._options.platforms:
            raise InvalidRequest(
                "docker exporter does not currently support exporting manifest lists",
                hint="use the oci exporter",
            )
        metadata: dict[str, str] = {}
        if self._has_index(export):
            index = await self._index(export, title, metadata)
            response.pop(_CONFIG_DIGEST, None)
        else:
            digest = "sha256:" + hashlib.sha256(self._results[0].config).hexdigest()
            index, metadata = None, {_CONFIG_DIGEST: digest, _DIGEST: digest}
        if export.names:
            metadata[_NAME] = ",".join(parse(name).canonical for name in export.names)
        response.update(metadata)
        names = [text for name in export.names if (text := familiar(name))]
        archive = self._image_archive(names) if index is None else self._index_archive(index, names)
        await self._session.send_file(export.id, metadata, archive)

    def _index_archive(self, index: BuiltIndex, names: list[str]) -> AsyncIterator[bytes]:
        archived = ArchivedIndex(
            index.descriptor, index.blobs, index.config, index.layers, tuple(names)
        )

        def work(emit: Callable[[Any], None]) -> None:
            write_archive(
                lambda data: emit(bytes(data)),
                (),
                lambda diff_id: (),
                [archived],
                lambda digest: blob_chunks(self._services.images, digest),
            )

        return produce(work)

    def _image_archive(self, names: list[str]) -> AsyncIterator[bytes]:
        store, result = self._services.images, self._results[0]
        state = result.state
        blobs = {layer.diff_id: layer.blob.digest for layer in state.layers}

        def work(emit: Callable[[Any], None]) -> None:
            layers = [(diff_id, store.layers.info(diff_id).tar_size) for diff_id in state.diff_ids]
            write_archive(
                lambda data: emit(bytes(data)),
                [(result.config, layers, names)],
                lambda diff_id: layer_chunks(store, blobs[diff_id], diff_id),
            )

        return produce(work)

    # -- files -----------------------------------------------------------------------------------

    def _is_split(self, export: BuildExport) -> bool:
        """Return whether each platform has a directory of its own."""
        return bool(self._options.platforms) if export.split is None else export.split

    async def _files(self, export: BuildExport) -> list[list[ExtraFile]]:
        """Return for each result the files that contain its attestations."""
        provenance = self._options.provenance
        if not self._options.sbom and (provenance is None or provenance.inline_only):
            return [[] for _ in self._results]
        now = time.time_ns()
        if (epoch := SourceDateEpoch(self._options.build_args).newest) is not None:
            now = epoch

        def work(result: PlatformResult) -> list[ExtraFile]:
            with copy.open_layers(self._services, result.state.diff_ids) as root:
                subjects = file_subjects(root, self._sources.cancellation.check)
            suffix = ""
            if self._options.platforms and not self._is_split(export):
                suffix = f".{result.directory}"
            files = []
            for predicate in self._predicates(result):
                if predicate.kind != SPDX and provenance is not None and provenance.inline_only:
                    continue
                data = msgspec.json.format(msgspec.json.encode(statement(predicate, subjects)))
                stem, extension = posixpath.splitext(predicate.filename)
                name = f"{export.attestation_prefix}{stem}{suffix}{extension}"
                files.append(ExtraFile(name.encode(), data, now))
            return files

        return [await shielded(in_own_thread(partial(work, result))) for result in self._results]

    async def _local(
        self, export: BuildExport, result: PlatformResult, files: list[ExtraFile]
    ) -> None:
        opened = copy.open_layers(self._services, result.state.diff_ids)
        root = await in_thread(opened.__enter__)
        prefix = result.directory if self._is_split(export) else ""
        try:
            await self._session.send_directory(export.id, root, prefix, files)
        finally:
            await in_thread(opened.__exit__, None, None, None)

    def _tar(self, export: BuildExport, files: list[list[ExtraFile]]) -> AsyncIterator[bytes]:
        def work(emit: Callable[[bytes], None]) -> None:
            writer = TarWriter(lambda data: emit(bytes(data)))
            for result, extra in zip(self._results, files, strict=True):
                prefix = f"{result.directory}/".encode() if self._is_split(export) else b""
                if prefix:
                    writer.add(new_entry(prefix, DIRECTORY, mode=0o755))
                with copy.open_layers(self._services, result.state.diff_ids) as root:
                    add_tree(writer, root, prefix=prefix)
                for file in extra:
                    seconds = file.mtime // 1_000_000_000
                    name, size = prefix + file.name, len(file.data)
                    entry = new_entry(name, mode=FILE_MODE, size=size, mtime=seconds)
                    writer.add(entry, (file.data,))
            writer.finish()

        return produce(work)
