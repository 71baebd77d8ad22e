"""Each kind of entry, from system calls of the 64-bit and of the i386 ABI."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.containers import unique
from harness.engine import SLOW
from jaula.cgroups import hierarchies
from jaula.features.record import record_reader, recorded_cgroup
from jaula.features.record.ebpf import EbpfTracer
from jaula.features.record.ebpf_events import Event
from jaula.features.record.record_document import Entry
from jaula.features.record.record_writer import RecordWriter
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.features.record.recorder import Ledger, SyscallNames
from jaula.kernel import mountinfo

# A call of the i386 ABI by a 64-bit process: memory below 4 GiB, and int 0x80.
PRELUDE = r"""
import ctypes, mmap, os, socket, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)

def query(name, kind=1):
    labels = b"".join(bytes([len(x)]) + x for x in name.split(b"."))
    return os.urandom(2) + b"\1\0\0\1" + bytes(6) + labels + b"\0" + struct.pack(">HH", kind, 1)

MAP_32BIT = 0x40
low = mmap.mmap(-1, 65536, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT,
                mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
base = ctypes.addressof(ctypes.c_char.from_buffer(low))
CODE = bytes.fromhex(
    "5355"          # push rbx; push rbp
    "488b07"        # mov rax, [rdi]
    "488b5f08"      # mov rbx, [rdi+8]
    "488b4f10"      # mov rcx, [rdi+16]
    "488b5718"      # mov rdx, [rdi+24]
    "488b7720"      # mov rsi, [rdi+32]
    "488b6f30"      # mov rbp, [rdi+48]
    "488b7f28"      # mov rdi, [rdi+40]
    "cd80" "5d5bc3"
)
low[:len(CODE)] = CODE
used = 4096

def place(data):
    global used
    start, used = used, used + len(data) + 16
    low[start:start + len(data)] = data
    return base + start

def call32(*words):
    registers = (ctypes.c_uint64 * 7)(*words, *[0] * (7 - len(words)))
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(base)
    return function(ctypes.addressof(registers))

def address(host, port):
    return struct.pack("<H", 2) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)
"""


@pytest.fixture
def directory() -> Iterator[tuple[Cgroup, Path]]:
    """A cgroup in the hierarchy that records use on this host."""
    mounts = hierarchies.find(mountinfo.read())
    selected = recorded_cgroup.expected()
    root = mounts.legacy.get(selected.controller) if selected.controller else mounts.unified
    assert root is not None
    path = Path(root, unique("kinds"))
    path.mkdir()
    yield selected._replace(path=f"/{path.name}"), path
    for _ in range(100):
        try:
            path.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{path} is busy")


def record(directory: tuple[Cgroup, Path], tmp_path: Path, script: str, *words: str) -> list[Entry]:
    """Return the entries of a Python script in a cgroup."""
    selected, path = directory
    events: list[Event] = []
    writer = RecordWriter(str(tmp_path / "script.record"))
    ledger = Ledger(writer, 0, SyscallNames())
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", f"{PRELUDE}\nprint('up')\ninput()\n{script}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"up\n"
        (path / "cgroup.procs").write_text(str(child.pid))
        with closing(EbpfTracer(selected, path.stat().st_ino, events.append)) as tracer:
            tracer.attach()
            child.communicate(b"\n", timeout=30 * SLOW)
            assert child.returncode == 0
            tracer.detach()
            tracer.consume()
            for event in events:
                ledger.receive(event)
            ledger.finish(tracer.counts())
    finally:
        child.kill()
        child.wait()
        writer.flush()
        writer.close()
    return list(record_reader.read(writer.path).entries.values())


def select(entries: list[Entry], kind: str, **fields: object) -> list[Entry]:
    return [
        entry
        for entry in entries
        if entry.kind == kind
        and all(getattr(entry, name) == value for name, value in fields.items())
    ]


@pytest.fixture
def resolver() -> Iterator[str]:
    """A UDP and a TCP socket at port 53 of a loopback address of its own."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
    ):
        host = "127.53.7.1"
        datagrams.bind((host, 53))
        stream.bind((host, 53))
        stream.listen()
        yield host


