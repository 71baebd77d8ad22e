"""The use cases of pods: sandboxes, and the containers in them.

A sandbox is a container whose program is ``pause``. It owns the namespaces of its pod; the
containers of the pod join them. So an engine that starts again takes pods over as it takes over
every container.

Source: ``k8s.io/cri-api`` runtime.v1, RuntimeService.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine.containers import oom_score, selinux_labels
from jaula.engine.containers.bounds import Authorize, allow_all
from jaula.engine.containers.container_cgroup import new_cgroup_path
from jaula.engine.containers.create import remove_files
from jaula.engine.containers.log_config import pod_log_config
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.validate import check
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import new_id
from jaula.engine.threads import in_thread, shielded
from jaula.engine.userns import join
from jaula.errors import (
    Conflict,
    InvalidRequest,
    JaulaError,
    NotFound,
    NotModified,
    Unavailable,
    Unsupported,
)
from jaula.features.kubernetes.cni import netns
from jaula.features.kubernetes.pods import pause_rootfs, validation
from jaula.kernel.netlink import in_netns
from jaula.sha256 import sha256
from jaula.spec.api_documents import HostConfig, LogConfig
from jaula.spec.pod import USERNS_HANDLER, RuntimeHandler
from jaula.state.container_records import ContainerRecord, PodSandboxRecord, Status
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.containers.container_exec import Execs
    from jaula.engine.containers.containers import Containers
    from jaula.engine.model.services import Services
    from jaula.features.kubernetes.cni.conf_monitor import NetworkState
    from jaula.features.kubernetes.pods.exec_sync import ExecResult
    from jaula.features.kubernetes.pods.sandbox_network import PodNetwork
    from jaula.features.metrics.pod_samples import SandboxSample
    from jaula.features.metrics.pod_usage import ContainerUsage, PodStats, SandboxUsage
    from jaula.spec.api_documents import ContainerCreate, Mount
    from jaula.spec.pod import (
        PodContainerRequest,
        PodLimits,
        PodMetadata,
        PodSandboxRequest,
    )

log = logging.getLogger("jaula.pods")
_STOP_SECONDS = 0  # the sandbox's program has nothing to do at its end
_CONNECT_SECONDS = 10.0
_CONTAINER_NAME_LIMIT, _KEPT = 255, 180  # characters


class Pods:
    """The pods of an engine."""

    def __init__(self, services: Services, containers: Containers, execs: Execs) -> None:
        self._services = services
        self._containers = containers
        self._execs = execs
        self.network: PodNetwork | None = None
        """The pods' network; None if the engine serves no CRI."""
        self._pod_stats: PodStats | None = None
        self._removals: dict[str, asyncio.Task[None]] = {}  # of interrupted sandboxes, by name
        self._tasks = BackgroundTasks(log, "an interrupted sandbox stays")

    async def open_network(self, network: PodNetwork) -> None:
        """Use the network configuration of this node from now on.

        :raises Unavailable: when the results of the plugins cannot be stored.
        """
        await network.open()
        self.network = network
        await network.collect(lambda: [c.id for c in self.sandboxes()])
        for sandbox in self.sandboxes():
            if sandbox.record.sandbox is not None and sandbox.record.sandbox.starting:
                log.info("the start of sandbox %s was interrupted and is undone", sandbox.name)
                self._removals[sandbox.name] = self._tasks.spawn(self._undo(sandbox))

    async def close(self) -> None:
        """Stop to follow the network configuration. Pods stay as they are."""
        await self._tasks.close()
        if self.network is not None:
            await self.network.close()

    def handler_names(self) -> tuple[str, ...]:
        """Return the names of the runtime handlers; that of the default one is ''."""
        runtimes = (runtime.name for runtime in self._services.config.runtimes)
        return ("", USERNS_HANDLER, OWN_RUNTIME, *runtimes)

    async def runtime_handlers(self) -> tuple[RuntimeHandler, ...]:
        """Return the runtime handlers; the default one is the first."""
        return tuple([await self._handler(name) for name in self.handler_names()])

    async def _handler(self, name: str) -> RuntimeHandler:
        """Return a handler with its features: those of its runtime, within what the engine can do.

        The engine makes the mounts and their id maps for every runtime (docs/runtimes.md).
        """
        table = self._services.runtime_table
        runtime = table.choose("" if name == USERNS_HANDLER else name)
        features = await table.features(runtime)
        return RuntimeHandler(
            name,
            recursive_read_only=features is not None and features.recursive_read_only,
            user_namespaces=features is not None
            and features.user_namespaces
            and not self._services.host.rootless,
        )

    def systemd_cgroups(self) -> bool:
        """Return whether the cgroups of containers are scopes in slices of systemd."""
        return self._services.config.systemd_cgroups

    def network_state(self) -> NetworkState:
        """Return whether pods can have a network.

        :raises Unavailable: when the engine serves no CRI.
        """
        if self.network is None:
            raise Unavailable("this engine has no pods", hint="start it with --cri")
        return self.network.state

    # -- sandboxes -------------------------------------------------------------------------------

    def sandboxes(self) -> Iterator[Container]:
        """Iterate over the sandboxes of all pods."""
        return (c for c in self._services.container_store if c.record.sandbox is not None)

    def containers(self) -> Iterator[Container]:
        """Iterate over the containers of all pods."""
        return (c for c in self._services.container_store if c.record.pod is not None)

    def sandbox(self, ref: str) -> Container:
        """Return a sandbox by its id or a prefix of it.

        :raises NotFound: when there is none.
        """
        container = self._services.container_store.find(ref)
        if container.record.sandbox is None:
            raise NotFound(f"No such pod sandbox: {ref}")
        return container

    def container(self, ref: str) -> Container:
        """Return a container of a pod by its id or a prefix of it.

        :raises NotFound: when there is none.
        """
        container = self._services.container_store.find(ref)
        if container.record.pod is None:
            raise NotFound(f"No such container in a pod: {ref}")
        return container

    def has_sandbox(self, ref: str) -> bool:
        """Return whether there is such a sandbox."""
        return _exists(self.sandbox, ref)

    def has_container(self, ref: str) -> bool:
        """Return whether there is such a container of a pod."""
        return _exists(self.container, ref)

    async def run(
        self,
        request: PodSandboxRequest,
        *,
        owner: tuple[str, int] = ("0", 0),
        authorize: Authorize = allow_all,
    ) -> Container:
        """Create and start a sandbox. Nothing of it is left when that fails.

        An engine that was killed may have run the sandbox without an answer. The same request then
        returns that sandbox, if it has no container yet.

        :raises Conflict: when a sandbox with this metadata exists.
        :raises NotFound: when there is no such runtime handler.
        :raises InvalidRequest: when the request is not valid.
        """
        container = await self._run(request, owner, authorize, self._start)
        container.answered = True
        return container

    async def receive(
        self,
        request: PodSandboxRequest,
        addresses: tuple[str, ...],
        *,
        owner: tuple[str, int],
        authorize: Authorize,
    ) -> Container:
        """Run a sandbox for containers that a migration restores in it; it asks for ``addresses``.

        No packet reaches it or leaves it until :meth:`connect`. It is ``starting`` until the
        migration has its commit, so the next engine removes it without one.

        :raises JaulaError: as of :meth:`run`.
        """

        async def start(container: Container, request: PodSandboxRequest) -> None:
            await self._start_held(container, request, addresses)

        return await self._run(request, owner, authorize, start, starting=True)

    async def _run(
        self,
        request: PodSandboxRequest,
        owner: tuple[str, int],
        authorize: Authorize,
        start: Callable[[Container, PodSandboxRequest], Coroutine[Any, Any, None]],
        *,
        starting: bool = False,
    ) -> Container:
        services = self._services
        validation.check_sandbox(request)
        if request.runtime_handler not in self.handler_names():
            raise NotFound(
                f"the runtime handler {request.runtime_handler[:80]!r} does not exist",
                hint=f"it must be one of {', '.join(self.handler_names()[1:])}, or none",
            )
        handler = await self._handler(request.runtime_handler)
        if request.ids is not None and not handler.user_namespaces:
            raise Unsupported(
                f"the runtime handler {handler.name!r} has no user namespaces",
                hint="Status lists the features of each handler",
            )
        name = sandbox_name(request.metadata)
        body = msgspec.structs.replace(
            request.body,
            image="",
            cmd=(pause_rootfs.PROGRAM,),
            env=("PATH=/",),
            working_dir="/",
            host_config=msgspec.structs.replace(
                _with_permitted_score(request.body.host_config),
                runtime=services.runtime_table.choose(request.body.host_config.runtime),
            ),
        )
        if self.network is not None and body.host_config.network_mode != "host":
            self.network.check()
        resolved = resolve(body)
        bounds = authorize(body, resolved)
        warnings = check(services, body, resolved)
        if (removal := self._removals.pop(name, None)) is not None:
            await asyncio.wait((removal,))
        former = self._unanswered_sandbox(name, request, owner)
        if former is not None and not starting:
            return former
        container_id = new_id()
        services.container_store.reserve(name, container_id)
        made_directory = False
        diff_id, tar = pause_rootfs.layer()
        lease = services.images.lease((diff_id,))
        try:
            if request.log_directory:
                made_directory = validation.make_log_directory(request.log_directory)
            if not services.layers.is_intact(diff_id):
                await in_thread(services.layers.extract, io.BytesIO(tar), diff_id)
            os.makedirs(services.config.paths.container(container_id), mode=0o710, exist_ok=True)
            await in_thread(services.snapshots.create, container_id, (diff_id,))
            record = ContainerRecord(
                id=container_id,
                name=name,
                created=time.time_ns(),
                body=body,
                image="",
                layers=(diff_id,),
                args=(pause_rootfs.PROGRAM,),
                hostname=body.hostname or services.host.hostname,
                networks={},
                storage_driver=services.snapshots.name,
                warnings=warnings,
                owner=owner[0],
                owner_gid=owner[1],
                beneath=bounds.mount_prefixes,
                level=selinux_labels.take_level(services, container_id, resolved),
                cgroup=new_cgroup_path(
                    services.config, body.host_config.cgroup_parent, container_id
                ),
                resolved_request=resolved,
                sandbox=PodSandboxRecord(request, starting=True),
            )
            bounds.reserve(record)
            container = Container(record)
            services.container_store.add(container)
        except BaseException:
            services.container_store.release(name, container_id)
            services.container_store.free_level(container_id)
            await asyncio.to_thread(remove_files, services, container_id)
            if made_directory:
                validation.remove_log_directory(request.log_directory)
            raise
        finally:
            lease.close()
        try:
            await start(container, request)
            if not starting:
                self._change(container, starting=False)
        except BaseException:
            await shielded(self._undo(container))
            if made_directory:
                validation.remove_log_directory(request.log_directory)
            raise
        return container

    def _unanswered_sandbox(
        self, name: str, request: PodSandboxRequest, owner: tuple[str, int]
    ) -> Container | None:
        """Return the sandbox that an earlier engine has run for the same request, or None."""
        store = self._services.container_store
        former = store.get(store.names.get(name, ""))
        if former is None or former.answered or former.record.sandbox is None:
            return None
        same = former.record.sandbox.request == request and former.record.owner == owner[0]
        return former if same and former.live and not self.members(former.id) else None

    async def _start(self, container: Container, request: PodSandboxRequest) -> None:
        """Start a sandbox and attach it to the network of the node.

        The plugins and the runtime work at the same time if neither sees what the other does. An
        external runtime may read the interfaces of the namespace, and a sysctl may be about them:
        the plugins come first then.
        """
        resolved = container.record.resolved
        if self.network is None or resolved.namespaces.net.host:
            await self._containers.start(container.id)
            return
        if not resolved.namespaces.user.host:  # that namespace owns the network namespace
            await self._containers.start(container.id)
            await self._attach(container, request)
            return
        container.netns = await in_thread(netns.create)
        try:
            attach = self._attach(container, request, f"/proc/{os.getpid()}/fd/{container.netns}")
            host = container.record.host_config
            is_own = host.runtime == OWN_RUNTIME
            if not is_own or any(name.startswith("net") for name in host.sysctls):
                await attach
                await self._containers.start(container.id)
            else:
                await _both(attach, self._containers.start(container.id))
        finally:
            os.close(container.netns)
            container.netns = -1

    async def _start_held(
        self, container: Container, request: PodSandboxRequest, addresses: tuple[str, ...]
    ) -> None:
        """Start a sandbox of a migration, whose network is cut off."""
        from jaula.features.kubernetes.pods import held_network

        if container.record.resolved.namespaces.user.host:
            container.netns = await in_thread(netns.create)
        else:  # that namespace owns the network namespace
            await self._containers.start(container.id)
            namespaces = join.open_namespaces(container, ("network",))
            container.netns = namespaces["network"]
        try:
            path = f"/proc/{os.getpid()}/fd/{container.netns}"
            await in_thread(held_network.silence, container.netns)
            await self._attach(container, request, path, addresses)
            await in_thread(held_network.hold, container.netns)
            if not container.live:
                await self._containers.start(container.id)
        finally:
            os.close(container.netns)
            container.netns = -1

    async def connect_network(self, sandbox: Container) -> None:
        """Let the packets of a sandbox pass that a migration has held."""
        from jaula.features.kubernetes.pods import held_network

        await in_thread(held_network.connect, sandbox)

    async def disconnect_network(self, sandbox: Container) -> None:
        """Cut off the network of a sandbox that a migration moves away."""
        from jaula.features.kubernetes.pods import held_network

        await in_thread(functools.partial(held_network.set_ports, sandbox, up=False))

    async def _attach(
        self,
        container: Container,
        request: PodSandboxRequest,
        namespace: str = "",
        requested: tuple[str, ...] = (),
    ) -> None:
        assert self.network is not None
        self._change(container, networked=True)  # so that a next engine detaches it
        addresses, attachment = await self.network.attach(container, request, namespace, requested)
        self._change(container, addresses=addresses, attachment=attachment)

    async def _detach(self, container: Container) -> None:
        assert container.record.sandbox is not None
        if self.network is None or not container.record.sandbox.networked:
            return
        await self.network.detach(container)
        self._change(container, networked=False)

    def _change(self, container: Container, **fields: Any) -> None:
        """Change the record of a sandbox, and write it."""
        assert container.record.sandbox is not None
        container.change(sandbox=msgspec.structs.replace(container.record.sandbox, **fields))
        self._services.container_store.save(container)

    async def _undo(self, container: Container) -> None:
        """Remove a sandbox whose start has failed.

        What the plugins cannot remove now is left to their garbage collection: a configuration that
        fails to add a pod may fail to delete it too.
        """
        try:
            await self._detach(container)
        except JaulaError as error:
            log.warning("sandbox %s stays attached: %s", container.name, error)
        await self._remove(container.id)

    async def update(
        self, ref: str, resources: PodLimits | None, overhead: PodLimits | None
    ) -> None:
        """Record new limits of a pod; None leaves those of a kind as they are.

        The kubelet owns the cgroup of the pod and writes the limits there itself. Runtimes whose
        sandbox is a virtual machine resize it at this call.

        :raises NotFound: when there is no such sandbox.
        """
        sandbox = self.sandbox(ref)
        async with sandbox.lock:
            assert sandbox.record.sandbox is not None
            request = sandbox.record.sandbox.request
            request = msgspec.structs.replace(
                request,
                resources=resources or request.resources,
                overhead=overhead or request.overhead,
            )
            self._change(sandbox, request=request)

    async def stop(self, ref: str) -> None:
        """Stop a sandbox and every container of its pod. One that is stopped stays so.

        :raises NotFound: when there is none.
        """
        sandbox = self.sandbox(ref)
        for container in self.members(sandbox.id):
            await self.stop_container(container.id, 0)
        await self._detach(sandbox)
        await self._stop(sandbox.id, _STOP_SECONDS)

    async def release(self, sandbox: Container) -> None:
        """Stop a sandbox whose containers run at another engine; they are left as they are."""
        try:
            await self._detach(sandbox)
        except JaulaError as error:
            log.warning("sandbox %s stays attached: %s", sandbox.name, error)
        await self._stop(sandbox.id, _STOP_SECONDS)

    async def undo(self, sandbox: Container) -> None:
        """Remove a sandbox that was received without a commit, with the containers of its pod."""
        for container in self.members(sandbox.id):
            with contextlib.suppress(NotFound, Conflict):  # its own migration removes it
                await self._remove(container.id)
        request = sandbox.record.sandbox.request if sandbox.record.sandbox is not None else None
        await self._undo(sandbox)
        if request is not None and request.log_directory:
            validation.remove_log_directory(request.log_directory)

    def find_pod(self, ref: str) -> Container:
        """Return the sandbox of a running pod by its name, NAMESPACE/NAME, or a prefix of its id.

        :raises NotFound: when there is none.
        :raises InvalidRequest: when several pods have the name.
        """
        found = []
        for sandbox in self.sandboxes():
            record = sandbox.record.sandbox
            if record is None or not sandbox.live:
                continue
            metadata = record.request.metadata
            if ref in (metadata.name, f"{metadata.namespace}/{metadata.name}"):
                found.append((f"{metadata.namespace}/{metadata.name} ({sandbox.id[:12]})", sandbox))
        if not found:
            if not self.has_sandbox(ref) or not self.sandbox(ref).live:
                raise NotFound(f"No such running pod: {ref}", hint="crictl pods lists them")
            return self.sandbox(ref)
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} pods have the name {ref}",
                hint=f"name one by its id: {', '.join(sorted(name for name, _ in found))}",
            )
        return found[0][1]

    async def remove(self, ref: str) -> None:
        """Stop and remove a sandbox with every container of its pod.

        :raises NotFound: when there is none.
        """
        sandbox = self.sandbox(ref)
        await self.stop(sandbox.id)
        for container in self.members(sandbox.id):
            await self.remove_container(container.id)
        await self._remove(sandbox.id)

    def members(self, sandbox_id: str) -> list[Container]:
        """Return the containers of a pod."""
        return self._services.container_store.members(sandbox_id)

    # -- containers ------------------------------------------------------------------------------

    async def create_container(
        self,
        request: PodContainerRequest,
        *,
        owner: tuple[str, int] = ("0", 0),
        authorize: Authorize = allow_all,
        transaction: str = "",
    ) -> Container:
        """Create a container in a running sandbox.

        An engine that was killed may have created the container without an answer. The same request
        then returns that container, unless it is of a ``transaction``, which removes what it has
        created.

        :raises NotFound: when the sandbox or the image does not exist.
        :raises Conflict: when the sandbox does not run, or the pod has this container.
        """
        validation.check_container(request)
        sandbox = self.sandbox(request.sandbox)
        if not sandbox.live:
            raise Conflict(
                f"the sandbox {sandbox.id[:12]} does not run", hint="run another sandbox"
            )
        assert sandbox.record.sandbox is not None
        pod = sandbox.record.sandbox.request
        _check_container(request, pod)
        await self._check_mounts(request.body.host_config.mounts, pod.runtime_handler)
        request = msgspec.structs.replace(request, sandbox=sandbox.id)
        log = LogConfig(type="none")
        if pod.log_directory and request.log_path:
            log = pod_log_config(pod.log_directory, request.log_path)
        host = self._host_config(sandbox, request)
        body = msgspec.structs.replace(request.body, host_config=host)
        name = container_name(pod.metadata, request)
        from jaula.features.kubernetes.pods import pod_restore

        if (source := pod_restore.find(self._services, body.image)) is not None:
            container = await self._create_restored(
                source, body, name, request, owner, authorize, log
            )
            container.answered = True
            return container
        former = None if transaction else self._unanswered_container(name, request, owner)
        if former is not None:
            former.answered = True
            return former
        created = await self._containers.create(
            body,
            name,
            None,
            owner=owner,
            authorize=authorize,
            log=log,
            pod=request,
            transaction=transaction,
        )
        container = self._services.container_store.find(created.id)
        container.answered = True
        return container

    async def _create_restored(
        self,
        source: str,
        body: ContainerCreate,
        name: str,
        request: PodContainerRequest,
        owner: tuple[str, int],
        authorize: Authorize,
        log: LogConfig,
    ) -> Container:
        """Create a container that goes on from the checkpoint which the request names as its image.

        :raises NotAuthorized: when the checkpoint is not trusted.
        """
        from jaula.features.checkpoint.hooks import archives as checkpoint_archives
        from jaula.features.checkpoint.hooks import clones as checkpoint_clones
        from jaula.features.kubernetes.pods import pod_restore

        services, clones = self._services, self._containers.service(checkpoint_clones)
        archives = self._containers.service(checkpoint_archives)
        async with pod_restore.opened(services, archives, source) as checkpoint:
            image, id = clones.image(checkpoint.description), checkpoint.description.image_id
            archives.check_image(checkpoint.signers, image, id)
            body = msgspec.structs.replace(body, image=image)
            request = msgspec.structs.replace(
                request,
                body=msgspec.structs.replace(request.body, image=image),
                checkpoint=pod_restore.NAME,
            )
            if (former := self._unanswered_container(name, request, owner)) is not None:
                await self._remove(former.id)  # it may not have its files
            created = await self._containers.create(
                body, name, None, owner=owner, authorize=authorize, log=log, pod=request
            )
            container = services.container_store.find(created.id)
            await clones.fill(container, checkpoint.manifest, checkpoint.adopt)
        return container

    def _unanswered_container(
        self, name: str, request: PodContainerRequest, owner: tuple[str, int]
    ) -> Container | None:
        """Return the container that an earlier engine has created for the same request, or None."""
        store = self._services.container_store
        former = store.get(store.names.get(name, ""))
        if former is None or former.answered or former.record.pod != request:
            return None
        created = former.record.status is Status.CREATED and former.record.owner == owner[0]
        return former if created else None

    async def _check_mounts(self, mounts: Iterable[Mount], handler: str) -> None:
        """Check that a handler can make mounts.

        The text begins with the name of the error in k8s.io/cri-api, package errors.

        :raises Unsupported: when it cannot.
        """
        for mount in mounts:
            options = mount.bind_options
            if options is None or not options.read_only_force_recursive:
                continue
            if not (await self._handler(handler)).recursive_read_only:
                raise Unsupported(
                    f"RROUnsupported: the mount at {mount.target} cannot be read-only recursively:"
                    f" the runtime handler {handler!r} does not report the option rro"
                )

    def _host_config(self, sandbox: Container, request: PodContainerRequest) -> HostConfig:
        """Return the host configuration of a container with the namespaces of its pod."""
        modes = sandbox.record.resolved.namespaces
        joined = f"container:{sandbox.id}"
        match request.pid:
            case "POD":
                assert sandbox.record.sandbox is not None
                pid = joined if sandbox.record.sandbox.request.shared_pid else ""
            case "CONTAINER":
                pid = ""
            case "NODE":
                pid = "host"
            case "TARGET":
                pid = self._pid_of_target(sandbox, request.target)
            case other:
                raise InvalidRequest(
                    f"the mode {other!r} of the process namespace must be one of POD, CONTAINER,"
                    " NODE, TARGET"
                )
        host = _with_resolver(_with_permitted_score(request.body.host_config), sandbox)
        if not modes.user.host:
            host = _without_default_paths(host)
        return msgspec.structs.replace(
            host,
            network_mode="host" if modes.net.host else joined,
            ipc_mode="host" if modes.ipc.host else joined,
            uts_mode="host" if modes.uts.host else joined,
            userns_mode="host" if modes.user.host else joined,
            pid_mode=pid,
            runtime=sandbox.record.host_config.runtime,
            cgroup_parent=sandbox.record.body.host_config.cgroup_parent,
        )

    def _pid_of_target(self, sandbox: Container, ref: str) -> str:
        """Return the pid mode of a container that is in the pid namespace of another one.

        :raises InvalidRequest: when the request names none, or one of another pod.
        :raises NotFound: when it does not exist.
        :raises Conflict: when it does not run.
        """
        if not ref:
            raise InvalidRequest("the mode TARGET of the process namespace needs a target_id")
        target = self.container(ref)
        assert target.record.pod is not None
        if target.record.pod.sandbox != sandbox.id:
            raise InvalidRequest(
                f"the target container {target.id[:12]} is not of the pod {sandbox.id[:12]}",
                hint="the process namespace of a container of the same pod can be joined",
            )
        if not target.live:
            raise Conflict(
                f"the target container {target.id[:12]} does not run, it is {target.record.status}"
            )
        mode = target.record.resolved.namespaces.pid
        if mode.host:
            return "host"
        return f"container:{mode.container or target.id}"

    async def start_container(self, ref: str) -> None:
        """Start a container.

        An engine that was killed may have started the container without an answer. The start then
        succeeds once more, and nothing is run.

        :raises Conflict: when it was started before.
        """
        container = self.container(ref)
        if container.record.status is not Status.CREATED:
            started = container.record.status in (Status.RUNNING, Status.EXITED)
            if started and not container.answered:
                container.answered = True
                return
            raise Conflict(
                f"container {container.id[:12]} is {container.record.status}",
                hint="a container of a pod is started once",
            )
        # To its end, also without a client: undoing it could not undo what the program has done.
        assert container.record.pod is not None
        restored = bool(container.record.pod.checkpoint)
        await shielded(
            self._restore(container) if restored else self._containers.start(container.id)
        )
        container.answered = True

    async def _restore(self, container: Container) -> None:
        """Start a container from its checkpoint, which is used once."""
        from jaula.features.checkpoint.hooks import checkpoints
        from jaula.features.kubernetes.pods import pod_restore

        async with pod_restore.shared_memory(self._services, container.record):
            await self._containers.start(container.id, checkpoint=pod_restore.NAME)
        await self._containers.service(checkpoints).remove(container, pod_restore.NAME, "")

    async def reopen_log(self, ref: str) -> None:
        """Open the log of a running container again, after its file was renamed.

        :raises Conflict: when it does not run.
        """
        await self._containers.reopen_log(self.container(ref).id)

    async def connect(self, ref: str, port: int) -> socket.socket:
        """Connect to a port on the loopback interface of a pod; the caller closes the socket.

        :raises Conflict: when the sandbox does not run.
        :raises Unavailable: when no program of the pod listens on the port.
        """
        sandbox = self.sandbox(ref)
        if not sandbox.live:
            raise Conflict(f"the sandbox {sandbox.id[:12]} does not run")
        join.check(sandbox)
        return await _connect(sandbox.record.pid, port)

    async def usages(self, containers: Sequence[Container]) -> list[ContainerUsage]:
        """Return the usage of containers of pods, read in one thread."""
        stats = self._stats()
        return await in_thread(lambda: [stats.container(c) for c in containers])

    async def sandbox_usages(self, sandboxes: Sequence[Container]) -> list[SandboxUsage]:
        """Return the usage of pods, read in one thread."""
        stats, pods = self._stats(), [(s, self.members(s.id)) for s in sandboxes]
        return await in_thread(lambda: [stats.sandbox(*pod) for pod in pods])

    async def samples(self, sandboxes: Sequence[Container]) -> list[SandboxSample]:
        """Return samples for the metrics of those pods that run, read in one thread."""
        from jaula.features.metrics.pod_samples import collect

        pods = [(s, self.members(s.id)) for s in sandboxes]
        root = str(self._services.config.paths.root)
        return await in_thread(collect, self._stats(), pods, root)

    def _stats(self) -> PodStats:
        if self._pod_stats is None:
            from jaula.features.metrics.pod_usage import PodStats

            self._pod_stats = PodStats(self._services)
        return self._pod_stats

    async def stop_container(self, ref: str, seconds: int) -> None:
        """Stop a container; kill it after ``seconds``. One that is stopped stays so.

        :raises NotFound: when there is none.
        """
        await self._stop(self.container(ref).id, seconds)

    async def remove_container(self, ref: str) -> None:
        """Kill and remove a container.

        :raises NotFound: when there is none.
        """
        await self._remove(self.container(ref).id)

    async def exec_sync(
        self, ref: str, command: tuple[str, ...], seconds: float | None
    ) -> ExecResult:
        """Run a command in a container; see :mod:`.exec_sync`."""
        from jaula.features.kubernetes.pods.exec_sync import exec_sync

        container = self.container(ref)
        return await exec_sync(self._services, self._execs, container, command, seconds)

    async def checkpoint(self, ref: str, location: str, seconds: float | None) -> None:
        """Write a checkpoint of a container as an archive; it runs on.

        :raises TimeoutError: when it takes longer than ``seconds``; nothing is written then.
        """
        from jaula.features.checkpoint.hooks import checkpoints
        from jaula.features.kubernetes.pods.pod_checkpoint import write_checkpoint

        container = self.container(ref)
        pod = container.record.pod
        assert pod is not None
        sandbox = self.sandbox(pod.sandbox).record.sandbox
        assert sandbox is not None
        directory = sandbox.request.log_directory
        log = os.path.join(directory, pod.log_path) if directory and pod.log_path else ""
        try:
            async with asyncio.timeout(seconds):
                await write_checkpoint(
                    self._containers.service(checkpoints),
                    container,
                    location,
                    self._services.config.paths,
                    log,
                )
        except TimeoutError:
            raise TimeoutError(
                f"the checkpoint of container {container.id[:12]} took longer than {seconds:g}"
                " seconds and was given up; the container runs on"
            ) from None

    async def _stop(self, container_id: str, seconds: int) -> None:
        try:
            await self._containers.stop(container_id, seconds, None)
        except NotModified:
            return

    async def _remove(self, container_id: str) -> None:
        await self._containers.remove(container_id, force=True, volumes=True)


