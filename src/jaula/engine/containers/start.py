"""``POST /containers/ID/start``: ids, networks, files and spec of a container, then the runtime.

The order of a start, under the container's lock:

1. The image policy checks the image again, and the descriptors of joined namespaces are opened.
2. A sandbox with its user and network namespace is taken from the pool, the container is connected
   to its networks, and its ports are published (:mod:`jaula.engine.networks.connect`).
3. Volumes are mounted, and files are labelled if the host has SELinux.
4. The OCI spec is built from the resolved request (:mod:`jaula.engine.oci_spec.spec`) and written
   to the bundle, with ``/etc/hosts`` and the other files of the container. Its seal is written to
   the audit log.
5. The intent to start is recorded, with the addresses and ids of the container. If the engine ends
   before the answer, the next one takes the container over
   (:mod:`jaula.engine.containers.restore`), so no program runs twice for one request.
6. The runtime starts it (:meth:`jaula.runtime.client.Runtime.start`): the zygote forks a shim, and
   the answer is the pid of init, or the error.
7. The record is saved as running with everything that the start took.

If anything fails, everything that the start took is released. The failure is recorded as Docker
does (exit code 127, 126 or 125, and the text), and no client waits forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from jaula import metrics, spans
from jaula.cgroups import own_memory
from jaula.cgroups.cgroup_path import container_path
from jaula.engine import oci_runtimes
from jaula.engine.containers import engine_socket, selinux, shm
from jaula.engine.containers.log_config import log_options, with_identity
from jaula.engine.model.container import Container, StateAction, next_status
from jaula.engine.model.seal import spec_seal
from jaula.engine.networks import endpoints, etc_files, links
from jaula.engine.networks.connect import NetworkConnector, StartResources
from jaula.engine.networks.restore import restore_resolvers
from jaula.engine.oci_spec import host, security, spec
from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.engine.threads import shielded
from jaula.engine.userns import join
from jaula.engine.userns.id_ranges import IdMaps, IdRange, keep_id_maps
from jaula.engine.volumes.image_mount import mount_images
from jaula.engine.volumes.mount import emit_mounts
from jaula.errors import Conflict, InvalidRequest, JaulaError, RuntimeFailure, resource_error
from jaula.runtime import client
from jaula.runtime.create import id_maps
from jaula.runtime.protocol import LogSetup, StartRequest
from jaula.sandbox.fork_server import SERVER
from jaula.security.devices import host_devices
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.spec.runtime import encode
from jaula.state.records import ContainerRecord, StartIntent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from jaula.cgroups.protocol import Cgroup
    from jaula.config import EngineConfig
    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.services import Services
    from jaula.engine.volumes.staged_mounts import StagedMounts
    from jaula.features.checkpoint.store import Manifest
    from jaula.runtime.protocol import Event, ExternalRuntime
    from jaula.security.cdi import ContainerEdits
    from jaula.spec.api import DeviceRequest
    from jaula.state.records import MountRecord, Namespaces


@contextlib.contextmanager
def _phase(name: str) -> Iterator[None]:
    """Measure a phase of a start for metrics and traces. One that fails is not counted."""
    started = time.perf_counter()
    with spans.span(f"start {name}"):
        yield
    metrics.START_PHASES.observe(time.perf_counter() - started, name)


class Starter:
    """Starts containers. The caller holds the container's lock."""

    def __init__(
        self,
        services: Services,
        users: UserLookup,
        on_event: Callable[[Container, Event], None],
        save: Callable[[Container], bool],
        clean_up: Callable[[Container], Awaitable[None]],
        remove_run_dir: Callable[[Container], None],
    ) -> None:
        self._services = services
        self._users = users
        self._on_event = on_event
        self._save = save
        self._clean_up_container = clean_up
        self._remove_run_dir = remove_run_dir
        self.connector = NetworkConnector(services)
        self._memory = own_memory.OwnMemory()
        self.on_spec: Callable[[ContainerRecord, str], None] = lambda record, seal: None
        """Logs the seal of a spec that was written for a start."""

    async def start(
        self, container: Container, checkpoint: Manifest | None = None, hold: int = -1
    ) -> None:
        """Start a container, or continue it from a checkpoint.

        ``hold`` is a socket on which the runtime waits for the images of the checkpoint, and asks
        before the restored processes run.

        :raises RuntimeFailure: when the program does not exist (127), cannot be executed (126), or
            the kernel refused a step (125).
        :raises Unavailable: when a disk is full or read-only, or the engine's cgroup has no memory.
        :raises Conflict: when the container's state does not allow a start, or a container that it
            joins does not run.
        """
        record = container.record
        running_status = next_status(record.status, StateAction.START, container.name)
        resources = StartResources(self._services)
        container.exited.clear()
        images: StagedMounts | None = None
        try:
            await self._make_room(container.name)
            # The policy decided on the image of a build when it began. A sandbox has no image.
            if not record.build and record.sandbox is None:
                self._services.image_policy.check_start(record.image, record.asked_image)
            resolved = record.resolved
            joined = self._joined_paths(resolved.namespaces, resources)
            if container.netns >= 0:
                resources.joined_fds["network"] = os.dup(container.netns)
            with _phase("sandbox"):
                await self._take(record, resources, checkpoint)
            if container.prepare is not None:
                await container.prepare(self._maps(record, resources))
                record = container.record
            if self._services.host.selinux and not record.level:  # older than the host's policy
                level = selinux.take_level(self._services, record.id, resolved)
                container.change(level=level)
                record = container.record
            runtime = await self._services.runtime_table.command(record.host_config.runtime)
            with _phase("spec"):
                await self._services.volume_mounts.use(record)
                mounts, images = await mount_images(
                    self._services, record, self._maps(record, resources)
                )
                request = self._prepare(container, joined, resources, runtime, mounts)
            if checkpoint is not None:
                for address in checkpoint.addresses:
                    self._services.network_manager.restore_egress(
                        record.id, address.network, address.names
                    )
                ports = tuple(p.container_port for p in resolved.ports if p.protocol == "tcp")
                host = record.host_config
                is_listed = host.egress is not None or host.listen is not None
                from jaula.features.checkpoint.checkpoint import restore_setup

                restore = restore_setup(
                    self._services.checkpoints,
                    checkpoint,
                    record.hostname,
                    ports if is_listed else None,
                    early=hold >= 0,
                )
                if hold >= 0 and self._shares_network(record):
                    restore = msgspec.structs.replace(restore, shares_network=True)
                request = msgspec.structs.replace(request, restore=restore)
            if self._services.host.selinux:
                await asyncio.to_thread(selinux.label_files, self._services, record, request.root)
            with _phase("record"):
                intent = self._intent(container.record, resources)
                intent, request = self._services.hooks.before_start(
                    self._services, container.record, intent, request
                )
                self._record_intent(container, intent)
            with _phase("runtime"):
                shim = await self._ask_runtime(container, request, resources, hold)
        except BaseException as error:
            try:
                await shielded(self._clean_up(container))
            finally:
                self._failed(container, resources, error)
            if isinstance(error, OSError):
                what = f"cannot start container {container.name}"
                raise resource_error(error, what) or RuntimeFailure(f"{what}: {error}") from error
            raise
        finally:
            container.starting = None
            if images is not None:
                images.detach()
        resources.close_sandbox()
        container.shim = shim
        container.change(
            status=running_status,
            pid=shim.pid,
            shim_pid=shim.shim_pid,
            **running_fields(intent) | {"oom_killed": container.record.oom_killed},
        )
        self._save(container)
        if checkpoint is not None:
            await restore_resolvers(self._services, (container,))  # the namespace is a new one
        if record.started_at:  # on its first start no container can be linked to it yet
            links.update_linked_hosts(self._services, container)
        self.connector.emit(container.record, resources.endpoints, "connect")
        emit_mounts(self._services.events, record)
        self._services.events.emit("container", "start", container.id, record.event_attributes)
        self._services.sandbox_pool.refill()

    async def _make_room(self, name: str) -> None:
        """Check that the engine's cgroup has memory for a start, which idle processes leave.

        :raises Unavailable: when it has none.
        """
        if not self._memory.has_room(own_memory.START):
            await asyncio.to_thread(SERVER.end_idle)
            self._memory.check(f"cannot start container {name}", own_memory.START)

    async def _ask_runtime(
        self,
        container: Container,
        request: StartRequest,
        resources: StartResources,
        hold: int,
    ) -> client.Shim:
        """Ask the runtime for the container.

        A task that is cancelled waits for the answer: the processes exist then, and are removed.
        """
        starting = asyncio.ensure_future(
            self._services.runtime.start(
                request,
                resources.sandbox,
                container.take_pending(),
                functools.partial(self._on_event, container),
                resources.joined_fds,
                functools.partial(setattr, container, "starting"),
                engine_socket=self._services.engine_sockets.descriptor(container.id),
                hold=hold,
                inherited=container.take_inherited(),
            )
        )
        try:
            return await shielded(starting)
        except asyncio.CancelledError:
            if starting.exception() is None:
                starting.result().close()
            raise

    def _intent(self, record: ContainerRecord, resources: StartResources) -> StartIntent:
        """Return the intent to start: the addresses and ids that the container will have."""
        reserved, shared = resources.reserved, resources.shared_ids
        endpoints = resources.endpoints
        return StartIntent(
            # Before the first output: clients request logs from this time on.
            started_at=time.time_ns(),
            range_start=reserved.start if reserved else 0,
            range_size=reserved.size if reserved else 0,
            borrowed_start=shared.start if shared else 0,
            borrowed_size=shared.size if shared else 0,
            endpoint=endpoints[0] if endpoints else None,
            more_endpoints=tuple(endpoints[1:]),
            ports=tuple(port for endpoint in endpoints for port in endpoint.ports),
        )

    def _record_intent(self, container: Container, intent: StartIntent) -> None:
        """Write the intent to start. The next engine kills build steps without it.

        :raises Unavailable: when the disk is full; the runtime has not been asked.
        """
        # Before the runtime is asked: it may report exhausted memory at once.
        container.change(oom_killed=False)
        if not container.record.build:
            state = container.record.rollback_state
            if container.record.rollback and state is not None:
                state = state.with_start
            else:
                state = None
                container.change(rollback="", rollback_directory="")
            container.change(start_intent=intent, rollback_state=state)
            self._services.container_store.save(container)

    async def _clean_up(self, container: Container) -> None:
        """Remove what a killed shim or helper has left: processes, cgroup, mounts, run directory.

        The runtime cleans up after every other failure; the cgroup does not exist then.
        """
        await self._clean_up_container(container)
        self._remove_run_dir(container)

    def _failed(
        self, container: Container, resources: StartResources, error: BaseException
    ) -> None:
        container.close_pending()
        self._services.dns_servers.close_one(container.id)
        self._services.volume_mounts.leave(container)
        self._services.engine_sockets.close(container.id)
        resources.release()
        self._services.hooks.start_failed(self._services, container.record)
        code = error.exit_code if isinstance(error, JaulaError) else 125
        text = error.message if isinstance(error, JaulaError) else str(error)
        container.change(
            exit_code=code, error=text, finished_at=time.time_ns(), pid=0, start_intent=None
        )
        if (state := container.record.rollback_state) is not None:
            container.change(rollback_state=state.without_start)
        container.exited.set()
        self._save(container)

    # -- namespaces ----------------------------------------------------------------------------

    def _joined_paths(self, modes: Namespaces, resources: StartResources) -> dict[str, str]:
        """Return the paths of namespaces of another container, its user namespace among them.

        The spec shows these paths. The runtime enters the descriptors in ``resources.joined_fds``.

        :raises Conflict: when the other container does not run.
        :raises InvalidRequest: when the other container does not share the namespace.
        """
        paths: dict[str, str] = {}
        for kind, ref in modes.containers().items():
            other = self._services.container_store.find(ref)
            pid = other.held.pid if other.held is not None else other.record.pid
            if not pid or not (other.live or other.held is not None):
                raise Conflict(f"cannot join {kind} of a non running container: {other.name}")
            other_modes = other.record.resolved.namespaces
            if kind == "ipc" and not other_modes.shareable_ipc:
                raise InvalidRequest(
                    f"cannot join IPC of a non-shareable container {other.name}",
                    hint="start that one with --ipc=shareable",
                )
            paths[kind] = f"/proc/{pid}/ns/{join.NAMES[kind]}"
            if modes.user.host:
                continue
            if not other_modes.user.host:
                paths.setdefault("user", f"/proc/{pid}/ns/user")
            elif kind == "user":
                raise InvalidRequest(
                    f"container {other.name} has no user namespace of its own to join",
                    hint="it was created with --userns=host",
                )
        owners: dict[str, list[str]] = {}
        for kind, ref in modes.containers().items():
            owners.setdefault(ref, []).append(kind)
        if "user" in paths and not modes.user.container:
            owners[next(iter(owners))].append("user")
        for ref, kinds in owners.items():
            other = self._services.container_store.find(ref)
            resources.joined_fds |= join.open_namespaces(other, kinds)
        if len(owners) > 1 and not modes.user.host:
            self._check_user_namespace(owners, resources.joined_fds.get("user"))
        return paths

    def _check_user_namespace(self, owners: Iterable[str], user_fd: int | None) -> None:
        """Check that containers whose namespaces are joined are in one user namespace.

        ``user_fd`` is that of the first one, None if it is the host's.

        :raises InvalidRequest: when one is in another.
        """
        first, *others = (self._services.container_store.find(ref) for ref in owners)
        for other in others:
            fds = join.open_namespaces(other, ("user",))
            try:
                same = user_fd is not None and os.path.samestat(
                    os.fstat(fds["user"]), os.fstat(user_fd)
                )
            finally:
                os.close(fds["user"])
            if not same:
                raise InvalidRequest(
                    f"containers {first.name} and {other.name} are in different user namespaces",
                    hint="a container can join namespaces of one user namespace only",
                )

    def _shares_network(self, record: ContainerRecord) -> bool:
        return any(
            other.record.resolved.namespaces.net.container == record.id
            for other in self._services.container_store
        )

    def _namespace_owner(self, modes: Namespaces) -> Container | None:
        for ref in modes.containers().values():
            return self._services.container_store.find(ref)
        return None

    async def _take(
        self, record: ContainerRecord, resources: StartResources, checkpoint: Manifest | None
    ) -> None:
        modes = record.resolved.namespaces
        # A container joins the user namespace of another one with that one's namespaces, or none.
        owner = self._namespace_owner(modes) if "user" in resources.joined_fds else None
        networks = {} if record.body.network_disabled else endpoints.settings_of(record)
        if checkpoint is not None:
            from jaula.features.checkpoint.checkpoint import keep_addresses

            networks = keep_addresses(networks, checkpoint)
        if modes.network and networks:
            await self.connector.attach(
                record,
                networks,
                resources,
                lambda ids: keep_id_maps(record, ids),
                carrier=checkpoint is None,
            )
        elif owner is None and not modes.user.host:
            resources.reserved = self._take_ids(record)
        if owner is not None:
            resources.ids = resources.shared_ids = self.ids_of(owner)
            if resources.shared_ids is not None:
                self._services.id_ranges.share(resources.shared_ids.start)
        elif not modes.user.host:
            resources.ids = resources.reserved

    def _take_ids(self, record: ContainerRecord) -> IdRange:
        """Return a range that no other container has, or the one that a pod's client has chosen."""
        chosen = record.sandbox.request.ids if record.sandbox is not None else None
        if chosen is None:
            return self._services.id_ranges.take()
        self._services.id_ranges.share(chosen.start)
        return IdRange(chosen.start, chosen.count)

    def ids_of(self, container: Container) -> IdRange | None:
        """Return the ids that a running container uses, its own or those of the one it joined."""
        taken = _taken(container)
        if taken.borrowed_size:
            return IdRange(taken.borrowed_start, taken.borrowed_size)
        if container.record.resolved.namespaces.user.host or not taken.range_size:
            return None
        return IdRange(taken.range_start, taken.range_size)

    def _maps(self, record: ContainerRecord, resources: StartResources) -> IdMaps:
        """Return the id maps of the container's user namespace; empty if that is the host's."""
        if resources.ids is None:
            return (), ()
        is_borrowed = resources.shared_ids is not None
        while is_borrowed and (owner := self._namespace_owner(record.resolved.namespaces)):
            record = owner.record
            is_borrowed = bool(_taken(owner).borrowed_size)
        default = self._services.id_ranges.mappings(resources.ids)
        return keep_id_maps(record, resources.ids) or (default, ())

    # -- spec ----------------------------------------------------------------------------------

    def _prepare(
        self,
        container: Container,
        joined: dict[str, str],
        resources: StartResources,
        runtime: ExternalRuntime | None,
        mounts: tuple[MountRecord, ...],
    ) -> StartRequest:
        services, record = self._services, container.record
        body, resolved = record.body, record.resolved
        modes = resolved.namespaces
        if container.transient_env:
            body = msgspec.structs.replace(body, env=(*body.env, *container.transient_env))
        linked = links.resolve_links(services, record) if resolved.links else []
        if linked:
            variables = links.environment(record, linked)
            body = msgspec.structs.replace(body, env=(*variables, *body.env))
        paths = services.config.paths
        uids, gids = self._maps(record, resources)
        run_dir = paths.container_run(record.id)
        user = record.user or self._users.of(record)
        requests = body.host_config.device_requests
        inputs = SpecInputs(
            container_id=record.id,
            cgroup_path=cgroup_path(services, record),
            hostname=record.hostname,
            host=host.refresh(services.host),
            user=user,
            mappings=uids,
            gid_mappings=gids,
            joined=joined,
            private_volumes=services.volume_mounts.private(record),
            id_mapped=resources.ids is not None and not services.host.rootless,
            external=runtime is not None,
            files=etc_files.write(services, record, resources.endpoints, links.hosts_lines(linked)),
            mounts=(
                *engine_socket.bind_mounts(mounts, engine_socket.path(paths, record.id)),
                *services.hooks.mounts_added(services, record, uids, gids),
            ),
            beneath=record.beneath,
            owner=(int(record.owner), record.owner_gid) if record.beneath else None,
            level=record.level,
            shared_shm=shm.shared(self._services, record),
            devices=host_devices() if resolved.security.privileged and modes.user.host else (),
            edits=_device_edits(services.config.cdi_spec_dirs, requests) if requests else (),
        )
        confinement = security.decide(resolved, inputs.host, external=runtime is not None)
        built = spec.build(body, resolved, inputs, confinement)
        root = _root(services, record)
        built = services.hooks.spec_built(services, record, root, built)
        document = encode(spec.with_version(built))
        container.run_dir = str(run_dir)
        os.makedirs(run_dir, mode=0o700, exist_ok=True)
        client.remove_shim_files(str(run_dir))
        owner = id_maps.host_id(uids, user.uid), id_maps.host_id(gids or uids, 0)
        label = security.selinux_labels(resolved, services.host, record.level).process
        services.engine_sockets.open(record, str(run_dir), owner, label)
        oci_runtimes.ExternalContainer.write(run_dir, runtime)
        bundle = container.bundle or str(paths.container(record.id))
        with open(f"{bundle}/config.json.new", "wb", buffering=0) as file:
            file.write(document)
        os.rename(f"{bundle}/config.json.new", f"{bundle}/config.json")  # inspect and exec read it
        if not record.build:
            self.on_spec(record, spec_seal(document))
        driver, options = log_options(services.config, record.log)
        return StartRequest(
            container_id=record.id,
            bundle=bundle,
            run_dir=str(run_dir),
            root=root,
            log=LogSetup(
                driver, with_identity(driver, options, record), log_path(services, record.id)
            ),
            tty=body.tty,
            stdin_open=body.open_stdin,
            stdin_once=body.stdin_once,
            console=body.host_config.console_size,
            seccomp_cache=str(paths.seccomp_cache),
            runtime=runtime,
            host_mounts=bool(spec.host_binds(mounts, inputs.host, inputs.private_volumes))
            or (modes.user.host and any(m.shared for m in record.mounts)),
        )


