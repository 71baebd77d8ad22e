"""Messages between engine, zygote and shim: one JSON document per datagram.

The sockets are SOCK_SEQPACKET. Descriptors travel with a message as SCM_RIGHTS, in the order that
the class of the message documents. A request carries a number, which the answer repeats; events
carry none.
"""

from __future__ import annotations

import msgspec

from jaula.spec.rootfs import RootSource
from jaula.spec.runtime_spec import IDMapping, Process, Spec

EXIT_NAME = "exit.json"  # the exit record, in the run directory of a container
SOCKET_NAME = "shim.sock"
SHIM_COMM = "jaula-shim"  # name of the processes of a shim, and of an init until it executes


class AttachStream(msgspec.Struct, frozen=True):
    """The streams of one attached client; its socket travels with the message.

    ``framed`` adds Docker's 8-byte header to each chunk of output. ``early`` is input that the
    client sent before its socket was passed on. ``detach_keys`` applies to terminals only.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    detach_keys: bytes | None = b"\x10\x11"  # ctrl-p ctrl-q
    early: bytes = b""


class LogSetup(msgspec.Struct, frozen=True):
    """The log driver of a container, its options and its file."""

    driver: str
    options: dict[str, str]
    path: str


class ExternalRuntime(msgspec.Struct, frozen=True):
    """An OCI runtime that is a separate program; ``path`` is absolute.

    ``timeout`` is in seconds, for a call that creates a process. ``oci_version`` is the newest
    version of the spec that the runtime is known to read.
    """

    name: str
    path: str
    arguments: tuple[str, ...] = ()
    timeout: float = 60.0
    oci_version: str = "1.0.2"


ANSWER_TIMEOUT = 10.0  # seconds for a shim, which may be creating a process, to answer
SANDBOX_TIMEOUT = 30.0  # seconds for the zygote to create namespaces
_HELPER_TIMEOUT = 40.0  # seconds for a helper of the shim to create a process
_REPORT_TIMEOUT = 15.0  # seconds for fork, clean-up and report of a shim
_CHECKPOINT_TIMEOUT = 600.0  # seconds to write or read the memory of a container
_TRANSFER_TIMEOUT = 6 * 3600.0  # seconds to write it, send it to another engine, and read it
MAX_ROUNDS = 16  # of a pre-copy
ROUND = b"round "  # from a shim, with a round of the pre-copy
EARLY = b"early"  # from a shim whose early restore waits for the images
IMAGES = b"images "  # from an engine, with a RestoredImages: the images are complete
HELD = b"held"  # from a shim whose container is stopped, with all images written
COMMIT = b"commit"  # from an engine that has recorded the checkpoint
HELD_NAMESPACES = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}
"""OCI type: file below /proc/PID/ns. A restored container that is held sends these descriptors."""
READY = b"ready"  # from a shim whose CRIU is ready to stop a container of a group
STOP = b"stop"  # from an engine, when all of the group are ready
RESUME = b"resume"  # from an engine whose migration is cancelled
HOLD_SOCKET = "hold.sock"  # in the run directory, while the container is held
CANCEL = b"cancel"  # from an engine that gives up a start, to the shim that may not be forked yet


def helper_timeout(
    runtime: ExternalRuntime | None, *, checkpoint: bool = False, early: bool = False
) -> float:
    """Return the seconds in which a helper reports; an external runtime is called twice.

    An ``early`` restore waits for its images.
    """
    if early:
        return _TRANSFER_TIMEOUT
    if checkpoint:
        return _CHECKPOINT_TIMEOUT
    return _HELPER_TIMEOUT + (2 * runtime.timeout if runtime is not None else 0.0)


def checkpoint_timeout() -> float:
    """Return the seconds in which a shim reports the end of a dump or a restore."""
    return _CHECKPOINT_TIMEOUT + _REPORT_TIMEOUT


def start_timeout(
    runtime: ExternalRuntime | None, *, checkpoint: bool = False, early: bool = False
) -> float:
    """Return the seconds in which a shim reports that its container runs, or why it does not."""
    return helper_timeout(runtime, checkpoint=checkpoint, early=early) + _REPORT_TIMEOUT


class RestoreSetup(msgspec.Struct, frozen=True):
    """A checkpoint from which a container is started, and what its processes had then.

    ``stdio`` are the inodes of the pipes that were stdin, stdout and stderr; 0: none. ``hostname``
    replaces the one that the processes had; '' keeps it. ``published`` are the TCP ports of a
    container with an egress or listen list that the host publishes; None: it has no list.
    ``shares_network`` says that others join its network namespace before it is continued.

    With ``early`` the images do not exist yet. Over the socket of the hold, the shim sends
    :data:`EARLY` when it waits for them. The engine sends :data:`IMAGES` when they are complete,
    and ``stdio`` with it.
    """

    images: str  # directory
    published: tuple[int, ...] | None = None
    hostname: str = ""
    stdio: tuple[int, int, int] = (0, 0, 0)
    tcp_established: bool = False
    early: bool = False
    shares_network: bool = False


class RestoredImages(msgspec.Struct, frozen=True):
    """What an engine knows when the images of an early restore are complete."""

    stdio: tuple[int, int, int]


class StartRequest(msgspec.Struct, frozen=True, tag="start"):
    """Create a container from a bundle and start it.

    Sent to the zygote. Descriptors: the shim's end of a socket to the engine, then the user and
    network namespace if ``sandbox`` is set, then one for each of ``namespace_types``, then the
    host's mount namespace if ``host_mounts`` is set, then the listening engine socket if
    ``engine_socket`` is set, then the socket of a hold if ``hold`` is set, then as many as
    ``inherited`` says, then one socket for each of ``attachments``.
    """

    container_id: str
    bundle: str
    run_dir: str
    root: RootSource
    log: LogSetup
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: keep the kernel's size
    seccomp_cache: str | None = None
    runtime: ExternalRuntime | None = None  # None: our own
    sandbox: bool = False
    namespace_types: tuple[str, ...] = ()  # of the descriptors that follow the sandbox's
    host_mounts: bool = False  # shared bind mounts are made in the host's mount namespace
    engine_socket: bool = False
    sessions: str = ""  # directory in which stdio is recorded as asciicast; '': it is not
    attachments: tuple[AttachStream, ...] = ()
    restore: RestoreSetup | None = None  # None: the program starts anew
    hold: bool = False  # ask on a socket before the restored processes run
    inherited: int = 0  # number of descriptors that the program inherits, from 3 on


class SandboxRequest(msgspec.Struct, frozen=True, tag="sandbox"):
    """Create a user namespace and a network namespace that it owns.

    Sent to the zygote. One descriptor: the socket that the two namespaces are sent to. With
    ``within`` a second descriptor is an existing user namespace: only the network namespace is
    created and sent.
    """

    mappings: tuple[IDMapping, ...]
    network: bool = True
    gid_mappings: tuple[IDMapping, ...] = ()  # empty: same as ``mappings``
    within: bool = False


class SpareInitRequest(msgspec.Struct, frozen=True, tag="spare-init"):
    """Create the init of a later start ahead, in a cgroup and namespaces of its own.

    Sent to the zygote. Descriptors: the control socket, then the user and network namespace. The
    init becomes that of the container ``container_id`` if the start has the shape of ``spec``. It
    ends, and its cgroup is removed, when the engine closes the other end of the control socket.
    That end reads end of file when nothing of it is left. ``mount_point`` is an empty directory.
    """

    container_id: str
    mount_point: str
    spec: Spec


class LogFollowersRequest(msgspec.Struct, frozen=True, tag="log-followers"):
    """Fork the process that follows logs. Sent to the zygote. One descriptor: its socket."""


ZygoteRequest = StartRequest | SpareInitRequest | SandboxRequest | LogFollowersRequest


class AttachRequest(msgspec.Struct, frozen=True, tag="attach"):
    """Attach a client to the container's own process. One descriptor: the client's socket."""

    number: int
    stream: AttachStream


class ExecRequest(msgspec.Struct, frozen=True, tag="exec"):
    """Run another process in the container.

    The client's socket travels with the message if ``stream`` is set.
    """

    number: int
    exec_id: str
    process: Process
    tty: bool = False
    console: tuple[int, int] = (0, 0)
    stream: AttachStream | None = None


class DebugRequest(msgspec.Struct, frozen=True, tag="debug"):
    """Run a process whose root also has the files of an image: a debug session.

    Descriptors: the client's socket if ``stream`` is set, then the toolbox as a detached mount,
    then a pidfd and the root directory of the target process if ``target`` is set.
    """

    number: int
    exec_id: str
    process: Process
    tty: bool = False
    console: tuple[int, int] = (0, 0)
    stream: AttachStream | None = None
    target: bool = False


class MountsRequest(msgspec.Struct, frozen=True, tag="mounts"):
    """Unmount and mount in the container's mount namespace: all or nothing.

    ``spec`` has the mounts to make, the id maps and the mount label. ``removed`` are destinations.
    With ``detach`` a mount that is in use is detached. ``undo`` reverts the steps of the last
    request without it, as far as the shim has done them: a mount that a program of the container
    has made or removed since is left. ``free`` are destinations that must not be mount points; it
    is asked alone, before a change begins. One descriptor if
    ``host_mounts`` is set: the host's mount namespace.
    """

    number: int
    spec: Spec
    removed: tuple[str, ...] = ()
    detach: bool = False
    undo: bool = False
    free: tuple[str, ...] = ()
    host_mounts: bool = False


class ResizeRequest(msgspec.Struct, frozen=True, tag="resize"):
    """Set the size of a terminal; an empty ``exec_id`` means the container's own."""

    number: int
    exec_id: str
    height: int
    width: int


