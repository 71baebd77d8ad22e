"""Queries on containers: inspect, list, logs, stats, top, changes. They change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jaula.engine.containers import container_inspect, container_list, presets, ps_filters
from jaula.engine.containers.container_liveness import while_running
from jaula.engine.containers.log_config import details, log_options, log_path, pod_log
from jaula.engine.networks import container_links
from jaula.engine.threads import in_thread
from jaula.errors import Conflict, CorruptState, InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.logs.drivers import readable
from jaula.request_context import check_client
from jaula.spec.api_params import LogOptions, SendStream
from jaula.spec.runtime_spec import decode

if TYPE_CHECKING:
    from jaula.engine.containers.log_followers import LogFollowers
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.logs.log_entry import Selection
    from jaula.logs.pod_log import PodLog


Documents = list[dict[str, Any]]


class ContainerQueries:
    """The read-only use cases of containers."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def find(self, ref: str) -> Container:
        """Return the container for ``ref`` (name, id or id prefix).

        :raises NotFound: when there is none.
        """
        return self.services.container_store.find(ref)

    def find_or_close(self, ref: str, fd: int) -> Container:
        """Return the container for ``ref``; on failure close the descriptor of the request."""
        try:
            return self.find(ref)
        except JaulaError:
            os.close(fd)
            raise

    async def inspect(self, ref: str, *, size: bool) -> dict[str, Any]:
        """Return Docker's document of one container."""
        with suppress(InvalidRequest):  # a former engine has accepted it: the document says less
            await presets.read_document(self.find(ref).record.body.host_config)
        container = self.find(ref)
        document = container_inspect.document(self.services, container)
        if size:
            document["SizeRw"] = await in_thread(self.size, container)
            document["SizeRootFs"] = document["SizeRw"] + self._image_size(container)
        return document

    def list(
        self,
        *,
        all: bool,
        limit: int | None,
        filters: dict[str, list[str]],
        size: bool,
        pods: bool = False,
    ) -> Documents:
        """Return Docker's summaries of containers, newest first; with ``pods`` also of pods.

        With ``size`` it reads their files, and is for a thread.
        """
        selected = ps_filters.select(
            (c for c in self.services.container_store if pods or not c.record.in_pod),
            ps_filters.Relations(
                self.services.network_store.id_of, self.services.images.descendants
            ),
            all=all,
            limit=limit,
            filters=filters,
        )
        documents = []
        aliases = container_links.aliases(self.services)
        for container in selected:
            document = container_list.summary(self.services, container, aliases)
            if size:
                check_client()
                written = self.size(container)
                document["SizeRootFs"] = written + self._image_size(container)
                if written:
                    document["SizeRw"] = written
            documents.append(document)
        return documents

    def size(self, container: Container) -> int:
        """Return the bytes of the container's writable layer, 0 if its snapshot is gone."""
        try:
            return self.services.snapshots.usage(container.id).size
        except NotFound:
            return 0

    def _image_size(self, container: Container) -> int:
        layers = container.record.layers
        return sum(self.services.layers.info(layer).size for layer in layers)

    async def logs(self, ref: str, options: LogOptions) -> AsyncIterator[tuple[str, bytes]]:
        """Yield stream and text of each stored log record.

        :raises Unsupported: when the log driver does not support reading.
        """
        from jaula.logs.reader.read import read, read_tail

        container = self.find(ref)
        log, selection, prefix = self._log(container, options)
        if options.tail is None:
            stored = read(log, selection)
        else:  # in a thread: compressed files are decompressed whole to read their tail
            stored = iter(await asyncio.to_thread(read_tail, log, options.tail, selection))
        for count, record in enumerate(stored):
            if count % 256 == 255:
                await asyncio.sleep(0)
            text = prefix + record.data
            if options.timestamps:
                text = record.time.encode() + b" " + text
            yield record.stream, text

    def log_follower(self, ref: str, options: LogOptions) -> SendStream:
        """Return the function that sends the log to a client until the container has exited.

        Another process reads and sends it.

        :raises Unsupported: when the log driver does not support reading.
        """
        from jaula.logs.follower import FollowRequest

        container = self.find(ref)
        log, selection, prefix = self._log(container, options)

        async def send(client: int, chunked: bool, begin: Callable[[], Awaitable[None]]) -> bool:
            request = FollowRequest(
                log,
                selection,
                options.tail,
                options.timestamps,
                prefix,
                framed=not container.record.body.tty,
                chunked=chunked,
            )
            return await self._log_followers.follow(request, client, container.exited, begin)

        return send

    @cached_property
    def _log_followers(self) -> LogFollowers:
        from jaula.engine.containers.log_followers import LogFollowers

        return LogFollowers(self.services.runtime.log_followers)

    def _log(
        self, container: Container, options: LogOptions
    ) -> tuple[str | PodLog, Selection, bytes]:
        """Return the file of a log, what to read of it, and the prefix of each line.

        :raises Unsupported: when the log driver does not support reading.
        """
        from jaula.logs.log_entry import Selection

        log = container.record.log
        if not readable(*log_options(self.services.config, log)):
            raise Unsupported("configured logging driver does not support reading")
        until = None if options.until is None else options.until + 1
        selection = Selection(options.stdout, options.stderr, options.since, until)
        prefix = details(self.services.config, container.record) if options.details else b""
        return pod_log(log) or log_path(self.services.config, container.id), selection, prefix

    async def stats(
        self, ref: str, *, stream: bool, one_shot: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield Docker's stats documents: one, or one per second while the container runs."""
        from jaula.engine.containers import container_stats

        container = self.find(ref)
        async for document in container_stats.documents(
            self.services, container, stream=stream, one_shot=one_shot
        ):
            yield document

    async def top(self, ref: str, ps_args: str) -> dict[str, Any]:
        """Return the processes of a container, as the host's ``ps`` prints them."""
        from jaula.engine.containers.top import top

        container = self.find(ref)
        async with while_running(container):
            document = await top(self.services, container, ps_args)
        self.services.events.emit(
            "container", "top", container.id, container.record.event_attributes
        )
        return document

    async def changes(self, ref: str) -> Documents:
        """Return the files of a container that differ from its image."""
        container = self.find(ref)
        changes = await asyncio.to_thread(self.services.snapshots.changes, container.id)
        return [{"Path": change.path, "Kind": int(change.kind)} for change in changes]

    def spec(self, ref: str) -> bytes:
        """Return the OCI runtime spec of the present or the last run.

        :raises Conflict: when the container was never started.
        """
        container = self.find(ref)
        path = self.services.config.paths.container(container.id) / "config.json"
        try:
            document = path.read_bytes()
            decode(document)
        except FileNotFoundError:
            raise Conflict(
                f"container {container.name} was never started, so it has no spec yet"
            ) from None
        except (OSError, ValueError) as error:
            raise CorruptState(
                f"the spec of container {container.name} cannot be read: {error}",
                hint="the next start writes it again",
            ) from None
        return document
