"""The shim: one process per container, parent of its init for the whole life of the container.

It owns the container's terminal or pipes, writes its log, serves attached clients, runs exec'd
processes, and writes ``exit.json`` when init exits. The engine talks to it over a socket. A later
engine connects to ``shim.sock`` in the container's run directory. The shim does not need an engine:
it works until the container exits, then exits itself. It holds the container's engine socket, so
that clients in the container can connect while no engine runs, and the next engine gets it.

Facts about memory: creating a container touches a few megabytes of the memory that a shim shares
with the zygote. The shim would keep these copies for its whole life. So a forked helper creates the
process and exits. The shim is a child subreaper meanwhile (prctl(2), PR_SET_CHILD_SUBREAPER): what
the helper created becomes the shim's own child, which the shim can wait for.

Facts about a shim that is killed: its helper dies with it (PR_SET_PDEATHSIG). The kernel closes the
descriptors of a process before it signals the children. The helper and the stage hold the socket to
the engine too, so the engine reads its end when all of them have exited, and removes the rest.

Facts about zombies: another OCI runtime may leave processes to the shim. One that it had put into
the container's pid namespace keeps init from being reaped for as long as it is a zombie
(pid_namespaces(7)).
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

import msgspec

from jaula import feature
from jaula.errors import InvalidRequest, JaulaError, NotFound, RuntimeFailure
from jaula.kernel import process_calls, tty
from jaula.kernel.poll import readable
from jaula.runtime import exec_process as runtime_exec
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.create import create_init, spare_init
from jaula.runtime.create.clone_process import FdStack, ProcessHandle
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.external import external_runtime, foreign_cgroups
from jaula.runtime.init import process_labels, process_setup
from jaula.runtime.interfaces import Cgroup, Interfaces, LogWriter
from jaula.runtime.shim import prefault
from jaula.runtime.shim.engine_connections import ControlSockets
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.stdio_relay import Drain, StdioRelay
from jaula.runtime.shim_protocol import (
    EXIT_NAME,
    SHIM_COMM,
    Answer,
    AttachRequest,
    CheckpointRequest,
    DebugRequest,
    Detached,
    ExecExited,
    ExecRequest,
    ExitRecord,
    HelloRequest,
    ListenRequest,
    MountsRequest,
    OutOfMemory,
    ReopenLogRequest,
    ResizeRequest,
    SignalRequest,
    SpareInitRequest,
    StartRequest,
)
from jaula.spec import runtime_spec
from jaula.spec.asciicast import SUFFIX, CastWriter

MAX_RECORDINGS = 1000  # sessions of one container that are recorded
UNNAMED = "/jaula/unnamed"  # cgroup for a spec without linux.cgroupsPath

_IDLE = 0.02
"""Seconds after an exec until the helper of the next one is forked."""
_SPARE_TIME = 5.0
"""Seconds that a spare helper waits for an exec."""
_EXIT_TIME = 10.0
"""Seconds from the removal of a cgroup to the exit of its last process."""
_KILL_TIMEOUT = 10.0
"""Seconds in which a killed child exits; one that waits for a device is reaped later."""
_CRIU_PATIENCE = 10.0
"""Seconds in which CRIU ends after its helper."""


class _ExecProcess(NamedTuple):
    """An exec'd process that has not been reaped."""

    pid: int
    pidfd: int
    stdio: StdioRelay