class SignalRequest(msgspec.Struct, frozen=True, tag="signal"):
    """Send a signal to init or to an exec'd process."""

    number: int
    exec_id: str
    signum: int


class ReopenLogRequest(msgspec.Struct, frozen=True, tag="reopen-log"):
    """Open the log's file again, by its path: another program has renamed it."""

    number: int


class ListenRequest(msgspec.Struct, frozen=True, tag="listen"):
    """Make the socket for later engines again: another program has removed its file."""

    number: int


class PreDumpRound(msgspec.Struct, frozen=True):
    """A round of the pre-copy: its number from 1 on, the bytes of its files, its nanoseconds.

    After a round with a ``failure`` no other comes, and the dump has all memory.
    """

    number: int
    bytes: int
    duration: int
    failure: str = ""


class CheckpointRequest(msgspec.Struct, frozen=True, tag="checkpoint"):
    """Dump the container into a directory, and kill it unless it is left running.

    One descriptor: a SOCK_SEQPACKET socket. The shim sends :data:`ROUND` and a
    :class:`PreDumpRound` as JSON after each of at most ``pre_copy`` rounds, whose files are
    complete then. With ``group`` it sends :data:`READY` then, and waits for :data:`STOP` before it
    stops a process. It sends :data:`HELD` and the nanoseconds since the processes were stopped when
    the images are complete, and goes on as the other end answers: :data:`COMMIT`, or anything else
    to give up. Exec'd processes are not in it: it is refused if there are any, or they are killed
    (``end_execs``), or run on (``keep_execs``).
    """

    number: int
    images: str
    leave_running: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    end_execs: bool = False
    keep_execs: bool = False
    pre_copy: int = 0
    hold: bool = False  # keep it stopped until an engine decides, if that takes another engine
    group: bool = False  # stop it when the others of its group are ready


