"""Change a container that exists, also while it runs (``jaula edit``): all or nothing.

The steps are: sources of mounts, mounts, networks, published ports, limits, record. The record has
an :class:`~jaula.state.container_records.EditIntent` from before the first step until the last: the
write that removes it is the one that makes the change true. A step that fails, or an engine that
reads the intent of a killed one, undoes the others. Ports are not in the intent: an engine that
starts publishes those of the records.

For a running container the caller holds its lock.
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import health as container_health
from jaula.engine.containers import restart_policy, selinux_labels
from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_liveness import has_exited, not_running
from jaula.engine.containers.update import Update, fields_of
from jaula.engine.model.seal import spec_seal
from jaula.engine.networks import endpoints
from jaula.engine.networks.connect import endpoint_fields
from jaula.engine.oci_spec import spec_resources
from jaula.engine.threads import in_thread, shielded
from jaula.engine.volumes.mount_sources import VolumeMounter
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, RuntimeFailure, Unavailable
from jaula.features.edit import edit_request, spec_mounts
from jaula.kernel.syncfs import write_durable
from jaula.spec.api_documents import ContainerUpdate
from jaula.spec.runtime_spec import Linux, Spec, decode, encode
from jaula.state.container_records import EditIntent, LiveChange, PortMapping, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaula.engine.containers.bounds import Bounds
    from jaula.engine.containers.health_monitor import HealthMonitor
    from jaula.engine.containers.start import Starter
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.edit.edit_request import Edit
    from jaula.runtime.runtime_client import Shim
    from jaula.spec.api_documents import ContainerEdit
    from jaula.spec.api_networks import EndpointSettings
    from jaula.spec.endpoint_record import PublishedPort
    from jaula.state.container_records import ContainerRecord, MountRecord

log = logging.getLogger("jaula.containers")

AuthorizeEdit = Callable[["Edit"], "Bounds"]
"""Checks a decided change and returns the bounds of its mounts."""

_Networks = tuple[tuple[str, str, "EndpointSettings"], ...]
"""Networks to connect to: name, id and settings."""

MAX_CHANGES = 50  # that a record keeps


class Edits:
    """The changes of one engine's containers."""

    def __init__(self, services: Services, starter: Starter, health: HealthMonitor) -> None:
        self._services = services
        self._starter = starter
        self._health = health

    def decide(self, container: Container, body: ContainerEdit) -> Edit:
        """Return the change that a request asks for, with its networks checked.

        :raises Conflict: when the container has changed since the client read it.
        :raises NotFound: when there is no such network.
        :raises InvalidRequest: when the change is not valid.
        """
        store = self._services.network_store
        body = msgspec.structs.replace(
            body,
            connect={store.find(ref): settings for ref, settings in body.connect.items()},
            disconnect=tuple(store.find(ref) for ref in body.disconnect),
        )
        policy = body.update.restart_policy
        if policy.name:
            auto = container.record.body.host_config.auto_remove
            restart_policy.check(policy, auto_remove=auto)
        container_health.check(body.healthcheck)
        return edit_request.decide(
            container.record,
            body,
            self._services.host,
            is_engine_socket=self._services.engine_sockets.is_engine_socket,
        )

    async def edit(
        self, container: Container, body: ContainerEdit, authorize: AuthorizeEdit, by: str
    ) -> Sequence[str]:
        """Change a container, also while it runs, and return warnings.

        ``by`` is the client, for the record.

        :raises Conflict: when the container has changed since the client read it, a mount is in
            use, or the container exits meanwhile.
        :raises InvalidRequest: when the change is not valid.
        :raises RuntimeFailure: when the kernel refuses it. Nothing has changed then.
        """
        async with container.lock:
            if container.id not in self._services.container_store:
                raise NotFound(f"No such container: {container.name}")
            return await self._edit(container, body, authorize, by)

    async def _edit(
        self, container: Container, body: ContainerEdit, authorize: AuthorizeEdit, by: str
    ) -> Sequence[str]:
        if container.record.status in (Status.REMOVING, Status.DEAD, Status.RESTARTING):
            raise Conflict(f"container {container.name} is {container.record.status}")
        if container.record.edit_intent is not None:
            await self.undo(container)
        edit = self.decide(container, body)
        if container.live and edit.mounts + edit.unmounted and container.record.external_runtime:
            raise InvalidRequest(
                "the mounts of a container of an external runtime cannot be changed"
            )
        bounds = authorize(edit)
        connected = self._networks(body)
        for request in edit.mounts:
            selinux_labels.check_mount(self._services, request.mount)
        lease = self._services.images.lease()
        transaction = secrets.token_hex(16)
        mounter = VolumeMounter(self._services, transaction)
        try:
            asked = msgspec.structs.replace(edit.resolved, mounts=edit.mounts, volumes_from=())
            asking = msgspec.structs.replace(
                container.record, resolved_request=asked, beneath=bounds.mount_prefixes
            )
            if missing := tuple(r.mount.name for r in mounter.missing(asked) if r.mount.name):
                self._intend_volumes(container, missing, transaction)
            mounts = await mounter.create_sources(asking, lease)
            steps = _Steps(
                self._services, self._starter, container, edit, body, mounts, bounds, connected
            )
            await steps.run(by, mounter.created, transaction)
        except BaseException:
            await mounter.undo()
            if container.record.edit_intent is not None:
                container.change(edit_intent=None)
                self._services.container_store.save(container)
            raise
        finally:
            mounter.close()
            lease.close()
        if body.healthcheck is not None and container.live:
            container.change(health=None)
            self._health.started(container)
            self._health.watch(container)
        self._services.events.emit(
            "container",
            "update",
            container.id,
            container.record.event_attributes | {"changes": "; ".join(edit.changes)},
        )
        return edit.warnings

    def _networks(self, body: ContainerEdit) -> _Networks:
        """Return the networks to connect to, which were authorized just now."""
        store = self._services.network_store
        names = {store.find(ref): settings for ref, settings in body.connect.items()}
        return tuple((name, store.id_of(name), settings) for name, settings in names.items())

    def _intend_volumes(
        self, container: Container, names: tuple[str, ...], transaction: str
    ) -> None:
        """Record the names of volumes that will be created, and the word that they will have."""
        networks = endpoints.settings_of(container.record)
        intent = EditIntent(networks=networks, volumes=names, transaction=transaction)
        container.change(edit_intent=intent)
        self._services.container_store.save(container)

    async def undo(self, container: Container) -> None:
        """Undo the change that a previous engine has begun. Safe for each of its steps."""
        intent = container.record.edit_intent
        if intent is None:
            return
        log.info("the change of container %s was interrupted and is undone", container.name)
        await _undo(self._services, self._starter, container, intent)
        # An intent of an older engine has no word: its volumes may be those of another client.
        for name in intent.volumes if intent.transaction else ():
            try:
                references = self._services.volume_references
                await references.remove(name, transaction=intent.transaction)
            except (Conflict, NotFound):
                continue  # another container needs it, or it was not created by the change
            except JaulaError as error:
                log.warning("volume %s: %s", name, error)