class Shim:
    """State of one container while its init lives."""

    def __init__(
        self,
        request: StartRequest,
        interfaces: Interfaces,
        spawn_helper: SpawnHelper,
        held: tuple[int, ...] = (),
    ) -> None:
        self.request = request
        self.interfaces = interfaces
        self.event_loop = EventLoop()
        self.spawn_helper = spawn_helper
        spawn_helper.timeout = shim_protocol.helper_timeout(
            request.runtime,
            checkpoint=request.restore is not None,
            early=request.restore is not None and request.restore.early,
        )
        self.engines = ControlSockets(
            self.event_loop, request.run_dir, self._handle_request, self._after_reply, held
        )
        self.execs: dict[str, _ExecProcess] = {}
        self.exit_record: ExitRecord | None = None
        self.draining = Drain()
        self.recordings = 0
        self.mounts_journal = b""  # the steps of the last change of mounts, for its undo
        self.reaper = Reaper(self.event_loop)
        self.spare_due: float | None = None  # monotonic time to fork a spare helper, or to end it
        self.children_before: set[int] | None = None  # before an exec, a dump or a restore
        self.started_at = 0.0
        self.oom_kills_seen = 0
        self.oom_fd: int | None = None
        self.early_oom = False  # a process was killed before ``oom_fd`` was watched
        self.init: ProcessHandle
        self.pidfd = -1
        self.cgroup: Cgroup
        self.stdio: StdioRelay

    # start

    def start(self, fds: list[int], clients: tuple[int, ...]) -> None:
        """Create the container. ``fds`` are the descriptors of the request.

        :raises RuntimeFailure: when it cannot be created; nothing of it is left then.
        """
        request = self.request
        mount_point = _mount_point(request)
        # Not makedirs: an engine that undoes a start of its predecessor removes the run directory,
        # and a request that the zygote received before must fail then.
        if not os.path.isdir(mount_point):
            os.mkdir(mount_point, 0o711)
        self.spawn_helper.begin(request, fds, self.interfaces)
        log = None
        try:
            log = self.interfaces.open_log(
                request.log.driver, request.log.options, request.log.path
            )
            self.engines.listen()
            if request.restore is not None:  # CRIU may leave children
                self.children_before = _children()
            self.init = self.spawn_helper.create()
        except BaseException as error:
            if log is not None:
                log.close()
            undone = self.spawn_helper.cancel()
            if self.children_before is not None:
                self._end_new_children(self.children_before)
            self._delete_partial(killed=isinstance(error, HelperKilled) or not undone)
            self.engines.stop_listening()
            raise
        self.started_at = time.time()
        self.spawn_helper.timeout = shim_protocol.helper_timeout(request.runtime)
        try:
            self._supervise(log, clients)
        except BaseException:
            self._destroy()
            self.engines.stop_listening()
            raise

    def _delete_partial(self, *, killed: bool = False) -> None:
        """Remove what an external runtime has created so far, or a helper that was ``killed``.

        A helper that could report its failure has removed everything itself.
        """
        request = self.request
        if request.runtime is None and not killed:
            return
        self.spawn_helper.wait()
        linux = _read_spec(request.bundle).linux
        cgroup = (linux.cgroups_path if linux else None) or UNNAMED
        if request.runtime is None:
            cgroups = self.interfaces.cgroups
            with contextlib.suppress(NotFound), cgroups.open(cgroup) as partial:
                partial.kill()  # thaws a restored container, whose init could not exit otherwise
            external_runtime.kill_children()
            with contextlib.suppress(NotFound), cgroups.open(cgroup) as partial:
                partial.kill()
                partial.destroy()
            return
        external_runtime.clean_up(
            request.runtime, request.run_dir, request.container_id, cgroup, self.interfaces
        )

    def _destroy(self) -> None:
        """Kill and remove a container that cannot be supervised."""
        if self.request.runtime is not None:
            self._delete_partial()
            return
        os.kill(self.init.pid, signal.SIGKILL)
        # Absent after the exit of the last process of a scope: the caller's error is the cause.
        with (
            contextlib.suppress(NotFound),
            self.interfaces.cgroups.open(self.init.cgroup) as cgroup,
        ):
            cgroup.kill()
            cgroup.destroy()

    def _supervise(self, log: LogWriter, clients: tuple[int, ...]) -> None:
        """Open pidfd and cgroup of init, relay its stdio, and watch for exit and OOM events."""
        request, init = self.request, self.init
        self.pidfd = process_calls.pidfd_open(init.pid)
        self.cgroup = self._open_cgroup()
        self.stdio = StdioRelay(
            self.event_loop,
            master=init.master,
            stdin=init.stdin,
            stdout=init.stdout,
            stderr=init.stderr,
            log=log,
            stdin_once=request.stdin_once,
            on_detach=lambda: self.engines.notify(Detached("")),
            recording=self._recording("main", request.console),
        )
        for fd, stream in zip(clients, request.attachments, strict=True):
            self.stdio.attach(socket.socket(fileno=fd), stream)
        self.event_loop.watch(self.pidfd, select.EPOLLIN, self._init_ended)
        self._watch_hangup()
        self.oom_fd = self.cgroup.oom_fd()
        if self.oom_fd is not None:
            self.event_loop.watch(self.oom_fd, select.EPOLLIN, self._out_of_memory)
            is_reported = bool(readable(0, self.oom_fd))
            self.early_oom = not is_reported and self.cgroup.oom_kills() > 0

    def _watch_hangup(self) -> None:
        """Let SIGHUP wake the event loop: the handler runs between any two instructions."""
        hangup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

        def listen(_: int) -> None:
            os.eventfd_read(hangup)
            try:
                self.engines.listen_if_removed()
            except OSError as error:
                os.write(2, f"{SHIM_COMM}: the socket is not made again: {error}\n".encode())

        self.event_loop.watch(hangup, select.EPOLLIN, listen)
        signal.signal(signal.SIGHUP, lambda _signum, _frame: os.eventfd_write(hangup, 1))

    def _recording(self, name: str, console: tuple[int, int]) -> CastWriter | None:
        """Return the writer of a session's recording; None if sessions are not recorded.

        :raises OSError: when the file cannot be created.
        """
        directory = self.request.sessions
        if not directory or self.recordings >= MAX_RECORDINGS:
            return None
        self.recordings += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

        def open_part(number: int) -> int:
            part = "" if number == 1 else f".{number}"
            return os.open(f"{directory}/{name}{part}{SUFFIX}", flags, 0o600)

        rows, columns = console
        return CastWriter(open_part, f"{self.request.container_id[:12]} {name}", columns, rows)

    def _open_cgroup(self) -> Cgroup:
        """Open the cgroup of init. If its program has ended, systemd may have removed it.

        A process leaves its cgroup before its pidfd is readable.
        """
        path = self.init.cgroup
        try:
            return self.interfaces.cgroups.open(path)
        except NotFound:
            if not readable(_EXIT_TIME, self.pidfd):
                raise
            return self.interfaces.absent_cgroup(path)

    # requests of engines

    def _handle_request(self, request: shim_protocol.ShimRequest, fds: list[int]) -> Answer:
        """Carry out a request; descriptors that are kept are removed from ``fds``."""
        if isinstance(request, HelloRequest):
            return Answer(
                request.number,
                pid=self.init.pid,
                shim_pid=os.getpid(),
                execs=tuple(self.execs),
            )
        if isinstance(request, ExecRequest | DebugRequest):
            return Answer(request.number, pid=self._exec(request, fds))
        if isinstance(request, ReopenLogRequest):
            self._reopen_log()
            return Answer(request.number)
        if isinstance(request, ListenRequest):
            self.engines.listen_again()
            return Answer(request.number)
        if isinstance(request, CheckpointRequest):
            self._checkpoint(request, fds)
            return Answer(request.number)
        if isinstance(request, MountsRequest):
            self._change_mounts(request, fds)
            return Answer(request.number)
        stdio, pid = self._target(request.exec_id if not isinstance(request, AttachRequest) else "")
        if isinstance(request, AttachRequest):
            stdio.attach(socket.socket(fileno=fds.pop(0)), request.stream)
        elif isinstance(request, ResizeRequest):
            if stdio.master < 0:
                raise RuntimeFailure("the process has no terminal to resize")
            tty.set_size(stdio.master, request.height, request.width)
            if stdio.recording is not None:
                stdio.recording.resize(request.width, request.height)
        elif isinstance(request, SignalRequest):
            if request.exec_id:
                process_calls.pidfd_send_signal(self.execs[request.exec_id].pidfd, request.signum)
            else:
                process_calls.pidfd_send_signal(self.pidfd, request.signum)
        return Answer(request.number, pid=pid)

    def _reopen_log(self) -> None:
        """Open the log's file again.

        :raises RuntimeFailure: when it cannot be opened: then the log goes on in the present file.
        """
        if self.stdio.log is None:
            raise RuntimeFailure("the container has exited and its log is closed")
        try:
            self.stdio.log.reopen()
        except OSError as error:
            raise RuntimeFailure(
                f"cannot open the log {error.filename} again: {error.strerror}"
            ) from error

    def _target(self, exec_id: str) -> tuple[StdioRelay, int]:
        """Return the stdio and pid of init (empty id) or of an exec'd process."""
        if not exec_id:
            return self.stdio, self.init.pid
        if exec_id not in self.execs:
            raise RuntimeFailure(f"exec {exec_id} is not running")
        return self.execs[exec_id].stdio, self.execs[exec_id].pid

    # checkpoint

    def _checkpoint(self, request: CheckpointRequest, fds: list[int]) -> None:
        """Dump the container in a helper. The event loop stands still meanwhile.

        :raises InvalidRequest: when the container uses what no checkpoint can hold.
        :raises RuntimeFailure: when CRIU fails; the container runs on.
        """
        if self.execs and not request.keep_execs:
            if not request.end_execs:
                raise InvalidRequest(
                    f"the container has {len(self.execs)} exec'd processes, which a checkpoint"
                    " would lose",
                    hint="end them first, or use --end-execs",
                )
            self._end_execs()
        commit, before = fds[0], _children()
        helper_timeout = self.spawn_helper.timeout
        self.spawn_helper.timeout = shim_protocol.helper_timeout(None, checkpoint=True)
        if request.hold:
            self.spawn_helper.timeout = None  # an engine decides

        def work() -> ProcessHandle:
            spec = _read_spec(self.request.bundle)
            state = _state(self.request, spec, "running", self.init.pid)
            dump = feature.runtime("dump")
            fd = os.dup(commit)
            dump(request, self.request, spec, state, self.cgroup, self.interfaces, fd)
            return ProcessHandle(self.init.pid)

        try:
            self.spawn_helper.run(work)
        except HelperKilled:
            if request.hold:  # the engine decides, and the container stays frozen until then
                self._end_new_children(before)  # CRIU
                raise
            # CRIU lets the processes go when it notices the end of its socket.
            self._end_new_children(before, _CRIU_PATIENCE)
            feature.runtime("dump-killed")(self.init.pid, self.cgroup)
            raise
        except JaulaError:
            self._end_new_children(before, _CRIU_PATIENCE)  # of a CRIU that has died
            raise
        finally:
            self.spawn_helper.timeout = helper_timeout
            self.children_before = before

    def _end_execs(self) -> None:
        """Kill the exec'd processes and report their exit."""
        for exec_id, each in list(self.execs.items()):
            process_calls.pidfd_send_signal(each.pidfd, signal.SIGKILL)
            readable(None, each.pidfd)
            self._exec_ended(exec_id)

    # mounts

    def _change_mounts(self, request: MountsRequest, fds: list[int]) -> None:
        """Change the mounts of the running container in a helper.

        :raises RuntimeFailure: when that fails; the mounts are as before.
        """
        if self.request.runtime is not None:
            raise RuntimeFailure(
                f"runtime {self.request.runtime.name} cannot change the mounts of a container"
            )
        host_mounts = fds[0] if request.host_mounts else -1
        journal = os.memfd_create("mounts", os.MFD_CLOEXEC)

        def work() -> ProcessHandle:
            init, bundle = self.init.pid, self.request.bundle
            change = feature.runtime("mounts")
            change(request, init, self.pidfd, bundle, host_mounts, journal, self.mounts_journal)
            return ProcessHandle(init)

        try:
            self.spawn_helper.run(work)
        except HelperKilled:
            self.spawn_helper.wait()  # a stopped one would go on after the journal is read
            raise
        finally:
            if not request.undo:
                self.mounts_journal = os.pread(journal, os.fstat(journal).st_size, 0)
            os.close(journal)

    # exec

    def _exec(self, request: ExecRequest | DebugRequest, fds: list[int]) -> int:
        """Start an exec'd process, attach its client, and return its host pid."""
        stream, before = request.stream, _children()
        try:
            if isinstance(request, DebugRequest):
                handle = self.spawn_helper.run(lambda: self._make_debug(request, fds))
            else:
                handle = self.spawn_helper.execute(request, lambda: self._make_exec(request))
        except HelperKilled:
            self._end_new_children(before)
            raise
        if self.spawn_helper.ahead and self.request.runtime is None:
            self.spare_due = time.monotonic() + _IDLE
        pidfd = process_calls.pidfd_open(handle.pid)
        stdio = StdioRelay(
            self.event_loop,
            master=handle.master,
            stdin=handle.stdin,
            stdout=handle.stdout,
            stderr=handle.stderr,
            log=None,
            stdin_once=True,
            on_detach=lambda: self.engines.notify(Detached(request.exec_id)),
            recording=self._recording(f"exec-{request.exec_id[:12]}", request.console),
        )
        self.execs[request.exec_id] = _ExecProcess(handle.pid, pidfd, stdio)
        self.children_before = before
        if stream is not None and fds:
            stdio.attach(socket.socket(fileno=fds.pop(0)), stream)
        self.event_loop.watch(pidfd, select.EPOLLIN, lambda _: self._exec_ended(request.exec_id))
        return handle.pid

    def _end_new_children(self, before: set[int], patience: float = 0.0) -> None:
        """Kill and reap what a killed helper left to the shim: children that it had not before.

        A child may end by itself in ``patience`` seconds. A zombie in the container's pid namespace
        would keep init from being reaped.
        """
        self.spawn_helper.wait()
        end = time.monotonic() + patience
        for pid in _children() - before:
            pidfd = process_calls.pidfd_open(pid)
            try:
                if not readable(max(0.0, end - time.monotonic()), pidfd):
                    os.kill(pid, signal.SIGKILL)
                if readable(_KILL_TIMEOUT, pidfd):
                    os.waitpid(pid, 0)
                else:  # it waits for a device
                    self.reaper.watch(pid)
            finally:
                os.close(pidfd)

    def _after_reply(self) -> None:
        """Wait for the helper after a reply, and reap what became our child meanwhile.

        An external runtime leaves processes to us. So does an exec'd process in the pid namespace
        of the host that ends while we are a child subreaper.
        """
        self.spawn_helper.wait()
        others = {self.init.pid, *(each.pid for each in self.execs.values())}
        if self.request.runtime is not None:
            self.reaper.scan(others)
        elif self.children_before is not None:
            self.reaper.scan(others | self.children_before)
        self.children_before = None

    def _keep_spare_helper(self) -> None:
        """Fork a spare helper some time after an exec, and end it if no other exec follows."""
        if self.spare_due is None or time.monotonic() < self.spare_due:
            return
        if self.spawn_helper.has_spare:
            self.spare_due = None
            self.spawn_helper.end_spare()
            return
        self.spare_due = time.monotonic() + _SPARE_TIME
        self.spawn_helper.prepare_exec(self._spare_exec)

    def _spare_exec(self, sock: _socket.socket) -> ProcessHandle:
        """Wait for a request, and create its process. Runs in the spare helper.

        It has no descriptor of the container's output or of a client, which would keep it open.
        """
        process_calls.close_fds_except((*self.interfaces.fds, sock.fileno(), self.pidfd))
        cgroup = self.interfaces.cgroups.open(self.init.cgroup)
        prefault.run((self._prefault_exec,), sock)
        data, _ = seqpacket.receive(sock)
        if not data:
            raise RuntimeFailure("the shim has ended")
        request = shim_protocol.decode_shim_request(data)
        assert isinstance(request, ExecRequest)
        return self._make_exec(request, cgroup)

    def _prefault_exec(self) -> None:
        """Compile the container's own process, as an exec'd one."""
        spec = _read_spec(self.request.bundle)
        fd_stack = FdStack()
        try:
            if spec.process is not None:
                self._compile_exec(spec, spec.process, fd_stack)
        finally:
            fd_stack.close()

    def _make_debug(self, request: DebugRequest, fds: list[int]) -> ProcessHandle:
        """Create a process of a debug session. Runs in the helper, which has the descriptors."""
        if self.request.runtime is not None:
            raise RuntimeFailure(f"runtime {self.request.runtime.name} has no debug sessions")
        toolbox, *target = fds[1 if request.stream is not None else 0 :]
        pidfd, root = target if request.target else (-1, -1)
        label = process_labels.mount_label(_read_spec(self.request.bundle))
        enter_root = feature.runtime("debug-root")
        return self._make_exec(
            request, enter_root=lambda: enter_root(toolbox, root, label), target=pidfd
        )

    def _make_exec(
        self,
        request: ExecRequest | DebugRequest,
        cgroup: Cgroup | None = None,
        *,
        enter_root: Callable[[], None] | None = None,
        target: int = -1,
    ) -> ProcessHandle:
        """Create an exec'd process; the container's spec applies to it. Runs in the helper.

        ``target`` is a pidfd of the process whose namespaces are joined; -1 is init.
        """
        spec = _read_spec(self.request.bundle)
        linux, process_spec = spec.linux, request.process
        assert linux is not None
        owner_ids = (
            host_id(linux.uid_mappings, process_spec.user.uid),
            host_id(linux.gid_mappings, process_spec.user.gid),
        )
        stdin_open = bool(request.stream and request.stream.stdin)
        if self.request.runtime is not None:
            return external_runtime.execute(
                self.request.runtime,
                self.request.run_dir,
                self.request.container_id,
                process_spec,
                owner=owner_ids,
                stdin_open=stdin_open,
                console=request.console,
            )
        fd_stack = FdStack()
        try:
            config = self._compile_exec(spec, process_spec, fd_stack)
            options = runtime_exec.ExecOptions(
                owner_ids=owner_ids,
                stdin_open=stdin_open,
                console=request.console,
                enter_root=enter_root,
            )
            pid, pidfd = self.init.pid, self.pidfd
            if target >= 0:
                pid, pidfd = process_calls.pid_of(target), target
            return runtime_exec.start(
                pid, pidfd, cgroup or self.cgroup, process_spec, config, options
            )
        finally:
            fd_stack.close()

    def _compile_exec(
        self, spec: runtime_spec.Spec, process_spec: runtime_spec.Process, fd_stack: FdStack
    ) -> process_setup.ProcessConfig:
        assert spec.linux is not None
        return process_setup.prepare(
            process_spec,
            spec.linux,
            _state(self.request, spec, "running", self.init.pid),
            self.interfaces,
            fd_stack,
            seccomp_cache=self.request.seccomp_cache,
            annotations=spec.annotations,
            for_exec=True,
        )

    def _exec_ended(self, exec_id: str) -> None:
        """Reap an exec'd process, report its exit status and drain its output."""
        exec_process = self.execs[exec_id]
        reaped, status = os.waitpid(exec_process.pid, 0 if self.exit_record else os.WNOHANG)
        if not reaped:
            return
        del self.execs[exec_id]
        self.event_loop.forget(exec_process.pidfd)
        os.close(exec_process.pidfd)
        exec_process.stdio.drain()
        self.engines.notify(ExecExited(exec_id, process_calls.exit_code(status)[0]))
        self.draining.add(exec_process.stdio)

    def _run_once(self) -> None:
        """Run one round of the event loop, the log's periodic work, and the drain deadlines."""
        spare = None if self.spare_due is None else max(0.0, self.spare_due - time.monotonic())
        timeouts = (self.stdio.poll(), self.draining.timeout(), spare)
        self.event_loop.run_once(
            min((timeout for timeout in timeouts if timeout is not None), default=None)
        )
        self.draining.close_finished()
        self._keep_spare_helper()

    # exit

    def _out_of_memory(self, _: int) -> None:
        """Report an OOM kill to the engines, or that processes wait for memory instead."""
        assert self.oom_fd is not None
        try:
            os.read(self.oom_fd, 4096)
        except BlockingIOError:
            return
        if self.exit_record is not None:
            self.event_loop.forget(self.oom_fd)
        elif self.cgroup.is_oom(self.oom_kills_seen):
            self._report_oom()

    def _report_oom(self) -> None:
        self.oom_kills_seen = max(self.oom_kills_seen + 1, self.cgroup.oom_kills())
        peak, limit = self._memory()
        self.engines.notify(OutOfMemory(peak, limit))

    def _memory(self) -> tuple[int, int]:
        return self.cgroup.peak_memory(), self.init.memory_limit

    def _init_ended(self, _: int) -> None:
        """Reap init, clean up after the container, and write ``exit.json``."""
        reaped, status = os.waitpid(self.init.pid, os.WNOHANG)
        if not reaped:
            return
        finished_at = time.time()
        self.event_loop.forget(self.pidfd)
        code, signum = process_calls.exit_code(status)
        cgroup = self.cgroup
        if cgroup.pids():  # in a shared pid namespace processes outlive init
            cgroup.kill()
        self.stdio.drain()
        kills = cgroup.oom_kills()
        peak, limit = self._memory()
        if kills > self.oom_kills_seen:
            self.engines.notify(OutOfMemory(peak, limit))
        error = ""
        if (runtime := self.request.runtime) is not None:
            error = external_runtime.delete(
                runtime, self.request.run_dir, self.request.container_id
            )
            if error:
                foreign_cgroups.remove(self.init.cgroup)
        try:
            cgroup.destroy()
        except JaulaError as failure:
            error = str(failure)
        cgroup.close()
        self.exit_record = ExitRecord(
            code,
            signum,
            oom_killed=kills > 0,
            started_at=self.started_at,
            finished_at=finished_at,
            error=error,
            memory_peak=peak,
            memory_limit=limit,
        )
        if not self.engines.connected:
            _make_run_dir(self.request.run_dir)
        write_exit_record(self.request.run_dir, self.exit_record)
        for exec_id in list(self.execs):
            self._exec_ended(exec_id)
        self.engines.notify(self.exit_record)

    def run(self) -> None:
        """Serve until the container has exited and its clients have read all output."""
        self._after_reply()
        if self.early_oom:
            self._report_oom()
        while self.exit_record is None:
            self._run_once()
        self.spare_due = None
        self.spawn_helper.end_spare()
        self.engines.stop_listening()
        self.draining.add(self.stdio)
        while self.draining:
            self._run_once()


