"""``POST /containers/ID/start``: ids, networks, files and spec of a container, then the runtime.

The order of a start, under the container's lock:

1. The image policy checks the image again, and the descriptors of joined namespaces are opened.
2. A sandbox with its user and network namespace is taken from the pool, the container is connected
   to its networks, and its ports are published (:mod:`jaula.engine.networks.connect`).
3. Volumes are mounted, and files are labelled if the host has SELinux.
4. The OCI spec is built from the resolved request (:mod:`jaula.engine.oci_spec.start_spec`) and
written
   to the bundle, with ``/etc/hosts`` and the other files of the container. Its seal is written to
   the audit log.
5. The intent to start is recorded, with the addresses and ids of the container. If the engine ends
   before the answer, the next one takes the container over
   (:mod:`jaula.engine.containers.live_restore`), so no program runs twice for one request.
6. The runtime starts it (:meth:`jaula.runtime.runtime_client.Runtime.start`): the zygote forks a
shim, and
   the answer is the pid of init, or the error.
7. The record is saved as running with everything that the start took.

If anything fails, everything that the start took is released. The failure is recorded as Docker
does (exit code 127, 126 or 125, and the text), and no client waits forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from jaula import metrics, spans
from jaula.engine.containers import start_bundle, start_namespaces, start_resources
from jaula.engine.model.container import Container, StateAction, next_status
from jaula.engine.networks.connect import NetworkConnector
from jaula.engine.threads import shielded
from jaula.engine.volumes.volume_mount import emit_mounts
from jaula.errors import JaulaError, RuntimeFailure, resource_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.services import Services
    from jaula.runtime import runtime_client
    from jaula.runtime.shim_protocol import Event, StartRequest
    from jaula.state.container_records import ContainerRecord, StartIntent


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
        self.on_spec: Callable[[ContainerRecord, str], None] = lambda record, seal: None
        """Logs the seal of a spec that was written for a start."""

    async def start(self, container: Container, source: RestoreSource | None = None) -> None:
        """Start a container, or continue the processes of ``source``.

        :raises RuntimeFailure: when the program does not exist (127), cannot be executed (126), or
            the kernel refused a step (125).
        :raises Unavailable: when a disk is full or read-only, or the engine's cgroup has no memory.
        :raises Conflict: when the container's state does not allow a start, or a container that it
            joins does not run.
        """
        record = container.record
        running_status = next_status(record.status, StateAction.START, container.name)
        services = self._services
        resources = start_resources.StartResources(services)
        container.exited.clear()
        try:
            await start_resources.make_room(container.name)
            # The policy decided on the image of a build when it began. A sandbox has no image.
            if not record.build and record.sandbox is None:
                services.image_policy.check_start(record.image, record.asked_image)
            joined = start_namespaces.join_namespaces(services, container, resources)
            with _phase("sandbox"):
                await start_namespaces.take(services, self.connector, record, resources, source)
            if container.prepare is not None:
                await container.prepare(resources.id_maps(record))
            with _phase("spec"):
                request = await start_bundle.write(
                    services, container, joined, resources, self._users, self.on_spec
                )
            record = container.record
            if source is not None:
                request = source.complete(record, request)
            with _phase("record"):
                intent, request = services.hooks.before_start(
                    services, record, start_resources.intent(resources), request
                )
                self._record_intent(container, intent)
            with _phase("runtime"):
                hold = -1 if source is None else source.hold
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
            resources.detach_images()
        resources.close_sandbox()
        container.shim = shim
        container.change(
            status=running_status,
            pid=shim.pid,
            shim_pid=shim.shim_pid,
            **running_fields(intent) | {"oom_killed": container.record.oom_killed},
        )
        self._save(container)
        await self.connector.started(
            container,
            resources.endpoints,
            restored=source is not None,
            first=not record.started_at,
        )
        emit_mounts(services.events, record)
        services.events.emit("container", "start", container.id, record.event_attributes)
        services.sandbox_pool.refill()

    async def _ask_runtime(
        self,
        container: Container,
        request: StartRequest,
        resources: start_resources.StartResources,
        hold: int,
    ) -> runtime_client.Shim:
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
        self, container: Container, resources: start_resources.StartResources, error: BaseException
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
