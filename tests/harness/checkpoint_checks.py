"""A program for containers that holds kernel objects, and checks each ten times a second.

    python3 checkpoint_checks.py CHECK...

A check is a generator: it makes its objects before the first ``yield``, and tests them in each
round after that. A round prints "round N". The first failed check prints "FAILED CHECK: reason" and
ends the program with status 3. ``/work`` is a directory of the container that a checkpoint may use:
a volume or a tmpfs, by the flags of the container.

The program uses the standard library only: it runs with the Python of the image.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import resource
import select
import signal
import socket
import stat
import struct
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

WORK = "/work"
PERIOD = 0.1  # seconds of a round
PATIENCE = 5.0  # seconds in which a thread, timer or process must have advanced
IPC_CREAT, IPC_PRIVATE, IPC_NOWAIT = 0o1000, 0, 0o4000
SETVAL, GETVAL = 16, 12
IN_CREATE, IN_DELETE = 0x100, 0x200
PR_SET_NAME, PR_GET_NAME, PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 15, 16, 1, 2
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
NETLINK_ROUTE, RTM_GETLINK, NLM_F_DUMP = 0, 18, 0x301
SFD_NONBLOCK, TFD_NONBLOCK = os.O_NONBLOCK, os.O_NONBLOCK
F_OFD_SETLK, F_SETLEASE, F_GETLEASE = 37, 1024, 1025

Check = Iterator[None]
CHECKS: dict[str, Callable[[], Check]] = {}
libc = ctypes.CDLL(None, use_errno=True)


def check(function: Callable[[], Check]) -> Callable[[], Check]:
    CHECKS[function.__name__] = function
    return function


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library; raise OSError if it returns -1."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


class Beats:
    """Counters in shared memory that threads or processes advance. Each must go on."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 4096)
        self._seen = [(0, time.monotonic())] * count

    def beat(self, index: int) -> None:
        (value,) = struct.unpack_from("Q", self._memory, 8 * index)
        struct.pack_into("Q", self._memory, 8 * index, value + 1)

    def check(self) -> None:
        now = time.monotonic()
        for index, (last, moment) in enumerate(self._seen):
            (value,) = struct.unpack_from("Q", self._memory, 8 * index)
            assert value >= last, f"counter {index} went back from {last} to {value}"
            if value > last:
                self._seen[index] = value, now
            assert now - moment < PATIENCE or value > last, f"counter {index} stands still"


def child(run: Callable[[], None]) -> int:
    """Fork a process that calls a function for ever, ten times a second."""
    pid = os.fork()
    if pid:
        return pid
    try:
        while True:
            run()
            time.sleep(PERIOD)
    finally:
        os._exit(1)


@check
def threads() -> Check:
    """Threads, a lock that another thread holds, and the name of a thread."""
    beats, lock, names = Beats(4), threading.Lock(), [b""] * 4

    def run(index: int) -> None:
        call("prctl", PR_SET_NAME, f"worker-{index}".encode(), 0, 0, 0)
        if index == 0:
            lock.acquire()
        while True:
            name = ctypes.create_string_buffer(16)
            # CRIU opens the files of a thread before it exists, so none may be open in a dump.
            call("prctl", PR_GET_NAME, name, 0, 0, 0)
            names[index] = name.value
            beats.beat(index)
            time.sleep(0.02)

    for index in range(4):
        threading.Thread(target=run, args=(index,), daemon=True).start()
    while not all(names) or not lock.locked():
        time.sleep(0.01)
    while True:
        yield
        beats.check()
        assert not lock.acquire(blocking=False), "the lock is free"
        assert names == [b"worker-%d" % index for index in range(4)], names