def _children() -> set[int]:
    """Return the children of this process; none if the kernel does not list them."""
    try:
        return set(external_runtime.children())
    except FileNotFoundError:
        return set()


def _read_spec(bundle: str) -> runtime_spec.Spec:
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            return runtime_spec.decode(file.read())
    except OSError as error:
        raise RuntimeFailure(f"bundle {bundle}: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RuntimeFailure(f"bundle {bundle}: config.json: {error}") from error


def _make_run_dir(run_dir: str) -> None:
    """Make a run directory that was removed while no engine ran, for the exit record.

    An engine that has force-removed the container is not connected either, if it was killed. The
    next one sweeps the directory.
    """
    containers = os.path.dirname(run_dir)
    with contextlib.suppress(OSError):  # the failure to write the record is reported
        for path, mode in ((os.path.dirname(containers), 0o711), (containers, 0o700)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, mode)
        os.mkdir(run_dir, 0o700)


def write_exit_record(run_dir: str, record: ExitRecord) -> None:
    """Write ``exit.json`` atomically: a reader sees all of it or nothing.

    A failure, as of a full or read-only file system, is printed: an engine that is connected gets
    the record all the same.
    """
    path = f"{run_dir}/{EXIT_NAME}"
    try:
        with open(f"{path}.new", "wb") as file:
            file.write(shim_protocol.encode(record))
        os.rename(f"{path}.new", path)
    except FileNotFoundError:
        return  # the engine has force-removed the container
    except OSError as error:
        text = f"{SHIM_COMM}: {path} cannot be written: {error.strerror}\n"
        os.write(2, text.encode("utf-8", "surrogateescape"))


def _is_cancelled(engine: socket.socket) -> bool:
    """Return whether the engine has given up this start.

    It then sent :data:`protocol.CANCEL`. An engine that was killed sent nothing: the next one takes
    the container over.
    """
    try:
        return engine.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT) == shim_protocol.CANCEL
    except BlockingIOError:
        return False


