"""Landlock's rules as the kernel enforces them, in child processes with a root of their own."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from harness import landlock
from harness.fork import child, refused
from jaula.errors import JaulaError
from jaula.kernel import landlock as kernel
from jaula.kernel import mounts, namespaces, process_calls
from jaula.kernel.libc import libc
from jaula.kernel.namespaces import CLONE
from jaula.runtime.init import enter_landlock
from jaula.security.landlock_ruleset import Options, decide, parse
from jaula.spec.annotations import LANDLOCK_ANNOTATION, Ruleset, encode_ruleset
from jaula.spec.runtime_spec import Mount

ABI = landlock.abi()
pytestmark = pytest.mark.skipif(ABI < 2, reason="this kernel has no Landlock of version 2")
VOLUME = Mount("/data", "bind", "/srv", ("rbind", "rw"))


def enter(rules: Ruleset, *, joining: bool = False) -> None:
    prepared = enter_landlock.prepare(
        {LANDLOCK_ANNOTATION: encode_ruleset(rules)}, for_exec=joining
    )
    assert prepared is not None
    enter_landlock.restrict(prepared, enter_landlock.open_rules(prepared))


def rules(*words: str, readonly: bool = False, mounted: tuple[Mount, ...] = (VOLUME,)) -> Ruleset:
    options = parse(words) if words else Options()
    return decide(mounted, root_readonly=readonly, options=options, abi=ABI)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory to be a root, with a volume, and a tree next to it for the host."""
    for name in ("root/etc", "root/tmp", "root/data", "root/proc", "host/etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("inside")
    (tmp_path / "host/etc/passwd").write_text("of the host")
    return tmp_path / "root"


def pivot(root: Path, *, readonly: bool = False) -> None:
    """Enter the root as the runtime does: a mount namespace, the old tree detached."""
    namespaces.unshare(CLONE.NEWNS)
    mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE)
    mounts.mount(str(root), str(root), None, mounts.MS.BIND)
    mounts.mount("tmpfs", str(root / "data"), "tmpfs")
    mounts.mount("proc", str(root / "proc"), "proc")
    if readonly:
        flags = mounts.MS.REMOUNT | mounts.MS.BIND | mounts.MS.RDONLY
        mounts.mount(None, str(root), None, flags)
    os.chdir(root)
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT.DETACH)
    os.chdir("/")


def read(path: str, dir_fd: int | None = None) -> bytes:
    fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def write(path: str, dir_fd: int | None = None) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=dir_fd))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
def test_a_leaked_descriptor_of_the_host_opens_nothing(root: Path, flags: int) -> None:
    def act() -> None:
        leaked = os.open(root.parent / "host", flags | os.O_DIRECTORY)
        pivot(root)
        assert read("etc/passwd", leaked) == b"of the host"
        enter(rules())
        assert read("/etc/passwd") == b"inside"
        refused(errno.EACCES, lambda: read("etc/passwd", leaked))
        refused(errno.EACCES, lambda: write("etc/new", leaked))
        refused(errno.EACCES, lambda: os.unlink("etc/passwd", dir_fd=leaked))
        refused(errno.EACCES, lambda: os.mkdir("made", dir_fd=leaked))
        refused(errno.EACCES, lambda: os.open("etc", os.O_RDONLY, dir_fd=leaked))
        refused(errno.EACCES, lambda: read(f"/proc/self/fd/{leaked}/etc/passwd"))
        os.fchdir(leaked)
        refused(errno.EACCES, lambda: read("etc/passwd"))

    child(act)


def test_everything_in_the_root_works_as_before(root: Path) -> None:
    def act() -> None:
        pivot(root)
        enter(rules())
        write("/etc/new")
        os.rename("/etc/new", "/tmp/moved")
        os.link("/tmp/moved", "/etc/linked")
        os.truncate("/tmp/moved", 10)
        os.symlink("moved", "/tmp/link")
        os.mkfifo("/tmp/fifo")
        os.mkdir("/tmp/directory")
        os.rmdir("/tmp/directory")
        os.unlink("/etc/linked")
        write("/data/file")
        assert read("/proc/self/stat")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("/tmp/socket")

    child(act)


