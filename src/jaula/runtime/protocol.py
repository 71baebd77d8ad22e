"""What engine, zygote and shim say to each other: one JSON document a datagram.

The sockets are SOCK_SEQPACKET; descriptors travel beside a message with SCM_RIGHTS, in the order
that the message's class states. A request carries a number, which the answer repeats; events carry
none.
"""

from __future__ import annotations

import msgspec

from jaula.spec.rootfs import RootSource
from jaula.spec.runtime import IDMapping, Process


class AttachStream(msgspec.Struct, frozen=True):
    """How one client hears and speaks; its socket travels beside.

    ``framed`` puts Docker's 8-byte header before each piece of output. ``early`` is what the client
    sent before the socket was handed over. ``detach_keys`` is honoured on terminals only.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    detach_keys: bytes | None = b"\x10\x11"  # ctrl-p ctrl-q
    early: bytes = b""


class LogSetup(msgspec.Struct, frozen=True):
    """Which log driver writes where."""

    driver: str
    options: dict[str, str]
    path: str


class ExternalRuntime(msgspec.Struct, frozen=True):
    """An OCI runtime that is a program of its own; ``path`` is absolute.

    ``timeout`` is in seconds, for a call that makes a process. ``oci_version`` is the newest
    version of the spec that it is known to read.
    """

    name: str
    path: str
    arguments: tuple[str, ...] = ()
    timeout: float = 60.0
    oci_version: str = "1.0.2"


class StartRequest(msgspec.Struct, frozen=True, tag="start"):
    """Make a container from a bundle and start it.

    To the zygote; descriptors: the shim's end of a channel to the engine, then the user and the
    network namespace when ``sandbox`` is true, then one socket for each of ``attachments``.
    """

    container_id: str
    bundle: str
    run_dir: str
    root: RootSource
    log: LogSetup
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: leave
    seccomp_cache: str | None = None
    runtime: ExternalRuntime | None = None  # None: our own
    sandbox: bool = False
    held: tuple[str, ...] = ()  # types of namespaces whose descriptors follow the sandbox's
    attachments: tuple[AttachStream, ...] = ()


class SandboxRequest(msgspec.Struct, frozen=True, tag="sandbox"):
    """Make a user namespace and a network namespace that it owns.

    To the zygote; one descriptor: the socket that the two namespaces are sent to. ``within``: a
    second one is the user namespace, and only the network namespace is made and sent.
    """

    mappings: tuple[IDMapping, ...]
    network: bool = True
    gid_mappings: tuple[IDMapping, ...] = ()  # empty: as the users'
    within: bool = False


ZygoteRequest = StartRequest | SandboxRequest


class AttachRequest(msgspec.Struct, frozen=True, tag="attach"):
    """One descriptor: the client's socket. ``exec_id`` empty means the container's own process."""

    number: int
    stream: AttachStream


class ExecRequest(msgspec.Struct, frozen=True, tag="exec"):
    """Run one more process in the container; a client's socket travels beside if ``stream``."""

    number: int
    exec_id: str
    process: Process
    tty: bool = False
    console: tuple[int, int] = (0, 0)
    stream: AttachStream | None = None


class ResizeRequest(msgspec.Struct, frozen=True, tag="resize"):
    """Set a terminal's size; ``exec_id`` empty means the container's own."""

    number: int
    exec_id: str
    height: int
    width: int


class SignalRequest(msgspec.Struct, frozen=True, tag="signal"):
    """Send a signal to init or to an exec'd process."""

    number: int
    exec_id: str
    signum: int


class HelloRequest(msgspec.Struct, frozen=True, tag="hello"):
    """Ask a shim that was found running what it keeps; answered by :class:`Answer`."""

    number: int


ShimRequest = AttachRequest | ExecRequest | ResizeRequest | SignalRequest | HelloRequest


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The outcome of a request. ``error`` empty means success."""

    number: int
    pid: int = 0
    shim_pid: int = 0
    execs: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 125


class ExitRecord(msgspec.Struct, frozen=True, tag="exited"):
    """How a container ended; also the content of ``exit.json``. Times are seconds since the epoch.

    ``memory_peak`` and ``memory_limit`` are bytes, 0 where unknown or unlimited.
    """

    exit_code: int
    signal: int = 0
    oom_killed: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    error: str = ""
    memory_peak: int = 0
    memory_limit: int = 0


class ExecExited(msgspec.Struct, frozen=True, tag="exec_exited"):
    """An exec'd process ended."""

    exec_id: str
    exit_code: int


class OutOfMemory(msgspec.Struct, frozen=True, tag="oom"):
    """The kernel killed something in the container for want of memory (bytes)."""

    usage: int
    limit: int


class Detached(msgspec.Struct, frozen=True, tag="detached"):
    """A client typed the detach keys."""

    exec_id: str


Event = ExitRecord | ExecExited | OutOfMemory | Detached
FromShim = Answer | ExitRecord | ExecExited | OutOfMemory | Detached

encode = msgspec.json.Encoder().encode
decode_zygote = msgspec.json.Decoder(ZygoteRequest).decode
decode_shim_request = msgspec.json.Decoder(ShimRequest).decode
decode_from_shim = msgspec.json.Decoder(FromShim).decode
decode_exit = msgspec.json.Decoder(ExitRecord).decode