@check
def tree() -> Check:
    """A child, a session of its own, an orphan, a zombie and a stopped process."""
    beats = Beats(3)
    plain = child(lambda: beats.beat(0))

    def session() -> None:
        if os.getsid(0) != os.getpid():
            os.setsid()
        beats.beat(1)

    leader = child(session)
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        orphan = child(lambda: beats.beat(2))
        os.write(writing, struct.pack("i", orphan))
        os._exit(0)
    (orphan,) = struct.unpack("i", os.read(reading, 4))
    os.waitpid(middle, 0)
    zombie = os.fork()
    if zombie == 0:
        os._exit(7)
    stopped = child(lambda: None)
    os.kill(stopped, signal.SIGSTOP)
    os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
    while os.getsid(leader) != leader:
        time.sleep(0.01)
    while True:
        yield
        beats.check()
        assert os.getsid(leader) == leader and os.getsid(plain) == os.getsid(0)
        assert _stat(orphan)[1] == str(os.getpid()) or _stat(orphan)[1] == "1", _stat(orphan)
        assert _stat(zombie)[0] == "Z" and _stat(stopped)[0] == "T"
        ended = os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        assert ended is not None and ended.si_status == 7, ended


def _stat(pid: int) -> list[str]:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@check
def pipes() -> Check:
    """Data in a pipe and in a fifo, and a pipe between processes."""
    reading, writing = os.pipe()
    os.write(writing, b"queued")
    os.mkfifo(f"{WORK}/fifo")
    fifo = os.open(f"{WORK}/fifo", os.O_RDWR)
    os.write(fifo, b"in the fifo")
    ends = [os.pipe() for _ in range(2)]
    child(lambda: _answer(ends[0][0], ends[1][1]))
    number = 0
    while True:
        yield
        number += 1
        assert os.read(reading, 6) == b"queued"
        os.write(writing, b"queued")
        assert os.read(fifo, 64) == b"in the fifo"
        os.write(fifo, b"in the fifo")
        os.write(ends[0][1], struct.pack("I", number))
        assert struct.unpack("I", os.read(ends[1][0], 4)) == (number + 1,)


def _answer(reading: int, writing: int) -> None:
    (value,) = struct.unpack("I", os.read(reading, 4))
    os.write(writing, struct.pack("I", value + 1))


@check
def ended_connection() -> Check:
    """A socket whose connection the peer has reset: it is closed, but has the peer's address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    while True:
        yield
        ended.settimeout(1)
        try:
            received = ended.recv(1)
        except ConnectionError:
            continue
        assert received == b""


@check
def listeners() -> Check:
    """Listening sockets of TCP and UDP, by IPv4 and IPv6, with options."""
    sockets, names = [], []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, 0))
            except OSError as error:
                if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
                    continue  # no address of IPv6 here
                raise
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.listen(8)
            sock.settimeout(3)
            sockets.append(sock)
            names.append(sock.getsockname())
    while True:
        yield
        for sock, name in zip(sockets, names, strict=True):
            assert sock.getsockname() == name
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            if sock.type == socket.SOCK_DGRAM:
                sock.sendto(b"to myself", name)
                try:
                    received = sock.recvfrom(64)
                except TimeoutError:  # CRIU drops datagrams that are not received yet
                    sock.sendto(b"to myself", name)
                    received = sock.recvfrom(64)
                assert received == (b"to myself", name)
            else:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@check
def connections() -> Check:
    """An established connection of TCP to the program itself, with data in both queues."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    for sock in (client, server):
        sock.settimeout(3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"queued")
    names = client.getsockname(), client.getpeername()
    while True:
        yield
        assert _receive(server, 6) == b"queued"
        server.sendall(b"answer")
        assert _receive(client, 6) == b"answer"
        client.sendall(b"queued")
        assert (client.getsockname(), client.getpeername()) == names
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, "the connection was closed"
        data += more
    return data


@check
def echo() -> Check:
    """A server on port 7000, which answers a connection from outside with the next number."""
    server = socket.create_server(("0.0.0.0", 7000))
    server.setblocking(False)
    open_now: list[socket.socket] = []
    while True:
        yield
        with contextlib.suppress(BlockingIOError):
            open_now.append(server.accept()[0])
        for sock in open_now:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                data = sock.recv(4)
                if len(data) == 4:
                    sock.sendall(struct.pack("!I", struct.unpack("!I", data)[0] + 1))