class HelloRequest(msgspec.Struct, frozen=True, tag="hello"):
    """Ask a running shim for its state; :class:`Answer` carries it.

    The container's engine socket travels with the answer, if the shim has one.
    """

    number: int


ShimRequest = (
    AttachRequest
    | CheckpointRequest
    | DebugRequest
    | ExecRequest
    | MountsRequest
    | ResizeRequest
    | SignalRequest
    | ReopenLogRequest
    | ListenRequest
    | HelloRequest
)


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The result of a request. An empty ``error`` means success.

    ``exit_code`` and ``errno`` are those of :class:`~jaula.errors.RuntimeFailure`.
    """

    number: int
    pid: int = 0
    shim_pid: int = 0
    execs: tuple[str, ...] = ()
    error: str = ""
    exit_code: int = 125
    errno: int = 0


class ExitRecord(msgspec.Struct, frozen=True, tag="exited"):
    """How a container exited; also the content of ``exit.json``. Times are seconds since the epoch.

    ``memory_peak`` and ``memory_limit`` are bytes, 0 if unknown or unlimited.
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
    """An exec'd process exited."""

    exec_id: str
    exit_code: int


class OutOfMemory(msgspec.Struct, frozen=True, tag="oom"):
    """The container's memory is exhausted. Values are bytes.

    The OOM killer killed a process, or it is disabled and processes wait.
    """

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