def test_dns_names_are_recorded_for_each_call_that_sends(
    directory: tuple[Cgroup, Path], tmp_path: Path, resolver: str
) -> None:
    script = r"""
host = sys.argv[1]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(query(b"sendto.test"), (host, 53))
s.sendto(query(b"sendto.test"), (host, 53))
s.sendmsg([query(b"sendmsg.test", 28)], [], 0, (host, 53))
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.connect((host, 53))
c.send(query(b"send.test", 65))
os.write(c.fileno(), query(b"write.test"))
os.writev(c.fileno(), [query(b"writev.test")])
c.sendmsg([query(b"connected.test")])
data = [query(b"one.test"), query(b"two.test", 28)]
buffers = [ctypes.create_string_buffer(x, len(x)) for x in data]
parts = b"".join(struct.pack("QQ", ctypes.addressof(b), len(x)) for b, x in zip(buffers, data))
parts = ctypes.create_string_buffer(parts, len(parts))
start = ctypes.addressof(parts)
vector = b"".join(struct.pack("QIIQQQQQII", 0, 0, 0, start + 16 * i, 1, 0, 0, 0, 0, 0)
                  for i in range(2))
vector = ctypes.create_string_buffer(vector, len(vector))
assert libc.sendmmsg(c.fileno(), vector, 2, 0) == 2
t = socket.create_connection((host, 53))
x = query(b"tcp.test")
t.sendall(struct.pack(">H", len(x)) + x)
s.sendto(b"\xff" * 40, (host, 53))
s.sendto(query(b"a.b\0\x1b\xffc"), (host, 53))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.sendto(query(b"other.test"), (host, 54))
"""
    entries = record(directory, tmp_path, script, resolver)
    asked = {entry.name: entry for entry in select(entries, "dns") if entry.name}
    assert {name: entry.query_type for name, entry in asked.items()} == {
        "sendto.test": "A", "sendmsg.test": "AAAA", "send.test": "HTTPS", "write.test": "A",
        "writev.test": "A", "connected.test": "A", "one.test": "A", "two.test": "AAAA",
        "tcp.test": "A", "a.b\0\x1b\\xffc": "A",
    }  # fmt: skip
    assert asked["sendto.test"].count == 2
    assert asked["tcp.test"].protocol == "tcp"
    assert len(select(entries, "dns", malformed=True)) == 1


def test_accepted_connections_have_their_peer(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    s = socket.socket(family)
    s.bind((host, 0)); s.listen()
    for i in range(3):
        c = socket.create_connection(s.getsockname()[:2])
        s.accept()
u = socket.socket(socket.AF_UNIX)
u.bind(sys.argv[1]); u.listen()
c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1])
u.accept()
"""
    entries = record(directory, tmp_path, script, str(tmp_path / "socket"))
    for family, address in (("inet", "127.0.0.1"), ("inet6", "::1")):
        (accepted,) = select(entries, "accept", family=family)
        (listening,) = select(entries, "listen", family=family)
        assert (accepted.address, accepted.count) == (address, 3)
        assert accepted.port == listening.port
        assert (accepted.protocol, accepted.source) == ("tcp", "kernel")
    (accepted,) = select(entries, "accept", family="unix")
    assert accepted.address == str(tmp_path / "socket")


def test_a_peer_of_a_dual_stack_socket_has_its_whole_address(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
os.sched_setaffinity(0, {0})
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 0)); s.listen()
c = socket.create_connection(("127.0.0.1", s.getsockname()[1]))
open("/etc/hostname").close()
s.accept()
open("/etc/hostname").close()
s = socket.socket(socket.AF_INET6)
open("/etc/hostname").close()
s.listen()
"""
    entries = record(directory, tmp_path, script)
    (accepted,) = select(entries, "accept")
    assert (accepted.family, accepted.address) == ("inet6", "::ffff:127.0.0.1")
    assert {entry.address for entry in select(entries, "listen")} == {"::"}


def test_calls_of_the_i386_abi_are_recorded_as_those_of_the_64_bit_one(
    directory: tuple[Cgroup, Path], tmp_path: Path, resolver: str
) -> None:
    script = r"""
host, name = sys.argv[1], sys.argv[2].encode()
fd = call32(5, place(name + b"\0"), os.O_WRONLY | os.O_CREAT, 0o600)  # open
assert fd > 2, fd
assert call32(21, place(b"none\0"), place(b"/absent-target\0"), place(b"tmpfs\0"), 0, 0) == -2
assert call32(52, place(b"/absent-unmount\0"), 0) == -2
s = call32(359, 2, 2, 0)  # socket
x = query(b"sendto32.test")
assert call32(369, s, place(x), len(x), 0, place(address(host, 53)), 16) == len(x)
y = query(b"sendmsg32.test")
part = place(struct.pack("II", place(y), len(y)))
message = struct.pack("7I", place(address(host, 53)), 16, part, 1, 0, 0, 0)
assert call32(370, s, place(message), 0) == len(y)
assert call32(345, s, place(message + bytes(4)), 1, 0) == 1
z = query(b"socketcall.test")
words = struct.pack("6I", s, place(z), len(z), 0, place(address(host, 53)), 16)
assert call32(102, 11, place(words)) == len(z)
assert call32(102, 3, place(struct.pack("3I", s, place(address(host, 4321)), 16))) == 0
"""
    entries = record(directory, tmp_path, script, resolver, str(tmp_path / "file32"))
    assert select(entries, "file", path=str(tmp_path / "file32"))[0].mode == "write,create"
    (mount,) = select(entries, "mount")
    assert (mount.path, mount.filesystem, mount.device) == ("/absent-target", "tmpfs", "none")
    assert mount.errno == "ENOENT"
    assert select(entries, "unmount")[0].path == "/absent-unmount"
    asked = {entry.name: entry.count for entry in select(entries, "dns")}
    assert asked == {"sendto32.test": 1, "sendmsg32.test": 2, "socketcall.test": 1}
    (send,) = select(entries, "send")
    assert (send.address, send.port, send.count) == (resolver, 53, 4)
    assert select(entries, "connect", source="process")[0].port == 4321
    assert select(entries, "syscall", syscall="socketcall", abi="i386")[0].count == 2


