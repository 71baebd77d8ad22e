"""Create a container from a checkpoint that holds its files: a clone, or an imported one.

The new container has the request of the former one, files of its own, and the checkpoint under the
same name. Its volumes are new and have the content of the checkpoint. A clone also has another
name, other addresses, another host name, and no published ports unless it asks for some.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import create as container_create
from jaula.engine.containers.bounds import AuthorizeBody
from jaula.engine.threads import in_thread, shielded
from jaula.engine.volumes import mount_spec
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.features.checkpoint import container_files
from jaula.features.checkpoint.checkpoint_store import checkpoint_store
from jaula.spec import container_copy
from jaula.spec.api_documents import CheckpointClone, ContainerCreate, Mount
from jaula.spec.api_networks import EndpointSettings, NetworkingConfig
from jaula.spec.image_documents import diff_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_store import ContainerDescription, Manifest
    from jaula.spec.api_params import ContainerCreated

log = logging.getLogger("jaula.containers")

Adopt = Callable[["Manifest"], "Manifest"]
"""Gives a checkpoint to the container of a manifest; runs in a thread."""

Verify = Callable[[], Coroutine[object, object, None]]
"""Verifies the container's files in a checkpoint."""


def clone_request(
    description: ContainerDescription, options: CheckpointClone, volumes: Mapping[str, str]
) -> ContainerCreate:
    """Return the create request of a clone; ``volumes`` maps old to new names, '' for none. Pure.

    It has no address and no published port of the former container.
    """
    body = import_request(description, volumes)
    host = body.host_config
    networking = body.networking_config
    if options.network_mode:
        networking = options.networking_config
    else:
        networking = NetworkingConfig(
            endpoints_config={
                name: msgspec.structs.replace(settings, ipam_config=None, mac_address="")
                for name, settings in networking.endpoints_config.items()
            }
        )
    return msgspec.structs.replace(
        body,
        mac_address="",
        labels=body.labels | options.labels,
        host_config=msgspec.structs.replace(
            host,
            **container_copy.clone_members(host)
            | {
                "network_mode": options.network_mode or host.network_mode,
                "port_bindings": options.port_bindings,
                "auto_remove": options.auto_remove,
            },
        ),
        networking_config=networking,
    )


def import_request(
    description: ContainerDescription, volumes: Mapping[str, str]
) -> ContainerCreate:
    """Return the create request of a former container, with new names of its volumes. Pure."""
    body = description.body
    networks: dict[str, EndpointSettings] = description.networks or {}
    return msgspec.structs.replace(
        body,
        # The stored body has the image's configuration: None is an entry point that was reset.
        entrypoint=("",) if body.entrypoint is None else body.entrypoint,
        host_config=msgspec.structs.replace(
            body.host_config,
            binds=tuple(_renamed_bind(text, volumes) for text in body.host_config.binds),
            mounts=tuple(_renamed_mount(mount, volumes) for mount in body.host_config.mounts),
            container_id_file="",
        ),
        networking_config=NetworkingConfig(endpoints_config=networks),
    )


def _renamed_bind(text: str, volumes: Mapping[str, str]) -> str:
    source, _, _ = mount_spec.split_bind(text)
    if source not in volumes:
        return text
    return (volumes[source] + text[len(source) :]).removeprefix(":")


def _renamed_mount(mount: Mount, volumes: Mapping[str, str]) -> Mount:
    if mount.type != "volume" or mount.source not in volumes:
        return mount
    return msgspec.structs.replace(mount, source=volumes[mount.source])


def held_description(manifest: Manifest) -> ContainerDescription:
    """Return the description of the container of a checkpoint.

    :raises InvalidRequest: when no container can be created from it.
    """
    if manifest.description is None or manifest.held is None:
        raise InvalidRequest(
            f"checkpoint {manifest.name} holds no files, so no container can be created from it",
            hint="create it with jaula checkpoint create --with-files, or jaula snapshot",
        )
    return manifest.description


