"""Containers that another OCI runtime makes: the shim's side.

The helper that would make the container itself prepares root, binds and namespaces as for our own
runtime, attaches them in a mount namespace of its own, and has the runtime make the container
from there. The runtime's orphan becomes the shim's child, as our own init does. Nothing is mounted
in a namespace of the host's; with the helper its mounts go, and the container keeps copies.

The runtime's state is below the container's run directory: ``runtime/`` (its ``--root``),
``bundle/config.json``, ``runtime.log``, ``runtime.json`` (which runtime it was).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import JaulaError, NotFound, RuntimeFailure
from jaula.kernel import tty
from jaula.runtime import seqpacket
from jaula.runtime.create import namespaces
from jaula.runtime.create.id_maps import host_id
from jaula.runtime.create.process import FdStack, ProcessHandle, memory_limit, stdio_pipes
from jaula.runtime.create.rootfs import mount_root, prepare_mounts
from jaula.runtime.external import cgroup_cleanup, command_line
from jaula.runtime.external.spec import extra_devices, is_bind, translate
from jaula.runtime.external.staging_mount import StagingMount
from jaula.runtime.init import lsm_labels
from jaula.runtime.protocol import ExternalRuntime
from jaula.spec import runtime as oci
from jaula.spec.runtime import Process, Spec

if TYPE_CHECKING:
    from jaula.runtime.create.create import CreateOptions
    from jaula.runtime.interfaces import Interfaces


DELETE_TIMEOUT = 10.0  # seconds
_PATIENCE = 2.0  # seconds until the runtime's own processes have gone
_NONE = (-1, -1, -1)
_encode_process = msgspec.json.Encoder().encode


def start(
    spec: Spec, terms: CreateOptions, runtime: ExternalRuntime, run_dir: str
) -> ProcessHandle:
    """Have a container made and started. Raises ``RuntimeFailure``; see :func:`clear` for then.

    To be called in a process of its own: it moves to another mount namespace.
    """
    linux, wanted = spec.linux, spec.process
    if linux is None or wanted is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    keep = FdStack()
    try:
        ns = namespaces.decide(linux, terms.sandbox, keep, held=terms.held)
        scratch = _furnish(spec, terms, runtime, run_dir, ns, keep)
        console = terms.console
        document = translate(
            spec,
            root=scratch.root,
            namespaces=scratch.namespaces,
            binds=scratch.binds,
            locked=scratch.locked,
            devices=scratch.devices if ns.user_fd is not None else None,
            console=console,
            oci_version=runtime.oci_version,
        )
        bundle = f"{run_dir}/bundle"
        os.makedirs(bundle, mode=0o700, exist_ok=True)
        with open(f"{bundle}/config.json", "wb") as file:
            file.write(oci.encode(document))
        owner = (
            host_id(ns.uid_mappings, wanted.user.uid),
            host_id(ns.gid_mappings, wanted.user.gid),
        )
        ident = terms.state.id
        pid, master, ours = _make(
            runtime,
            run_dir,
            ("create", "--bundle", bundle),
            ident,
            wanted,
            owner,
            stdin_open=terms.stdin_open,
            console=console if any(console) or not wanted.console_size else _size(wanted),
        )
        command_line.call(runtime, run_dir, "start", ident, program=_program(wanted))
    except OSError as error:
        raise RuntimeFailure(str(error)) from error
    finally:
        keep.close()
    return ProcessHandle(pid, master, *ours, terms.cgroup, memory_limit(linux))


def _furnish(
    spec: Spec,
    terms: CreateOptions,
    runtime: ExternalRuntime,
    run_dir: str,
    ns: namespaces.NamespacePlan,
    keep: FdStack,
) -> StagingMount:
    """Everything that is prepared, attached in a mount namespace of our own."""
    assert spec.linux is not None
    chosen = [index for index, mount in enumerate(spec.mounts) if is_bind(mount)]
    only = msgspec.structs.replace(spec, mounts=tuple(spec.mounts[i] for i in chosen))
    ready = prepare_mounts(only, user_fd=ns.user_fd, owner=ns.owner, keep=keep)
    try:
        context = lsm_labels.for_files(spec)
        root = keep.add(mount_root(terms.root, ns.user_fd, ns.owner, context=context))
    except OSError as error:
        raise RuntimeFailure(f"root file system: {error}") from error
    scratch = StagingMount.make((runtime.path, *runtime.arguments, run_dir))
    scratch.take_root(root)
    if ns.user_fd is not None:
        scratch.take_namespace("user", ns.user_fd)
    if terms.sandbox is not None and any(
        entry.type == "network" and not entry.path for entry in spec.linux.namespaces
    ):
        scratch.take_namespace("network", terms.sandbox[1])
    for kind, fd in terms.held.items():
        if kind != "user":
            scratch.take_namespace(kind, fd)
    for place, index in enumerate(chosen):
        scratch.take_bind(index, ready[place])
    if ns.user_fd is not None:
        for device in extra_devices(spec.linux):
            scratch.make_device(device, ns.owner)
    return scratch


def execute(
    runtime: ExternalRuntime,
    run_dir: str,
    ident: str,
    wanted: Process,
    *,
    owner: tuple[int, int],
    stdin_open: bool,
    console: tuple[int, int],
) -> ProcessHandle:
    """Have one more process made. ``owner`` is its user on the host. Raises ``RuntimeFailure``."""
    path = f"{run_dir}/exec-process.json"
    try:
        # runc's exec begins in the root's directory as the host sees it, whatever is there.
        StagingMount.again(_root(run_dir))
        with open(path, "wb") as file:
            file.write(_encode_process(wanted))
        try:
            pid, master, ours = _make(
                runtime,
                run_dir,
                ("exec", "--process", path, "--detach"),
                ident,
                wanted,
                owner,
                stdin_open=stdin_open,
                console=console,
            )
        finally:
            os.unlink(path)
    except OSError as error:
        raise RuntimeFailure(f"exec: {error}") from error
    return ProcessHandle(pid, master, *ours)


def _root(run_dir: str) -> str:
    """Where the root was when the container was made."""
    root = _spec(run_dir).root
    assert root is not None
    return root.path


def _spec(run_dir: str) -> Spec:
    with open(f"{run_dir}/bundle/config.json", "rb") as file:
        return oci.decode(file.read())


def _make(
    runtime: ExternalRuntime,
    run_dir: str,
    call: tuple[str, ...],
    ident: str,
    wanted: Process,
    owner: tuple[int, int],
    *,
    stdin_open: bool,
    console: tuple[int, int],
) -> tuple[int, int, tuple[int, int, int]]:
    """A process by ``create`` or ``exec``: (pid, terminal's master, our ends of its pipes)."""
    keep = FdStack()
    ours = _NONE
    pid_file = f"{run_dir}/{call[0]}.pid"
    _remove(pid_file)
    try:
        if wanted.terminal:
            with ConsoleSocket(run_dir) as console_socket:
                words = (*call, "--pid-file", pid_file, "--console-socket", console_socket.path)
                command_line.call(runtime, run_dir, *words, ident, program=_program(wanted))
                pid = _read_pid(pid_file, call[0])
                master = console_socket.receive()
            if any(console):
                tty.set_size(master, *console)
            return pid, master, ours
        context = lsm_labels.for_files(_spec(run_dir)) if wanted.selinux_label else None
        theirs, ours = stdio_pipes(*owner, stdin_open, keep.fds, context=context, host_null=False)
        words = (*call, "--pid-file", pid_file)
        try:
            command_line.call(
                runtime, run_dir, *words, ident, stdio=theirs, program=_program(wanted)
            )
        except RuntimeFailure as failure:
            raise _explained(failure, ours[2], wanted) from None
        return _read_pid(pid_file, call[0]), -1, ours
    except BaseException:
        for fd in ours:
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        keep.close()
        _remove(pid_file)


def _explained(failure: RuntimeFailure, stderr: int, wanted: Process) -> RuntimeFailure:
    """A failure for which the log had no reason, with what the runtime printed instead."""
    if stderr < 0 or not failure.message.endswith("it gave no reason"):
        return failure
    try:
        said = os.read(stderr, command_line.KEPT)
    except BlockingIOError:
        return failure
    text = command_line.complaint(b"", said)
    message = failure.message.removesuffix("it gave no reason") + text
    return RuntimeFailure(message, exit_code=command_line.exit_code(text, _program(wanted)))


def _read_pid(path: str, what: str) -> int:
    """The process that a runtime says it made; it must have become the shim's child.

    Whatever else the file may name is not ours to wait for or to kill.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        raise RuntimeFailure(f"OCI runtime {what}: it wrote no pid file") from None
    if not text.isdigit() or not 1 < int(text) < 1 << 22:
        raise RuntimeFailure(f"OCI runtime {what}: its pid file holds {text[:16]!r}, no process id")
    pid, until = int(text), time.monotonic() + _PATIENCE
    while (parent := _parent(pid)) != os.getppid() or pid == os.getpid():
        if parent is None or pid == os.getpid() or time.monotonic() > until:
            raise RuntimeFailure(
                f"OCI runtime {what}: its pid file names process {pid}, which it did not make"
            )
        time.sleep(0.005)
    return pid


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def delete(runtime: ExternalRuntime, run_dir: str, ident: str) -> str:
    """Have the runtime forget a container that has ended; what went wrong, or nothing."""
    try:
        command_line.call(runtime, run_dir, "delete", "--force", ident, timeout=DELETE_TIMEOUT)
    except (JaulaError, OSError) as error:
        return str(error)
    return ""


def clear(
    runtime: ExternalRuntime, run_dir: str, ident: str, cgroup_path: str, parts: Interfaces
) -> None:
    """Leave nothing of a container whose making has failed. Ends all children of this process."""
    _end_children()
    try:
        with parts.cgroups.open(cgroup_path) as cgroup:
            cgroup.kill()
            _end_children()
            delete(runtime, run_dir, ident)
            cgroup.destroy()
    except NotFound:
        delete(runtime, run_dir, ident)
    _end_children()
    cgroup_cleanup.remove(cgroup_path)


def children() -> list[int]:
    """The children of this process, zombies among them (proc_tid_children(5))."""
    with open("/proc/thread-self/children", "rb") as file:
        return [int(word) for word in file.read().split()]


def _end_children() -> None:
    """Kill and reap; those of a child that dies come to us, until none is left."""
    while found := children():
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue


def _program(wanted: Process) -> str:
    return wanted.args[0] if wanted.args else ""


def _size(wanted: Process) -> tuple[int, int]:
    box = wanted.console_size
    return (box.height, box.width) if box else (0, 0)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


CONSOLE_NAME = "console.sock"
CONSOLE_TIMEOUT = 2.0  # seconds for what must be there when the runtime has ended
_NO_TERMINAL = "OCI runtime: it sent no terminal to the console socket"


class ConsoleSocket:
    """A socket in a run directory, there for the time of one call."""

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
        """The master that was sent by now. Raises ``RuntimeFailure`` where it was none."""
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
            raise RuntimeFailure("OCI runtime: what it sent to the console socket is no terminal")
        return fds[0]