def _taken(container: Container) -> ContainerRecord | StartIntent:
    """Return what has the ids of a container: its intent until a restored one has its commit."""
    record = container.record
    return record if container.held is None else record.start_intent or record


def running_fields(intent: StartIntent) -> dict[str, Any]:
    """Return the members of a record that the program's start changes, without the pids."""
    return {
        "exit_code": 0,
        "error": "",
        "oom_killed": False,
        "manually_stopped": False,
        "start_intent": None,
        **{name: getattr(intent, name) for name in intent.__struct_fields__},
    }


def _root(services: Services, record: ContainerRecord) -> RootSource:
    """Return the mount of a container's root; a build step's need not survive a power loss."""
    root = services.snapshots.root(record.id)
    if record.build and isinstance(root, OverlayRoot):
        return msgspec.structs.replace(root, volatile=True)
    return root


def _device_edits(
    directories: Sequence[str], requests: Sequence[DeviceRequest]
) -> tuple[ContainerEdits, ...]:
    """Return what the requested devices need, from the files that the host has now."""
    from jaula.security import cdi

    devices = cdi.read(directories)
    return devices.edits(devices.select(requests))


def cgroup_path(services: Services, record: ContainerRecord) -> str:
    """Return the cgroup of a container.

    It was decided when the container was created; a record without it is of a former engine, or of
    a build.
    """
    parent = record.host_config.cgroup_parent
    return record.cgroup or new_cgroup_path(services.config, parent, record.id)


def new_cgroup_path(config: EngineConfig, parent: str, container_id: str) -> str:
    """Return the cgroup of a new container, below the requested parent or the engine's. Pure.

    :raises InvalidRequest: when the parent is not valid.
    """
    parent = parent or config.cgroup_parent
    return container_path(parent, container_id, systemd=config.systemd_cgroups)


def open_cgroup(services: Services, record: ContainerRecord) -> Cgroup:
    """Open the cgroup of a container; the caller closes it.

    :raises NotFound: when there is none.
    """
    return services.cgroups.open(cgroup_path(services, record))


def log_path(services: Services, container_id: str) -> str:
    """Return the path of the json-file log, which has the name that Docker gives it."""
    return str(services.config.paths.container(container_id) / f"{container_id}-json.log")
