"""The supervisor of a honeypot: from before the first program until the container has exited.

The runtime executes it as a createRuntime hook (runtime-spec config.md), when the container's root
is mounted and its init waits. It forks the process that stays, and exits when that one has set up
everything: the link to the sink, the record of system calls, the watch of files. If a part is
missing, the start of the container fails.

========================  =================================================  ===================
process                   work                                               user
========================  =================================================  ===================
``jaula-honeypot``        keeps files, opens session files, ends the rest    root
``jaula-recorder``        writes ``system.record``                           root
``jaula-sink``            answers connections, relays published ports        nobody, no rights
========================  =================================================  ===================

If one of the three ends before the container, the others kill the container: it does not run
unrecorded.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import socket
import sys
import time

import msgspec

from jaula.errors import JaulaError
from jaula.features.honeypot import run_directory, sink, sink_network
from jaula.features.honeypot.run_directory import Connections, Index
from jaula.features.honeypot.written_files import DRAIN, FileKeeper
from jaula.features.record import recorded_cgroup, recorder
from jaula.features.record.record_document import Container
from jaula.features.record.record_writer import RecordWriter
from jaula.kernel import process_calls
from jaula.kernel.namespaces import CLONE, clone3, open_namespace
from jaula.security.seccomp import seccomp_filter
from jaula.spec.asciicast import SUFFIX

MAX_LAYER = 512 << 20  # bytes of the writable layer; the container is killed beyond
CHECK = 2.0  # seconds between two looks at the layer
READY = 15.0  # seconds for sink and recorder to begin
PORT_WAIT = 5.0  # seconds for the sink of the run before to leave a port
MAX_SESSION_FILES = 2000
_BLOCK = 4096  # bytes that an entry of the layer counts at least
_SESSION = re.compile(rb"in-[0-9]{4}(\.[0-9])?")
_REPORT = 3.0  # seconds for the sink to report its numbers
_END = 30.0  # seconds for the recorder to write its end


def main(arguments: list[str]) -> int:
    """Set up the supervisor of the container whose OCI state is on stdin; 1 with the reason."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m jaula.features.honeypot DIRECTORY\n")
        return 2
    directory = arguments[0]
    state = msgspec.json.decode(sys.stdin.buffer.read(1 << 20))
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        process_calls.run_and_exit(
            "jaula-honeypot", lambda: _stay(directory, int(state["pid"]), writer)
        )
    os.close(writer)
    answer = os.read(reader, 4096)  # not to the end: children of the supervisor have it as well
    if answer == b"ready":
        return 0
    sys.stderr.write(answer.decode(errors="replace") or "honeypot: the supervisor has died")
    return 1


def _stay(directory: str, pid: int, ready: int) -> None:
    process_calls.set_name("jaula-honeypot")
    try:
        supervisor = Supervisor(directory, pid)
        supervisor.set_up()
    except (OSError, JaulaError, ValueError) as error:
        os.write(ready, f"honeypot: {error}".encode()[:4000])
        return
    os.write(ready, b"ready")
    os.close(ready)
    sink.detach_stdio()
    supervisor.run()