def test_pipes_memory_files_and_namespaces_open_again_by_their_number(root: Path) -> None:
    def act() -> None:
        pivot(root)
        enter(rules())
        memory, (pipe, _) = os.memfd_create("m"), os.pipe()
        for fd in (memory, pipe):
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        os.close(os.open("/proc/self/ns/mnt", os.O_RDONLY))
        with open("/tmp/gone", "wb") as gone:
            os.unlink("/tmp/gone")
            os.close(os.open(f"/proc/self/fd/{gone.fileno()}", os.O_WRONLY))

    child(act)


def test_a_standard_descriptor_reopens_in_its_mode_only(
    root: Path,
) -> None:
    def act() -> None:
        host = root.parent / "host"
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(os.open(host / "log", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(os.open(host, os.O_RDONLY), 2)
        pivot(root)
        enter(rules())
        os.close(os.open("/proc/self/fd/0", os.O_RDONLY))
        os.close(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_TRUNC))
        refused(errno.EACCES, lambda: os.open("/proc/self/fd/0", os.O_WRONLY))
        refused(errno.EACCES, lambda: os.open("/proc/self/fd/1", os.O_RDONLY))
        refused(errno.EACCES, lambda: os.open("/proc/self/fd/2", os.O_RDONLY))
        refused(errno.EACCES, lambda: os.open("log", os.O_RDONLY, dir_fd=2))

    child(act)


def test_beneath_a_read_only_root_only_its_writable_mounts_are_written(root: Path) -> None:
    def act() -> None:
        pivot(root)  # the mount flag of the root allows it: Landlock refuses
        enter(rules(readonly=True))
        assert read("/etc/passwd") == b"inside"
        refused(errno.EACCES, lambda: write("/etc/new"))
        refused(errno.EACCES, lambda: os.unlink("/etc/passwd"))
        refused(errno.EACCES, lambda: os.chmod("/etc/passwd", 0o600) or write("/etc/passwd"))
        write("/data/file")
        os.mkdir("/data/one")
        os.rename("/data/file", "/data/one/file")

    child(act)


def test_a_path_that_is_missing_gets_no_rights_and_one_of_a_file_those_of_files(
    root: Path,
) -> None:
    def act() -> None:
        pivot(root)
        mounted = (Mount("/etc/passwd", options=("rw",)), Mount("/missing", options=("rw",)))
        enter(rules(readonly=True, mounted=mounted))
        write("/etc/passwd")
        refused(errno.EACCES, lambda: write("/etc/other"))
        refused(errno.EACCES, lambda: os.unlink("/etc/passwd"))

    child(act)


@pytest.mark.parametrize("target", ["/proc/self/root/etc", "/../../host", "/proc/1/root/etc"])
def test_no_path_of_a_rule_leaves_the_root(root: Path, target: str) -> None:
    def act() -> None:
        leaked = os.open(root.parent / "host", os.O_PATH)
        pivot(root)
        os.symlink(target, "/link")
        enter(rules(readonly=True, mounted=(Mount("/link", options=("rw",)),)))
        refused(errno.EACCES, lambda: write("/etc/new"))
        refused(errno.EACCES, lambda: write("etc/new", leaked))

    child(act)


def test_nothing_can_be_mounted_whatever_the_capabilities(root: Path) -> None:
    def act() -> None:
        pivot(root)
        enter(rules())
        refused(errno.EPERM, lambda: mounts.mount("tmpfs", "/tmp", "tmpfs"))
        refused(errno.EPERM, lambda: mounts.umount2("/proc"))
        namespaces.unshare(CLONE.NEWUSER | CLONE.NEWNS)
        refused(errno.EPERM, lambda: mounts.mount("tmpfs", "/tmp", "tmpfs"))

    child(act)


def test_a_program_may_confine_itself_further(root: Path) -> None:
    def act() -> None:
        pivot(root)
        enter(rules())
        own = kernel.create_ruleset(kernel.supported_rights(ABI).access_fs)
        kernel.restrict_self(own)
        refused(errno.EACCES, lambda: read("/etc/passwd"))

    child(act)


def test_no_new_privileges_suffices_without_capabilities(root: Path) -> None:
    def act() -> None:
        pivot(root)
        os.setresuid(65534, 65534, 65534)
        refused(errno.EPERM, lambda: enter(rules()))
        process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
        enter(rules())

    child(act)


@pytest.mark.skipif(ABI < 4, reason="rules for TCP came with version 4")
def test_only_the_ports_that_are_named_can_be_used() -> None:
    def act() -> None:
        allowed, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0),
            family=socket.AF_INET6)  # fmt: skip
        port, wrong = allowed.getsockname()[1], other.getsockname()[1]
        enter(rules(f"tcp-connect={port}", "tcp-bind=none"))
        socket.create_connection(("127.0.0.1", port)).close()
        refused(errno.EACCES, lambda: socket.create_connection(("::1", wrong)))
        with socket.socket() as fresh:
            refused(errno.EACCES, lambda: fresh.bind(("127.0.0.1", 0)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))  # only TCP has rules

    child(act)