class StartFds(NamedTuple):
    """The descriptors of a start request, after the socket of the engine."""

    sandbox: tuple[int, int] | None
    namespaces: dict[str, int]  # by type
    host_mounts: int  # mount namespace of the host, or -1
    engine_sockets: tuple[int, ...]  # the listening engine socket of the container, if it has one
    hold: int  # of a restore that asks the engine, or -1
    inherited: tuple[int, ...]  # by the program
    clients: tuple[int, ...]

    @classmethod
    def of(cls, request: StartRequest, fds: list[int]) -> StartFds:
        """Return the descriptors by their use."""
        rest = iter(fds[1:])
        sandbox = (next(rest), next(rest)) if request.sandbox else None
        namespaces = {kind: next(rest) for kind in request.namespace_types}
        host_mounts = next(rest) if request.host_mounts else -1
        engine_sockets = (next(rest),) if request.engine_socket else ()
        hold = next(rest) if request.hold else -1
        inherited = tuple(next(rest) for _ in range(request.inherited))
        return cls(sandbox, namespaces, host_mounts, engine_sockets, hold, inherited, tuple(rest))

    def close_namespaces(self) -> None:
        """Close the descriptors that only the creation needs."""
        optional = (fd for fd in (self.host_mounts, self.hold) if fd >= 0)
        for fd in (*(self.sandbox or ()), *self.namespaces.values(), *optional, *self.inherited):
            os.close(fd)


