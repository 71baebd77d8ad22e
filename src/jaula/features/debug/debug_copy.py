"""Debug sessions with the files of a container that does not run, or of an image.

The session is a container of its own with a copy of the files, which is discarded. It has the image
of the stopped container and, in its snapshot, the changes of that one. So no image is made. The
stopped container gives it its security settings, limits and mounts, the latter read-only. There is
no network.

The container exists as long as the client's connection. If the engine is killed, the next one
removes it: its record says ``debug_copy``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula.engine.containers import create as container_create
from jaula.engine.threads import in_thread, shielded
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.features.debug import debug_session
from jaula.spec import container_copy
from jaula.spec.api_documents import (
    DEBUG_IMAGE,
    ContainerCreate,
    DebugCreate,
    Healthcheck,
    HostConfig,
    Mount,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.containers.bounds import AuthorizeBody
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.debug.debug_session import PreparedImage
    from jaula.spec.api_params import ContainerCreated
    from jaula.spec.image_documents import ImageConfig
    from jaula.state.container_records import ContainerRecord, MountRecord

Remove = Callable[[str], Awaitable[None]]
"""Kills and removes a container, by its id."""

LABEL = "jaula.debug"
"""The label of the container of a session: the name of the copied container or image."""


class Origin(NamedTuple):
    """The copied object: its name, its image, and the record of a container."""

    name: str
    image: str
    config: ImageConfig | ContainerCreate
    record: ContainerRecord | None


def request(origin: Origin, toolbox: PreparedImage, body: DebugCreate) -> ContainerCreate:
    """Return the create request of a session. Pure."""
    config = origin.config
    search = debug_session.search_path(
        toolbox.path,
        debug_session.variable((*config.env, *body.env), "PATH") or debug_session.DEFAULT_PATH,
        launched=toolbox.launched,
    )
    return ContainerCreate(
        image=origin.image,
        tty=body.tty,
        attach_stdin=body.attach_stdin,
        attach_stdout=body.attach_stdout,
        attach_stderr=body.attach_stderr,
        open_stdin=body.attach_stdin,
        stdin_once=body.attach_stdin,
        user=body.user or config.user,
        working_dir=body.working_dir or config.working_dir,
        env=(*config.env, *body.env, f"PATH={search}"),
        entrypoint=body.cmd or (toolbox.shell,),
        healthcheck=Healthcheck(test=("NONE",)),
        labels={LABEL: origin.name},
        host_config=_host_config(origin.record, body),
    )


def _host_config(record: ContainerRecord | None, body: DebugCreate) -> HostConfig:
    tools = Mount(
        type="image",
        source=body.image or DEBUG_IMAGE,
        target=debug_session.DIRECTORY,
        read_only=True,
    )
    host = HostConfig(
        auto_remove=True,
        network_mode="none",
        mounts=(tools,),
        console_size=body.console_size or (0, 0),
    )
    if record is None:
        return host
    return msgspec.structs.replace(
        host,
        **container_copy.confinement(record.body.host_config),
        mounts=(tools, *_read_only_mounts(record.mounts)),
    )


def _read_only_mounts(mounts: Sequence[MountRecord]) -> list[Mount]:
    return [
        Mount(
            type=mount.type,
            source=mount.name if mount.type == "volume" else mount.source,
            target=mount.destination,
            read_only=True,
        )
        for mount in mounts
        if mount.type in ("bind", "volume") and mount.destination != debug_session.DIRECTORY
    ]


class DebugCopies:
    """The copies of one engine."""

    def __init__(self, services: Services, remove: Remove) -> None:
        self._services = services
        self._remove = remove

    async def create(
        self, ref: str, body: DebugCreate, *, owner: tuple[str, int], authorize: AuthorizeBody
    ) -> ContainerCreated:
        """Create the container of a session, which is ready to start.

        :raises NotFound: when there is no such container or image, or no such toolbox.
        :raises Conflict: when the container runs.
        :raises InvalidRequest: when the request is not valid.
        """
        services = self._services
        source = self.find_source(ref)
        if body.privileged or body.target:
            raise InvalidRequest("a session with a copy has neither --privileged nor a target")
        if source is not None and source.live:
            raise Conflict(f"container {source.name} runs, so there is no copy of its files")
        lease = services.images.lease()
        try:
            origin = self._origin(ref, source)
            reference = body.image or DEBUG_IMAGE
            image = services.images.pin_image(lease, services.images.resolve(reference))
            services.image_policy.check_run(image, reference)
            toolbox = await in_thread(debug_session.prepare_image, services, image)
            debug_session.check_command(body, toolbox)
            asked = request(origin, toolbox, body)
            created = await container_create.create(
                services,
                asked,
                None,
                None,
                owner=owner,
                authorize=authorize(asked),
                debug_copy=True,
            )
        finally:
            lease.close()
        if source is not None:
            session = services.container_store.find(created.id)
            await self._copy_files(source, session)
        return created

    def find_source(self, ref: str) -> Container | None:
        """Return the container for ``ref``; None for an image."""
        try:
            return self._services.container_store.find(ref)
        except NotFound:
            return None

    def _origin(self, ref: str, source: Container | None) -> Origin:
        images = self._services.images
        if source is None:
            try:
                return Origin(ref, ref, images.resolve(ref).config, None)
            except NotFound:
                raise NotFound(f"No such container or image: {ref}") from None
        record = source.record
        image = record.image
        try:
            if images.resolve(record.asked_image).id == record.image:
                image = record.asked_image  # an image policy may have a rule for the name
        except NotFound:
            image = record.image
        return Origin(source.name, image, record.body, record)

    async def _copy_files(self, source: Container, session: Container) -> None:
        """Give the session the changes of a container; else remove it."""
        try:
            async with source.lock, session.lock:
                if source.id not in self._services.container_store:
                    raise NotFound(f"No such container: {source.name}")
                if source.live:
                    raise Conflict(f"container {source.name} has been started meanwhile")
                await in_thread(self._copy, source.id, session.id)
        except BaseException:
            await shielded(self.remove(session.id))
            raise

    def _copy(self, source: str, session: str) -> None:
        snapshots = self._services.snapshots
        with self._services.images.blobs.writer() as blob:
            if snapshots.write_layer(source, dict, blob.write, exact=True):
                with open(blob.file.fileno(), "rb", closefd=False) as layer:
                    snapshots.stage(session, layer)
                snapshots.replace(session)

    async def remove(self, id: str) -> None:
        """End a session and remove its container, unless it has ended."""
        if id not in self._services.container_store:
            return
        try:
            await self._remove(id)
        except NotFound:
            return  # --rm has removed it meanwhile