@check
def unix_sockets() -> Check:
    """Unix sockets of all kinds with data in their queues, and a descriptor in a queue."""
    pairs = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        pair = socket.socketpair(socket.AF_UNIX, kind)
        pair[0].sendall(b"queued")
        pairs.append(pair)
    named = []
    for name in (f"{WORK}/socket", "\0abstract"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        server.listen(4)
        client = socket.socket(socket.AF_UNIX)
        client.connect(name)
        named.append((server, client, server.accept()[0], name))
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(f"{WORK}/datagrams")
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(f"{WORK}/datagrams")
    sender.send(b"datagram")
    rights = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    passed = os.pipe()
    os.write(passed[1], b"x" * 4096)
    _send_fd(rights[0], passed[0])
    while True:
        yield
        for left, right in pairs:
            assert right.recv(64) == b"queued"
            left.sendall(b"queued")
        for server, client, accepted, name in named:
            client.sendall(b"ping")
            assert _receive(accepted, 4) == b"ping"
            assert server.getsockname() in (name, name.encode())
            other = socket.socket(socket.AF_UNIX)
            other.connect(name)
            server.accept()[0].close()
            other.close()
        assert receiver.recv(64) == b"datagram"
        sender.send(b"datagram")
        _, control, _, _ = rights[1].recvmsg(1, socket.CMSG_SPACE(4))
        (fd,) = array.array("i", control[0][2])
        assert os.read(fd, 1) == b"x"
        os.write(passed[1], b"x")
        _send_fd(rights[0], fd)
        os.close(fd)


def _send_fd(sock: socket.socket, fd: int) -> None:
    sock.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])


@check
def netlink() -> Check:
    """A socket of rtnetlink that asks for the links."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    sock.bind((0, 0))
    sock.settimeout(3)
    name = sock.getsockname()
    number = 0
    while True:
        yield
        number += 1
        assert sock.getsockname() == name
        sock.send(
            struct.pack("=IHHIIBxHiII", 32, RTM_GETLINK, NLM_F_DUMP, number, 0, 0, 0, 0, 0, 0)
        )
        seen = b""
        while True:
            data = sock.recv(1 << 16)
            seen += data
            if struct.unpack_from("=H", data, 4)[0] == 3:  # NLMSG_DONE
                break
        assert b"lo\0" in seen


@check
def raw_sockets() -> Check:
    """A raw and a packet socket, which need CAP_NET_RAW."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.settimeout(3)
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    packet.bind(("lo", 3))
    packet.settimeout(3)
    number = 0
    while True:
        yield
        number = (number + 1) & 0xFFFF
        body = struct.pack("!BBHHH", 8, 0, 0, 99, number) + b"ping"
        total = sum(struct.unpack(f"!{len(body) // 2}H", body))
        total = (total & 0xFFFF) + (total >> 16)
        raw.sendto(body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:], ("127.0.0.1", 0))
        while not raw.recv(2048)[20:].startswith(b"\0\0"):  # echo reply
            pass
        while b"ping" not in packet.recv(2048):
            pass


@check
def event_files() -> Check:
    """pidfd, eventfd, signalfd, and epoll over epoll."""
    pidfd = os.pidfd_open(child(lambda: None))
    event = os.eventfd(5)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 3})
    mask = ctypes.create_string_buffer(128)
    call("sigemptyset", mask)
    call("sigaddset", mask, int(signal.SIGRTMIN + 3))
    signals = call("signalfd", -1, mask, SFD_NONBLOCK)
    outer, inner = select.epoll(), select.epoll()
    inner.register(event, select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN)
    while True:
        yield
        assert not select.select([pidfd], [], [], 0)[0], "the child has exited"
        signal.pidfd_send_signal(pidfd, 0)
        assert outer.poll(1) == [(inner.fileno(), select.EPOLLIN)]
        assert os.eventfd_read(event) == 5
        assert outer.poll(0) == []
        os.eventfd_write(event, 5)
        os.kill(os.getpid(), signal.SIGRTMIN + 3)
        assert struct.unpack_from("I", os.read(signals, 128)) == (int(signal.SIGRTMIN + 3),)