class _Steps:
    """The steps of one change."""

    def __init__(
        self,
        services: Services,
        starter: Starter,
        container: Container,
        edit: Edit,
        body: ContainerEdit,
        mounts: tuple[MountRecord, ...],
        bounds: Bounds,
        connected: _Networks,
    ) -> None:
        self._connected = connected
        self._services = services
        self._starter = starter
        self._container = container
        self._edit = edit
        self._request = body
        self._mounts = mounts
        prefixes = (*container.record.beneath, *bounds.mount_prefixes)
        self._beneath = tuple(dict.fromkeys(prefixes))

    async def run(self, by: str, volumes: tuple[str, ...], transaction: str) -> None:
        """Carry out all steps, or undo those that were.

        :raises JaulaError: when one fails.
        """
        container, edit = self._container, self._edit
        before, shim, live = container.record, container.shim, container.live
        intent = EditIntent(
            mounted=tuple(mount.destination for mount in self._mounts),
            unmounted=edit.unmounted,
            networks=endpoints.settings_of(before),
            limits=_former_limits(before, self._request.update) if edit.limits else None,
            volumes=volumes,
            transaction=transaction,
            removed_limits=edit.removed_limits,
        )
        ports: list[PublishedPort] = []
        changed_ports = False
        if live and self._mounts:
            await self._check_free()
        try:
            # An undo connects it to these networks, not to others that have got their names.
            ids = {name: self._services.network_store.id_of(name) for name in intent.networks or ()}
            container.change(edit_intent=intent, network_ids=ids | before.network_ids)
            self._save()
            if live and (self._mounts or edit.unmounted):
                await self._change_mounts()
            await self._change_networks()
            current = list(container.record.endpoints)
            if live and edit.changes_ports:
                connector = self._starter.connector
                ports, current = connector.change_ports(
                    container.record, edit.ports, edit.unpublished
                )
                changed_ports = True
            if live and edit.limits is not None:
                await in_thread(_apply, self._services, before, edit.limits)
            if live and (not container.live or container.shim is not shim):
                raise not_running(container)
            fields = self._fields(by, live=live)
            if live:
                fields |= endpoint_fields(current)
            container.change(**fields)
            self._save()
        except BaseException as error:
            exited = isinstance(error, JaulaError | OSError) and live
            exited = exited and await shielded(has_exited(container, shim))
            container.change(
                body=before.body,
                resolved_request=before.resolved_request,
                mounts=before.mounts,
                beneath=before.beneath,
                live_changes=before.live_changes,
                edit_intent=intent,
            )
            if changed_ports and container.live:
                self._restore_ports(before, ports)
            await shielded(_undo(self._services, self._starter, container, intent))
            self._services.volume_mounts.leave_mounts(container, self._mounts)
            if exited:
                raise not_running(container) from error
            if isinstance(error, RuntimeFailure):
                raise _as_answer(error) from error
            raise
        await self._release(before)

    def _fields(self, by: str, *, live: bool) -> dict[str, object]:
        """Return the members of the record that the change sets."""
        edit, record = self._edit, self._container.record
        removed = {mount.destination for mount in edit.unmounted}
        kept = tuple(mount for mount in record.mounts if mount.destination not in removed)
        change = LiveChange(time.time_ns(), by, edit.changes, live)
        return {
            "body": edit.body,
            "resolved_request": edit.resolved,
            "mounts": (*kept, *self._mounts),
            "beneath": self._beneath,
            "live_changes": (*record.live_changes, change)[-MAX_CHANGES:],
            "edit_intent": None,
        }

    def _save(self) -> None:
        self._services.container_store.save(self._container)

    async def _check_free(self) -> None:
        """Check that nothing is mounted at the new destinations, which an undo would unmount.

        :raises Conflict: when something is, or the container exits.
        """
        removed = {mount.destination for mount in self._edit.unmounted}
        free = (mount.destination for mount in self._mounts)
        shim = self._shim()
        try:
            nothing = Spec(linux=Linux())
            await shim.change_mounts(nothing, (), free=tuple(d for d in free if d not in removed))
        except JaulaError as error:  # Unavailable when the connection was lost before the request
            if await has_exited(self._container, shim):
                raise not_running(self._container) from error
            if isinstance(error, RuntimeFailure):
                raise _as_answer(error) from error
            raise

    def _shim(self) -> Shim:
        shim = self._container.shim
        if shim is None:
            raise Unavailable(f"the shim of container {self._container.name} is not connected yet")
        return shim

    async def _change_mounts(self) -> None:
        record = msgspec.structs.replace(
            self._container.record, mounts=self._mounts, beneath=self._beneath
        )
        await in_thread(
            selinux_labels.label_mounts, self._services, self._container.record, self._mounts
        )
        await self._services.volume_mounts.use(record)
        removed = tuple(mount.destination for mount in self._edit.unmounted)
        detach = self._request.detach
        await _mount(self._services, self._starter, record, self._shim(), removed, detach=detach)

    async def _change_networks(self) -> None:
        connector, store = self._starter.connector, self._services.network_store
        for ref in self._request.disconnect:
            await connector.disconnect(self._container, store.find(ref))
        for name, network_id, settings in self._connected:
            await connector.connect(self._container, name, settings, network_id)

    def _restore_ports(self, before: ContainerRecord, ports: Sequence[PublishedPort]) -> None:
        """Publish what was published before, by the same numbers."""
        again = [
            PortMapping(port.container_port, port.protocol, port.host_ip, port.host_port)
            for port in self._edit.unpublished
        ]
        try:
            _, current = self._starter.connector.change_ports(
                self._container.record, again, tuple(ports)
            )
            self._container.change(**endpoint_fields(current))
        except JaulaError as error:
            log.warning("container %s: %s", before.name, error)

    async def _release(self, before: ContainerRecord) -> None:
        """Release what only the removed mounts used."""
        if self._edit.unmounted:
            self._services.volume_mounts.leave_mounts(self._container, self._edit.unmounted)
        if self._mounts and self._container.live:
            from jaula.engine.volumes.volume_mount import emit_mounts

            emit_mounts(self._services.events, msgspec.structs.replace(before, mounts=self._mounts))


