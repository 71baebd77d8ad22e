"""The shim: one process per container, parent of its init, there from start to end.

It owns the container's terminal or pipes, writes its log, serves attached clients, runs exec'd
processes, and writes ``exit.json`` when init ends. The engine talks to it over a channel; an engine
that was started later finds it by ``shim.sock`` in the container's run directory. The shim
needs no engine: it does its work until the container ends, then goes.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from typing import NamedTuple, NoReturn

import msgspec

from jaula.errors import JaulaError, RuntimeFailure
from jaula.kernel import process, tty
from jaula.runtime import exec as runtime_exec
from jaula.runtime import protocol, seqpacket
from jaula.runtime.create import create, process_setup
from jaula.runtime.create.fd_stack import FdStack
from jaula.runtime.create.id_maps import host_id
from jaula.runtime.create.process import ProcessHandle
from jaula.runtime.external import cgroup_cleanup
from jaula.runtime.external import runtime as external_runtime
from jaula.runtime.interfaces import Cgroup, Interfaces, LogWriter
from jaula.runtime.protocol import (
    Answer,
    AttachRequest,
    Detached,
    ExecExited,
    ExecRequest,
    ExitRecord,
    HelloRequest,
    OutOfMemory,
    ResizeRequest,
    SignalRequest,
    StartRequest,
)
from jaula.runtime.shim import spawn_helper
from jaula.runtime.shim.drain import Drain
from jaula.runtime.shim.engine_connections import ControlSockets
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.reaper import Reaper
from jaula.runtime.shim.stdio_relay import StdioRelay
from jaula.spec import runtime as oci

EXIT_NAME = "exit.json"
UNNAMED = "/jaula/unnamed"  # the cgroup of a spec that names none


class _Execed(NamedTuple):
    pid: int
    pidfd: int
    streams: StdioRelay


class Shim:
    """State of one container while its init lives."""

    def __init__(self, request: StartRequest, parts: Interfaces) -> None:
        self.request = request
        self.parts = parts
        self.poller = EventLoop()
        self.midwife = spawn_helper.SpawnHelper()
        self.engines = ControlSockets(self.poller, request.run_dir, self._answer, self._settle)
        self.execs: dict[str, _Execed] = {}
        self.ended: ExitRecord | None = None
        self.farewells = Drain()
        self.strays = Reaper(self.poller)
        self.started_at = 0.0
        self.ooms = 0
        self.oom_fd: int | None = None
        self.running: ProcessHandle
        self.pidfd = -1
        self.cgroup: Cgroup
        self.streams: StdioRelay

    # starting

    def start(
        self, sandbox: tuple[int, int] | None, held: dict[str, int], clients: list[int]
    ) -> None:
        """Create the container. Raises ``RuntimeFailure``; then nothing is left of it."""
        request = self.request
        log = self.parts.open_log(request.log.driver, request.log.options, request.log.path)
        mount_point = f"{request.run_dir}/rootfs"
        os.makedirs(mount_point, 0o711, exist_ok=True)
        try:
            self.engines.listen()
            self.running = self.midwife.deliver(
                lambda: self._make_container(sandbox, held, mount_point)
            )
        except BaseException:
            log.close()
            self.engines.vanish()
            self._clear()
            raise
        self.started_at = time.time()
        try:
            self._keep_company(log, clients)
        except BaseException:
            self._abandon()
            self.engines.vanish()
            raise

    def _make_container(
        self, sandbox: tuple[int, int] | None, held: dict[str, int], mount_point: str
    ) -> ProcessHandle:
        """In the helper."""
        request = self.request
        spec = _read_spec(request.bundle)
        terms = create.CreateOptions(
            state=self._state(spec, "creating"),
            root=request.root,
            mount_point=mount_point,
            cgroup=(spec.linux.cgroups_path if spec.linux else None) or UNNAMED,
            sandbox=sandbox,
            held=held,
            console=request.console,
            stdin_open=request.stdin_open,
            seccomp_cache=request.seccomp_cache,
        )
        if request.runtime is not None:
            return external_runtime.start(spec, terms, request.runtime, request.run_dir)
        return create.start(spec, terms, self.parts)

    def _clear(self) -> None:
        """Leave nothing of what another runtime has begun."""
        request = self.request
        if request.runtime is None:
            return
        self.midwife.settle()
        linux = _read_spec(request.bundle).linux
        cgroup = (linux.cgroups_path if linux else None) or UNNAMED
        external_runtime.clear(
            request.runtime, request.run_dir, request.container_id, cgroup, self.parts
        )

    def _state(self, spec: oci.Spec, status: str, pid: int = 0) -> oci.State:
        request = self.request
        return oci.State(request.container_id, status, request.bundle, pid, spec.annotations)

    def _abandon(self) -> None:
        """End a container that cannot be kept company."""
        if self.request.runtime is not None:
            self._clear()
            return
        os.kill(self.running.pid, 9)
        with self.parts.cgroups.open(self.running.cgroup) as cgroup:
            cgroup.kill()
            cgroup.destroy()

    def _keep_company(self, log: LogWriter, clients: list[int]) -> None:
        request, running = self.request, self.running
        self.pidfd = process.pidfd_open(running.pid)
        self.cgroup = self.parts.cgroups.open(running.cgroup)
        self.streams = StdioRelay(
            self.poller,
            master=running.master,
            stdin=running.stdin,
            stdout=running.stdout,
            stderr=running.stderr,
            log=log,
            stdin_once=request.stdin_once,
            on_detach=lambda: self.engines.tell(Detached("")),
        )
        for fd, stream in zip(clients, request.attachments, strict=True):
            self.streams.attach(socket.socket(fileno=fd), stream)
        self.poller.watch(self.pidfd, select.EPOLLIN, self._init_ended)
        self.oom_fd = self.cgroup.oom_fd()
        if self.oom_fd is not None:
            self.poller.watch(self.oom_fd, select.EPOLLIN, self._out_of_memory)

    # what engines ask

    def _answer(self, request: protocol.ShimRequest, fds: list[int]) -> Answer:
        """Do what is asked; descriptors that are kept are taken out of ``fds``."""
        if isinstance(request, HelloRequest):
            return Answer(
                request.number,
                pid=self.running.pid,
                shim_pid=os.getpid(),
                execs=tuple(self.execs),
            )
        if isinstance(request, ExecRequest):
            return Answer(request.number, pid=self._exec(request, fds))
        streams, pid = self._target(
            request.exec_id if not isinstance(request, AttachRequest) else ""
        )
        if isinstance(request, AttachRequest):
            streams.attach(socket.socket(fileno=fds.pop(0)), request.stream)
        elif isinstance(request, ResizeRequest):
            if streams.master < 0:
                raise RuntimeFailure("the process has no terminal to resize")
            tty.set_size(streams.master, request.height, request.width)
        elif isinstance(request, SignalRequest):
            if request.exec_id:
                process.pidfd_send_signal(self.execs[request.exec_id].pidfd, request.signum)
            else:
                process.pidfd_send_signal(self.pidfd, request.signum)
        return Answer(request.number, pid=pid)

    def _target(self, exec_id: str) -> tuple[StdioRelay, int]:
        if not exec_id:
            return self.streams, self.running.pid
        if exec_id not in self.execs:
            raise RuntimeFailure(f"exec {exec_id} does not run")
        return self.execs[exec_id].streams, self.execs[exec_id].pid

    # exec

    def _exec(self, request: ExecRequest, fds: list[int]) -> int:
        stream = request.stream
        started = self.midwife.deliver(lambda: self._make_exec(request))
        pidfd = process.pidfd_open(started.pid)
        streams = StdioRelay(
            self.poller,
            master=started.master,
            stdin=started.stdin,
            stdout=started.stdout,
            stderr=started.stderr,
            log=None,
            stdin_once=True,
            on_detach=lambda: self.engines.tell(Detached(request.exec_id)),
        )
        self.execs[request.exec_id] = _Execed(started.pid, pidfd, streams)
        if stream is not None and fds:
            streams.attach(socket.socket(fileno=fds.pop(0)), stream)
        self.poller.watch(pidfd, select.EPOLLIN, lambda _: self._exec_ended(request.exec_id))
        return started.pid

    def _settle(self) -> None:
        """After an answer: the helper has ended, and what another runtime left is ours to reap."""
        self.midwife.settle()
        if self.request.runtime is not None:
            execed = (each.pid for each in self.execs.values())
            self.strays.look({self.running.pid, *execed})

    def _make_exec(self, request: ExecRequest) -> ProcessHandle:
        """In the helper: what the container's spec says holds for the new process as well."""
        spec = _read_spec(self.request.bundle)
        linux, wanted = spec.linux, request.process
        assert linux is not None
        owner_ids = (
            host_id(linux.uid_mappings, wanted.user.uid),
            host_id(linux.gid_mappings, wanted.user.gid),
        )
        stdin_open = bool(request.stream and request.stream.stdin)
        if self.request.runtime is not None:
            return external_runtime.execute(
                self.request.runtime,
                self.request.run_dir,
                self.request.container_id,
                wanted,
                owner=owner_ids,
                stdin_open=stdin_open,
                console=request.console,
            )
        keep = FdStack()
        try:
            prepared = process_setup.prepare(
                wanted,
                linux,
                self._state(spec, "running", self.running.pid),
                self.parts,
                keep,
                seccomp_cache=self.request.seccomp_cache,
                annotations=spec.annotations,
                joining=True,
            )
            terms = runtime_exec.ExecOptions(
                owner_ids=owner_ids,
                stdin_open=stdin_open,
                console=request.console,
            )
            return runtime_exec.start(
                self.running.pid, self.pidfd, self.cgroup, wanted, prepared, terms
            )
        finally:
            keep.close()

    def _exec_ended(self, exec_id: str) -> None:
        execed = self.execs[exec_id]
        reaped, status = os.waitpid(execed.pid, 0 if self.ended else os.WNOHANG)
        if not reaped:
            return
        del self.execs[exec_id]
        self.poller.forget(execed.pidfd)
        os.close(execed.pidfd)
        execed.streams.drain()
        self.engines.tell(ExecExited(exec_id, process.exit_code(status)[0]))
        self.farewells.add(execed.streams)

    def _turn(self) -> None:
        """One round of the loop, what the log has to do, and the farewells that are due after."""
        pauses = (self.streams.poll(), self.farewells.pause())
        self.poller.turn(min((pause for pause in pauses if pause is not None), default=None))
        self.farewells.close_due()

    # the end

    def _out_of_memory(self, _: int) -> None:
        assert self.oom_fd is not None
        try:
            os.read(self.oom_fd, 4096)
        except BlockingIOError:
            return
        kills = self.cgroup.oom_kills()
        if kills > self.ooms:
            self.ooms = kills
            peak, limit = self._memory()
            self.engines.tell(OutOfMemory(peak, limit))
        elif self.ended is not None:
            self.poller.forget(self.oom_fd)

    def _memory(self) -> tuple[int, int]:
        return self.cgroup.peak_memory(), self.running.memory_limit

    def _init_ended(self, _: int) -> None:
        running = self.running
        reaped, status = os.waitpid(running.pid, os.WNOHANG)
        if not reaped:
            return
        finished_at = time.time()
        self.poller.forget(self.pidfd)
        code, signum = process.exit_code(status)
        cgroup = self.cgroup
        if cgroup.pids():  # a shared pid namespace outlives its container's first process
            cgroup.kill()
        self.streams.drain()
        kills = cgroup.oom_kills()
        peak, limit = self._memory()
        if kills > self.ooms:
            self.engines.tell(OutOfMemory(peak, limit))
        error = ""
        if (runtime := self.request.runtime) is not None:
            error = external_runtime.delete(
                runtime, self.request.run_dir, self.request.container_id
            )
            if error:
                cgroup_cleanup.remove(self.running.cgroup)
        try:
            cgroup.destroy()
        except JaulaError as failure:
            error = str(failure)
        cgroup.close()
        self.ended = ExitRecord(
            code,
            signum,
            oom_killed=kills > 0,
            started_at=self.started_at,
            finished_at=finished_at,
            error=error,
            memory_peak=peak,
            memory_limit=limit,
        )
        write_exit_record(self.request.run_dir, self.ended)
        for exec_id in list(self.execs):
            self._exec_ended(exec_id)
        self.engines.tell(self.ended)

    def run(self) -> None:
        """Serve until the container has ended and its clients have read everything."""
        self._settle()
        while self.ended is None:
            self._turn()
        self.engines.vanish()
        self.farewells.add(self.streams)
        while self.farewells:
            self._turn()


