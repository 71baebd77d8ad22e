"""The use cases of exec: one more process in a running container.

``create`` checks the command and stores it; ``start`` builds the OCI process from the container's
spec and the request, and passes it to the container's shim together with the client's socket. The
shim's helper joins the namespaces and executes the program (:mod:`jaula.runtime.exec_process`).
Output goes from the shim to the client directly. When the process exits, the shim reports it, and
:meth:`Execs.ended` keeps the exit code.

An exec exists in memory only, as with Docker. The container's shim is the parent of its process.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from jaula import spans
from jaula.caller_quota import OwnedSizes
from jaula.engine.containers.container_liveness import check_running, while_running
from jaula.engine.model.container_store import new_id
from jaula.engine.oci_spec import security_opt
from jaula.engine.oci_spec.start_spec import merge_environment, working_directory
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.runtime.shim_protocol import AttachStream
from jaula.security import capability_sets
from jaula.spec import detach_keys
from jaula.spec.api_documents import ExecCreate
from jaula.spec.runtime_spec import Process, decode
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

NOT_STARTED = 126
"""Exit status of an exec whose start failed; Docker has no 125 for it."""
_KILLED = 128 + 9  # exit status
LEAST_SIZE = 1024  # bytes that an exec counts as at least: what the engine keeps beside its request
_RETENTION = 300  # seconds for which an ended exec can be inspected, as with Docker


class ExecToolbox(Protocol):
    """An image whose files a process sees beside those of the container.

    ``open`` returns the descriptors that the runtime needs for that; its caller closes them.
    ``close`` releases the image.
    """

    @property
    def image(self) -> str: ...
    async def open(self, container: Container) -> tuple[int, ...]: ...
    def close(self) -> None: ...


class Exec(msgspec.Struct):
    """One exec; ``pid`` is the host's.

    The request is authorized and resolved when the exec is created. A start is authorized again,
    from the same ``body``, and uses the resolved values: ``cwd`` (empty: the container's own) and
    ``detach_keys``.
    """

    id: str
    container: Any
    body: ExecCreate
    cwd: str = ""
    detach_keys: bytes = detach_keys.DEFAULT
    container_started_at: int = 0  # of the run of the container for which it was created
    running: bool = False
    started: bool = False
    pid: int = 0
    exit_code: int | None = None
    toolbox: Any = None  # an `ExecToolbox`, for a debug session

    def close_toolbox(self) -> None:
        """Release the image of a debug session that has ended."""
        if self.toolbox is not None:
            self.toolbox.close()


class Execs:
    """All execs of an engine."""

    def __init__(self, services: Services, users: UserLookup) -> None:
        self._services = services
        self._users = users
        self._execs: dict[str, Exec] = {}
        self._exit_futures: dict[str, asyncio.Future[int]] = {}
        self.sizes = OwnedSizes()  # of the requests that are kept

    async def create(
        self,
        ref: str,
        body: ExecCreate,
        *,
        exec_id: str = "",
        owner: str = "",
        toolbox: ExecToolbox | None = None,
    ) -> str:
        """Record a process to run and return the exec's id, a random one if ``exec_id`` is empty.

        ``owner`` is the client whose share it takes, '' for none. ``toolbox`` is closed with the
        exec, and not if this raises.

        :raises Conflict: when the container does not run.
        :raises InvalidRequest: when the command, a variable or the directory is not valid.
        """
        container = self._services.container_store.find(ref)
        self.check_container(container)
        if not body.cmd or not body.cmd[0]:
            raise InvalidRequest("No exec command specified")
        keys = detach_keys.parse(body.detach_keys) if body.detach_keys else detach_keys.DEFAULT
        merge_environment((), body.env)
        cwd = working_directory(body.working_dir) if body.working_dir else ""
        exec_id = exec_id or new_id()
        self._execs[exec_id] = Exec(
            exec_id, container, body, cwd, keys, container.record.started_at, toolbox=toolbox
        )
        if owner:
            size = max(LEAST_SIZE, len(msgspec.json.encode(body)))
            self.sizes.set(exec_id, owner, size)
        container.execs.add(exec_id)
        self._emit(container, f"exec_create: {_command_line(body)}", exec_id)
        return exec_id

    def check_container(self, container: Container) -> None:
        """Check that a process can be executed in a container.

        :raises Conflict: when it is paused, or does not run.
        """
        if container.record.status is Status.PAUSED:
            raise Conflict(
                f"Container {container.name} is paused, unpause the container before exec"
            )
        check_running(container)

    def _emit(self, container: Container, action: str, exec_id: str, **more: str) -> None:
        attributes = container.record.event_attributes | {"execID": exec_id} | more
        self._services.events.emit("container", action, container.id, attributes)

    def find(self, exec_id: str) -> Exec:
        """Return an exec.

        :raises NotFound: when the id is unknown, the exec ended more than 5 minutes ago, or it was
            not started before the exit of its container.
        """
        execed = self._execs.get(exec_id)
        if execed is not None and not execed.started:
            container: Container = execed.container
            if not container.live or container.record.started_at != execed.container_started_at:
                self.forget(exec_id)
                execed = None
        if execed is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return execed

    async def start(
        self,
        exec_id: str,
        fd: int | None,
        early: bytes,
        detach: bool,
        tty: bool,
        console: tuple[int, int] | None,
        *,
        framed: bool = True,
    ) -> None:
        """Run the process; ``fd`` is the client's socket, which this method closes.

        ``tty`` is that of the start: without it the output is framed, also that of a terminal. With
        it the stream is raw and has standard output only, as in Docker.
        ``framed`` is False for a caller that wants both outputs in one raw stream.

        Every failure but 127 leaves the exec with the status 126, as with Docker: it has no 125.

        :raises RuntimeFailure: when the program does not exist (127) or cannot be executed (126).
        """
        owned = fd is not None
        try:
            execed = self.check(exec_id)
            container: Container = execed.container
            shim = container.shim
            assert shim is not None
            execed.started = execed.running = True
            async with while_running(container):
                spec_process = self._process(container, execed)
                tools = await execed.toolbox.open(container) if execed.toolbox else ()
                owned = False
                stream = None if fd is None else _stream(execed, early, tty=tty, framed=framed)
                size = console or execed.body.console_size or (0, 0)
                self._emit(container, f"exec_start: {_command_line(execed.body)}", exec_id)
                with spans.span("exec runtime", {"container.id": container.id}):
                    execed.pid = await shim.exec(
                        exec_id,
                        spec_process,
                        tty=execed.body.tty,
                        console=size,
                        fd=fd,
                        stream=stream,
                        tools=tools,
                    )
        except JaulaError as error:
            failed = self._execs.get(exec_id)
            if failed is not None and failed.running:
                self.ended(exec_id, NOT_STARTED if error.exit_code == 125 else error.exit_code)
            raise
        finally:
            if owned and fd is not None:
                os.close(fd)

    def _process(self, container: Container, execed: Exec) -> Process:
        record, body = container.record, execed.body
        path = self._services.config.paths.container(record.id) / "config.json"
        base = decode(path.read_bytes()).process
        assert base is not None
        if record.user is not None and not body.user:
            user = record.user
        else:
            user = self._users.inside(
                container, body.user or record.body.user, record.body.host_config.group_add
            )
        sets = base.capabilities
        if body.privileged:
            sets = security_opt.capabilities(record.resolved, self._services.host, everything=True)
        env = merge_environment(base.env, body.env)
        if body.user and not any(entry.startswith("HOME=") for entry in body.env):
            env = merge_environment(env, (f"HOME={user.home or '/'}",))
        requested = (*record.body.env, *body.env)
        if not any(entry.startswith("TERM=") for entry in requested):
            # The container's own is for its terminal; a container without one has none.
            env = merge_environment(env, ("TERM=xterm" if body.tty else "TERM",))
        return msgspec.structs.replace(
            base,
            args=body.cmd,
            env=env,
            cwd=execed.cwd or base.cwd,
            terminal=body.tty,
            console_size=None,
            user=msgspec.structs.replace(
                base.user, uid=user.uid, gid=user.gid, additional_gids=user.additional_gids
            ),
            capabilities=capability_sets.of_user(sets, user.uid) if sets is not None else None,
        )

    def exit_future(self, exec_id: str) -> asyncio.Future[int]:
        """Return a future for the exit status; call this before the start."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exit_futures[exec_id] = future
        return future

    def forget(self, exec_id: str) -> None:
        """Drop an exec whose exit status no caller needs any more."""
        self._exit_futures.pop(exec_id, None)
        self.sizes.drop(exec_id)
        execed = self._execs.pop(exec_id, None)
        if execed is not None:
            execed.container.execs.discard(exec_id)
            execed.close_toolbox()

    def ended(self, exec_id: str, exit_code: int) -> None:
        """Record the end of an exec'd process and resolve its exit future."""
        future = self._exit_futures.pop(exec_id, None)
        if future is not None and not future.done():
            future.set_result(exit_code)
        execed = self._execs.get(exec_id)
        if execed is None:
            return
        execed.running, execed.exit_code = False, exit_code  # the pid stays, as in Docker
        execed.close_toolbox()
        container: Container = execed.container
        container.execs.discard(exec_id)
        self._emit(container, "exec_die", exec_id, exitCode=str(exit_code))
        asyncio.get_running_loop().call_later(_RETENTION, self.forget, exec_id)

    def container_exited(self, container: Container) -> None:
        """Record the end of the processes of which a shim that was killed has not reported it.

        Drop those that were not started: they cannot be any more.
        """
        for exec_id in tuple(container.execs):
            execed = self._execs.get(exec_id)
            if execed is not None and execed.started:
                self.ended(exec_id, _KILLED)
            else:
                self.forget(exec_id)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """Return Docker's document of an exec."""
        execed = self.find(exec_id)
        body = execed.body
        if execed.running and not execed.container.live:
            # The container exited, and the kernel killed the exec with it.
            execed.running, execed.exit_code = False, execed.exit_code or 137
        return {
            "ID": execed.id,
            "Running": execed.running,
            "ExitCode": execed.exit_code,
            "ProcessConfig": {
                "tty": body.tty,
                "entrypoint": body.cmd[0],
                "arguments": list(body.cmd[1:]),
                "privileged": body.privileged,
                "user": body.user,
            },
            "OpenStdin": body.attach_stdin,
            "OpenStderr": body.attach_stderr,
            "OpenStdout": body.attach_stdout,
            "CanRemove": False,
            "ContainerID": execed.container.id,
            "DetachKeys": body.detach_keys,
            "Pid": execed.pid,
        }

    def of_container(self, container: Container) -> list[Exec]:
        """Return the execs of a container, those that ended some minutes ago included."""
        return [execed for execed in self._execs.values() if execed.container is container]

    async def resize(self, exec_id: str, h: int, w: int) -> None:
        """Set the size of the exec's terminal.

        :raises Conflict: when it does not run.
        """
        execed = self.find(exec_id)
        container: Container = execed.container
        check_running(container)
        if not execed.running or container.shim is None:
            raise Conflict(f"exec {exec_id} is not running")
        async with while_running(container):
            await container.shim.resize(exec_id, h, w)

    def check(self, exec_id: str) -> Exec:
        """Return an exec that can be started.

        :raises Conflict: when it was started, or its container is paused.
        """
        execed = self.find(exec_id)
        self.check_container(execed.container)
        if execed.started:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        return execed


def _command_line(body: ExecCreate) -> str:
    """Return the program, a space that is always there, and the arguments."""
    return f"{body.cmd[0]} {' '.join(body.cmd[1:])}"


def _stream(execed: Exec, early: bytes, *, tty: bool, framed: bool) -> AttachStream:
    body = execed.body
    return AttachStream(
        stdin=body.attach_stdin,
        stdout=body.attach_stdout,
        stderr=body.attach_stderr and not tty,
        framed=framed and not tty,
        detach_keys=execed.detach_keys,
        early=early if body.attach_stdin else b"",
    )
