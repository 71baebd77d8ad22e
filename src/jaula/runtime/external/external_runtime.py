"""Containers that an external OCI runtime creates: the shim's side.

The helper prepares root, binds and namespaces as for our own runtime, attaches them in a mount
namespace of its own, and runs the runtime there. The runtime's orphan becomes the shim's child, as
our own init does. Nothing is mounted in a namespace of the host. The mounts go away with the
helper; the container keeps copies.

The runtime's state is below the container's run directory: ``runtime/`` (its ``--root``),
``bundle/config.json``, ``runtime.log``, ``runtime.json`` (which runtime it was), ``identity.json``
(:mod:`jaula.runtime.external.identity`).

A runtime hands over a terminal by the console socket: it connects to the socket of
``--console-socket`` and sends the terminal's master with SCM_RIGHTS (runc, docs/terminals.md).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import JaulaError, NotFound, RuntimeFailure, runtime_error, system_error_text
from jaula.kernel import tty
from jaula.runtime import seqpacket
from jaula.runtime.create import namespace_plan
from jaula.runtime.create.clone_process import (
    FdStack,
    ProcessHandle,
    Stdio,
    memory_limit,
    stdio_pipes,
)
from jaula.runtime.create.mount_rootfs import mount_root, prepare_mounts
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.external import command_line, foreign_cgroups, identity
from jaula.runtime.external.external_spec import extra_devices, is_bind, systemd_path, translate
from jaula.runtime.external.staging_mount import StagingMount
from jaula.runtime.init import process_labels
from jaula.runtime.shim_protocol import ExternalRuntime
from jaula.spec import runtime_spec
from jaula.spec.runtime_spec import Process, Spec

if TYPE_CHECKING:
    from jaula.runtime.create.create_init import CreateOptions
    from jaula.runtime.interfaces import Interfaces


DELETE_TIMEOUT = 10.0  # seconds
_REPARENT_TIMEOUT = 2.0  # seconds until the runtime's own processes have exited
_NONE = (-1, -1, -1)
_encode_process = msgspec.json.Encoder().encode


def start(
    spec: Spec, options: CreateOptions, runtime: ExternalRuntime, run_dir: str
) -> ProcessHandle:
    """Have the runtime create and start a container.

    Call this in a process of its own: it moves to another mount namespace.

    :raises RuntimeFailure: when the runtime fails; the caller then calls :func:`clean_up`.
    """
    linux, process_spec = spec.linux, spec.process
    if linux is None or process_spec is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    if systemd_path(linux.cgroups_path or ""):
        arguments = (*runtime.arguments, "--systemd-cgroup")
        runtime = msgspec.structs.replace(runtime, arguments=arguments)
    fd_stack = FdStack()
    try:
        ns = namespace_plan.plan(
            linux, options.sandbox, fd_stack, namespace_fds=options.namespace_fds
        )
        staging = _stage_mounts(spec, options, runtime, run_dir, ns, fd_stack)
        console = options.console
        document = translate(
            spec,
            root=staging.root,
            namespaces=staging.namespaces,
            binds=staging.binds,
            locked=staging.locked,
            devices=staging.devices if ns.user_fd is not None else None,
            console=console,
            oci_version=runtime.oci_version,
        )
        bundle = f"{run_dir}/bundle"
        os.makedirs(bundle, mode=0o700, exist_ok=True)
        with open(f"{bundle}/config.json", "wb") as file:
            file.write(runtime_spec.encode(document))
        identity.write(run_dir, staging.root, staging.namespaces)
        owner = (
            host_id(ns.uid_mappings, process_spec.user.uid),
            host_id(ns.gid_mappings, process_spec.user.gid),
        )
        container_id = options.state.id
        pid, master, parent_stdio = _make(
            runtime,
            run_dir,
            ("create", "--bundle", bundle),
            container_id,
            process_spec,
            owner,
            stdin_open=options.stdin_open,
            console=console
            if any(console) or not process_spec.console_size
            else _console_size(process_spec),
        )
        command_line.call(runtime, run_dir, "start", container_id, program=_program(process_spec))
    except OSError as error:
        raise RuntimeFailure(
            system_error_text("the container cannot be created by its OCI runtime", error)
        ) from error
    finally:
        fd_stack.close()
    return ProcessHandle(pid, master, *parent_stdio, options.cgroup, memory_limit(linux))


def _stage_mounts(
    spec: Spec,
    options: CreateOptions,
    runtime: ExternalRuntime,
    run_dir: str,
    ns: namespace_plan.NamespacePlan,
    fd_stack: FdStack,
) -> StagingMount:
    """Attach root, binds, namespaces and devices in a mount namespace of our own."""
    assert spec.linux is not None
    bind_indexes = [index for index, mount in enumerate(spec.mounts) if is_bind(mount)]
    binds_spec = msgspec.structs.replace(spec, mounts=tuple(spec.mounts[i] for i in bind_indexes))
    prepared = prepare_mounts(
        binds_spec,
        user_fd=ns.user_fd,
        owner=ns.owner,
        fd_stack=fd_stack,
        host_mounts=options.host_mounts,
    )
    try:
        context = process_labels.mount_label(spec)
        root = fd_stack.add(mount_root(options.root, ns.user_fd, ns.owner, context=context))
    except OSError as error:
        raise runtime_error(error, "root file system") from error
    staging = StagingMount.make((runtime.path, *runtime.arguments, run_dir))
    staging.attach_root(root)
    if ns.user_fd is not None:
        staging.bind_namespace("user", ns.user_fd)
    if options.sandbox is not None and any(
        entry.type == "network" and not entry.path for entry in spec.linux.namespaces
    ):
        staging.bind_namespace("network", options.sandbox[1])
    for namespace_type, fd in options.namespace_fds.items():
        if namespace_type != "user":
            staging.bind_namespace(namespace_type, fd)
    for position, index in enumerate(bind_indexes):
        staging.attach_bind(index, prepared[position])
    if ns.user_fd is not None:
        for device in extra_devices(spec.linux):
            staging.make_device(device, ns.owner)
    return staging


def execute(
    runtime: ExternalRuntime,
    run_dir: str,
    container_id: str,
    process_spec: Process,
    *,
    owner: tuple[int, int],
    stdin_open: bool,
    console: tuple[int, int],
) -> ProcessHandle:
    """Have the runtime create another process; ``owner`` is its user on the host.

    :raises RuntimeFailure: when the runtime fails.
    """
    path = f"{run_dir}/exec-process.json"
    try:
        # runc's exec starts in the host's path of the root, so that path must exist.
        StagingMount.reopen(_root(run_dir))
        with open(path, "wb") as file:
            file.write(_encode_process(process_spec))
        try:
            pid, master, parent_stdio = _make(
                runtime,
                run_dir,
                ("exec", "--process", path, "--detach"),
                container_id,
                process_spec,
                owner,
                stdin_open=stdin_open,
                console=console,
            )
        finally:
            os.unlink(path)
    except OSError as error:
        raise RuntimeFailure(f"exec: {error}") from error
    return ProcessHandle(pid, master, *parent_stdio)


def _root(run_dir: str) -> str:
    """Return the path of the root when the container was created."""
    root = _spec(run_dir).root
    assert root is not None
    return root.path


def _spec(run_dir: str) -> Spec:
    """Read the spec that was written for the runtime."""
    with open(f"{run_dir}/bundle/config.json", "rb") as file:
        return runtime_spec.decode(file.read())


def _make(
    runtime: ExternalRuntime,
    run_dir: str,
    command: tuple[str, ...],
    container_id: str,
    process_spec: Process,
    owner: tuple[int, int],
    *,
    stdin_open: bool,
    console: tuple[int, int],
) -> tuple[int, int, Stdio]:
    """Create a process by ``create`` or ``exec``.

    Return (pid, terminal master or -1, our ends of its pipes).
    """
    fd_stack = FdStack()
    parent_stdio = _NONE
    pid_file = f"{run_dir}/{command[0]}.pid"
    _remove(pid_file)
    try:
        if process_spec.terminal:
            with ConsoleSocket(run_dir) as console_socket:
                arguments = (
                    *command,
                    "--pid-file",
                    pid_file,
                    "--console-socket",
                    console_socket.path,
                )
                command_line.call(
                    runtime, run_dir, *arguments, container_id, program=_program(process_spec)
                )
                pid = _read_pid(pid_file, command[0])
                master = console_socket.receive()
            if any(console):
                tty.set_size(master, *console)
            return pid, master, parent_stdio
        context = process_labels.mount_label(_spec(run_dir)) if process_spec.selinux_label else None
        child_stdio, parent_stdio = stdio_pipes(
            *owner, stdin_open, fd_stack.fds, context=context, host_null=False
        )
        arguments = (*command, "--pid-file", pid_file)
        try:
            command_line.call(
                runtime,
                run_dir,
                *arguments,
                container_id,
                stdio=child_stdio,
                program=_program(process_spec),
            )
        except RuntimeFailure as failure:
            raise _with_output(failure, parent_stdio[2], process_spec) from None
        return _read_pid(pid_file, command[0]), -1, parent_stdio
    except BaseException:
        for fd in parent_stdio:
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        fd_stack.close()
        _remove(pid_file)


def _with_output(failure: RuntimeFailure, stderr: int, process_spec: Process) -> RuntimeFailure:
    """Return a failure without a log message, with the runtime's output instead."""
    if stderr < 0 or not failure.message.endswith("no error message"):
        return failure
    try:
        output = os.read(stderr, command_line.MAX_OUTPUT)
    except BlockingIOError:
        return failure
    text = command_line.error_message(b"", output)
    message = failure.message.removesuffix("no error message") + text
    return RuntimeFailure(message, exit_code=command_line.exit_code(text, _program(process_spec)))


