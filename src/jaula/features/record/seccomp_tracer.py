"""The mechanism of ``run --record`` without eBPF: a seccomp agent, with samples of /proc.

The container's filter passes chosen calls to this process before they are made, and each is
answered with "continue". The program of a call is read from /proc while the thread waits, so it is
the kernel's word; paths and addresses are read from the memory of the process, where another thread
may change them before the call is made. Results are not known.

Calls fail with ENOSYS if no process holds the listener: no chosen call is made unrecorded when the
recorder is killed. When a record ends before its container,
:mod:`jaula.features.record.seccomp_responder` takes the listeners and answers.

Facts about execve: the address of the stack is another one afterwards (``startstack`` in
/proc/PID/stat), which tells a program that executes itself. exit_group is passed too, so a process
is seen once after its last execution.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jaula
from jaula.errors import Conflict, JaulaError, Unsupported
from jaula.features.record import ebpf_events, recorded_cgroup
from jaula.features.record.ebpf_events import UNKNOWN_ERRNO, UNKNOWN_PROGRAM, Counts, Event, Key
from jaula.features.record.fanotify_tracer import SAMPLE, process_lister
from jaula.features.record.proc_sampler import ProcSampler, is_of_host, program_path
from jaula.features.record.record_document import OUTSIDE
from jaula.features.record.tables import Tables
from jaula.kernel import seccomp_notify
from jaula.kernel.process_calls import pidfd_getfd, pidfd_open
from jaula.kernel.seccomp_notify import Notification

SECCOMP = "seccomp"
_ABIS = {0xC000003E: "", 0x40000003: "i386"}
_X32_BIT = 0x40000000
_MAX_CALLS = 1 << 17  # that wait for the recorder's thread
_WAKE = 0.05  # seconds between two wake-ups of it
_MAX_THREADS = 16384  # of the container, whose program is remembered
_MAX_PATH = 4096  # bytes
_MAX_ADDRESS = 128  # bytes
_MAX_DOCUMENT = 1 << 16  # bytes
_WORD_SIZE = 256  # bytes of type and source of a mount
_RESPONDER = "from jaula.features.record.seccomp_responder import main; main()"
_CONNECT, _BIND = 0, 1  # enum address_use
_MOUNT, _MOVE, _UNMOUNT = 0, 1, 2  # enum mount_use
_AT_FDCWD = -100
_ACCESS = {os.O_RDONLY: 1, os.O_WRONLY: 2, os.O_RDWR: 3}


class Call(NamedTuple):
    """A call with what was read while its thread waited."""

    name: str
    number: int  # with the bit of the i386 ABI, as in the kernel's events
    thread: int
    state: tuple[int, int]  # start time of the thread, address of its stack
    program: bytes  # /proc/PID/exe
    arguments: tuple[int, ...]
    texts: tuple[bytes, ...]
    lost: bool  # a text could not be read
    protocol: int = 0


class SeccompTracer:
    """An agent that listens at a path, for a container that is not started yet."""

    name = SECCOMP
    sources: tuple[str, ...] = ("seccomp_user_notification", "proc")
    unseen: tuple[str, ...] = OUTSIDE
    not_recorded: tuple[str, ...] = (
        "results of calls", "calls that the filter refuses",
        "calls other than those of programs, files, addresses, mounts and user ids",
        "addresses of unconnected sends", "capabilities that are used", "signals",
        "accepted connections", "names of DNS", "operations of io_uring",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        container: str,
        receive: Callable[[Event], None],
        syscall_name: Callable[[int, str], str],
    ) -> None:
        """Listen at ``path``, which must not exist.

        :raises JaulaError: when that is not possible.
        """
        self._path = path
        self._container = container
        self._syscall_name = syscall_name
        self._tables = Tables(receive)
        self._sampler: ProcSampler | None = None
        self._sampled = 0.0
        self._calls: deque[Call] = deque()
        self._threads: OrderedDict[int, _Thread] = OrderedDict()
        self._pending: dict[int, bytes] = {}  # thread: name in execve
        self._first = 0
        self._dropped = 0
        self._woken = 0.0
        self._listeners: dict[int, threading.Thread] = {}
        self._stopping = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(path)
            os.chmod(path, 0o600)
            self._socket.listen(16)
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            raise JaulaError(f"cannot listen at {path}: {error.strerror}") from error
        self._poll = select.epoll()
        self._poll.register(self._wake, select.EPOLLIN)
        self._poll.register(self._socket.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return a descriptor that is readable while calls or listeners wait."""
        return self._poll.fileno()

    def started_process(self) -> int:
        """Return the first process of the container, 0 if it is not started."""
        return self._first

    def attach(self) -> None:
        """Do nothing: the container connects when it starts."""

    def consume(self) -> None:
        """Accept listeners, receive the calls, and take a sample if one is due."""
        self._accept()
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        self._note_calls()
        if self._sampler is not None and time.monotonic() - self._sampled >= SAMPLE:
            self._sampled = time.monotonic()
            self._sampler.sample()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except BlockingIOError:
                return
            with peer:
                peer.settimeout(10)
                listener = receive_listener(peer)
            if listener < 0:
                continue
            self._prune()
            worker = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            self._listeners[listener] = worker
            worker.start()

    def _prune(self) -> None:
        """Close the listeners whose thread has ended: no process has their filter."""
        for listener in [each for each, worker in self._listeners.items() if not worker.is_alive()]:
            del self._listeners[listener]
            os.close(listener)

    def _serve(self, listener: int) -> None:
        """Answer the calls of one listener, until no process has its filter."""
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        while not self._stopping.is_set():
            events = poller.poll(200)
            if not events:
                continue
            if events[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                return
            try:
                notification = seccomp_notify.receive_notification(listener)
            except OSError:
                continue  # the thread was killed, or poll will say that no process is left
            try:
                call = self._read(listener, notification)
            except (OSError, ValueError):
                call = None
                self._dropped += 1  # it is answered all the same
            try:
                if call is not None:
                    self._enqueue(call)
                seccomp_notify.continue_call(listener, notification.id)
            except OSError:
                continue  # the thread has ended

    def _enqueue(self, call: Call) -> None:
        """Pass a call to the main thread, which is woken seldom: it would hold this one up."""
        if len(self._calls) >= _MAX_CALLS:
            self._dropped += 1
            return
        self._calls.append(call)
        now = time.monotonic()
        if now - self._woken >= _WAKE or not self._first:
            self._woken = now
            os.eventfd_write(self._wake, 1)

    def _read(self, listener: int, notification: Notification) -> Call | None:
        """Read a call; None if its thread has ended."""
        abi = _ABIS.get(notification.architecture, "")
        if not abi and notification.number & _X32_BIT:
            abi = "x32"
        name = self._syscall_name(notification.number, abi)
        state = thread_state(notification.pid)
        reader = _Memory(notification.pid)
        texts, lost = reader.texts(name, notification.arguments)
        protocol = 0
        if name in ("connect", "bind", "listen"):
            protocol = _protocol(notification.pid, notification.arguments[0])
        try:
            program = os.readlink(f"/proc/{notification.pid}/exe".encode())
            if name in ("execve", "execveat") and is_of_host(notification.pid):
                program = b""  # the runtime, which starts the first program
        except OSError:
            program = b""
        if not seccomp_notify.is_waiting(listener, notification.id):
            return None
        number = notification.number | (1 << 32 if abi == "i386" else 0)
        return Call(
            name, number, notification.pid, state, program, notification.arguments, texts, lost,
            protocol,
        )  # fmt: skip

    def _note_calls(self) -> None:
        while self._calls:
            self._note(self._calls.popleft())

    def _note(self, call: Call) -> None:
        """Count a call in the tables."""
        if not self._first:
            self._first = call.thread
            self._start_sampler()
        program = self._program_of(call)
        self._tables.count(Key(program, call.number, ebpf_events.SYSCALL, UNKNOWN_ERRNO))
        arguments, texts = call.arguments, call.texts
        if call.lost:
            self._tables.lose(_TEXT_KINDS.get(call.name, ebpf_events.SYSCALL), 2)
        elif call.name in ("execve", "execveat"):
            if len(self._pending) >= _MAX_THREADS:
                self._forget_pending()
            self._pending[call.thread] = texts[0]
        elif call.name in ("open", "openat", "openat2", "creat"):
            self._tables.text(
                ebpf_events.FILE_REQUEST, program, texts[0], open_mode(call.name, arguments, texts)
            )
        elif call.name in ("connect", "bind"):
            use = _CONNECT if call.name == "connect" else _BIND
            detail = use << 12 | UNKNOWN_ERRNO | call.protocol << 16
            self._tables.text(ebpf_events.ADDRESS, program, texts[0], detail)
        elif call.name == "socket":
            subject = (arguments[0] & 0xFFFF) << 40 | (arguments[1] & 15) << 32
            subject |= arguments[2] & 0xFFFFFFFF
            self._tables.count(Key(program, subject, ebpf_events.SOCKET, UNKNOWN_ERRNO))
        elif call.name in ("mount", "umount2", "move_mount"):
            use = {"mount": _MOUNT, "move_mount": _MOVE}.get(call.name, _UNMOUNT)
            text = b"\0".join(texts) + b"\0"
            self._tables.text(ebpf_events.MOUNT, program, text, use << 12 | UNKNOWN_ERRNO)
        elif call.name == "exit_group":
            self._threads.pop(call.thread, None)
            self._pending.pop(call.thread, None)

    def _start_sampler(self) -> None:
        try:
            found = recorded_cgroup.find(self._first, self._container)[0]
        except Unsupported:
            found = None  # of a rootless engine without cgroups
        except Conflict:
            return  # it has exited
        try:
            lister = process_lister(self._first, found)
        except JaulaError:
            return
        self._sampler = ProcSampler(self._tables, lister, executions=False)

    def _program_of(self, call: Call) -> int:
        """Return the program of a call, and count its execution if it is the first call since."""
        known = self._threads.get(call.thread)
        if known is not None and known.state == call.state:
            return known.program
        if not call.program:
            return UNKNOWN_PROGRAM
        name = self._pending.pop(call.thread, None)
        if known is not None and known.state[0] != call.state[0]:
            known, name = None, None  # another thread has this number by now
        path, _, flags = program_path(call.program)
        shown = b"" if name is None or name == path else name
        number = self._tables.program(path, shown, flags)
        if name is not None or known is not None:
            executor = known.program if known is not None else UNKNOWN_PROGRAM
            self._tables.count(Key(executor, number, ebpf_events.EXEC, 0))
        self._threads[call.thread] = _Thread(call.state, number)
        if len(self._threads) > _MAX_THREADS:
            self._threads.popitem(last=False)
        return number

    def detach(self) -> None:
        """Stop to record; another process answers from now on, if the container runs."""
        self._stop_workers()
        alive = [listener for listener in self._listeners if not has_ended(listener)]
        if alive and not _has_exited(self._first):
            self._start_responder(alive)
        self._note_calls()  # an execution is known by a call of its program
        self._forget_pending()
        if self._sampler is not None:
            self._sampler.sample()

    def _stop_workers(self) -> None:
        self._stopping.set()
        for worker in self._listeners.values():
            worker.join(2)

    def _forget_pending(self) -> None:
        """Count the executions that were never seen: the process was killed, or execve failed."""
        for _ in range(len(self._pending)):
            self._tables.lose(ebpf_events.EXEC, 0)
        self._pending.clear()

    def _start_responder(self, listeners: list[int]) -> None:
        """Start the process that answers.

        :raises JaulaError: when it cannot be started.
        """
        descriptors = [self._socket.fileno(), *listeners]
        root = str(Path(jaula.__file__).resolve().parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}
        try:
            subprocess.Popen(
                [sys.executable, "-c", _RESPONDER, self._path, str(self._first),
                 *map(str, descriptors)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=descriptors, start_new_session=True, cwd="/", env=environment,
            )  # fmt: skip
        except OSError as error:
            raise JaulaError(
                f"the process that answers the container's calls was not started: {error}",
                hint="calls of the container fail with ENOSYS; stop it",
            ) from error
        self._path = ""  # the responder removes it

    def counts(self) -> Iterator[tuple[Key, Counts]]:
        """Yield the numbers of every key."""
        return self._tables.counts()

    def losses(self) -> dict[int, tuple[int, int, int]]:
        """Return lost occurrences, events and texts by kind."""
        lost = self._tables.losses()
        if self._dropped:
            before = lost.get(ebpf_events.SYSCALL, (0, 0, 0))
            lost[ebpf_events.SYSCALL] = (before[0] + self._dropped, *before[1:])
        return lost

    def peaks(self) -> None:
        """Return None: this mechanism has no figures of a cgroup that was removed."""

    def close(self) -> None:
        """Close the listeners: calls that another process does not answer fail from now on."""
        self._stop_workers()
        for listener in self._listeners:
            os.close(listener)
        self._listeners.clear()
        self._socket.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
        if hasattr(self, "_poll"):
            self._poll.close()
        if self._path and os.path.exists(self._path):
            os.unlink(self._path)


class _Thread(NamedTuple):
    state: tuple[int, int]
    program: int


_TEXT_KINDS = {
    "execve": ebpf_events.EXEC,
    "execveat": ebpf_events.EXEC,
    "connect": ebpf_events.ADDRESS,
    "bind": ebpf_events.ADDRESS,
    "mount": ebpf_events.MOUNT,
    "umount2": ebpf_events.MOUNT,
    "move_mount": ebpf_events.MOUNT,
} | dict.fromkeys(("open", "openat", "openat2", "creat"), ebpf_events.FILE_REQUEST)


class _Memory:
    """The memory of a thread that waits, and the paths that it names."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def texts(self, name: str, arguments: tuple[int, ...]) -> tuple[tuple[bytes, ...], bool]:
        """Return the texts of a call, and whether one could not be read."""
        try:
            return self._texts(name, arguments), False
        except (OSError, ValueError, OverflowError):
            return (), True

    def _texts(self, name: str, arguments: tuple[int, ...]) -> tuple[bytes, ...]:
        if name in ("execve", "open", "creat"):
            return (self._path(_AT_FDCWD, arguments[0]),)
        if name in ("execveat", "openat"):
            return (self._path(arguments[0], arguments[1]),)
        if name == "openat2":
            how = self._bytes(arguments[2], 8)
            return (self._path(arguments[0], arguments[1]), how)
        if name in ("connect", "bind"):
            return (self._bytes(arguments[1], min(arguments[2] & 0xFFFFFFFF, _MAX_ADDRESS)),)
        if name == "mount":
            return (
                self._text(arguments[1], _MAX_PATH),
                self._text(arguments[2], _WORD_SIZE) if arguments[2] else b"",
                self._text(arguments[0], _WORD_SIZE) if arguments[0] else b"",
            )
        if name == "umount2":
            return (self._text(arguments[0], _MAX_PATH), b"", b"")
        if name == "move_mount":
            source, target = (self._text(arguments[i], _MAX_PATH) for i in (1, 3))
            return (target, b"", source)
        return ()

    def _path(self, directory: int, address: int) -> bytes:
        """Return the path at an address, absolute if its directory is known."""
        text = self._text(address, _MAX_PATH)
        if text.startswith(b"/"):
            return text
        number = directory & 0xFFFFFFFF
        link = "cwd" if number == _AT_FDCWD & 0xFFFFFFFF else f"fd/{number}"
        base = os.readlink(f"/proc/{self._thread}/{link}".encode())
        if not base.startswith(b"/"):
            return text
        return base.rstrip(b"/") + b"/" + text if text else base

    def _text(self, address: int, limit: int) -> bytes:
        """Return the bytes up to a zero byte.

        :raises ValueError: when there is none within ``limit``.
        """
        data = b""
        while len(data) < limit:
            size = min(limit - len(data), 4096 - (address + len(data)) % 4096)
            part = self._bytes(address + len(data), size)
            head, zero, _ = part.partition(b"\0")
            data += head
            if zero:
                return data
        raise ValueError("a text without an end")

    def _bytes(self, address: int, size: int) -> bytes:
        with open(f"/proc/{self._thread}/mem", "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, address)
        if len(data) != size:
            raise ValueError("memory that is not mapped")
        return data


def open_mode(name: str, arguments: tuple[int, ...], texts: tuple[bytes, ...]) -> int:
    """Return the mode of an open call as bits of the kernel's events. Pure."""
    if name == "creat":
        return 2 | 8 | 16
    if name == "openat2":
        flags = struct.unpack("=Q", texts[1])[0]
    else:
        flags = arguments[1 if name == "open" else 2]
    if flags & os.O_PATH:
        return 4
    mode = _ACCESS.get(flags & os.O_ACCMODE, 0)
    return (
        mode
        | (8 if flags & os.O_CREAT else 0)
        | (16 if flags & os.O_TRUNC else 0)
        | (32 if flags & os.O_APPEND else 0)
    )


def thread_state(pid: int) -> tuple[int, int]:
    """Return start time and address of the stack of a thread; zeros if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        return int(fields[19]), int(fields[25])
    except (OSError, IndexError):
        return 0, 0


def has_ended(listener: int) -> bool:
    """Return whether no process has the filter of a listener."""
    poller = select.poll()
    poller.register(listener, 0)
    return any(mask & select.POLLHUP for _, mask in poller.poll(0))


def _has_exited(pid: int) -> bool:
    return not pid or not os.path.exists(f"/proc/{pid}")


def _protocol(pid: int, descriptor: int) -> int:
    """Return the protocol of a socket of a thread that waits, 0 if it is not known."""
    try:
        pidfd = pidfd_open(pid)
    except OSError:
        return 0  # not the first thread of its process
    try:
        with socket.socket(fileno=pidfd_getfd(pidfd, descriptor & 0xFFFFFFFF)) as copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                return 0
            return copy.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    except (OSError, OverflowError):
        return 0
    finally:
        os.close(pidfd)


def receive_listener(peer: socket.socket) -> int:
    """Return the descriptor that a container sends, -1 if it sends none."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    user = struct.unpack("=iII", credentials)[1]
    if user not in (0, os.geteuid()):
        return -1
    try:
        _, messages, _, _ = peer.recvmsg(
            _MAX_DOCUMENT, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return -1
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors = array.array("i")
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            for extra in descriptors[1:]:
                os.close(extra)
            return descriptors[0] if descriptors else -1
    return -1