def _mount_point(request: StartRequest) -> str:
    return f"{request.run_dir}/rootfs"


def _state(
    request: StartRequest, spec: runtime_spec.Spec, status: str, pid: int = 0
) -> runtime_spec.State:
    """Return the OCI state document of the container."""
    return runtime_spec.State(request.container_id, status, request.bundle, pid, spec.annotations)


def create_container(
    request: StartRequest,
    fds: list[int],
    interfaces: Interfaces,
    proceed: Callable[[], None],
    spare: spare_init.SpareInit | None = None,
) -> ProcessHandle:
    """Create the container with our own or an external runtime. Runs in the helper.

    ``proceed`` is called before its first process is created; it raises to give up the start.
    ``spare`` becomes its init, or is ended.
    """
    if spare is not None and (request.runtime is not None or request.restore is not None):
        spare.end()
        spare = None
    start_fds = StartFds.of(request, fds)
    spec = _read_spec(request.bundle)
    options = create_init.CreateOptions(
        state=_state(request, spec, "creating"),
        root=request.root,
        mount_point=_mount_point(request),
        cgroup=(spec.linux.cgroups_path if spec.linux else None) or UNNAMED,
        sandbox=start_fds.sandbox,
        namespace_fds=start_fds.namespaces,
        host_mounts=start_fds.host_mounts,
        console=request.console,
        stdin_open=request.stdin_open,
        inherited=start_fds.inherited,
        seccomp_cache=request.seccomp_cache,
        proceed=proceed,
    )
    if request.runtime is not None:
        proceed()
        return external_runtime.start(spec, options, request.runtime, request.run_dir)
    if request.restore is not None:
        proceed()
        restore = feature.runtime("restore")
        restored: ProcessHandle = restore(
            spec, options, interfaces, request.restore, start_fds.hold
        )
        return restored
    return create_init.start(spec, options, interfaces, spare)