@check
def memory() -> Check:
    """Shared, private, locked, protected and executable memory, memfd and /dev/shm."""
    shared = mmap.mmap(-1, 8192)
    private = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private[:] = bytes(range(256)) * 4096
    memfd = os.memfd_create("kept", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"sealed")
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    with open("/dev/shm/kept", "w+b") as file:
        file.truncate(4096)
        posix = mmap.mmap(file.fileno(), 4096)
    with open(f"{WORK}/mapped", "w+b") as file:
        file.truncate(4096)
        mapped = mmap.mmap(file.fileno(), 4096)
    readers = os.pipe(), os.pipe()

    def other() -> None:
        os.read(readers[0][0], 1)
        struct.pack_into("I", shared, 4, struct.unpack_from("I", shared)[0])
        os.write(readers[1][1], b"x")

    child(other)
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x2a\0\0\0\xc3")  # mov eax, 42; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    run = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    number = 0
    while True:
        yield
        number += 1
        struct.pack_into("I", shared, 0, number)
        os.write(readers[0][1], b"x")
        os.read(readers[1][0], 1)
        assert struct.unpack_from("I", shared, 4) == (number,)
        assert private[:512] == bytes(range(256)) * 2 and private[-1] == 255
        assert os.pread(memfd, 64, 0) == b"sealed"
        assert fcntl.fcntl(memfd, fcntl.F_GET_SEALS) == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        for place in (posix, mapped):
            assert struct.unpack_from("I", place) == (number - 1,)
            struct.pack_into("I", place, 0, number)
        assert pathlib.Path(f"{WORK}/mapped").read_bytes()[:4] == struct.pack("I", number)
        assert run() == 42