class Supervisor:
    """One run. ``pid`` is the container's init."""

    def __init__(self, directory: str, pid: int) -> None:
        self._pid = pid
        self._pidfd = process_calls.pidfd_open(pid)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        self._directory = os.open(directory, flags)
        self._path = directory
        with open(f"{directory}/{run_directory.REQUEST}", "rb") as file:
            self._request = msgspec.json.decode(file.read(), type=run_directory.Request)
        self._index = Index(
            version=run_directory.VERSION,
            container=self._request.container,
            started=_now(),
            ports=self._request.ports,
        )
        self._files = FileKeeper(self._directory)
        self._children: dict[int, int] = {}  # pidfd: pid
        self._control: socket.socket
        self._alive = -1  # the end that only this process holds: the recorder sees its end
        self._recorder_report = -1
        self._session_files = 0
        self._reason = ""

    # -- set up ------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Start every part.

        :raises OSError: when the kernel refuses a step.
        :raises JaulaError: when this host cannot record or has no nftables.
        """
        lock = os.open(run_directory.LOCK, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=self._directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            self._start_sink()
            self._files.watch(self._pid, self._request.mount_point)
            self._start_recorder()
            self._write_index()
        except BaseException:
            for child in self._children.values():
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise

    def _start_sink(self) -> None:
        listeners = {
            port.container_port: _listen(port.host_ip, port.host_port)
            for port in self._request.ports
        }
        program = seccomp_filter.program(seccomp_filter.default_profile(()))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        list_fd = os.open(run_directory.CONNECTIONS, flags, 0o600, dir_fd=self._directory)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spaces = CLONE.NEWNET | CLONE.NEWNS | CLONE.NEWPID | CLONE.NEWIPC | CLONE.NEWUTS
        child, pidfd = clone3(spaces)
        if child == 0:
            self._control.close()
            sink.serve(theirs, list_fd, listeners, program)
        theirs.close()
        os.close(list_fd)
        for sock in (s for each in listeners.values() for s in each):
            sock.close()
        self._children[pidfd] = child
        ours, inside = open_namespace(child, "net"), open_namespace(self._pid, "net")
        try:
            sink_network.connect(ours, inside)
        finally:
            os.close(ours)
            os.close(inside)
        self._control.settimeout(READY)
        self._control.send(b"go")
        answer = self._control.recv(1024)
        if answer != b"ready":
            text = answer.removeprefix(b"E").decode(errors="replace")
            raise OSError(f"the sink cannot start: {text or 'it has died'}")

    def _start_recorder(self) -> None:
        alive, self._alive = os.pipe2(os.O_CLOEXEC)
        reports, report = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            os.close(self._alive)
            os.close(reports)
            self._control.close()
            process_calls.run_and_exit("jaula-recorder", lambda: self._record(alive, report))
        os.close(alive)
        os.close(report)
        self._children[process_calls.pidfd_open(child)] = child
        self._recorder_report = reports
        answer = _read_line(reports, READY)
        if answer != "started":
            raise OSError(f"the record cannot start: {answer or 'the recorder has died'}")

    def _record(self, alive: int, report: int) -> None:
        """Record until the container exits. Kill it if the supervisor ends before."""
        process_calls.set_name("jaula-recorder")
        subject, running = self._request.container, False

        def started() -> None:
            nonlocal running
            running = True
            sink.detach_stdio()
            _write_line(report, "started")

        try:
            # As of a container that is not started: the steps of its init are not its own.
            hierarchy = recorded_cgroup.expected()
            writer = RecordWriter(f"{self._path}/{run_directory.RECORD}")
            recorder.record(
                Container(
                    id=subject.id,
                    name=subject.name,
                    image=subject.image,
                    image_id=subject.image_id,
                ),
                hierarchy,
                0,
                writer,
                pid=0,
                exit_fd=self._pidfd,
                stop_fd=alive,
                seconds=None,
                started=started,
            )
            _write_line(report, writer.head.hash)
            writer.close()
        except (JaulaError, OSError) as error:
            _write_line(report, f"error: {error}")
        finally:
            if running:
                with contextlib.suppress(ProcessLookupError):
                    process_calls.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # -- run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep files until the container exits, then write the index."""
        poller = select.poll()
        for fd in (self._pidfd, self._files.group, self._control.fileno(), *self._children):
            poller.register(fd, select.POLLIN)
        due = time.monotonic()
        while True:
            ready = {fd for fd, _ in poller.poll(CHECK * 1000)}
            if self._files.group in ready:
                self._files.receive()
            if self._pidfd in ready:
                break
            if self._control.fileno() in ready and not self._open_session():
                poller.unregister(self._control.fileno())
            if ended := ready & set(self._children):
                self._kill("a part of the honeypot has died")
                for fd in ended:
                    poller.unregister(fd)
            if time.monotonic() >= due:
                began = time.monotonic()
                if self._request.upper and _size(self._request.upper, MAX_LAYER) > MAX_LAYER:
                    self._kill("the writable layer has its full size")
                due = time.monotonic() + max(CHECK, 10 * (time.monotonic() - began))
        self._finish()

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        with contextlib.suppress(ProcessLookupError):
            process_calls.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _open_session(self) -> bool:
        """Open a new file of a session for the sink; return False if the sink has ended."""
        try:
            name = self._control.recv(64)
        except OSError:
            return False
        if not name:
            return False
        fd = -1
        if _SESSION.fullmatch(name) and self._session_files < MAX_SESSION_FILES:
            self._session_files += 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            path = f"{run_directory.SESSIONS}/{name.decode()}{SUFFIX}"
            with contextlib.suppress(OSError):
                fd = os.open(path, flags, 0o600, dir_fd=self._directory)
        try:
            socket.send_fds(self._control, [b"x"], [fd] if fd >= 0 else [])
        except OSError:
            return False
        finally:
            if fd >= 0:
                os.close(fd)
        return True

    def _finish(self) -> None:
        connections = self._end_sink()
        self._files.receive(DRAIN)
        if self._request.upper:
            self._files.walk(self._request.upper)
        head = _read_line(self._recorder_report, _END)
        error = head.removeprefix("error: ") if head.startswith("error: ") else ""
        if not head:
            error = "the recorder has died: the record has no end"
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        self._files.close()
        self._index = msgspec.structs.replace(
            self._index,
            ended=_now(),
            reason=self._reason or "the container exited",
            record=run_directory.RECORD
            if os.path.exists(f"{self._path}/{run_directory.RECORD}")
            else "",
            record_head="" if error else head,
            record_error=error,
            sessions=tuple(sorted(os.listdir(f"{self._path}/{run_directory.SESSIONS}"))),
            connections=connections,
            samples=self._files.samples(),
            dropped=self._files.dropped,
        )
        self._write_index()

    def _end_sink(self) -> Connections:
        """End the sink and return its numbers; zeros if it has died."""
        self._control.settimeout(_REPORT)
        try:
            self._control.send(b"end")
            while data := self._control.recv(4096):
                if data.startswith(b"{"):
                    return msgspec.json.decode(data, type=Connections)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            pass  # the sink has died, which ends the run with a reason
        return Connections()

    def _write_index(self) -> None:
        data = msgspec.json.format(msgspec.json.encode(self._index), indent=2) + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(f"{run_directory.INDEX}.new", flags, 0o600, dir_fd=self._directory)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(
            f"{run_directory.INDEX}.new",
            run_directory.INDEX,
            src_dir_fd=self._directory,
            dst_dir_fd=self._directory,
        )


def _listen(host_ip: str, port: int) -> list[socket.socket]:
    """Return the sockets of a published port; wait for the run before to leave it.

    :raises OSError: when it is in use.
    """
    deadline = time.monotonic() + PORT_WAIT
    while True:
        try:
            return sink_network.published(host_ip, port)
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def _size(directory: str, limit: int) -> int:
    """Return the bytes on the disk of a directory's files, or a number beyond the limit.

    Each entry counts as a block at least, so the number of files is limited as well. A directory
    whose path is too long to be read is beyond the limit: files could be hidden below it.
    """
    total = 0
    stack = [directory]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    try:
                        blocks = entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:
                        continue
                    total += max(blocks, _BLOCK)
                    if total > limit:
                        return total
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return limit + 1
    return total


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _write_line(fd: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(fd, text.replace("\n", " ").encode()[:2000] + b"\n")


def _read_line(fd: int, seconds: float) -> str:
    """Return the next line, '' at the end of file or after ``seconds``."""
    data = b""
    deadline = time.monotonic() + seconds
    while not data.endswith(b"\n"):
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return ""
        byte = os.read(fd, 1)
        if not byte:
            return ""
        data += byte
    return data.decode(errors="replace").strip()
