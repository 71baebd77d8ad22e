"""Attempts of a profile on the layers behind its filter: execution, network, devices, mounts.

They are made by a second twin, whose filter also has the calls of these attempts. So each of these
layers refuses by itself. Its volumes and directories of the host are new, empty directories: what
the container may write is written there, and no data is touched.

Facts about execution: Landlock and ``noexec`` are checked when a file is opened by execve(2).
``AT_EXECVE_CHECK`` (Linux 6.14) makes the same check without running the program. Landlock has no
right for code that is mapped, as dynamic loaders do, and none for files in memory (memfd_create).
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec
from msgspec.structs import replace

from jaula.features.verify.checks import egress as egress_rules
from jaula.features.verify.checks import listen as listen_rules
from jaula.features.verify.checks.cgroups import CgroupDirs
from jaula.features.verify.escape.attempts import CLOSED, O_WRONLY, Attempt, call, path_bytes
from jaula.features.verify.escape.check_info import INFO
from jaula.features.verify.escape.limits import Limits, limit_attempts
from jaula.features.verify.escape.network import (
    AF_INET,
    AF_INET6,
    POLL_TIMEOUT,
    POLLOUT,
    SILENT,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    inet6_address,
    inet_address,
)
from jaula.features.verify.escape.program import CALL, SYSTEM_CALLS, Entry
from jaula.features.verify.escape.syscalls import AT_FDCWD
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.kernel import seccomp
from jaula.kernel.libc import function
from jaula.kernel.openat2 import open_in_root
from jaula.spec import egress, listen
from jaula.spec.confinement_profile import Profile

GROUP = "profile"
RAN = 42  # exit status of PAYLOAD
PAYLOAD = bytes.fromhex(
    "7f454c4602010100000000000000000002003e000100000078004000000000004000000000000000"
    "00000000000000000000000040003800010000000000000001000000050000000000000000000000"
    "00004000000000000000400000000000840000000000000084000000000000000010000000000000"
    "bf2a000000b8e70000000f05"
)
"""A static x86_64 program that ends with the status RAN: a header, one segment, exit_group(2)."""

MAX_MEMORY = 1 << 30  # bytes; a larger limit is judged by the cgroup's file only
MAX_PROGRAMS = 512
_O_CREATE = O_WRONLY | 0o100 | 0o1000  # O_CREAT, O_TRUNC
_O_EXCLUSIVE = O_WRONLY | 0o100 | 0o200
_O_NONBLOCK = 0o4000
_AT_EMPTY_PATH, AT_EXECVE_CHECK = 0x1000, 0x10000
_PR_GET_NO_NEW_PRIVS = 39
_REFUSED_FILE = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_PROGRAM_DIRECTORIES = (
    "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/lib", "/lib64",
)  # fmt: skip
_ROOT_DIRECTORIES = ("/", "/dev/shm", "/etc", "/opt", "/tmp", "/usr/bin", "/var/tmp")
_NODES = (
    (0o020666, 1, 1, "mem"), (0o020666, 1, 4, "port"), (0o020666, 1, 11, "kmsg"),
    (0o060666, 7, 0, "loop0"), (0o060666, 8, 0, "sda"), (0o020666, 10, 200, "net/tun"),
    (0o020666, 10, 229, "fuse"), (0o020666, 10, 232, "kvm"), (0o020666, 10, 237, "loop-control"),
    (0o020666, 10, 236, "mapper/control"), (0o060666, 253, 0, "dm-0"), (0o060666, 254, 0, "vda"),
)  # fmt: skip
_NOT_OPENED = ("/dev/watchdog", "/dev/st", "/dev/nst")  # an open starts a timer or rewinds a tape
_DOCUMENTATION = "192.0.2.1"  # RFC 5737
_DOCUMENTATION6 = "2001:db8::1"  # RFC 3849
_PORT = 9  # discard
_PORTS = (23, 1080, 2222, 4444, 8081, 31337, 50000, 65535)  # of shells and proxies

_ANSWERED = (SILENT | {errno.ECONNREFUSED, errno.ECONNRESET}) - {errno.EALREADY}
"""Errors of a connection that the rules reject. A packet without an answer was not rejected."""

Identity = Callable[[str], "Program | None"]


class Program(msgspec.Struct, frozen=True):
    """A file of the container: its path without symbolic links, and its inode."""

    path: str
    inode: tuple[int, int]


class Sink(msgspec.Struct, frozen=True, kw_only=True):
    """Sockets of the host on the address of the container's bridge.

    ``refused`` is a TCP port that accepts connections and ``datagrams`` a UDP port; neither is in
    the list of the twin. ``listed`` is a TCP port that the list of the twin has.
    """

    address: str
    refused: int
    datagrams: int
    listed: int

    @property
    def item(self) -> str:
        """The item of the list of the twin."""
        return f"tcp:{self.address}:{self.listed}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about container and host that the attempts depend on.

    ``programs`` are the executable files that the container has in the usual directories, and
    ``identity`` finds one by its path. ``mounts`` are the destinations of its volumes and
    directories of the host. ``shared_network`` is the flag that joins the network of the host or
    of another container.
    ``checks_execution``: this kernel has AT_EXECVE_CHECK. ``checks_bind``: its Landlock has rules
    for bind(2) (Linux 6.7).
    """

    programs: tuple[Program, ...] = ()
    identity: Identity = lambda path: None
    mounts: tuple[str, ...] = ()
    sink: Sink | None = None
    shared_network: str | None = None
    checks_execution: bool = True
    checks_bind: bool = True


