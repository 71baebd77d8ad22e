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

from jaula.engine.threads import in_own_thread, in_thread, produce, shielded
from jaula.errors import InvalidRequest
from jaula.features.build.attestation.statement import SPDX, UNKNOWN, Predicate, statement
from jaula.features.build.builder import copy_step
from jaula.features.build.builder.build_attestations import file_subjects
from jaula.features.build.builder.build_session import FILE_MODE, ExtraFile
from jaula.features.build.builder.image_index import (
    IndexedImage,
    StoredExport,
    check_annotations,
    store_export,
    write_index,
    write_manifest,
)
from jaula.features.build.builder.image_state import ImageState, SourceDateEpoch
from jaula.features.build.builder.local_context import ended, started
from jaula.images.archive.save_archive import blob_chunks, layer_chunks
from jaula.images.archive.write import ArchivedIndex, write_archive
from jaula.images.image_platform import format_platform, normalize
from jaula.images.reference import familiar, parse
from jaula.spec.image_documents import Descriptor
from jaula.storage.tar.tar_entry import DIRECTORY
from jaula.storage.tar.tar_writer import TarWriter, add_tree, new_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.model.services import Services
    from jaula.features.build.build_options import BuildExport, BuildOptions
    from jaula.features.build.builder.build_session import LocalSession, Report
    from jaula.features.build.builder.build_sources import BuildSources
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image