async def _mount(
    services: Services,
    starter: Starter,
    record: ContainerRecord,
    shim: Shim,
    removed: tuple[str, ...],
    *,
    detach: bool = False,
    undo: bool = False,
) -> None:
    """Mount those of ``record`` in its running container, unmount others, and write the spec.

    The spec of an undo is written first: it agrees with the record also if a mount is left.
    """
    path = services.config.paths.container(record.id) / "config.json"
    former = decode(await in_thread(path.read_bytes))
    made = spec_mounts.partial_spec(
        record, former, services.host, services.volume_mounts.private(record)
    )
    host_mounts = services.runtime.host_mounts if spec_mounts.needs_host(made) else -1
    document = encode(spec_mounts.changed_spec(former, made, removed))
    if undo:
        await _write_spec(starter, record, path, document)
    await shim.change_mounts(made, removed, detach=detach, undo=undo, host_mounts=host_mounts)
    if not undo:
        await _write_spec(starter, record, path, document)


async def _write_spec(
    starter: Starter, record: ContainerRecord, path: Path, document: bytes
) -> None:
    await in_thread(_write, path, document)
    starter.on_spec(record, spec_seal(document))


def _write(path: Path, document: bytes) -> None:
    """Replace a file: a reader sees all of it or the former one."""
    write_durable(path, document, path.stat().st_mode & 0o777)


