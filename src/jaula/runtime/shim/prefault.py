"""Prefault a spare shim and its helper: take the page faults of a start before there is a request.

Facts about a fork of the interpreter: an object that is used is written, since its reference count
changes, and the kernel copies a page that is written first. In the first milliseconds of a forked
process these copies take as long as the work. So a spare process executes the code of a start once,
with a request and a spec of this module. That changes nothing outside of the process: it creates no
mount, cgroup, file or process. There is no request at that time, so nothing of one container can be
in the process of another.

No part waits. A detached mount would: its close takes a grace period of RCU, and a request that
arrives meanwhile would be late.

The pages are those that a start copies anyway: a shim is not larger for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator

import msgspec

from jaula.errors import JaulaError
from jaula.kernel import process_calls
from jaula.kernel.namespaces import SharedPid
from jaula.kernel.poll import readable
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.create import mount_options, mount_plan
from jaula.runtime.create.clone_process import FdStack, Stdio, stdio_pipes
from jaula.runtime.init import process_setup
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.stdio_relay import StdioRelay
from jaula.runtime.shim_protocol import Answer, LogSetup, StartRequest
from jaula.spec import runtime_spec
from jaula.spec.annotations import LANDLOCK_ANNOTATION
from jaula.spec.rootfs import OverlayRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

Part = Callable[[], None]
"""A part of a start, without effects outside of the process."""

_CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID")
_MOUNTS = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "mode=0620", "gid=5")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", ("nosuid", "noexec", "nodev", "ro")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536")),
)
_HIERARCHIES = (("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory"), ("pids", "pids"))
_MAPPINGS = (runtime_spec.IDMapping(0, 1_000_000_000, 65536),)
_SECCOMP = runtime_spec.Seccomp(
    "SCMP_ACT_ERRNO",
    architectures=("SCMP_ARCH_X86_64",),
    syscalls=(
        runtime_spec.Syscall(("read", "write"), "SCMP_ACT_ALLOW"),
        runtime_spec.Syscall(
            ("socket",), "SCMP_ACT_ALLOW", args=(runtime_spec.SyscallArg(0, 1, "SCMP_CMP_EQ"),)
        ),
    ),
)
_SPEC = runtime_spec.Spec(
    process=runtime_spec.Process(
        "/",
        ("true",),
        ("PATH=/usr/bin:/bin", "HOME=/root"),
        user=runtime_spec.User(additional_gids=(0,)),
        capabilities=runtime_spec.Capabilities(
            bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES
        ),
        rlimits=(runtime_spec.Rlimit("RLIMIT_NOFILE", 20000, 1024),),
    ),
    root=runtime_spec.Root("rootfs"),
    hostname="container",
    mounts=(
        *(runtime_spec.Mount(path, kind, kind, options) for path, kind, options in _MOUNTS),
        runtime_spec.Mount(
            "/etc/hosts", "/dev/null", "bind", ("bind", "rprivate", "nosuid", "nodev")
        ),
    ),
    annotations={
        LANDLOCK_ANNOTATION: '{"handledAccessFs":1,"paths":[{"path":"/","access":1}]}',
    },
    linux=runtime_spec.Linux(
        namespaces=tuple(
            runtime_spec.Namespace(kind)
            for kind in ("mount", "user", "pid", "network", "ipc", "uts")
        ),
        uid_mappings=_MAPPINGS,
        gid_mappings=_MAPPINGS,
        devices=(runtime_spec.Device("/dev/null", "c", 1, 3, 0o666, 0, 0),),
        resources=runtime_spec.Resources(
            (runtime_spec.DeviceCgroup(False, access="rwm"),), pids=runtime_spec.Pids(4096)
        ),
        rootfs_propagation="private",
        seccomp=_SECCOMP,
        sysctl={"net.ipv4.ip_unprivileged_port_start": "0"},
        masked_paths=("/proc/kcore", "/proc/keys"),
        readonly_paths=("/proc/bus", "/proc/fs"),
    ),
)
_REQUEST = StartRequest(
    "container", "/bundle", "/run", OverlayRoot(("/layer",)), LogSetup("none", {}, "")
)


def run(parts: Iterable[Part], request_sock: _socket.socket) -> None:
    """Execute the parts; stop when a request has arrived, or the other end was closed.

    A part that fails ends the process. The start that finds it dead forks another one.
    """
    for part in parts:
        if readable(0, request_sock.fileno()):
            return
        try:
            part()
        except (OSError, JaulaError) as error:
            os.write(2, f"jaula-zygote: prefault: {type(error).__name__}: {error}\n".encode())
            os._exit(1)


def of_shim(interfaces: Interfaces) -> tuple[Part, ...]:
    """Return the parts of a start that the shim executes."""
    return (_messages, lambda: _relay(interfaces))


def of_helper(interfaces: Interfaces) -> tuple[Part, ...]:
    """Return the parts of a start that the spawn helper executes."""
    return (_messages, lambda: _process(interfaces), _plan, _stdio)


def _messages() -> None:
    """Send and receive a request with a descriptor, and an answer."""
    ours, theirs = seqpacket.pair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        seqpacket.send(ours, shim_protocol.encode(_REQUEST), (ours.fileno(),))
        data, fds = seqpacket.receive(theirs)
        for fd in fds:
            os.close(fd)
        shim_protocol.decode_zygote(data)
    shim_protocol.encode(Answer(0, pid=1, shim_pid=1))
    os.close(process_calls.pidfd_open(os.getpid()))


def _relay(interfaces: Interfaces) -> None:
    """Relay the output of a process that has closed its pipes."""
    event_loop = EventLoop()
    with _pipes() as (stdin, stdout, stderr):
        relay = StdioRelay(
            event_loop,
            master=-1,
            stdin=stdin,
            stdout=os.dup(stdout),
            stderr=os.dup(stderr),
            log=interfaces.open_log("none", {}, ""),
            stdin_once=False,
            on_detach=lambda: None,
        )
    event_loop.run_once(0)
    relay.close()


def _process(interfaces: Interfaces) -> None:
    """Decode the spec, and encode its process without a filter, which the cache has."""
    spec = runtime_spec.decode(runtime_spec.encode(_SPEC))
    assert spec.process is not None
    assert spec.linux is not None
    linux = msgspec.structs.replace(spec.linux, seccomp=None)
    state = runtime_spec.State("container", "creating", "/bundle", 0, spec.annotations)
    with _fd_stack() as fd_stack:
        process_setup.prepare(
            spec.process, linux, state, interfaces, fd_stack, annotations=spec.annotations
        )


def _plan() -> None:
    """Plan the mounts and the device nodes of the spec."""
    mount_plan.plan(_SPEC, v1_hierarchies=_HIERARCHIES)
    for mount in _SPEC.mounts:
        mount_plan.needs_preparation(mount, mount_options.for_mount(mount), ())


def _stdio() -> None:
    """Create pipes, and memory that is shared with the stage."""
    with _pipes():
        SharedPid()


@contextlib.contextmanager
def _fd_stack() -> Iterator[FdStack]:
    fd_stack = FdStack()
    try:
        yield fd_stack
    finally:
        fd_stack.close()


@contextlib.contextmanager
def _pipes() -> Iterator[Stdio]:
    """Create pipes, and yield the ends of the parent; all are closed at the end."""
    with _fd_stack() as fd_stack:
        _, ends = stdio_pipes(0, 0, False, fd_stack.fds)
        fd_stack.fds.extend(fd for fd in ends if fd >= 0)
        yield ends