_CONFIG_DIGEST, _DIGEST = "containerimage.config.digest", "containerimage.digest"
_DESCRIPTOR = "containerimage.descriptor"
_NAME = "image.name"
_STORE = "export"  # the content store of a client that takes an archive as a directory
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
        if not provenance.inline_only:
            return True
        annotated = any(each.kind.startswith("index") for each in export.annotations)
        return export.kind == "image" and (export.push or annotated)

    def _has_manifest(self, export: BuildExport) -> bool:
        """Return whether an output needs a manifest other than that of the layers as they are."""
        requested = export.annotations or export.compression is not None
        return bool(requested) or not export.oci_types or not export.tar

    def _check(self, export: BuildExport) -> None:
        """Check that an output can have the form that is requested.

        :raises InvalidRequest: when it cannot.
        """
        index = self._has_index(export)
        platforms = [result.state.platform for result in self._results]
        check_annotations(export, platforms, index=index)
        attested = self._options.sbom or self._options.provenance is not None
        if index and attested and not export.oci_types:
            raise InvalidRequest(
                'cannot export attestations with "oci-mediatypes=false"',
                hint="use --provenance=false",
            )

    def _predicates(self, result: PlatformResult) -> list[Predicate]:
        """Return the attestations of a result; they are made once for all outputs. Blocks."""
        if result.platform not in self._made:
            self._made[result.platform] = result.predicates()
        return self._made[result.platform]

    # -- images ----------------------------------------------------------------------------------

    async def _image(self, export: BuildExport, title: str, response: dict[str, str]) -> Image:
        self._check(export)
        await self._step(title, "exporting layers")
        index = self._has_index(export)
        if index or (self._has_manifest(export) and export.names):
            names = [str(parse(name)) for name in export.names]
            stored = await self._write_blobs(export, title, response)
            image = await in_thread(store_export, self._services.images, stored, names, self._quota)
        else:
            image = await self._store(export.names)
        if not index:
            await self._step(title, f"writing image {image.id}")
            response[_CONFIG_DIGEST] = response[_DIGEST] = image.id
        if export.names:
            response[_NAME] = ",".join(parse(name).canonical for name in export.names)
            for name in export.names:
                await self._step(title, f"naming to {parse(name).canonical}")
        if export.push:
            await self._push(export, title, response)
        return image

    async def _write_blobs(
        self, export: BuildExport, title: str, response: dict[str, str]
    ) -> StoredExport:
        """Store the blobs of an index, or of one image without one."""
        images = [
            IndexedImage(r.state.platform, r.state, r.config, partial(self._predicates, r))
            for r in self._results
        ]
        provenance = self._options.provenance
        default = provenance is not None and provenance.inline_only and not self._options.sbom
        store, lease = self._services.images, self._sources.lease
        cancellation = self._sources.cancellation
        work: Callable[[], StoredExport]
        if self._has_index(export):
            keep = default and export.kind == "image"
            work = partial(write_index, store, lease, images, export, cancellation, keep=keep)
        else:
            work = partial(write_manifest, store, lease, images[0], export, cancellation)
        stored = await shielded(in_own_thread(work))  # compression and scans take long
        for entry in stored.manifests:
            is_image = entry.platform != UNKNOWN
            kind = "manifest" if is_image else "attestation manifest"
            await self._step(title, f"exporting {kind} {entry.digest}")
        kind = "manifest list" if stored.manifests else "manifest"
        await self._step(title, f"exporting {kind} {stored.descriptor.digest}")
        descriptor = base64.b64encode(msgspec.json.encode(stored.descriptor)).decode()
        response[_DIGEST], response[_DESCRIPTOR] = stored.descriptor.digest, descriptor
        response.pop(_CONFIG_DIGEST, None)
        if not stored.manifests:
            response[_CONFIG_DIGEST] = stored.config
        return stored

    async def _push(self, export: BuildExport, title: str, response: dict[str, str]) -> None:
        unchanged = export.compression is not None
        for name in export.names:
            async for message in self._sources.push(name, unchanged=unchanged):
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
        self._check(export)
        metadata: dict[str, str] = {}
        if self._has_index(export) or self._has_manifest(export):
            stored = await self._write_blobs(export, title, metadata)
            response.pop(_CONFIG_DIGEST, None)
        else:
            digest = "sha256:" + hashlib.sha256(self._results[0].config).hexdigest()
            stored, metadata = None, {_CONFIG_DIGEST: digest, _DIGEST: digest}
        if export.names:
            metadata[_NAME] = ",".join(parse(name).canonical for name in export.names)
        response.update(metadata)
        names = [text for name in export.names if (text := familiar(name))]
        if stored is None:
            archive = self._image_archive(names)
        elif export.tar:
            archive = self._stored_archive(stored, names)
        else:
            await self._send_blobs(stored, title)
            return
        await self._session.send_file(export.id, metadata, archive)

    async def _send_blobs(self, stored: StoredExport, title: str) -> None:
        """Write blobs into the client's directory, which is an OCI layout."""
        store = self._session.content_store(_STORE)
        for digest, size in stored.blobs:
            # The client verifies size and digest only, so the media type is of no use to it.
            blob = Descriptor("application/octet-stream", digest, size)
            await store.write(blob, self._blob(digest))
            await self._step(title, f"copying {digest}")

    def _blob(self, digest: str) -> AsyncIterator[bytes]:
        def work(emit: Callable[[bytes], None]) -> None:
            for chunk in blob_chunks(self._services.images, digest):
                emit(chunk)

        return produce(work)

    def _stored_archive(self, stored: StoredExport, names: list[str]) -> AsyncIterator[bytes]:
        archived = ArchivedIndex(
            stored.descriptor, stored.blobs, stored.config, stored.layers, tuple(names)
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
            with copy_step.open_layers(self._services, result.state.diff_ids) as root:
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
        opened = copy_step.open_layers(self._services, result.state.diff_ids)
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
                with copy_step.open_layers(self._services, result.state.diff_ids) as root:
                    add_tree(writer, root, prefix=prefix)
                for file in extra:
                    seconds = file.mtime // 1_000_000_000
                    name, size = prefix + file.name, len(file.data)
                    entry = new_entry(name, mode=FILE_MODE, size=size, mtime=seconds)
                    writer.add(entry, (file.data,))
            writer.finish()

        return produce(work)