async def _undo(
    services: Services, starter: Starter, container: Container, intent: EditIntent
) -> None:
    """Revert the steps of a change but its ports, whichever were done; remove the intent.

    A step that cannot be reverted is logged. The others are.
    """
    record = container.record
    if container.live and (intent.mounted or intent.unmounted) and container.shim is not None:
        former = msgspec.structs.replace(record, mounts=intent.unmounted)
        try:
            await _mount(
                services,
                starter,
                former,
                container.shim,
                intent.mounted,
                detach=True,
                undo=True,
            )
        except (JaulaError, OSError) as error:
            _report(container, error)
    await _undo_networks(services, starter, container, intent)
    if container.live and intent.limits is not None:
        try:
            await in_thread(_restore_limits, services, record, intent)
        except (JaulaError, OSError) as error:
            _report(container, error)
    container.change(edit_intent=None)
    services.container_store.save(container)


async def _undo_networks(
    services: Services, starter: Starter, container: Container, intent: EditIntent
) -> None:
    if intent.networks is None:
        return
    before = intent.networks
    if not container.live:  # only the record was changed; a network may be gone meanwhile
        container.change(networks=before)
        return
    for name in endpoints.settings_of(container.record):
        if name not in before:
            try:
                await starter.connector.disconnect(container, name)
            except (JaulaError, OSError) as error:
                _report(container, error)
    for name, settings in before.items():
        if name not in endpoints.settings_of(container.record):
            try:
                await starter.connector.connect(container, name, settings)
            except (JaulaError, OSError) as error:
                _report(container, error)


def _report(container: Container, error: Exception) -> None:
    if container.live:
        log.warning("container %s: undo of a change: %s", container.name, error)


def _as_answer(error: RuntimeFailure) -> JaulaError:
    """Return the error of the shim with the status of a request that cannot be carried out."""
    if error.errno in (errno.EBUSY, errno.EEXIST, errno.ENOENT):
        return Conflict(error.message)
    if error.errno in (errno.EROFS, errno.EXDEV, errno.EPERM, errno.ELOOP, errno.ENOTDIR):
        return InvalidRequest(error.message)
    return error


# -- limits --------------------------------------------------------------------------------------


def _apply(services: Services, record: ContainerRecord, update: Update) -> None:
    if update.limits is None:
        return
    try:
        with open_cgroup(services, record) as cgroup:
            cgroup.apply(update.limits)
    except NotFound as error:
        raise Conflict(f"container {record.name} has no cgroup") from error


def _former_limits(record: ContainerRecord, update: ContainerUpdate) -> ContainerUpdate:
    """Return the update itself: its members name the limits to restore from the record."""
    return msgspec.structs.replace(update, restart_policy=ContainerUpdate().restart_policy)


def _restore_limits(services: Services, record: ContainerRecord, intent: EditIntent) -> None:
    """Write the limits of the record that an update had changed or removed."""
    old, update = record.host_config, intent.limits or ContainerUpdate()
    pod = record.resolved.pod_resources
    names = fields_of(update) | set(intent.removed_limits)
    former = ContainerUpdate(**{name: getattr(old, name) for name in names})
    changed = {name: getattr(update, name) for name in fields_of(update)}
    limits = spec_resources.change(
        former, msgspec.structs.replace(old, **changed), old, services.host, pod
    )
    limits = spec_resources.reset(limits, names, old, services.host)
    with open_cgroup(services, record) as cgroup:
        cgroup.apply(limits)