async def _both(*works: Coroutine[Any, Any, None]) -> None:
    """Wait for all; one that fails cancels the others, and its error is raised at their end."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _connect(pid: int, port: int) -> socket.socket:
    """Connect in the network namespace of a process, first by IPv4; the socket does not block.

    No thread waits for the connection: a program of the pod decides how long that takes.

    :raises Unavailable: when that is not possible.
    """
    loop = asyncio.get_running_loop()
    error: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            sock = await asyncio.to_thread(_new_socket, pid, family)
        except OSError as failure:
            error = error or failure
            continue
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(sock, (address, port))
        except OSError as failure:  # a timeout too
            error = error or failure
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    reason = "no answer in time" if isinstance(error, TimeoutError) else error
    raise Unavailable(f"cannot connect to port {port} of the pod: {reason}")


def _new_socket(pid: int, family: int) -> socket.socket:
    """Return a socket of the network namespace of a process. Call it in a thread."""
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with in_netns(netns):
            sock = socket.socket(family, socket.SOCK_STREAM)
    finally:
        os.close(netns)
    sock.setblocking(False)
    return sock


def _with_permitted_score(host: HostConfig) -> HostConfig:
    score = oom_score.permitted(host.oom_score_adj)
    return msgspec.structs.replace(host, oom_score_adj=score)


def _with_resolver(host: HostConfig, sandbox: Container) -> HostConfig:
    """Return the host configuration with the pod's resolver, if the pod is on the host's network.

    In the other pods a container shares the files of the sandbox.
    """
    if not sandbox.record.resolved.namespaces.net.host:
        return host
    pod = sandbox.record.body.host_config
    return msgspec.structs.replace(
        host, dns=pod.dns, dns_search=pod.dns_search, dns_options=pod.dns_options
    )


def _without_default_paths(host: HostConfig) -> HostConfig:
    """Return the host configuration of a pod with a user namespace of its own.

    The kubelet sends the lists of masked and read-only paths for each container, and none of them
    for ``procMount: Unmasked``, which needs ``hostUsers: false``. So an absent list is an empty one
    here, and the default one in the host's user namespace.
    """
    return msgspec.structs.replace(
        host, masked_paths=host.masked_paths or (), readonly_paths=host.readonly_paths or ()
    )


def _check_container(request: PodContainerRequest, pod: PodSandboxRequest) -> None:
    """Check that a container asks for nothing that its pod does not have.

    :raises InvalidRequest: when it does.
    """
    if request.body.host_config.privileged and not pod.privileged:
        raise InvalidRequest(
            f"the pod {pod.metadata.name} permits no privileged container",
            hint="set privileged in the security context of the sandbox",
        )
    for what, ids in (
        ("the container", request.ids),
        *((f"the mount at {mount.target}", mount.ids) for mount in request.mounts),
    ):
        if ids is not None and ids != pod.ids:
            own = f"{pod.ids.count} ids from {pod.ids.start} on" if pod.ids else "no such map"
            raise InvalidRequest(
                f"the id map of {what} is not that of the pod, which has {own}",
                hint="a pod has one user namespace, and its mounts have the same map",
            )


def _exists(find: Callable[[str], Container], ref: str) -> bool:
    try:
        find(ref)
    except NotFound:
        return False
    return True


def sandbox_name(metadata: PodMetadata) -> str:
    """Return the name of a sandbox as a container."""
    return _joined("POD", metadata, metadata.attempt)


def container_name(metadata: PodMetadata, request: PodContainerRequest) -> str:
    """Return the name of a container of a pod, as dockershim gave it."""
    return _joined(request.name, metadata, request.attempt)


def _joined(name: str, metadata: PodMetadata, attempt: int) -> str:
    """Return a name of at most 255 characters that no other container of a pod has."""
    parts = (name, metadata.name, metadata.namespace, metadata.uid, str(attempt))
    joined = "k8s_" + "_".join(part.replace("_", "-") for part in parts)
    if len(joined) <= _CONTAINER_NAME_LIMIT:
        return joined
    return f"{joined[:_KEPT]}_{sha256(joined.encode()).hexdigest()}"
