"""CRIU as a service process: requests and notifications over a socket (``criu swrk``).

Source: criu.org, "RPC". A request is followed by notifications, each of which CRIU waits to have
answered, and by one response. CRIU reads no configuration file.

Facts about the end of CRIU: its children have its end of the socket, so the death of CRIU is no end
of file while one of them lives. A pidfd says it. CRIU waits for its children without a limit: one
that is stopped stops CRIU too, with no sign but that nothing of them runs any more.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from jaula.errors import RuntimeFailure, Unsupported
from jaula.features.checkpoint.runtime.proto import rpc_pb2
from jaula.kernel import process_calls
from jaula.runtime import seqpacket

NAME = "criu"
LOG = "criu.log"
STATISTICS = "stats-dump"
RESTORE_STATISTICS = "stats-restore"
LOG_LEVEL = 4
_TAIL = 3  # error lines of the log in a message
_ENDS = ("Dumping FAILED.", "Restoring FAILED.")  # the last error of every log
_OWN_LIMIT = "RLIMIT_NOFILE for self"  # CRIU goes on without it
_FULL = 1 << 20  # free bytes of a file system on which CRIU may have failed to write its log
_POLL_INTERVAL = 0.5  # seconds
_PATIENCE = 2.0  # seconds that CRIU has after the exit of a process that it has restored
_STOPPED_TIMEOUT = 10.0  # seconds that CRIU may be stopped (SIGSTOP)
_STALL_TIMEOUT = 60.0  # seconds in which neither CRIU nor a child of it runs, or waits for the disk
_END_TIMEOUT = 5.0  # seconds
_MAX_LOG = 1 << 20  # bytes of the log that are read

Handler = Callable[[int, list[int]], bool]
"""Answers a notification: gets a pid, or 0, and descriptors; returns whether CRIU may go on."""


class Version(NamedTuple):
    """A version of CRIU."""

    major: int
    minor: int
    sublevel: int

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self if self.sublevel else self[:2]))


def find() -> str:
    """Return the path of the program.

    :raises Unsupported: when it is not installed.
    """
    path = shutil.which(NAME)
    if path is None:
        raise Unsupported(
            "checkpoints need CRIU, and the program criu is not installed",
            hint="install the package criu",
        )
    return path


class ProcessesExited(RuntimeFailure):
    """The restored processes have exited before CRIU had let them go."""


class ServiceEnded(RuntimeFailure):
    """The service process has ended without an answer; its lock of a network may remain."""


class Criu:
    """One service process, as a context manager; the process ends with it."""

    def __init__(
        self,
        program: str | None = None,
        *,
        pass_fds: Sequence[int] = (),
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """``prepare`` runs in the new process before it executes CRIU."""
        self._sock, theirs = seqpacket.pair()
        try:
            self._process = subprocess.Popen(
                [program or find(), "--no-default-config", "swrk", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *pass_fds),
                preexec_fn=prepare,  # noqa: PLW1509  (this process has one thread)
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._pidfd = process_calls.pidfd_open(self.pid)
        self.restored = 0  # pid of a restored process that runs already; 0: none does

    def __enter__(self) -> Criu:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        if self._pidfd < 0:
            return
        try:
            if not self._ends_within(_END_TIMEOUT):
                self._process.send_signal(signal.SIGKILL)
                if not self._ends_within(_END_TIMEOUT):
                    return  # it waits for a device; the parent of this process reaps it
            self._process.wait()
        finally:
            os.close(self._pidfd)
            self._pidfd = -1

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def wait_for(self, sock: _socket.socket) -> bool:
        """Wait until ``sock`` has a message or an end; return False if CRIU ends before."""
        poll = select.poll()
        poll.register(self._sock, 0)  # its end only
        poll.register(self._pidfd, select.POLLIN)
        poll.register(sock, select.POLLIN)
        return not {self._sock.fileno(), self._pidfd} & {fd for fd, _ in poll.poll()}

    def kill(self) -> None:
        """Kill the service process. The processes that it traces are not traced any more."""
        self._process.send_signal(signal.SIGKILL)

    def version(self) -> Version:
        """Return the version.

        :raises RuntimeFailure: when the process does not answer.
        """
        answer = self._exchange(rpc_pb2.Request(type=rpc_pb2.VERSION), {})
        found = answer.version
        return Version(found.major, found.minor, found.sublevel)

    def tracks_memory(self) -> bool:
        """Return whether the kernel tracks written pages, which pre-copy needs."""
        request = rpc_pb2.Request(
            type=rpc_pb2.FEATURE_CHECK, features=rpc_pb2.Features(mem_track=True)
        )
        answer = self._exchange(request, {}, check=False)
        return bool(answer.success and answer.features.mem_track)

    def read_kernel_features(self) -> None:
        """Let CRIU find out what the kernel can; it keeps that in a tmpfs at /run.

        Another request follows.
        """
        request = rpc_pb2.Request(
            type=rpc_pb2.FEATURE_CHECK, features=rpc_pb2.Features(), keep_open=True
        )
        self._exchange(request, {}, check=False)

    def dump(self, options: rpc_pb2.Options, handlers: Mapping[str, Handler]) -> None:
        """Write the images of a process tree.

        :raises RuntimeFailure: with CRIU's reason; the processes run on.
        """
        self._exchange(rpc_pb2.Request(type=rpc_pb2.DUMP, options=options), handlers)

    def pre_dump(self, options: rpc_pb2.Options) -> None:
        """Write the memory of a process tree that runs on, and note what it writes from now on.

        :raises RuntimeFailure: with CRIU's reason.
        """
        self._exchange(rpc_pb2.Request(type=rpc_pb2.PRE_DUMP, options=options), {})

    def restore(self, options: rpc_pb2.Options, handlers: Mapping[str, Handler]) -> int:
        """Restore a process tree; return the pid of its root.

        :raises RuntimeFailure: with CRIU's reason; none of the processes is left.
        """
        answer = self._exchange(rpc_pb2.Request(type=rpc_pb2.RESTORE, options=options), handlers)
        return int(answer.restored.pid)

    def _wait(self) -> None:
        """Wait for a message.

        :raises ProcessesExited: when CRIU waits for a process that has exited as it was released.
        :raises ServiceEnded: when CRIU has died, or does nothing any more. It is killed then.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        dead = 0
        watch = _Watch(self.pid)
        while not (ready := poll.poll(_POLL_INTERVAL * 1000)):
            dead = dead + 1 if self.restored and _is_dead(self.restored) else 0
            if dead * _POLL_INTERVAL >= _PATIENCE:
                self.kill()
                raise ProcessesExited("the container exited as it was continued")
            if problem := watch.problem():
                for pid in (self.pid, *_descendants(self.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise ServiceEnded(f"criu {problem}, and was killed")
        if all(fd != self._sock.fileno() for fd, _ in ready):
            message = select.poll()  # it may have come before the death
            message.register(self._sock, select.POLLIN)
            if not message.poll(0):
                raise ServiceEnded("criu was killed")

    def _exchange(
        self, request: rpc_pb2.Request, handlers: Mapping[str, Handler], *, check: bool = True
    ) -> rpc_pb2.Response:
        try:
            seqpacket.send(self._sock, request.SerializeToString())
        except OSError as error:
            raise RuntimeFailure(f"criu ended: {error}") from error
        while True:
            try:
                self._wait()
                data, fds = seqpacket.receive(self._sock)
            except OSError as error:
                raise ServiceEnded(f"criu ended: {error}") from error
            try:
                if not data:
                    raise ServiceEnded("criu ended without an answer")
                try:
                    response = rpc_pb2.Response.FromString(data)
                except DecodeError as error:
                    raise RuntimeFailure(f"criu sent a malformed answer: {error}") from error
                if response.type != rpc_pb2.NOTIFY:
                    if check and not response.success:
                        raise RuntimeFailure(_reason(request, response))
                    return response
                notification = response.notification
                handler = handlers.get(notification.script, _go_on)
                success = handler(notification.pid, fds)
                answer = rpc_pb2.Request(type=rpc_pb2.NOTIFY, notify_success=success)
                try:
                    seqpacket.send(self._sock, answer.SerializeToString())
                except OSError as error:
                    raise ServiceEnded(f"criu ended: {error}") from error
            finally:
                for fd in fds:
                    os.close(fd)


class _Watch:
    """Whether CRIU still does something."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._work = -1
        self._stopped = 0.0  # seconds on the monotonic clock; 0: it is not stopped
        self._changed = time.monotonic()

    def problem(self) -> str:
        """Return why CRIU will not go on, '' if it may."""
        now = time.monotonic()
        state, work = _work(self._pid)
        if state != b"T":
            self._stopped = 0.0
        elif not self._stopped:
            self._stopped = now
        elif now - self._stopped >= _STOPPED_TIMEOUT:
            return f"is stopped for {_STOPPED_TIMEOUT:.0f} seconds"
        for child in _descendants(self._pid):
            child_state, ticks = _work(child)
            work += ticks
            state = b"D" if child_state == b"D" else state
        if state == b"D" or work != self._work:
            self._work, self._changed = work, now
        if now - self._changed >= _STALL_TIMEOUT:
            return f"has done nothing for {_STALL_TIMEOUT:.0f} seconds"
        return ""


def _work(pid: int) -> tuple[bytes, int]:
    """Return the state of a process and its processor time, with that of children it has reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return b"X", 0
    return fields[0], sum(map(int, fields[11:15]))


def _descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    found, rest = list[int](), [pid]
    while rest:
        parent = rest.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for thread in threads:
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{parent}/task/{thread}/children", "rb") as file,
            ):
                children = [int(each) for each in file.read().split()]
                found += children
                rest += children
    return found


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def _go_on(_pid: int, _fds: list[int]) -> bool:
    return True


def _reason(request: rpc_pb2.Request, response: rpc_pb2.Response) -> str:
    """Return the error of a response with the last error lines of CRIU's log.

    On a full disk the log may lack them, and the error of the response is the first one.
    """
    lines = []
    options = request.options
    directory = (
        options.images_dir or f"/proc/self/fd/{options.work_dir_fd or options.images_dir_fd}"
    )
    if options.IsInitialized():
        lines = _log_errors(directory)
    word = "restore" if request.type == rpc_pb2.RESTORE else "dump"
    text = "; ".join(lines)
    if not text and _OWN_LIMIT not in response.error_message:
        text = response.error_message
    if not text and options.IsInitialized() and _is_full(directory):
        text = os.strerror(errno.ENOSPC)
    if not text:
        number = response.error_number
        text = os.strerror(number) if number else "it has crashed, or its options are wrong"
    return f"criu cannot {word} the container: {text}"


def _is_full(directory: str) -> bool:
    """Return whether a file system has no space, root's reserve included."""
    found = os.statvfs(directory)
    return found.f_bfree * found.f_frsize < _FULL


def _log_errors(directory: str) -> list[str]:
    try:
        fd = os.open(f"{directory}/{LOG}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - _MAX_LOG))
        text = file.read(_MAX_LOG).decode("utf-8", "replace")
    errors = [line.partition("Error ")[2] for line in text.splitlines() if "Error " in line]
    errors = [error.partition("): ")[2] or error for error in errors if _OWN_LIMIT not in error]
    reasons = [error for error in dict.fromkeys(errors) if error not in _ENDS]
    return reasons[:_TAIL]