def _read_spec(bundle: str) -> oci.Spec:
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            return oci.decode(file.read())
    except OSError as error:
        raise RuntimeFailure(f"bundle {bundle}: {error}") from error
    except msgspec.MsgspecError as error:
        raise RuntimeFailure(f"bundle {bundle}: config.json: {error}") from error


def write_exit_record(run_dir: str, record: ExitRecord) -> None:
    """Write ``exit.json`` so that a reader sees all of it or nothing."""
    path = f"{run_dir}/{EXIT_NAME}"
    try:
        with open(f"{path}.new", "wb") as file:
            file.write(protocol.encode(record))
        os.rename(f"{path}.new", path)
    except FileNotFoundError:
        return  # the engine has removed the container by force


def main(
    request: StartRequest, engine: socket.socket, fds: list[int], parts: Interfaces
) -> NoReturn:
    """The life of a shim process, from fork to exit."""
    code = 0
    try:
        os.setsid()
        os.chdir("/")
        process.set_name("jaula-shim")
        sandbox = (fds[0], fds[1]) if request.sandbox else None
        rest = fds[2:] if request.sandbox else fds
        held = dict(zip(request.held, rest, strict=False))
        clients = rest[len(held) :]
        shim = Shim(request, parts)
        try:
            shim.start(sandbox, held, clients)
        except (JaulaError, OSError) as error:
            code = error.exit_code if isinstance(error, JaulaError) else 125
            seqpacket.send(engine, protocol.encode(Answer(0, error=str(error), exit_code=code)))
            os._exit(0)
        if sandbox is not None:
            os.close(sandbox[0])
            os.close(sandbox[1])
        for fd in held.values():
            os.close(fd)
        try:
            seqpacket.send(
                engine, protocol.encode(Answer(0, pid=shim.running.pid, shim_pid=os.getpid()))
            )
            shim.engines.serve(engine)
        except OSError:
            engine.close()  # the engine died meanwhile; the next one finds us by the socket
        gc.collect()
        shim.run()
    except BaseException as error:
        code = 1
        os.write(
            2, f"jaula-shim {request.container_id}: {type(error).__name__}: {error}\n".encode()
        )
        raise
    finally:
        os._exit(code)
