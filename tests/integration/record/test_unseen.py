"""A program that hides: what the record sees of each trick, and what it says that it does not see.

Each test does the deed in a cgroup of its own and reads the record.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from harness.engine import PrivateEngine
from integration.record.test_kinds import directory, record, select
from jaula.features.record import record_reader
from jaula.features.record.compare_records import program_of
from jaula.features.record.ebpf import EbpfTracer
from jaula.features.record.fanotify_tracer import FanotifyTracer, ProcTracer
from jaula.features.record.record_document import OUTSIDE, Entry
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.features.record.seccomp_tracer import SeccompTracer

__all__ = ("directory",)  # a fixture

RING = r"""
def ring(flags=0):
    global fd, submission, entries, sq
    parameters = ctypes.create_string_buffer(120)
    struct.pack_into("I", parameters, 8, flags)
    fd = libc.syscall(425, 8, parameters)
    assert fd >= 0, ctypes.get_errno()
    sq = struct.unpack_from("10I", parameters, 40)
    submission = mmap.mmap(fd, 4096, offset=0)
    entries = mmap.mmap(fd, 4096, offset=0x10000000)

def submit(*all, flags=1):
    for i, each in enumerate(all):
        entries[64 * i:64 * i + 64] = each.ljust(64, b"\0")
        struct.pack_into("I", submission, sq[6] + 4 * i, i)
    struct.pack_into("I", submission, sq[1], len(all))
    done = libc.syscall(426, fd, 0 if flags & 2 else len(all), len(all), flags, None, 0)
    assert done >= 0, ctypes.get_errno()

def operation(opcode, descriptor, address=0, offset=0, length=0):
    return struct.pack("<BBHiQQII", opcode, 0, 0, descriptor, offset, address, length, 0)
"""


def executed(tmp_path: Path) -> dict[str, Entry]:
    """Return the executions by path, with a note if the file has no directory."""
    found = record_reader.read(str(tmp_path / "script.record"))
    result = {}
    for entry in found.entries.values():
        if entry.kind == "exec":
            program = found.programs[entry.executed]
            result[f"{program.path}{' detached' if program.detached else ''}"] = entry
    return result


# --- io_uring -------------------------------------------------------------------------------------


def test_io_uring_is_seen_as_operations_and_not_as_files_and_addresses(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = (
        RING
        + r"""
ring()
name = ctypes.create_string_buffer(sys.argv[1].encode())
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer = ctypes.create_string_buffer(address("127.0.0.1", 4321))
submit(
    operation(18, -100, ctypes.addressof(name)),
    operation(16, udp.fileno(), ctypes.addressof(peer), 16),
)
"""
    )
    (tmp_path / "hidden").write_text("x")
    entries = record(directory, tmp_path, script, str(tmp_path / "hidden"))
    seen = {(entry.operation, entry.path) for entry in select(entries, "io-uring")}
    assert ("openat", str(tmp_path / "hidden")) in seen
    assert ("connect", "") in seen
    assert not select(entries, "file", path=str(tmp_path / "hidden"))
    assert not select(entries, "connect", port=4321)
    assert any("io_uring" in each for each in EbpfTracer.unseen)


def test_a_ring_that_a_kernel_thread_polls_is_seen(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = (
        RING
        + r"""
import time
ring(2)  # IORING_SETUP_SQPOLL
name = ctypes.create_string_buffer(sys.argv[1].encode())
submit(operation(18, -100, ctypes.addressof(name)), flags=2 | 1)
end = time.monotonic() + 30
while struct.unpack_from("I", submission, sq[0])[0] != 1 and time.monotonic() < end:
    time.sleep(0.01)
"""
    )
    (tmp_path / "polled").write_text("x")
    entries = record(directory, tmp_path, script, str(tmp_path / "polled"))
    assert select(entries, "syscall", syscall="io_uring_setup")
    assert select(entries, "io-uring", operation="openat", path=str(tmp_path / "polled"))


# --- programs -------------------------------------------------------------------------------------


def test_a_program_of_memory_and_one_by_its_descriptor_are_seen(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
def run(fd, path, flags):
    pid = os.fork()
    if not pid:
        argv = (ctypes.c_char_p * 2)(b"true", None)
        libc.syscall(322, fd, path, argv, None, flags)  # execveat(2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

content = open("/bin/true", "rb").read()
memory = os.memfd_create("secret")
os.write(memory, content)
run(memory, b"", 0x1000)
copy = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o755)
os.write(copy, content); os.close(copy)
copy = os.open(sys.argv[1], os.O_RDONLY)
os.unlink(sys.argv[1])
run(copy, b"", 0x1000)
"""
    path = tmp_path / "copy"
    record(directory, tmp_path, script, str(path))
    found = executed(tmp_path)
    assert "/memfd:secret detached" in found
    assert any(name.startswith(str(path)) for name in found), found


