"""Starting a container: its ids, its network, its files, its spec, then the runtime.

The order matters for one thing only: whatever fails, everything that was taken is given back, the
failure is recorded as Docker does (exit code 127, 126 or 125 and the text), and nobody waits for
ever.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.engine import oci_runtimes
from jaula.engine.containers import selinux
from jaula.engine.containers.log_config import log_options, with_identity
from jaula.engine.model.container import Container, StateAction, next_status
from jaula.engine.networks import endpoints, etc_files, links
from jaula.engine.networks.connect import NetworkConnector, StartResources
from jaula.engine.oci_spec import host, security, spec
from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.engine.secrets import mount
from jaula.engine.userns import join
from jaula.engine.userns.id_ranges import IdMaps, IdRange, keep_id_maps
from jaula.engine.volumes.mount import emit_mounts
from jaula.errors import Conflict, InvalidRequest, JaulaError, RuntimeFailure
from jaula.runtime.protocol import LogSetup, StartRequest
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.spec.runtime import encode
from jaula.state.records import ContainerRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.services import Services
    from jaula.runtime.protocol import Event, ExternalRuntime
    from jaula.state.records import Namespaces


class Starter:
    """Starts containers. The caller holds the container's lock."""

    def __init__(
        self,
        parts: Services,
        users: UserLookup,
        on_event: Callable[[Container, Event], None],
        book: Callable[[Container], bool],
        clear: Callable[[Container], Awaitable[None]],
    ) -> None:
        self._parts = parts
        self._users = users
        self._on_event = on_event
        self._book = book
        self._clear = clear
        self.connector = NetworkConnector(parts)

    async def start(self, container: Container) -> None:
        """Start it.

        :raises RuntimeFailure: the program is not there (127), cannot be executed (126), or the
            kernel refused something (125).
        :raises Conflict: its state does not allow it, or what it joins does not run.
        """
        record = container.record
        following = next_status(record.status, StateAction.START, container.name)
        place = StartResources(self._parts)
        container.exited.clear()
        try:
            if not record.build:  # a step's base was judged when the build began
                self._parts.gate.starting(record.image, record.body.image)
            resolved = record.resolved
            joined = self._joined(resolved.namespaces, place)
            await self._take(record, place)
            if container.prepare is not None:
                await container.prepare(self._maps(record, place))
                record = container.record
            if self._parts.host.selinux and not record.level:  # made before there was a policy
                level = selinux.take_level(self._parts, record.id, resolved)
                container.change(level=level)
                record = container.record
            runtime = await self._parts.runtimes.command(resolved.runtime)
            await self._parts.volume_mounts.use(record)
            request = self._prepare(container, joined, place, runtime)
            if self._parts.host.selinux:
                await asyncio.to_thread(selinux.label_files, self._parts, record, request.root)
            begun = time.time_ns()  # before it can say anything: logs are asked for from then on
            shim = await self._parts.runtime.start(
                request,
                place.sandbox,
                container.take_pending(),
                functools.partial(self._on_event, container),
                place.held,
            )
        except BaseException as error:
            await asyncio.shield(self._undo(container))
            self._failed(container, place, error)
            if isinstance(error, OSError):
                raise RuntimeFailure(f"cannot start container {container.name}: {error}") from error
            raise
        place.close_sandbox()
        container.shim = shim
        endpoint = place.endpoint
        container.change(
            status=following,
            pid=shim.pid,
            shim_pid=shim.shim_pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=begun,
            finished_at=record.finished_at,
            manually_stopped=False,
            range_start=place.reserved.start if place.reserved else 0,
            range_size=place.reserved.size if place.reserved else 0,
            borrowed_start=place.borrowed.start if place.borrowed else 0,
            borrowed_size=place.borrowed.size if place.borrowed else 0,
            endpoint=endpoint,
            more_endpoints=tuple(place.endpoints[1:]),
            ports=endpoint.ports if endpoint else (),
        )
        self._book(container)
        if record.started_at:  # else nobody can be linked to it yet
            links.update_linked_hosts(self._parts, container)
        self.connector.told(container.record, place.endpoints, "connect")
        emit_mounts(self._parts.events, record)
        self._parts.events.emit("container", "start", container.id, record.event_attributes)
        self._parts.sandboxes.refill()

    async def _undo(self, container: Container) -> None:
        """Leave nothing of what another runtime had begun when its shim was killed."""
        if (
            self._parts.config.paths.container_run(container.id) / oci_runtimes.RUNTIME_FILE
        ).exists():
            await self._clear(container)

    def _failed(self, container: Container, place: StartResources, error: BaseException) -> None:
        container.close_pending()
        self._parts.resolvers.close_one(container.id)
        self._parts.volume_mounts.leave(container)
        place.release()
        code = error.exit_code if isinstance(error, JaulaError) else 125
        text = error.message if isinstance(error, JaulaError) else str(error)
        container.change(exit_code=code, error=text, finished_at=time.time_ns(), pid=0)
        container.exited.set()
        self._book(container)

    # -- what it shares ----------------------------------------------------------------------

    def _joined(self, modes: Namespaces, place: StartResources) -> dict[str, str]:
        """Paths of the namespaces that another container lends, its user namespace among them.

        They are what the spec shows; entered is what ``place`` holds.
        """
        joined: dict[str, str] = {}
        for kind, ref in modes.containers().items():
            other = self._parts.registry.find(ref)
            pid = other.record.pid
            if not other.live or not pid:
                raise Conflict(f"cannot join {kind} of a non running container: {other.name}")
            other_modes = other.record.resolved.namespaces
            if kind == "ipc" and not other_modes.shareable_ipc:
                raise InvalidRequest(
                    f"cannot join IPC of a non-shareable container {other.name}",
                    hint="start that one with --ipc=shareable",
                )
            joined[kind] = f"/proc/{pid}/ns/{join.NAMES[kind]}"
            if not other_modes.user.host:
                joined["user"] = f"/proc/{pid}/ns/user"
            elif kind == "user":
                raise InvalidRequest(
                    f"container {other.name} has no user namespace of its own to join",
                    hint="it was made with --userns=host",
                )
        if (lender := self._lender(modes)) is not None:
            place.held = join.open_namespaces(lender, joined)
        return joined

    def _lender(self, modes: Namespaces) -> Container | None:
        for ref in modes.containers().values():
            return self._parts.registry.find(ref)
        return None

    async def _take(self, record: ContainerRecord, place: StartResources) -> None:
        modes = record.resolved.namespaces
        lender = self._lender(modes)
        members = {} if record.resolved.network_disabled else endpoints.settings_of(record)
        if modes.network and members:
            await self.connector.attach(
                record, members, place, lambda ids: keep_id_maps(record, ids)
            )
        elif lender is None and not modes.user.host:
            place.reserved = self._parts.ranges.take()
        if lender is not None:
            place.ids = place.borrowed = self.ids_of(lender)
            if place.borrowed is not None:
                self._parts.ranges.borrow(place.borrowed.start)
        elif not modes.user.host:
            place.ids = place.reserved

    def ids_of(self, container: Container) -> IdRange | None:
        """The ids that a running container uses, its own or those of the one it joined."""
        record = container.record
        if record.borrowed_size:
            return IdRange(record.borrowed_start, record.borrowed_size)
        if record.resolved.namespaces.user.host or not record.range_size:
            return None
        return IdRange(record.range_start, record.range_size)

    def _maps(self, record: ContainerRecord, place: StartResources) -> IdMaps:
        """The id maps of the user namespace that the container is in; empty for the host's."""
        if place.ids is None:
            return (), ()
        while (lender := self._lender(record.resolved.namespaces)) is not None:
            record = lender.record
        usual = self._parts.ranges.mappings(place.ids)
        return keep_id_maps(record, place.ids) or (usual, ())

    # -- what it sees ------------------------------------------------------------------------

    def _prepare(
        self,
        container: Container,
        joined: dict[str, str],
        place: StartResources,
        runtime: ExternalRuntime | None,
    ) -> StartRequest:
        parts, record = self._parts, container.record
        body, resolved = record.body, record.resolved
        modes = resolved.namespaces
        if container.transient_env:
            body = msgspec.structs.replace(body, env=(*body.env, *container.transient_env))
        linked = links.resolve_links(parts, record) if resolved.links else []
        if linked:
            variables = links.environment(record, linked)
            body = msgspec.structs.replace(body, env=(*variables, *body.env))
        paths = parts.config.paths
        uids, gids = self._maps(record, place)
        facts = SpecInputs(
            container_id=record.id,
            cgroup_path=cgroup_path(parts, record),
            hostname=self._hostname(record),
            host=host.refresh(parts.host),
            user=self._users.of(record),
            mappings=uids,
            gid_mappings=gids,
            joined=joined,
            id_mapped=place.ids is not None and not parts.host.rootless,
            foreign_network=place.sandbox is not None
            and "user" not in place.held
            and place.ids != place.reserved,
            files=etc_files.write(parts, record, place.endpoints, links.hosts_lines(linked)),
            mounts=(*record.mounts, *mount.mount_secrets(parts, record, uids, gids)),
            beneath=record.beneath,
            owner=(int(record.owner), record.owner_gid) if record.beneath else None,
            level=record.level,
            shared_shm=self._shared_shm(record),
            devices=_host_devices() if resolved.security.privileged and modes.user.host else (),
        )
        confinement = security.decide(resolved, facts.host, external=runtime is not None)
        document = encode(spec.build(body, resolved, facts, confinement))
        run_dir = paths.container_run(record.id)
        os.makedirs(run_dir, mode=0o700, exist_ok=True)
        oci_runtimes.ExternalContainer.note(run_dir, runtime)
        bundle = container.bundle or str(paths.container(record.id))
        with open(f"{bundle}/config.json", "wb", buffering=0) as file:
            file.write(document)
        driver, options = log_options(parts.config, resolved.log)
        return StartRequest(
            container_id=record.id,
            bundle=bundle,
            run_dir=str(run_dir),
            root=_root(parts, record),
            log=LogSetup(
                driver, with_identity(driver, options, record), log_path(parts, record.id)
            ),
            tty=body.tty,
            stdin_open=body.open_stdin,
            stdin_once=body.stdin_once,
            console=body.host_config.console_size,
            seccomp_cache=str(paths.seccomp_cache),
            runtime=runtime,
        )

    def _hostname(self, record: ContainerRecord) -> str:
        if owner := record.resolved.namespaces.net.container:
            return self._parts.registry.find(owner).record.hostname
        return record.hostname

    def _shared_shm(self, record: ContainerRecord) -> str | None:
        resolved = record.resolved
        if resolved.namespaces.ipc.container:
            lender = self._parts.registry.find(resolved.namespaces.ipc.container)
            path = str(self._parts.config.paths.container_run(lender.id) / "shm")
            if not os.path.ismount(path):
                raise Conflict(
                    f"/dev/shm of container {lender.name} cannot be shared any more",
                    hint="it was made by an engine that has ended; restart that container",
                )
            return path
        if not resolved.namespaces.shareable_ipc:
            return None
        from jaula.kernel import mounts
        from jaula.kernel.mounts import MS

        path = str(self._parts.config.paths.container_run(record.id) / "shm")
        os.makedirs(path, mode=0o700, exist_ok=True)
        size = resolved.shm_size or 64 * 1024 * 1024
        if not os.path.ismount(path):
            flags = MS.NOSUID | MS.NODEV | MS.NOEXEC
            label = security.selinux_labels(resolved, self._parts.host, record.level).mount
            context = f',context="{label}"' if label else ""
            mounts.mount("shm", path, "tmpfs", flags, f"mode=1777,size={size}{context}")
        return path


def _root(parts: Services, record: ContainerRecord) -> RootSource:
    """How its root is mounted; of a step of a build nothing needs to outlive a loss of power."""
    root = parts.snapshots.root(record.id)
    if record.build and isinstance(root, OverlayRoot):
        return msgspec.structs.replace(root, volatile=True)
    return root


def cgroup_path(parts: Services, record: ContainerRecord) -> str:
    """Where a container's processes are accounted: below the engine's parent, or the asked one."""
    parent = record.resolved.resources.cgroup_parent or parts.config.cgroup_parent
    return f"/{parent.strip('/')}/{record.id}"


def log_path(parts: Services, container_id: str) -> str:
    """The json-file log, named as Docker names it."""
    return str(parts.config.paths.container(container_id) / f"{container_id}-json.log")


def _host_devices() -> tuple[str, ...]:
    """The host's device nodes, without those that a container has of its own."""
    import stat

    found = []
    for directory, names, entries in os.walk("/dev"):
        names[:] = [n for n in names if n not in ("pts", "shm", "mqueue", "fd", "hugepages")]
        for name in entries:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and name not in ("console", "ptmx"):
                found.append(path)
    return tuple(sorted(found))