@check
def sysv() -> Check:
    """Shared memory, a semaphore and a message queue of System V."""
    libc.shmat.restype = ctypes.c_void_p
    segment = call("shmget", IPC_PRIVATE, 4096, IPC_CREAT | 0o600)
    address = libc.shmat(segment, None, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    word = ctypes.c_uint32.from_address(address)
    semaphore = call("semget", 0x1234, 1, IPC_CREAT | 0o600)
    call("semctl", semaphore, 0, SETVAL, 7)
    queue = call("msgget", 0x5678, IPC_CREAT | 0o600)
    message = struct.pack("@l", 3) + b"a message"
    call("msgsnd", queue, message, 9, IPC_NOWAIT)
    number = word.value
    while True:
        yield
        assert word.value == number
        number += 1
        word.value = number
        assert call("semget", 0x1234, 1, 0) == semaphore
        assert call("semctl", semaphore, 0, GETVAL) == 7
        buffer = ctypes.create_string_buffer(64)
        assert call("msgrcv", queue, buffer, 56, ctypes.c_long(3), IPC_NOWAIT) == 9
        assert buffer.raw[8:17] == b"a message"
        call("msgsnd", queue, message, 9, IPC_NOWAIT)


@check
def files() -> Check:
    """Files without a name on the root and on /work, positions, modes, cwd and umask."""
    unnamed = []
    for directory in ("/root", WORK):
        fd = os.open(f"{directory}/deleted", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
        os.write(fd, b"still here")
        os.unlink(f"{directory}/deleted")
        unnamed.append(fd)
    linked = os.open(f"{WORK}/first", os.O_RDWR | os.O_CREAT, 0o600)
    os.link(f"{WORK}/first", f"{WORK}/second")
    os.unlink(f"{WORK}/first")
    appended = os.open(f"{WORK}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    latin = os.open(f"{WORK}/caf".encode() + b"\xe9", os.O_RDWR | os.O_CREAT, 0o600)
    work = os.open(WORK, os.O_PATH | os.O_DIRECTORY)
    os.makedirs(f"{WORK}/here", exist_ok=True)
    os.chdir(f"{WORK}/here")
    os.umask(0o027)
    number = 0
    while True:
        yield
        number += 1
        for fd in unnamed:
            assert os.pread(fd, 64, 0) == b"still here"
            assert os.fstat(fd).st_nlink == 0 and stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
        os.pwrite(linked, struct.pack("I", number), 0)
        assert pathlib.Path(f"{WORK}/second").read_bytes() == struct.pack("I", number)
        assert not os.path.exists(f"{WORK}/first")
        os.pwrite(latin, struct.pack("I", number), 0)
        assert os.stat(b"caf\xe9", dir_fd=work).st_ino == os.fstat(latin).st_ino
        os.write(appended, b"x")
        assert os.fstat(appended).st_size == os.lseek(appended, 0, os.SEEK_CUR) == number
        assert fcntl.fcntl(appended, fcntl.F_GETFL) & os.O_APPEND
        assert stat.S_ISDIR(os.stat("here", dir_fd=work).st_mode)
        assert os.getcwd() == f"{WORK}/here" and os.umask(0o027) == 0o027


@check
def locks() -> Check:
    """Locks of flock, of POSIX and of open file descriptions. Another process tries to get them."""
    path = f"{WORK}/locked"
    pathlib.Path(path).write_bytes(bytes(64))
    holders = [os.open(path, os.O_RDWR) for _ in range(3)]
    fcntl.flock(holders[0], fcntl.LOCK_EX)
    fcntl.lockf(holders[1], fcntl.LOCK_EX, 8, 0)
    fcntl.fcntl(holders[2], F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 16, 8, 0))
    requests, answers = os.pipe(), os.pipe()

    def other() -> None:
        os.read(requests[0], 1)
        fd = os.open(path, os.O_RDWR)
        taken = b""
        for name, lock in (
            (b"f", lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
            (b"p", lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 0)),
            (b"o", lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 16)),
        ):
            with contextlib.suppress(OSError):
                lock()
                taken += name
        os.close(fd)
        os.write(answers[1], taken or b"-")

    child(other)
    while True:
        yield
        os.write(requests[1], b"x")
        taken = os.read(answers[0], 8)
        assert taken == b"-", f"locks {taken!r} are lost"


@check
def timers() -> Check:
    """An interval timer, a POSIX timer, periodic timerfds, a single one, and an alarm far ahead."""
    beats = Beats(5)
    signal.signal(signal.SIGALRM, lambda *_: beats.beat(0))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    signal.signal(signal.SIGRTMIN, lambda *_: beats.beat(1))
    event = ctypes.create_string_buffer(64)
    struct.pack_into("@qii", event, 0, 0, int(signal.SIGRTMIN), 0)  # SIGEV_SIGNAL
    timer = ctypes.c_void_p()
    call("timer_create", time.CLOCK_MONOTONIC, event, ctypes.byref(timer))
    call("timer_settime", timer, 0, struct.pack("@qqqq", 0, 30_000_000, 0, 30_000_000), None)
    periods = (0.01, 0.07, 0.4)
    periodic = []
    for period in periods:
        fd = os.timerfd_create(time.CLOCK_MONOTONIC, flags=TFD_NONBLOCK)  # type: ignore[attr-defined]
        os.timerfd_settime(fd, initial=period, interval=period)  # type: ignore[attr-defined]
        periodic.append(fd)
    single = os.timerfd_create(time.CLOCK_REALTIME)  # type: ignore[attr-defined]
    os.timerfd_settime(single, initial=3000)  # type: ignore[attr-defined]
    far = ctypes.c_void_p()
    call("timer_create", time.CLOCK_REALTIME, event, ctypes.byref(far))
    call("timer_settime", far, 0, struct.pack("@qqqq", 0, 0, 3000, 0), None)
    left = ctypes.create_string_buffer(32)
    while True:
        yield
        for index, fd in enumerate(periodic):
            with contextlib.suppress(BlockingIOError):
                if struct.unpack("Q", os.read(fd, 8))[0]:
                    beats.beat(2 + index)
            interval = os.timerfd_gettime(fd)[1]  # type: ignore[attr-defined]
            assert abs(interval - periods[index]) < 0.001, interval
        beats.check()
        assert 2000 < os.timerfd_gettime(single)[0] <= 3000  # type: ignore[attr-defined]
        call("timer_gettime", far, left)
        assert 2000 < struct.unpack_from("@q", left, 16)[0] <= 3000


@check
def clocks() -> Check:
    """Clocks that go on, and never back."""
    names = (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_REALTIME)
    last = [time.clock_gettime(name) for name in names]
    while True:
        yield
        now = [time.clock_gettime(name) for name in names]
        assert all(a <= b for a, b in zip(last, now, strict=True)), (last, now)
        last = now


@check
def inotify() -> Check:
    """Watches of a directory and of a file on /work."""
    os.makedirs(f"{WORK}/watched", exist_ok=True)
    fd = call("inotify_init1", os.O_NONBLOCK)
    watch = call("inotify_add_watch", fd, f"{WORK}/watched".encode(), IN_CREATE | IN_DELETE)
    lost = 0
    while True:
        yield
        with open(f"{WORK}/watched/new", "w"):
            pass
        os.unlink(f"{WORK}/watched/new")
        try:
            data, seen = os.read(fd, 4096), []
        except BlockingIOError:  # CRIU drops events that are not read yet, once for each restore
            lost += 1
            assert lost < 3, "the watch is lost"
            continue
        while data:
            number, mask, _, size = struct.unpack_from("iIII", data)
            seen.append((number, mask, data[16 : 16 + size].rstrip(b"\0")))
            data = data[16 + size :]
        lost = 0
        created, deleted = (watch, IN_CREATE, b"new"), (watch, IN_DELETE, b"new")
        assert seen in ([created, deleted], [deleted]), seen


@check
def signals() -> Check:
    """Blocked, ignored and pending signals, and a handler."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    got: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: got.append(number))
    while True:
        yield
        assert signal.SIGUSR1 in signal.sigpending()
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGHUP)
        assert got == [signal.SIGHUP], got
        got.clear()


@check
def attributes() -> Check:
    """Name, death signal, priority, processors, limits, OOM score and dumpable of processes."""
    requests, answers = os.pipe(), os.pipe()
    processors = os.sched_getaffinity(0)
    one = {min(processors)}

    def values() -> tuple[Any, ...]:
        death = ctypes.c_int()
        call("prctl", PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
        return (
            pathlib.Path("/proc/self/comm").read_text(), death.value, os.nice(0),
            os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE),
            pathlib.Path("/proc/self/oom_score_adj").read_text(), call("prctl", 3, 0, 0, 0, 0),
            os.sched_getscheduler(0), os.getgroups(), os.getresuid(), os.getresgid(),
        )  # fmt: skip

    state: list[tuple[Any, ...]] = []

    def other() -> None:
        if not state:
            call("prctl", PR_SET_NAME, b"another name", 0, 0, 0)
            call("prctl", PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            os.nice(5)
            os.sched_setaffinity(0, one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
            pathlib.Path("/proc/self/oom_score_adj").write_text("500")
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            state.append(values())
        os.read(requests[0], 1)
        os.write(answers[1], b"+" if values() == state[0] else repr((values(), state)).encode())

    child(other)
    while True:
        yield
        os.write(requests[1], b"x")
        answer = os.read(answers[0], 4096)
        assert answer == b"+", answer


@check
def tmpfs() -> Check:
    """The content of a tmpfs: modes, times, links, holes, fifos and sockets."""
    root = f"{WORK}/content"
    os.mkdir(root, 0o751)
    pathlib.Path(f"{root}/plain").write_bytes(b"plain")
    os.chmod(f"{root}/plain", 0o4711)
    os.utime(f"{root}/plain", (1000, 2000))
    os.link(f"{root}/plain", f"{root}/hard")
    os.symlink("plain", f"{root}/soft")
    os.mkfifo(f"{root}/fifo", 0o600)
    with open(f"{root}/sparse", "wb") as file:
        file.truncate(32 << 20)
        file.seek(16 << 20)
        file.write(b"middle")
    pathlib.Path(f"{root}/\u00fc \n").write_bytes(b"name")
    if os.geteuid() == 0:
        os.chown(f"{root}/fifo", 7, 8)

    def seen() -> list[Any]:
        rows: list[Any] = []
        for name in sorted(os.listdir(root)):
            found = os.lstat(f"{root}/{name}")
            rows.append((name, found.st_mode, found.st_uid, found.st_gid, found.st_size,
                         found.st_nlink, int(found.st_mtime)))  # fmt: skip
        return [*rows, os.readlink(f"{root}/soft"), stat.S_IMODE(os.stat(root).st_mode)]

    expected = seen()
    while True:
        yield
        assert seen() == expected, (seen(), expected)
        assert os.path.samefile(f"{root}/plain", f"{root}/hard")
        assert os.stat(f"{root}/sparse").st_blocks < 1024, "a hole was filled"
        with open(f"{root}/sparse", "rb") as sparse:
            sparse.seek((16 << 20) - 1)
            assert sparse.read(7) == b"\0middle"


@check
def terminals() -> Check:
    """A terminal of the program's own, with settings and data."""
    master, slave = os.openpty()
    settings = termios.tcgetattr(slave)
    settings[3] &= ~termios.ECHO & ~termios.ICANON
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
    name = os.ttyname(slave)
    while True:
        yield
        os.write(master, b"typed")
        assert os.read(slave, 64) == b"typed"
        os.write(slave, b"shown")
        assert os.read(master, 64) == b"shown"
        assert os.ttyname(slave) == name
        assert termios.tcgetattr(slave)[3] == settings[3]
        size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
        assert struct.unpack("HHHH", size)[:2] == (33, 44)


@check
def console() -> Check:
    """The container's terminal: settings, name and foreground group."""
    name, settings = os.ttyname(1), termios.tcgetattr(1)
    group = os.tcgetpgrp(1)
    while True:
        yield
        assert os.isatty(0) and os.isatty(1) and os.isatty(2)
        assert (os.ttyname(1), os.tcgetpgrp(1)) == (name, group)
        assert termios.tcgetattr(1) == settings
        assert os.path.exists("/dev/console")


@check
def own_filter() -> Check:
    """A child with a filter of system calls of its own, beside the container's."""
    requests, answers = os.pipe(), os.pipe()
    entered: list[bool] = []

    def other() -> None:
        if not entered:
            code = [(0x20, 0, 0, 0), (0x15, 0, 1, 39), (6, 0, 0, 0x50000 | errno.ENOTNAM),
                    (6, 0, 0, 0x7FFF0000)]  # fmt: skip
            program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
            head = struct.pack("@HxxxxxxP", len(code), ctypes.addressof(program))
            call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
            call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0)
            entered.append(True)
        os.read(requests[0], 1)
        ctypes.set_errno(0)
        refused = libc.syscall(39) == -1 and ctypes.get_errno() == errno.ENOTNAM
        os.write(answers[1], b"+" if refused else b"-")

    child(other)
    while True:
        yield
        os.write(requests[1], b"x")
        assert os.read(answers[0], 8) == b"+", "the filter is lost"