def looks_into(pid: int) -> bool:
    """Return whether this process may read a file that needs ptrace rights."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return False
    return True


@pytest.mark.parametrize(
    ("mine", "theirs", "allowed"),
    [(False, True, True), (True, False, False), (True, True, False), (False, False, True)],
)
def test_two_domains_with_equal_rules_are_separate(mine: bool, theirs: bool, allowed: bool) -> None:
    """For this reason a process that joins a container enters no domain by default."""

    def act() -> None:
        reading, writing = os.pipe()
        other = os.fork()
        if other == 0:
            if theirs:
                enter(rules())
            os.write(writing, b"r")
            signal.pause()
        os.read(reading, 1)
        if mine:
            enter(rules())
        try:
            assert looks_into(os.getpid())
            assert looks_into(other) is allowed
        finally:
            os.kill(other, signal.SIGKILL)  # never refused: signals are not scoped
            os.waitpid(other, 0)

    child(act)


@pytest.mark.skipif(ABI < 6, reason="scopes came with version 6")
def test_scopes_confine_signals_and_abstract_sockets() -> None:
    def act() -> None:
        parent = os.getppid()
        os.kill(parent, 0)
        name = f"\0jaula-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as outside, socket.socket(socket.AF_UNIX) as client:
            outside.bind(name)
            outside.listen()
            enter(rules("scope-signal,scope-abstract"))
            refused(errno.EPERM, lambda: os.kill(parent, 0))
            refused(errno.EPERM, lambda: client.connect(name))

    child(act)


def test_a_joining_process_has_separate_rules() -> None:
    text = {LANDLOCK_ANNOTATION: encode_ruleset(rules())}
    assert enter_landlock.prepare(text, for_exec=False) is not None
    assert enter_landlock.prepare(text, for_exec=True) is None
    assert (
        enter_landlock.prepare({LANDLOCK_ANNOTATION: encode_ruleset(rules("exec"))}, for_exec=True)
        is not None
    )
    assert enter_landlock.prepare({}) is None


def test_rights_of_a_later_kernel_are_refused_and_not_left_out() -> None:
    later = Ruleset(handled_access_fs=kernel.supported_rights(ABI).access_fs + 1 << 1)
    with pytest.raises(JaulaError, match="Landlock ABI"):
        enter_landlock.prepare({LANDLOCK_ANNOTATION: encode_ruleset(later)})


def test_a_domain_that_is_not_in_force_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "restrict_self", lambda *_: None)
    with pytest.raises(JaulaError, match="not enforced"):
        enter(rules())


def test_each_older_version_of_the_rules_is_accepted(root: Path) -> None:
    for abi in range(1, ABI + 1):

        def act(abi: int = abi) -> None:
            pivot(root)
            enter(decide((VOLUME,), root_readonly=True, options=Options(), abi=abi))
            refused(errno.EACCES, lambda: write("/etc/new"))
            write(f"/data/{abi}")
            if abi == 1:  # the kernel then refuses what would need REFER
                os.mkdir("/data/d")
                refused(errno.EXDEV, lambda: os.rename("/data/1", "/data/d/1"))

        child(act)


def test_programs_run_and_their_descriptors_stay_open(root: Path) -> None:
    def act() -> None:
        held = os.open(root.parent / "host/etc/passwd", os.O_RDONLY)
        pivot(root)
        enter(rules())
        assert os.read(held, 20) == b"of the host"
        call = libc["execveat"]
        assert call(ctypes.c_int(held), b"", None, None, ctypes.c_int(0x1000)) == -1
        assert ctypes.get_errno() == errno.EACCES

    child(act)


def test_lists_of_paths_restrict_reads_writes_and_programs(root: Path) -> None:
    (root / "bin").mkdir()
    for name in ("listed", "other"):
        (root / "bin" / name).write_text("#!/bin/none\n")
        (root / "bin" / name).chmod(0o755)

    def act() -> None:
        pivot(root)
        enter(rules("read=/etc/passwd", "execute=/bin/listed", "write=/data/", "write=/tmp/pid"))
        assert read("/etc/passwd") == b"inside"
        refused(errno.EACCES, lambda: read("/bin/other"))
        refused(errno.EACCES, lambda: os.listdir("/etc"))
        refused(errno.EACCES, lambda: os.execv("/bin/other", ["x"]))
        refused(errno.ENOENT, lambda: os.execv("/bin/listed", ["x"]))  # its interpreter is absent
        refused(errno.EACCES, lambda: write("/etc/passwd"))
        refused(errno.EACCES, lambda: write("/bin/new"))
        write("/data/new")
        assert read("/data/new") == b""
        os.rename("/data/new", "/data/moved")
        os.mkdir("/data/directory")
        write("/tmp/pid")  # it did not exist at the start
        assert read("/proc/self/comm")

    child(act)


def test_one_list_alone_restricts_its_own_kind_of_access(root: Path) -> None:
    (root / "bin").mkdir()
    for name in ("listed", "other"):
        (root / "bin" / name).write_text("#!/bin/none\n")
        (root / "bin" / name).chmod(0o755)

    def execute_alone() -> None:
        pivot(root)
        enter(rules("execute=/bin/listed", readonly=True))
        assert read("/etc/passwd") == b"inside"
        assert read("/bin/other")
        assert os.listdir("/etc")
        refused(errno.EACCES, lambda: os.execv("/bin/other", ["x"]))
        refused(errno.ENOENT, lambda: os.execv("/bin/listed", ["x"]))
        refused(errno.EACCES, lambda: write("/etc/passwd"))

    def read_alone() -> None:
        pivot(root)
        enter(rules("read=/bin/listed", readonly=True))
        refused(errno.EACCES, lambda: read("/etc/passwd"))
        refused(errno.EACCES, lambda: os.execv("/bin/other", ["x"]))  # the kernel reads it
        refused(errno.ENOENT, lambda: os.execv("/bin/listed", ["x"]))
        write("/data/new")

    child(execute_alone)
    child(read_alone)


def test_a_file_that_exists_is_written_alone(root: Path) -> None:
    (root / "tmp/pid").write_text("1")

    def act() -> None:
        pivot(root)
        enter(rules("write=/tmp/pid"))
        write("/tmp/pid")
        os.truncate("/tmp/pid", 0)
        refused(errno.EACCES, lambda: write("/tmp/other"))
        refused(errno.EACCES, lambda: os.unlink("/tmp/pid"))

    child(act)


def test_a_socket_that_exists_can_be_replaced(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(root / "tmp")
        try:
            made.bind("socket")
        finally:
            os.chdir(here)

    def act() -> None:
        pivot(root)
        enter(rules("write=/tmp/socket"))
        os.unlink("/tmp/socket")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("/tmp/socket")

    child(act)


def test_a_missing_path_opens_no_directory_that_it_should_not(root: Path) -> None:
    os.symlink("/etc", root / "tmp/link")

    def act() -> None:
        pivot(root)
        enter(rules("write=/missing/file", "write=/etc/passwd/x", "read=/nothing"))
        for path in ("/new", "/etc/new", "/tmp/new"):
            refused(errno.EACCES, lambda path=path: write(path))

    child(act)


def test_a_missing_path_behind_a_link_stays_in_the_root(root: Path) -> None:
    os.symlink(str(root.parent / "host"), root / "tmp/outside")

    def act() -> None:
        leaked = os.open(root.parent / "host", os.O_PATH | os.O_DIRECTORY)
        pivot(root)
        enter(rules("write=/tmp/outside/etc/new"))
        refused(errno.EACCES, lambda: write("etc/new", leaked))

    child(act)