def main(
    request: StartRequest, fds: list[int], interfaces: Interfaces, spawn_helper: SpawnHelper
) -> NoReturn:
    """Run a shim process, the leader of a session, until its container exits.

    ``fds`` are the descriptors of the request; the first is the socket of the engine.
    """

    def work() -> None:
        process_calls.set_name(SHIM_COMM)
        run(request, fds, interfaces, spawn_helper)

    process_calls.run_and_exit(f"{SHIM_COMM} {request.container_id}", work)


def run(
    request: StartRequest, fds: list[int], interfaces: Interfaces, spawn_helper: SpawnHelper
) -> None:
    """Be the shim of a container until it exits; see :func:`main`."""
    os.chdir("/")
    engine = socket.socket(fileno=fds[0])
    if _is_cancelled(engine):  # the container must not run
        return
    start_fds = StartFds.of(request, fds)
    shim = Shim(request, interfaces, spawn_helper, start_fds.engine_sockets)
    try:
        shim.start(fds, start_fds.clients)
    except (JaulaError, OSError) as error:
        _report_failure(request.run_dir, engine, error)
        return
    start_fds.close_namespaces()
    try:
        seqpacket.send(
            engine, shim_protocol.encode(Answer(0, pid=shim.init.pid, shim_pid=os.getpid()))
        )
        shim.engines.serve(engine)
    except OSError:
        engine.close()  # the engine died meanwhile; the next one connects to our socket
    gc.collect()
    shim.run()


def _report_failure(run_dir: str, engine: socket.socket, error: JaulaError | OSError) -> None:
    """Send the failure of a start to the engine, and write it for the next one.

    The record of a start that failed has no ``started_at``.
    """
    code = error.exit_code if isinstance(error, JaulaError) else 125
    number = error.errno if isinstance(error, JaulaError) else 0
    write_exit_record(run_dir, ExitRecord(code, error=str(error)))
    answer = Answer(0, error=str(error), exit_code=code, errno=number)
    try:
        seqpacket.send(engine, shim_protocol.encode(answer))
    except BrokenPipeError:
        return  # the engine has ended


class HelperKilled(RuntimeFailure):
    """The helper died or hung before it reported; parts of the process may exist."""


class _Failed(msgspec.Struct, frozen=True, tag=True):
    text: str
    exit_code: int
    errno: int = 0