@check
def chroot() -> Check:
    """A child with another root and another user."""
    requests, answers = os.pipe(), os.pipe()
    os.makedirs(f"{WORK}/jail/inside", exist_ok=True)
    entered: list[bool] = []

    def other() -> None:
        if not entered:
            os.chroot(f"{WORK}/jail")
            os.chdir("/inside")
            os.setgroups([12])
            os.setresgid(11, 11, 11)
            os.setresuid(10, 10, 10)
            entered.append(True)
        os.read(requests[0], 1)
        kept = os.listdir("/") == ["inside"] and os.getcwd() == "/inside"
        kept = kept and (os.getresuid(), os.getgroups()) == ((10, 10, 10), [12])
        os.write(answers[1], b"+" if kept else b"-")

    child(other)
    while True:
        yield
        os.write(requests[1], b"x")
        assert os.read(answers[0], 8) == b"+", "root, user or groups are lost"


def fail(name: str, error: Exception) -> None:
    """Print the failed check and end the program."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    print(f"FAILED {name}: {error!r} at line {where.lineno}: {where.line}", flush=True)
    os._exit(3)


def step(name: str, each: Check) -> None:
    """Run a check up to its next ``yield``."""
    try:
        next(each)
    except (AssertionError, OSError, ValueError, struct.error, RuntimeError) as error:
        fail(name, error)


def main() -> None:
    """Make the objects of each named check, then run rounds for ever."""
    # Processes are forked before there are threads, which block the signals of "signals".
    last = ("signals", "threads")
    names = sorted(sys.argv[1:], key=lambda name: (name in last, name))
    running = {name: CHECKS[name]() for name in names}
    for name, each in running.items():
        step(name, each)
    number = 0
    while True:
        number += 1
        for name, each in running.items():
            step(name, each)
        print(f"round {number}", flush=True)
        time.sleep(PERIOD)


if __name__ == "__main__":
    main()
