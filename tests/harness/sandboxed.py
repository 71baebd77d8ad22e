"""Work for sandboxed processes: attempts of what a taken over parser would try."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable

from jaula.sha256 import sha256

Ask = Callable[[bytes], tuple[bytes, list[int]]]
_libc = ctypes.CDLL(None, use_errno=True)


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _executable_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _executable_page() -> None:
    page = mmap.mmap(-1, 4096)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if _libc.mprotect(address, 4096, mmap.PROT_READ | mmap.PROT_EXEC) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open": lambda: _open("/etc/passwd"),
    "open /proc/self/mem": lambda: _open("/proc/self/mem"),
    "write": lambda: os.close(os.open("/tmp/never-made", os.O_WRONLY | os.O_CREAT)),
    "stat": lambda: os.stat("/etc"),
    "list": lambda: os.listdir("/"),
    "tcp": lambda: socket.socket(socket.AF_INET).close(),
    "tcp6": lambda: socket.socket(socket.AF_INET6).close(),
    "unix": lambda: socket.socket(socket.AF_UNIX).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "generic netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16).close(),
    "pair of tcp": lambda: socket.socketpair(socket.AF_INET),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "alg": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close(),
    "vsock": lambda: socket.socket(socket.AF_VSOCK).close(),
    "fork": lambda: os.fork() or os._exit(0),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "executable memory": _executable_memory,
    "executable page": _executable_page,
    "clone3": lambda: _call("syscall", 435, 0, 0),
    "ptrace": lambda: _call("ptrace", 16, os.getppid(), 0, 0),
    "kill": lambda: os.kill(os.getppid(), 0),
    "unshare": lambda: _call("unshare", 0x10000000),
    "setuid": lambda: os.setuid(0),
    "chroot": lambda: os.chroot("/"),
    "mount": lambda: _call("mount", 0, 0, 0, 0, 0),
    "ioctl": lambda: _call("ioctl", 0, 0x5401, 0),
    "prctl": lambda: _call("prctl", 4, 1, 0, 0, 0),
    "bpf": lambda: _call("syscall", 321, 0, 0, 0),
    "io_uring": lambda: _call("syscall", 425, 1, 0),
    "userfaultfd": lambda: _call("syscall", 323, 0),
    "keyctl": lambda: _call("syscall", 250, 0, -3, 0),
    "limits": lambda: _call("prlimit", 0, 9, 0, 0),
}


def attempt(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Try each operation that is named; return the errno of each, 0 if it was possible."""
    results: dict[str, int] = {}
    for name in json.loads(payload):
        try:
            ATTEMPTS[name]()
        except OSError as error:
            results[name] = error.errno or -1
        else:
            results[name] = 0
    return json.dumps(results).encode()


def connect(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Connect to an address, JSON of a family and its address; return the errno, 0 if possible."""
    family, address = json.loads(payload)
    with socket.socket(family) as sock:
        number = sock.connect_ex(tuple(address) if isinstance(address, list) else address)
    return b"%d" % number


def attempt_and_wait(descriptors: list[int]) -> None:
    """Write what becomes of each attempt into the directory of the first descriptor, and wait."""
    names = json.dumps(list(ATTEMPTS)).encode()
    results = attempt(names, [], lambda payload: (payload, []))
    fd = os.open("new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptors[0])
    os.write(fd, results)
    os.close(fd)
    os.rename("new", "results", src_dir_fd=descriptors[0], dst_dir_fd=descriptors[0])
    while True:
        time.sleep(60)


def echo(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return the payload and the content of each descriptor."""
    return payload + b"".join(os.pread(fd, 1 << 20, 0) for fd in descriptors)


def relay(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Ask the engine, and return what it answers, or the errno."""
    try:
        data, fds = ask(payload)
    except OSError as error:
        return b"errno %d" % (error.errno or 0)
    return data + b"".join(os.pread(fd, 1 << 20, 0) for fd in fds)


def allocate(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Allocate as many bytes as the payload says."""
    return b"%d" % len(bytearray(int(payload)))


def fill_and_recurse(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Allocate until no page is left, then let C functions call each other deeply."""
    sys.setrecursionlimit(100_000)
    text = "[" * 5000
    held: list[object] = [[] for _ in range(10_000)]
    del held[:]  # their memory remains for the lists of the text
    for size in (1 << 20, 1 << 16, 1 << 12):
        try:
            while True:
                held.append(bytes(size))
        except MemoryError:
            continue
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return b"refused"
    return b"read"


def hash_until_full(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Hold hashes until no memory is left."""
    held: list[object] = []
    while True:
        held.append(sha256(payload))


def produce(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return as many bytes as the payload says."""
    return bytes(int(payload))


def spin(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Compute for ever."""
    while True:
        pass


def sleep(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Wait for ever, without computing."""
    while True:
        time.sleep(60)


def crash(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Access memory that is not mapped."""
    return ctypes.string_at(8)


def leave(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Exit without an answer."""
    os._exit(7)


def refuse(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Raise an error of our own, with the payload as text."""
    from jaula.errors import InvalidRequest

    raise InvalidRequest(payload.decode(), hint="a hint\x1b[2J")


def fail(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Raise an error that a parser does not expect."""
    raise KeyError("unexpected\x1b[2J")


def recurse(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Call itself without an end."""
    return recurse(payload, descriptors, ask)


def forge(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Write bytes of the caller in place of an answer, as code that took the process over can."""
    for fd in range(3, 8192):  # a channel keeps its number of the parent
        try:
            os.write(fd, payload)
        except OSError:
            continue
    while True:
        time.sleep(60)


def import_more(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Import a module that was not imported before."""
    import wave

    return wave.__name__.encode()