class _Spawned(msgspec.Struct, frozen=True, tag=True):
    process_handle: ProcessHandle


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Failed | _Spawned).decode
_PROCEED = b"proceed"
_SLOTS = ("master", "stdin", "stdout", "stderr")


class SpawnHelper:
    """Run functions that create a process, one at a time, each in a forked helper.

    A helper takes a millisecond to exit. :meth:`run` does not wait for that, so that the caller can
    answer its client first; :meth:`wait` does.

    The stage and init inherit the helper's end of the socket. So the end of a helper is read from
    its pidfd, and not from the socket.
    """

    def __init__(self, *, ahead: bool = False) -> None:
        """Initialise; ``ahead`` says that the helpers of execs are forked before their requests."""
        self.ahead = ahead
        self.timeout: float | None = 0.0  # seconds that a helper has; None: no limit
        self._helper = 0
        self._sock: _socket.socket | None = None  # to a helper that waits
        self._spare: _socket.socket | None = None  # to one that waits for an exec

    def prepare(
        self, interfaces: Interfaces, zygote: _socket.socket, restore_score: Callable[[], None]
    ) -> None:
        """Fork the helper of a start ahead. It closes the socket ``zygote`` of its shim.

        ``restore_score`` gives it the OOM score of a shim, which init inherits.
        """

        def work(sock: _socket.socket) -> ProcessHandle:
            zygote.close()
            prefault.run(prefault.of_helper(interfaces), sock)
            restore_score()
            request, fds = _receive_request(sock)
            spare = None
            if isinstance(request, SpareInitRequest):
                spare = _create_spare_init(request, fds, interfaces)
                try:
                    if spare is not None and _ends_before(spare, sock):
                        ended, spare = spare, None
                        ended.end()
                    request, fds = _receive_request(sock)
                except BaseException:
                    if spare is not None:
                        spare.end()
                    raise
            process_calls.set_name(SHIM_COMM)
            assert isinstance(request, StartRequest)
            return create_container(request, fds, interfaces, lambda: wait_to_proceed(sock), spare)

        self._sock = self._fork(work)

    def begin_spare_init(self, request: SpareInitRequest, sandbox: Sequence[int]) -> None:
        """Let the helper of a start create a spare init, after :meth:`prepare`.

        ``sandbox`` are its user and network namespace.
        """
        assert self._sock is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed: the start forks another one
            seqpacket.send(self._sock, shim_protocol.encode(request), sandbox)

    def open_helper(self) -> int:
        """Return a pidfd of the helper of :meth:`prepare`, which the caller closes."""
        return process_calls.pidfd_open(self._helper)

    def begin(self, request: StartRequest, fds: list[int], interfaces: Interfaces) -> None:
        """Let a helper create the container of a request, up to its first process."""
        if self._sock is not None:
            try:
                seqpacket.send(self._sock, shim_protocol.encode(request), fds)
                return
            except BrokenPipeError:  # it was killed before there was a request
                self._sock.close()
        self.wait()
        self._sock = self._fork(
            lambda sock: create_container(request, fds, interfaces, lambda: wait_to_proceed(sock))
        )

    def create(self) -> ProcessHandle:
        """Let the helper create the processes, after :meth:`begin`; raises as :meth:`run`."""
        assert self._sock is not None
        sock, self._sock = self._sock, None
        with contextlib.suppress(BrokenPipeError):  # it has failed or died: its report says so
            seqpacket.send(sock, _PROCEED)
        return self._receive(sock)

    def cancel(self) -> bool:
        """Give up a start between :meth:`begin` and :meth:`create`, if there is one.

        Return False if the helper did not undo its part, and was killed.
        """
        if self._sock is None:
            return True
        self._sock.close()
        self._sock = None
        pidfd = process_calls.pidfd_open(self._helper)
        try:
            return bool(readable(self.timeout, pidfd))
        finally:
            os.close(pidfd)
            self.wait()

    def run(self, work: Callable[[], ProcessHandle]) -> ProcessHandle:
        """Run ``work`` in a helper; after :meth:`wait` the process that it created is our child.

        :raises RuntimeFailure: with the error that the helper reported.
        :raises HelperKilled: when the helper died, or did not report within the timeout.
        """
        self.end_spare()
        self.wait()
        return self._receive(self._fork(lambda _: work()))

    @property
    def has_spare(self) -> bool:
        """Return whether a helper was forked for the next exec."""
        return self._spare is not None

    def prepare_exec(self, work: Callable[[_socket.socket], ProcessHandle]) -> None:
        """Fork the helper of the next exec ahead; ``work`` receives the request.

        The shim is no subreaper until then: orphans of a container that is in the pid namespace of
        the host would become its children, and nobody would reap them.
        """
        self.wait()
        self._spare = self._fork(work)
        process_calls.prctl(process_calls.PR_SET_CHILD_SUBREAPER, 0)

    def execute(self, request: ExecRequest, work: Callable[[], ProcessHandle]) -> ProcessHandle:
        """Let the spare helper carry out an exec; without one, run ``work``.

        It raises as :meth:`run`.
        """
        if self._spare is None:
            return self.run(work)
        sock, self._spare = self._spare, None
        process_calls.prctl(process_calls.PR_SET_CHILD_SUBREAPER, 1)
        try:
            seqpacket.send(sock, shim_protocol.encode(request))
        except BrokenPipeError:  # it was killed, or has failed, before there was a request
            sock.close()
            return self.run(work)
        return self._receive(sock)

    def end_spare(self) -> None:
        """End the spare helper, if there is one."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
            self.wait()

    def _fork(self, work: Callable[[_socket.socket], ProcessHandle]) -> _socket.socket:
        """Fork a helper, and return the socket on which it reports."""
        parent_sock, helper_sock = seqpacket.pair()
        process_calls.prctl(process_calls.PR_SET_CHILD_SUBREAPER, 1)
        shim_pid = os.getpid()
        self._helper = os.fork()
        if self._helper == 0:
            process_calls.die_with_parent(shim_pid)
            parent_sock.close()
            _run_helper(lambda: work(helper_sock), helper_sock)
        helper_sock.close()
        return parent_sock

    def _receive(self, parent_sock: _socket.socket) -> ProcessHandle:
        """Wait for the report of the helper, close the socket, and return what it created."""
        try:
            self._wait_for_report(parent_sock)
            try:
                data, fds = seqpacket.receive(parent_sock)
            except ConnectionResetError:  # it has not read all messages; its report may come next
                data, fds = seqpacket.receive(parent_sock)
        finally:
            parent_sock.close()
        if not data:
            raise HelperKilled("the helper that creates processes died")
        message = _decode(data)
        if isinstance(message, _Failed):
            raise RuntimeFailure(message.text, exit_code=message.exit_code, errno=message.errno)
        remaining = iter(fds)
        slots = {
            name: next(remaining) if getattr(message.process_handle, name) >= 0 else -1
            for name in _SLOTS
        }
        process_handle: ProcessHandle = msgspec.structs.replace(message.process_handle, **slots)
        return process_handle

    def _wait_for_report(self, sock: _socket.socket) -> None:
        """Wait until the helper has reported.

        :raises HelperKilled: when it died, or did not report within the timeout.
        """
        pidfd = process_calls.pidfd_open(self._helper)
        try:
            ready = readable(self.timeout, sock.fileno(), pidfd)
        finally:
            os.close(pidfd)
        if not ready:
            raise HelperKilled(
                f"the helper that creates processes did not report in {self.timeout:.0f} seconds"
            )
        # It may have reported after the socket was looked at.
        if sock.fileno() not in ready and not readable(0, sock.fileno()):
            raise HelperKilled("the helper that creates processes died")

    def wait(self) -> None:
        """Wait until the helper has exited: the process that it created is our child then.

        The helper has reported or failed, so it is killed: it may be stopped. A spare one stays.
        """
        if self._helper and self._spare is None:
            os.kill(self._helper, signal.SIGKILL)
            os.waitpid(self._helper, 0)
            self._helper = 0
            process_calls.prctl(process_calls.PR_SET_CHILD_SUBREAPER, 0)


def _receive_request(sock: _socket.socket) -> tuple[shim_protocol.ZygoteRequest, list[int]]:
    """Wait in a helper for a request of its shim.

    :raises RuntimeFailure: when the shim has ended.
    """
    data, fds = seqpacket.receive(sock)
    if not data:
        raise RuntimeFailure("the shim has ended")
    return shim_protocol.decode_zygote(data), fds


def _create_spare_init(
    request: SpareInitRequest, fds: list[int], interfaces: Interfaces
) -> spare_init.SpareInit | None:
    """Create a spare init; return None if that fails. A start creates its own init then."""
    try:
        return spare_init.create(request.spec, request.mount_point, (fds[0], fds[1]), interfaces)
    except JaulaError as error:
        os.write(2, f"jaula-zygote: spare init: {error}\n".encode())
        return None
    finally:
        for fd in fds:
            os.close(fd)


def _ends_before(spare: spare_init.SpareInit, sock: _socket.socket) -> bool:
    """Wait until the shim sends a request or ends; return True if the spare init ends before.

    The kernel kills it when memory runs out. Its cgroup must not stay until the engine's end.
    """
    return sock.fileno() not in readable(None, sock.fileno(), spare.sock.fileno())


def wait_to_proceed(sock: _socket.socket) -> None:
    """Wait in a helper until its shim can serve the container.

    :raises RuntimeFailure: when the shim gives up the start.
    """
    if seqpacket.receive(sock)[0] != _PROCEED:
        raise RuntimeFailure("the shim has given up the start")


def _run_helper(work: Callable[[], ProcessHandle], sock: _socket.socket) -> NoReturn:
    try:
        try:
            process_handle = work()
        except JaulaError as error:
            seqpacket.send(sock, _encode(_Failed(str(error), error.exit_code, error.errno)))
        else:
            fds = [fd for fd in (getattr(process_handle, name) for name in _SLOTS) if fd >= 0]
            seqpacket.send(sock, _encode(_Spawned(process_handle)), fds)
    except BaseException as error:  # noqa: BLE001 - reported, and the helper exits
        seqpacket.send(sock, _encode(_Failed(f"{type(error).__name__}: {error}", 125)))
    finally:
        os._exit(0)


class Reaper:
    """Children that were reparented to the shim and have not been reaped."""

    def __init__(self, event_loop: EventLoop) -> None:
        self._event_loop = event_loop
        self._pids: set[int] = set()

    def scan(self, other_children: Iterable[int]) -> None:
        """Watch every child that is not one of ``other_children``, which are reaped elsewhere."""
        for pid in _children():
            if pid not in other_children and pid not in self._pids:
                self.watch(pid)

    def watch(self, pid: int) -> None:
        """Reap a child when it exits."""
        pidfd = process_calls.pidfd_open(pid)
        self._pids.add(pid)
        self._event_loop.watch(pidfd, select.EPOLLIN, self._reaper(pid, pidfd))

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def _reaper(self, pid: int, pidfd: int) -> Callable[[int], None]:
        def reap(_: int) -> None:
            try:
                reaped = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None
            except ChildProcessError:  # a helper process of the log, reaped by its writer
                reaped = True
            if reaped:
                self._event_loop.forget(pidfd)
                os.close(pidfd)
                self._pids.discard(pid)

        return reap