def refused(profile: Profile, facts: Facts) -> list[Attempt]:
    """Return the attempts that the layers must stop."""
    return [
        *_copies(profile, facts),
        *_programs(profile, facts),
        *_connections(profile, facts),
        *_binds(profile, facts),
        *_devices(profile),
        *limits(profile),
        *_mounts(profile, facts),
        *_privileges(profile),
    ]


def permitted(profile: Profile, facts: Facts) -> list[Attempt]:
    """Return the attempts that the layers must not stop."""
    return [
        *_listed_programs(profile, facts),
        *_listed_devices(profile),
        *_listed_mounts(profile, facts),
        *_listed_connections(facts),
        *_listed_binds(profile, facts),
    ]


def calls(attempts: Iterable[Attempt]) -> tuple[str, ...]:
    """Return the x86-64 calls of attempts and of the program, for the second twin's filter."""
    numbers = {
        step.number for attempt in attempts for step in attempt.steps if step.operation == CALL
    }
    names = {seccomp.name_of(number, "SCMP_ARCH_X86_64") for number in numbers}
    return tuple(sorted({*SYSTEM_CALLS, *(name for name in names if name)}))


# -- execution -------------------------------------------------------------------------------------


def _places(profile: Profile) -> list[str]:
    """Return directories of each kind: the root, tmpfs, volumes, and what may be written."""
    files = profile.files
    written = (path.rstrip("/") for path in files.write if path.endswith("/"))
    return list(dict.fromkeys([*_ROOT_DIRECTORIES, *files.tmpfs, *files.volumes, *written]))