class Clones:
    """Creates containers from checkpoints."""

    def __init__(self, services: Services, exit_handler: ExitHandler) -> None:
        self._services = services
        self._exit_handler = exit_handler

    async def clone(
        self,
        manifest: Manifest,
        options: CheckpointClone,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
        verify: Verify,
    ) -> ContainerCreated:
        """Create a container that goes on from a checkpoint of another one.

        :raises InvalidRequest: when the checkpoint holds no files, or has connections.
        """
        source = self._services.service(checkpoint_store).images(manifest).parent
        foreign = bool(manifest.directory)  # its files may be changed or be on another file system
        manifest, body = self.request(manifest, options)
        return await self.create(
            manifest,
            body,
            options.name,
            owner=owner,
            authorize=authorize,
            # The file system is written to the disk with the container's files.
            adopt=lambda adopted: self._services.service(checkpoint_store).link(
                adopted, source, sync=False, copy=foreign
            ),
            verify=verify,
        )

    def request(
        self, manifest: Manifest, options: CheckpointClone
    ) -> tuple[Manifest, ContainerCreate]:
        """Return the manifest of a clone, without addresses, and its create request.

        :raises InvalidRequest: when the checkpoint holds no files, or has connections.
        """
        description = held_description(manifest)
        if manifest.tcp_established:
            raise InvalidRequest(
                f"checkpoint {manifest.name} has established TCP connections, which need the"
                " addresses of the first container",
                hint="create it with --tcp-close",
            )
        body = clone_request(description, options, self._new_names(manifest))
        return msgspec.structs.replace(manifest, addresses=(), directory=""), body

    def _new_names(self, manifest: Manifest) -> dict[str, str]:
        """Return new names for the volumes of a checkpoint that were created with a name.

        The new ones have none, so they are removed with the clone (``rm -v``), unless they are
        mounted at several paths.
        """
        assert manifest.held is not None
        return {
            volume.name: f"{volume.name[:200]}-{secrets.token_hex(4)}"
            if len(volume.destinations) > 1
            else ""
            for volume in manifest.held.volumes
            if not volume.anonymous
        }

    async def create(
        self,
        manifest: Manifest,
        body: ContainerCreate,
        name: str,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
        adopt: Adopt,
        verify: Verify | None = None,
    ) -> ContainerCreated:
        """Create the container of a request, with the files of a checkpoint, and the checkpoint.

        :raises NotFound: when its image does not exist.
        :raises Conflict: when the name or a volume exists.
        :raises NotAuthorized: when the caller may not have such a container.
        """
        services, description = self._services, held_description(manifest)
        if description.sandbox:
            raise InvalidRequest(
                f"checkpoint {manifest.name} is of a container in a pod",
                hint="create a container of a pod from its archive, by CRI",
            )
        body = msgspec.structs.replace(body, image=self.image(description))
        created = await container_create.create(
            services,
            body,
            name or None,
            None,
            owner=owner,
            authorize=authorize(body),
            incoming=f"checkpoint {manifest.name}",
        )
        container = services.container_store.find(created.id)
        await self.fill(container, manifest, adopt, verify)
        return created

    async def fill(
        self,
        container: Container,
        manifest: Manifest,
        adopt: Adopt,
        verify: Verify | None = None,
    ) -> None:
        """Give a new container the files of a checkpoint, and the checkpoint; else remove it.

        An incoming one may start then. If the engine is killed before, the next one removes it.

        Its volumes must be those that its creation made. Without ``verify`` the files of the
        checkpoint have been verified.

        :raises InvalidRequest: when the container has other layers or volumes than the checkpoint.
        :raises Conflict: when one of its volumes has existed.
        """
        references = self._services.volume_references
        references.begin(container.id)
        try:
            async with container.lock:
                self._check(container, manifest)
                adopted = msgspec.structs.replace(manifest, container=container.id)
                adopted = await in_thread(adopt, adopted)
                services, record = self._services, container.record
                if verify is None:
                    await in_thread(container_files.stage, services, record, adopted)
                else:
                    await container_files.stage_and_verify(services, record, adopted, verify)
                await in_thread(container_files.replace, services, record)
                if record.migration is not None:
                    container.change(migration=None)
                    services.container_store.save(container)
        except BaseException:
            await shielded(self._undo(container))
            raise
        finally:
            references.end(container.id)

    def image(self, description: ContainerDescription) -> str:
        """Return the name of the image if it still means the same one, else its id.

        :raises NotFound: when this engine does not have the image.
        """
        name = description.body.image
        for ref in (name, description.image_id):
            try:
                if self._services.images.resolve(ref, None).id == description.image_id:
                    return ref
            except NotFound:
                continue
        raise NotFound(
            f"No such image: {name} ({description.image_id})",
            hint="the checkpoint needs exactly this image: pull it by its digest, or move it with"
            " jaula save and jaula load",
        )

    def _check(self, container: Container, manifest: Manifest) -> None:
        """Check that a new container can get the files of a checkpoint."""
        description = held_description(manifest)
        if tuple(map(diff_id_of, container.record.layers)) != description.layers:
            raise InvalidRequest(f"the image {description.body.image} has other layers here")
        assert manifest.held is not None
        destinations = {path for each in manifest.held.volumes for path in each.destinations}
        for mount in container.record.mounts:
            if mount.type == "volume" and mount.destination in destinations:
                destinations.discard(mount.destination)
                if self._services.volumes.get(mount.name).transaction != container.id:
                    raise Conflict(
                        f"volume {mount.name} exists, and the checkpoint has its files",
                        hint="remove it, or give the container another name with --name, so that it"
                        " gets new volumes",
                    )
        if destinations:
            raise InvalidRequest(f"the container has no volume at {min(destinations)}")

    async def _undo(self, container: Container) -> None:
        """Remove a container that could not get its files, and the volumes created for it."""
        volumes = {m.name for m in container.record.mounts if m.type == "volume"}
        async with container.lock:
            if container.id in self._services.container_store:
                await self._exit_handler.remove(container, volumes=True)
        for name in volumes:
            try:
                references = self._services.volume_references
                await references.remove(name, transaction=container.id)
            except NotFound:
                continue  # removed with the container, or not created for it
            except JaulaError as error:
                log.warning("%s", error)