def test_devices_and_flags_of_openat2_are_recorded(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
open("/dev/null", "r+b", buffering=0)
open("/dev/null", "r+b", buffering=0)
open("/dev/zero", "rb")
how = struct.pack("QQQ", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600, 0)
assert libc.syscall(437, -100, sys.argv[1].encode(), how, len(how)) >= 0
"""
    entries = record(directory, tmp_path, script, str(tmp_path / "file"))
    devices = {(entry.device, entry.mode): entry.count for entry in select(entries, "device")}
    assert devices == {("c 1:3", "read,write"): 2, ("c 1:5", "read"): 1}
    (file,) = select(entries, "file", path=str(tmp_path / "file"))
    assert file.mode == "read,write,create,truncate"


def test_a_file_without_a_directory_has_its_name(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
fd = os.memfd_create("hidden/name")
os.write(fd, open("/bin/true", "rb").read())
open(f"/proc/self/fd/{fd}", "rb").close()
os.read(os.open(f"/proc/self/fd/{os.pipe()[0]}", os.O_RDONLY | os.O_NONBLOCK), 0)
pid = os.fork()
if not pid:
    os.execv(f"/proc/self/fd/{fd}", ["true"])
os.waitpid(pid, 0)
"""
    entries = record(directory, tmp_path, script)
    files = {(entry.path, entry.mode) for entry in select(entries, "file", detached=True)}
    assert files == {("/memfd:hidden/name", "read"), ("/", "read")}
    programs = record_reader.read(str(tmp_path / "script.record")).programs.values()
    (program,) = [each for each in programs if each.detached]
    assert program.path == "/memfd:hidden/name"
    assert program.name.startswith("/proc/self/fd/")


def test_refusals_have_their_layer(directory: tuple[Cgroup, Path], tmp_path: Path) -> None:
    script = r"""
import resource
os.chmod(sys.argv[1], 0)
libc.unshare(0x10000000)  # CLONE_NEWUSER: no id is mapped
for f in (lambda: open(sys.argv[1]), lambda: os.setgid(5)):
    try:
        f()
    except OSError:
        pass
assert libc.sethostname(b"x", 1) == -1
# SECCOMP_SET_MODE_FILTER: EPERM for getppid(2), SIGSYS for getpgrp(2)
program = b"".join(struct.pack("HBBI", *each) for each in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 110), (6, 0, 0, 0x00050000 | 1),
    (0x15, 0, 1, 111), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000)))
program = ctypes.create_string_buffer(program, len(program))
header = struct.pack("HHIQ", 6, 0, 0, ctypes.addressof(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, 0, header) == 0
for i in range(3):
    assert libc.syscall(110) == -1
assert libc.syscall(39) > 0
if os.fork() == 0:
    libc.syscall(111)
os.wait()
"""
    (tmp_path / "closed").write_text("x")
    entries = record(directory, tmp_path, script, str(tmp_path / "closed"))

    def layer(call: str) -> set[tuple[str, str, str, int]]:
        return {
            (entry.errno, entry.layer, entry.capability, entry.count)
            for entry in select(entries, "syscall", syscall=call)
            if entry.errno
        }

    assert layer("getppid") == {("EPERM", "seccomp", "", 3)}
    assert layer("getpgrp") == {("SIGSYS", "seccomp", "", 1)}
    assert layer("sethostname") == {("EPERM", "capability", "CAP_SYS_ADMIN", 1)}
    assert layer("setgid") == {("EINVAL", "unmapped-id", "", 1)}
    (refused,) = select(entries, "file-refused", path=str(tmp_path / "closed"))
    assert refused.errno == "EACCES"


def test_files_that_io_uring_opens_have_the_name_that_the_kernel_copied(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, parameters)
assert ring >= 0, ctypes.get_errno()
sq = struct.unpack_from("10I", parameters, 40)
submission = mmap.mmap(ring, 4096, offset=0)
entries = mmap.mmap(ring, 4096, offset=0x10000000)
name = ctypes.create_string_buffer(sys.argv[1].encode())
entry = struct.pack("BBHiQQIIQ", 18, 0, 0, -100, 0, ctypes.addressof(name), 0, 0, 1)
entries[:64] = entry.ljust(64, b"\0")
entries[64:128] = bytes(64)
for i in range(2):
    struct.pack_into("I", submission, sq[6] + 4 * i, i)
struct.pack_into("I", submission, sq[1], 2)
assert libc.syscall(426, ring, 2, 2, 1, None, 0) == 2, ctypes.get_errno()
"""
    (tmp_path / "ring").write_text("x")
    entries = record(directory, tmp_path, script, str(tmp_path / "ring"))
    operations = {(entry.operation, entry.path) for entry in select(entries, "io-uring")}
    assert operations == {("openat", str(tmp_path / "ring")), ("nop", "")}