@pytest.mark.parametrize("number", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_programs_of_milliseconds_are_all_counted(
    directory: tuple[Cgroup, Path], tmp_path: Path, number: int
) -> None:
    script = r"""
for _ in range(int(sys.argv[1])):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
"""
    record(directory, tmp_path, script, str(number))
    (name,) = [name for name in executed(tmp_path) if name.endswith("/true")]
    assert executed(tmp_path)[name].count == number


# --- paths ----------------------------------------------------------------------------------------


def test_a_thread_that_changes_a_path_does_not_change_what_was_opened(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    """The file is the kernel's word, whatever the memory of the process says by then."""
    script = r"""
import collections
first, second = (os.fsencode(each) for each in sys.argv[1:3])
name = ctypes.create_string_buffer(first)
stop = False
def flip():
    while not stop:
        ctypes.memmove(name, second, len(second))
        ctypes.memmove(name, first, len(first))
thread = threading.Thread(target=flip); thread.start()
opened = collections.Counter()
for _ in range(3000):
    fd = libc.syscall(257, -100, name, 0)  # openat(2)
    if fd >= 0:
        opened[os.readlink(f"/proc/self/fd/{fd}")] += 1
        os.close(fd)
stop = True; thread.join()
open(sys.argv[3], "w").write("".join(f"{path} {n}\n" for path, n in opened.items()))
"""
    for name in ("aa", "bb"):
        (tmp_path / name).write_text("x")
    words = [str(tmp_path / name) for name in ("aa", "bb", "counts")]
    entries = record(directory, tmp_path, script, *words)
    lines = (line.split(" ") for line in (tmp_path / "counts").read_text().splitlines())
    counts = {path: int(number) for path, number in lines}
    seen = {
        entry.path: entry.count
        for entry in select(entries, "file", mode="read")
        if entry.path in words[:2]
    }
    assert seen == counts


def test_a_file_that_another_process_opened_is_not_seen(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    """A descriptor that is passed: the record has the connection, and says that it has no more."""
    given, place = tmp_path / "given", tmp_path / "socket"
    given.write_text("content")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def give() -> None:
            peer, _ = listener.accept()
            fd = os.open(given, os.O_RDONLY)
            socket.send_fds(peer, [b"x"], [fd])
            os.close(fd)
            peer.close()

        helper = threading.Thread(target=give, daemon=True)
        helper.start()
        script = r"""
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
(fd,) = socket.recv_fds(s, 1, 1)[1]
assert os.read(fd, 100) == b"content"
"""
        entries = record(directory, tmp_path, script, str(place))
        helper.join(30)
    assert select(entries, "connect", address=str(place))
    assert not select(entries, "file", path=str(given))
    assert any("descriptors" in each for each in EbpfTracer.unseen)


# --- the cgroup -----------------------------------------------------------------------------------


def test_a_process_that_leaves_the_cgroup_and_its_parent_stays_recorded(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
inside = os.open("/proc/self/cgroup", os.O_RDONLY)
before = os.read(inside, 4096)
read, write = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    open(sys.argv[2], "w").write(str(os.getpid()))
    assert open("/proc/self/cgroup", "rb").read() != before
    os.set_inheritable(write, True)
    os.execv("/bin/cat", ["cat", sys.argv[1]])
os.close(write)
os.wait()
assert os.read(read, 1) == b""  # the grandchild has ended
"""
    _, path = directory
    outside = tmp_path / "outside"
    outside.write_text("")
    entries = record(directory, tmp_path, script, str(outside), str(path.parent / "cgroup.procs"))
    found = record_reader.read(str(tmp_path / "script.record"))
    opened = select(entries, "file", path=str(outside))
    assert {os.path.basename(program_of(found, entry.program)[0]) for entry in opened} == {"cat"}


# --- what the record says -------------------------------------------------------------------------


def test_an_access_by_a_mapping_is_not_seen_but_named(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    script = r"""
with open(sys.argv[1], "r+b") as file:
    pages = mmap.mmap(file.fileno(), 4)
pages[:4] = b"done"
pages.flush()
"""
    path = tmp_path / "mapped"
    path.write_text("open")
    entries = record(directory, tmp_path, script, str(path))
    assert path.read_text() == "done"
    (opened,) = select(entries, "file", path=str(path))
    assert opened.mode == "read,write"  # the open is seen, the write is not
    assert not select(entries, "change", path=str(path))
    assert "accesses by a mapping" in EbpfTracer.unseen


def test_every_record_says_what_is_not_seen(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    path = tmp_path / "container.record"
    run = ("jaula", "run", "--rm", f"--record={path}", busybox, "true")
    done = engine.cli(*run)
    assert done.returncode == 0, done.stderr
    header = record_reader.read(str(path)).header
    assert header is not None
    assert header.unseen == EbpfTracer.unseen
    shown = engine.cli("jaula", "record", "show", str(path)).stdout
    assert "Not seen: results and addresses of operations of io_uring" in shown


@pytest.mark.parametrize("tracer", [EbpfTracer, SeccompTracer, FanotifyTracer, ProcTracer])
def test_every_mechanism_names_what_no_system_call_shows(tracer: type) -> None:
    assert set(OUTSIDE) <= set(tracer.unseen)  # type: ignore[attr-defined]