def _read_pid(path: str, command: str) -> int:
    """Return the pid that a runtime reports; the process must have become the shim's child.

    Any other process must not be waited for or killed.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        raise RuntimeFailure(f"OCI runtime {command}: no pid file was written") from None
    if not text.isdigit() or not 1 < int(text) < 1 << 22:
        raise RuntimeFailure(
            f"OCI runtime {command}: {text[:16]!r} in the pid file is not a process id"
        )
    pid, deadline = int(text), time.monotonic() + _REPARENT_TIMEOUT
    while (parent := _parent(pid)) != os.getppid() or pid == os.getpid():
        if parent is None or pid == os.getpid() or time.monotonic() > deadline:
            raise RuntimeFailure(
                f"OCI runtime {command}: process {pid} of the pid file is not its child"
            )
        time.sleep(0.005)
    return pid


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def delete(runtime: ExternalRuntime, run_dir: str, container_id: str) -> str:
    """Have the runtime delete a container that has exited; return the error, or an empty string."""
    try:
        command_line.call(
            runtime, run_dir, "delete", "--force", container_id, timeout=DELETE_TIMEOUT
        )
    except (JaulaError, OSError) as error:
        return str(error)
    return ""


def clean_up(
    runtime: ExternalRuntime, run_dir: str, container_id: str, cgroup_path: str, parts: Interfaces
) -> None:
    """Remove what is left of a container whose creation failed. Kill all children."""
    kill_children()
    try:
        with parts.cgroups.open(cgroup_path) as cgroup:
            cgroup.kill()
            kill_children()
            delete(runtime, run_dir, container_id)
            cgroup.destroy()
    except NotFound:
        delete(runtime, run_dir, container_id)
    kill_children()
    foreign_cgroups.remove(cgroup_path)


def children() -> list[int]:
    """Return the children of this process, including zombies (proc_tid_children(5))."""
    with open("/proc/thread-self/children", "rb") as file:
        return [int(word) for word in file.read().split()]


def kill_children() -> None:
    """Kill and reap all children; children of a child that dies are reparented to this process."""
    while pids := children():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _program(process_spec: Process) -> str:
    return process_spec.args[0] if process_spec.args else ""


def _console_size(process_spec: Process) -> tuple[int, int]:
    size = process_spec.console_size
    return (size.height, size.width) if size else (0, 0)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


CONSOLE_NAME = "console.sock"
CONSOLE_TIMEOUT = 2.0  # seconds for a message that must exist when the runtime has exited
_NO_TERMINAL = "OCI runtime: no terminal was sent to the console socket"


class ConsoleSocket:
    """A listening socket in a run directory, for one call of a runtime."""

    def __init__(self, run_dir: str) -> None:
        self._directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By descriptor, since a socket's address has only 108 bytes.
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{CONSOLE_NAME}"

    def __enter__(self) -> ConsoleSocket:
        self._remove()
        self._listener.bind(self.path)
        os.chmod(self.path, 0o600)
        self._listener.listen(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._remove()
        os.close(self._directory)

    def _remove(self) -> None:
        try:
            os.unlink(CONSOLE_NAME, dir_fd=self._directory)
        except FileNotFoundError:
            return

    def receive(self) -> int:
        """Return the terminal's master that was sent by now.

        :raises RuntimeFailure: when none was sent.
        """
        self._listener.settimeout(CONSOLE_TIMEOUT)
        try:
            connection, _address = self._listener.accept()
        except TimeoutError:
            raise RuntimeFailure(_NO_TERMINAL) from None
        with connection:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(CONSOLE_TIMEOUT * 1000):
                raise RuntimeFailure(_NO_TERMINAL)
            _, fds = seqpacket.receive(connection)
        for fd in fds[1:]:
            os.close(fd)
        if not fds:
            raise RuntimeFailure(_NO_TERMINAL)
        if not os.isatty(fds[0]):
            os.close(fds[0])
            raise RuntimeFailure(
                "OCI runtime: the descriptor on the console socket is not a terminal"
            )
        return fds[0]