def _copies(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield attempts to make a program in each place, and to execute or map it."""
    files = profile.files
    if not files.execute:
        return
    group = f"{GROUP}: execution outside of it"
    for directory in _places(profile):
        if any(_includes(each, directory) for each in files.execute if each.endswith("/")):
            continue
        program = path_bytes(posixpath.join(directory, ".jaula-probe-program"))
        script = path_bytes(posixpath.join(directory, ".jaula-probe-script"))
        text = b"#!" + program[:-1] + b"\n"
        made = _file(program, PAYLOAD)
        yield Attempt(
            group=group, name=f"a program in {directory}", refusals=CLOSED, exit_code=RAN,
            steps=(*made, call("execve", program, 0, 0)),
        )  # fmt: skip
        yield Attempt(
            group=group, name=f"a script in {directory}", refusals=CLOSED, exit_code=RAN,
            steps=(*made, *_file(script, text), call("execve", script, 0, 0)),
        )  # fmt: skip
        yield Attempt(
            group=f"{GROUP}: code mapped outside of it", name=directory, refusals=CLOSED,
            relaxed_by="Landlock has no right for code that is mapped; noexec has",
            steps=(*made, call("open", program, 0), call("mmap", 0, 4096, 5, 2, 3, 0)),
        )  # fmt: skip


def memory_programs(profile: Profile) -> Iterator[Attempt]:
    """Yield attempts to execute a file in memory; the filter of the profile decides."""
    if not profile.files.execute:
        return
    listed = set(profile.seccomp.syscalls.get("x86_64", ()))
    make = (call("memfd_create", b"jaula-probe\0", 0), call("write", 3, PAYLOAD, len(PAYLOAD)))
    for name, step in (
        ("execveat", call("execveat", 3, b"\0", 0, 0, _AT_EMPTY_PATH)),
        ("execve", call("execve", b"/proc/self/fd/3\0", 0, 0)),
    ):
        both = not listed or {"memfd_create", name} <= listed
        yield Attempt(
            group=f"{GROUP}: execution in memory", name=name, refusals=CLOSED, exit_code=RAN,
            steps=(*make, step),
            relaxed_by=f"memfd_create and {name} may be called" if both else None,
        )  # fmt: skip


def _file(path: bytes, content: bytes) -> tuple[Entry, ...]:
    return (
        call("open", path, _O_CREATE, 0o755),
        call("write", 3, content, len(content)),
        call("close", 3),
    )


def _check(path: str) -> Entry:
    return call("execveat", AT_FDCWD, path_bytes(path), 0, 0, AT_EXECVE_CHECK)


def _programs(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield a check of each executable file that the container has and the profile lacks."""
    listed = profile.files.execute
    if not listed or not facts.checks_execution:
        return
    known = [each for each in map(facts.identity, listed) if each is not None]
    inodes = {each.inode for each in known}
    items = [*listed, *(each.path for each in known)]
    for program in facts.programs:
        if any(_includes(each, program.path) for each in items):
            continue
        same = program.inode in inodes  # overlayfs may give each link of a layer its own inode
        yield Attempt(
            group=f"{GROUP}: programs not in it", name=program.path, refusals=CLOSED,
            steps=(_check(program.path),),
            relaxed_by="a hard link of a listed program" if same else None,
        )  # fmt: skip


def _listed_programs(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    for path in profile.files.execute:
        if facts.checks_execution and not path.endswith("/"):
            yield Attempt(
                group=f"{GROUP}: programs in it", name=path, refusals=_REFUSED_FILE,
                steps=(_check(path),),
            )  # fmt: skip


def execution_check() -> bool:
    """Return whether this kernel has AT_EXECVE_CHECK."""
    syscall = function(
        "syscall", ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p,
        ctypes.c_void_p, ctypes.c_int,
    )  # fmt: skip
    number = seccomp.resolve("execveat", "SCMP_ARCH_X86_64")
    try:
        syscall(number, AT_FDCWD, b"/proc/self/exe", None, None, AT_EXECVE_CHECK)
    except OSError:
        return False
    return True


def programs_of(pid: int) -> tuple[Program, ...]:
    """Return the executable files of a process's root in the usual directories."""
    identity = identity_of(pid)
    found: dict[str, Program] = {}
    for directory in _PROGRAM_DIRECTORIES:
        try:
            with _root(pid) as root:
                opened = open_in_root(root.descriptor, directory, os.O_DIRECTORY)
            try:
                names = sorted(os.listdir(opened))
            finally:
                os.close(opened)
        except OSError:
            continue  # absent
        for name in names:
            if directory.startswith("/lib") and not name.startswith("ld-"):
                continue
            program = identity(f"{directory}/{name}")
            if program is not None:
                found[program.path] = program
    return tuple(found[path] for path in sorted(found)[:MAX_PROGRAMS])


def identity_of(pid: int) -> Identity:
    """Return a function for the executable file at a path of a process's root."""

    def identity(path: str) -> Program | None:
        try:
            with _root(pid) as root:
                opened = open_in_root(root.descriptor, path, os.O_PATH)
        except OSError:
            return None
        try:
            state = os.fstat(opened)
            name = os.readlink(f"/proc/self/fd/{opened}")
        finally:
            os.close(opened)
        if not stat.S_ISREG(state.st_mode) or not state.st_mode & 0o111:
            return None
        return Program(name, (state.st_dev, state.st_ino))

    return identity


class _root:
    """The root directory of a process, as a descriptor."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> _root:
        self.descriptor = os.open(f"/proc/{self._pid}/root", os.O_PATH | os.O_DIRECTORY)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)


# -- network ---------------------------------------------------------------------------------------


def _connections(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield connections to what the list lacks: documentation addresses, and the host's sockets.

    No service of another host is reached, whatever the rules are.
    """
    items = profile.network.egress
    if items is None and profile.network.mode != "none":
        return
    destinations = egress.parse(items or ())
    targets = [(protocol, address, _PORT) for address in (_DOCUMENTATION, _DOCUMENTATION6)
               for protocol in ("tcp", "udp")]  # fmt: skip
    if facts.sink is not None:
        targets += [
            ("tcp", facts.sink.address, facts.sink.refused),
            ("udp", facts.sink.address, facts.sink.datagrams),
        ]
    for protocol, address, port in targets:
        if not any(
            each.protocol == protocol and each.network is not None
            and ip_address(address) in each.network and each.first <= port <= each.last
            for each in destinations
        ):  # fmt: skip
            host = f"[{address}]" if ":" in address else address
            yield replace(
                _connection(protocol, address, port),
                group=f"{GROUP}: connections not in it", name=f"{protocol}:{host}:{port}",
                relaxed_by=facts.shared_network,
            )  # fmt: skip


def _connection(protocol: str, address: str, port: int) -> Attempt:
    """Return a connection, which for UDP sends one byte and waits for an ICMP error."""
    packed = ip_address(address).packed
    family = AF_INET if len(packed) == 4 else AF_INET6
    sockaddr = inet_address(packed, port) if family == AF_INET else inet6_address(packed, port)
    kind = SOCK_STREAM if protocol == "tcp" else SOCK_DGRAM
    steps = [
        call("socket", family, kind | SOCK_NONBLOCK, 0),
        call("connect", 3, sockaddr, len(sockaddr)),
    ]
    if protocol == "tcp":
        poll = call("poll", (3).to_bytes(4, "little") + POLLOUT.to_bytes(4, "little"), 1,
                    POLL_TIMEOUT)  # fmt: skip
        steps += [poll, call("connect", 3, sockaddr, len(sockaddr))]
    else:
        poll = call("poll", (3).to_bytes(4, "little") + (1).to_bytes(4, "little"), 1, POLL_TIMEOUT)
        steps += [
            call("sendto", 3, b"x", 1, 0, 0, 0), poll, call("recvfrom", 3, bytes(16), 1, 0, 0, 0),
        ]  # fmt: skip
    return Attempt(group="", name="", steps=tuple(steps), refusals=_ANSWERED,
                   continue_on=frozenset({errno.EINPROGRESS}))  # fmt: skip


def _listed_connections(facts: Facts) -> Iterator[Attempt]:
    """Yield a connection to a socket of the host, with which the list of the twin is extended."""
    if facts.sink is not None:
        made = _connection("tcp", facts.sink.address, facts.sink.listed)
        yield replace(
            made, group=f"{GROUP}: connections in its list", name=facts.sink.item,
            refusals=_ANSWERED | {errno.EALREADY},
        )  # fmt: skip


def _binds(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield binds of TCP ports that the list lacks. Those of UDP are refused by the firewall."""
    if profile.network.listen is None or not facts.checks_bind:
        return
    ports = listen.parse(profile.network.listen)
    for port in _PORTS:
        if not any(each.protocol == "tcp" and each.number == port for each in ports):
            for family, name in ((AF_INET, f"tcp:{port}"), (AF_INET6, f"tcp:{port} of IPv6")):
                yield replace(
                    _bind(family, port),
                    group=f"{GROUP}: ports not in it",
                    name=name,
                    refusals=frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT}),
                )


def _listed_binds(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield binds of the listed TCP ports, if no other container has the same network."""
    if not facts.checks_bind or facts.shared_network:
        return
    for port in listen.parse(profile.network.listen or ()):
        if port.protocol == "tcp":
            yield replace(
                _bind(AF_INET, port.number),
                group=f"{GROUP}: ports in it",
                name=str(port),
                refusals=frozenset({errno.EACCES, errno.EPERM}),
            )


def _bind(family: int, port: int) -> Attempt:
    """Return a bind of a port of all addresses; nothing listens there."""
    sockaddr = inet_address(bytes(4), port) if family == AF_INET else inet6_address(bytes(16), port)
    steps = (call("socket", family, SOCK_STREAM, 0), call("bind", 3, sockaddr, len(sockaddr)))
    return Attempt(group="", name="", steps=steps)


# -- devices ---------------------------------------------------------------------------------------


def _device_paths(profile: Profile) -> list[str]:
    """Return the paths of the listed devices in the container."""
    items = [text.split(":") for text in profile.devices]
    return [item[1] if len(item) > 1 and item[1] else item[0] for item in items]


def _devices(profile: Profile) -> Iterator[Attempt]:
    """Yield attempts to open device nodes, and to make them and open them."""
    group, listed = f"{GROUP}: devices not in it", _device_paths(profile)
    for mode, major, minor, name in _NODES:
        if f"/dev/{name}" in listed:
            continue
        made = path_bytes("/dev/jaula-probe-node")
        yield Attempt(
            group=group, name=f"/dev/{name}", refusals=CLOSED,
            steps=(call("open", path_bytes(f"/dev/{name}"), _O_NONBLOCK),),
        )  # fmt: skip
        yield Attempt(
            group=group, name=f"{name} {major}:{minor}", refusals=CLOSED | {errno.EEXIST},
            steps=(
                call("mknodat", AT_FDCWD, made, mode, major << 8 | minor),
                call("open", made, _O_NONBLOCK),
                call("unlink", made),
            ),
            deciding=1,
        )  # fmt: skip


def _listed_devices(profile: Profile) -> Iterator[Attempt]:
    for path in _device_paths(profile):
        if not path.startswith(_NOT_OPENED):
            yield Attempt(
                group=f"{GROUP}: devices in it", name=path,
                refusals=_REFUSED_FILE | {errno.ENOENT},
                steps=(call("open", path_bytes(path), _O_NONBLOCK),),
            )  # fmt: skip


# -- limits, mounts and privileges -----------------------------------------------------------------


def limits(profile: Profile) -> Iterator[Attempt]:
    """Yield attempts to exceed the limits, in the cgroup of the twin, and to raise them.

    That of CPUs is read from the cgroup: on a busy host a burst of use says little about it.
    """
    requested = profile.limits
    if not (requested.pids or requested.memory or requested.cpus):
        return
    bounds = Limits(
        pids=requested.pids or None,
        memory=requested.memory if 0 < requested.memory <= MAX_MEMORY else None,
    )
    for attempt in limit_attempts(bounds, oom=None, cgroup=None, raising=None):
        yield replace(attempt, group=f"{GROUP}: limits")


def _writable(profile: Profile) -> tuple[str, ...]:
    files = profile.files
    return (*files.write, *files.tmpfs, *files.volumes)


def _mounts(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    """Yield attempts to write to mounts of the container that the profile does not list."""
    for directory in facts.mounts:
        if not any(_includes(each, directory) for each in _writable(profile)):
            yield replace(_write(directory), group=f"{GROUP}: mounts not in it")


def _listed_mounts(profile: Profile, facts: Facts) -> Iterator[Attempt]:
    files = profile.files
    for directory in files.volumes:
        if files.write and not any(_includes(each, directory) for each in files.write):
            continue
        if directory in facts.mounts:
            yield replace(
                _write(directory), group=f"{GROUP}: volumes in it", refusals=_REFUSED_FILE
            )


def _write(directory: str) -> Attempt:
    path = path_bytes(posixpath.join(directory, ".jaula-probe-file"))
    steps = (call("open", path, _O_EXCLUSIVE, 0o600), call("unlink", path))
    return Attempt(group="", name=directory, steps=steps, refusals=CLOSED, deciding=0)


def _privileges(profile: Profile) -> Iterator[Attempt]:
    """Yield whether set-user-ID programs gain, and whether the user is another one."""
    group = f"{GROUP}: privileges"
    if profile.process.no_new_privileges:
        yield Attempt(
            group=group, name="gain by a set-user-ID program", min_value=1, max_value=1,
            steps=(call("prctl", _PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),),
        )  # fmt: skip
    user, _, own_group = profile.process.user.partition(":")
    for name, text in (("getuid", user), ("getgid", own_group)):
        if text.isascii() and text.isdigit():
            value = int(text)
            yield Attempt(
                group=group, name=f"{name} other than {value}", min_value=value, max_value=value,
                steps=(call(name),),
            )  # fmt: skip


def _includes(item: str, path: str) -> bool:
    """Return whether an item of a profile is a path or a directory above it."""
    base = item.rstrip("/")
    return path == base or f"{path}/".startswith(f"{base}/")


# -- state of the container ------------------------------------------------------------------------


def state_rows(profile: Profile, container: AuditedContainer) -> Iterator[Result]:
    """Yield rows that are read from the kernel: limits of the cgroup, rules of the egress list."""
    limits, groups = profile.limits, CgroupDirs(container)
    for name, requested, found in (
        ("pids", limits.pids, groups.read("pids", "pids.max", "pids.max")),
        ("memory", limits.memory, groups.read("memory", "memory.limit_in_bytes", "memory.max")),
        ("cpus", limits.cpus, _cpus(groups)),
    ):
        if not requested:
            continue
        actual = _limit(found[0]) if found else None
        yield Result(
            f"{GROUP}: limit of {name}", INFO.layer, f"at most {requested:g}"
            if name == "cpus" else f"at most {requested}",
            "no limit" if actual is None else f"{actual:g}" if name == "cpus" else f"{actual:.0f}",
            found[1] if found else "", verdict_of(actual is not None and actual <= requested, None),
            INFO.id,
        )  # fmt: skip
    network = profile.network
    for name, key, items, check in (
        ("connections", "Egress", network.egress, egress_rules.check),
        ("ports", "Listen", network.listen, listen_rules.check),
    ):
        if items is None:
            continue
        problems = []
        if container.text("NetworkMode") != "none":
            problems = [*_list_problems(items, container.host_config.get(key))]
            problems += [r.effective for r in check(container) if r.verdict is not Verdict.HOLDS]
        count = quantity(len(items), "item")
        yield Result(
            f"{GROUP}: rules of {name}", INFO.layer, count, "; ".join(problems) or count,
            "nft list ruleset", verdict_of(not problems, None), INFO.id,
        )  # fmt: skip


def _list_problems(listed: Sequence[str], loaded: Sequence[str] | None) -> Iterator[str]:
    """Yield the differences of the list of a container from that of the profile."""
    if loaded is None:
        yield "no list is loaded"
        return
    if more := sorted(set(loaded) - set(listed)):
        yield f"also allowed: {', '.join(more)}"
    if missing := sorted(set(listed) - set(loaded)):
        yield f"not allowed: {', '.join(missing)}"


def _limit(text: str) -> float | None:
    return None if text in ("max", "-1") or not text else float(text)


def _cpus(groups: CgroupDirs) -> tuple[str, str] | None:
    """Return the CPU quota in CPUs, '' for none, and its file."""
    found = groups.read("cpu", "cpu.cfs_quota_us", "cpu.max")
    if found is None:
        return None
    text, path = found
    if groups.legacy("cpu") is not None:
        period = groups.read("cpu", "cpu.cfs_period_us", "")
        text = f"{text} {period[0] if period else 100_000}"
    quota, _, base = text.partition(" ")
    return ("" if quota in ("max", "-1") else str(int(quota) / int(base or 100_000)), path)


# -- the request of the second twin ----------------------------------------------------------------


def mounts_of(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the destinations of volumes and of directories of the host."""
    found = []
    for mount in inspect.get("Mounts") or ():
        source = str(mount.get("Source") or "")
        volume = mount.get("Type") == "volume"
        if volume or (mount.get("Type") == "bind" and os.path.isdir(source)):
            found.append(str(mount["Destination"]))
    return tuple(sorted(found))


def with_directories(
    request: dict[str, Any], inspect: Mapping[str, Any], directories: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request of a twin with new directories of the host in place of its mounts.

    ``directories`` are their paths by destination. What was read-only stays so.
    """
    writable = {
        str(each["Destination"]): bool(each.get("RW")) for each in inspect.get("Mounts", ())
    }
    host = dict(request["HostConfig"])
    host["Binds"] = [
        bind for bind in host.get("Binds") or () if bind.split(":")[1] not in directories
    ] + [
        f"{source}:{target}:{'rw' if writable.get(target, True) else 'ro'}"
        for target, source in directories.items()
    ]
    host["Mounts"] = [m for m in host.get("Mounts") or () if m.get("Target") not in directories]
    host["VolumesFrom"] = []
    config = dict(request)
    volumes = {k: v for k, v in (config.get("Volumes") or {}).items() if k not in directories}
    config["Volumes"] = volumes
    return config | {"HostConfig": host}


def gateway(inspect: Mapping[str, Any]) -> str:
    """Return the host's IPv4 address on the first bridge of a container, '' if it has none."""
    networks: Sequence[Mapping[str, Any]] = tuple(
        (inspect.get("NetworkSettings", {}).get("Networks") or {}).values()
    )
    return next((str(each["Gateway"]) for each in networks if each.get("Gateway")), "")
