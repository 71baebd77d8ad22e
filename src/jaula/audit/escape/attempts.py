"""What a twin tries: attempts that must fail, each harmless where it does not.

Harmless means: where the kernel would let it through, the call has an argument that makes it fail
afterwards (a bad magic number, no such file), or its effect ends with the twin. Nothing is written
to a file of the kernel; it is opened for writing and closed. Pure.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence

import msgspec

from jaula.audit.escape.program import BEGIN, CALL, CALL32, Argument, Entry
from jaula.audit.escape.syscalls import AT_FDCWD, CALLS, FAMILIES, NODES, WRITES
from jaula.kernel import seccomp

REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
CLOSED = REFUSED | {errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}
SIGKILL, SIGSEGV, SIGALRM, SIGXFSZ, SIGSYS = 9, 11, 14, 25, 31
O_WRONLY = 1

ABIS: dict[str, tuple[str, int]] = {
    "x86_64": ("SCMP_ARCH_X86_64", CALL),
    "i386": ("SCMP_ARCH_X86", CALL32),
    "x32": ("SCMP_ARCH_X32", CALL),
}
"""Name of the table of numbers, and how the call is made."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one child process; they are refused where one failed with an errno that is ``fine``.

    ``decides``: the index of the call that must fail (-1: the last). ``empty``: it may also
    succeed, if what it gives is at most so much. ``waits``: errnos of earlier calls after which the
    next one is asked. ``signals`` that may end the child instead. ``relaxed`` names the flag that
    asked for it to work. ``group`` is the row it is told in.
    """

    group: str
    name: str
    steps: tuple[Entry, ...]
    refusals: frozenset[int] = REFUSED
    signals: frozenset[int] = frozenset({SIGSYS})
    deciding: int = -1
    max_value: int | None = None
    continue_on: frozenset[int] = frozenset()
    relaxed_by: str | None = None


def call(name: str, *arguments: Argument, abi: str = "x86_64") -> Entry:
    """One system call by name; ``KeyError`` where the ABI has none of that name."""
    table, operation = ABIS[abi]
    number = seccomp.resolve(name, table)
    if number is None:
        raise KeyError(name)
    return Entry(operation, number, arguments)


def path_bytes(path: str) -> bytes:
    """A path as the kernel wants it."""
    return path.encode("utf-8", "surrogateescape") + b"\0"


NO_FAMILY = REFUSED | {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}


def calls(relaxed_by: str | None) -> list[Attempt]:
    """Every call on every ABI that has it."""
    found = []
    for abi in ABIS:
        for name, arguments in CALLS:
            if seccomp.resolve(name, ABIS[abi][0]) is None:
                continue
            found.append(
                Attempt(
                    group=f"calls {abi}",
                    name=name + ("(user)" if arguments == (0x10000000,) else ""),
                    steps=(call(name, *arguments, abi=abi),),
                    signals=frozenset({SIGSYS, SIGSEGV}) if abi == "i386" else frozenset({SIGSYS}),
                    relaxed_by=relaxed_by,
                )
            )
    return found


def families(relaxed_by: str | None) -> list[Attempt]:
    """Sockets of families that few hosts use, on every ABI, ``socketcall`` of i386 included."""
    found = []
    for abi in ABIS:
        signals = frozenset({SIGSYS, SIGSEGV}) if abi == "i386" else frozenset({SIGSYS})
        for family, name, kind, protocol in FAMILIES:
            steps = [("", call("socket", family, kind, protocol, abi=abi))]
            if abi == "i386":
                packed = struct.pack("<III", family, kind, protocol)
                steps.append((" by socketcall", call("socketcall", 1, packed, abi=abi)))
            found += [
                Attempt(group=f"sockets {abi}", name=name + how, steps=(step,), refusals=NO_FAMILY,
                        signals=signals, relaxed_by=relaxed_by)
                for how, step in steps
            ]  # fmt: skip
    return found


def terminals(relaxed_by: str | None) -> list[Attempt]:
    """Typing into a terminal, also with the upper half of the request set (CVE-2019-10063)."""
    requests = ((0x5412, "TIOCSTI"), (0x541C, "TIOCLINUX"), (1 << 32 | 0x5412, "TIOCSTI, 33 bits"))
    found = []
    for abi in ("x86_64", "i386"):
        for request, name in requests:
            step = call("ioctl", 0, request, b"x", abi=abi)
            found.append(
                Attempt(
                    group="terminal",
                    name=f"{name} {abi}",
                    steps=(step,),
                    signals=frozenset({SIGSYS, SIGSEGV}),
                    relaxed_by=relaxed_by,
                )
            )
    return found


def capabilities(relaxed_by: str | None) -> list[Attempt]:
    """Taking every capability."""
    header = struct.pack("<II", 0x20080522, 0)
    everything = struct.pack("<6I", *[0xFFFFFFFF] * 2, 0, *[0x1FF] * 2, 0)
    return [
        Attempt(group="capabilities", name=f"capset of all, {abi}", relaxed_by=relaxed_by,
                steps=(call("capset", header, everything, abi=abi),),
                signals=frozenset({SIGSYS, SIGSEGV}))
        for abi in ("x86_64", "i386")
    ]  # fmt: skip


def masked_reads(paths: Iterable[str]) -> list[Attempt]:
    """Reading what is masked: refused, absent, or nothing in it."""
    found = []
    for path in paths:
        opened = call("open", path_bytes(path), 0)
        refusals = CLOSED | {errno.EISDIR}
        found.append(Attempt(group="masked paths", name=f"{path} read", refusals=refusals,
                             steps=(opened, call("read", 3, bytes(16), 16)), max_value=0))  # fmt: skip
        found.append(Attempt(group="masked paths", name=f"{path} listed", max_value=48,
                             refusals=CLOSED,
                             steps=(opened, call("getdents64", 3, bytes(4096), 4096))))  # fmt: skip
    return found


def writes(paths: Iterable[str], relaxed_by: str | None) -> list[Attempt]:
    """Writing to files of the kernel: opened, not written; directories are asked for access."""
    found = [
        Attempt(group="kernel files", name=path, refusals=CLOSED, relaxed_by=relaxed_by,
                steps=(call("open", path_bytes(path), O_WRONLY),))
        for path in WRITES
    ]  # fmt: skip
    found += [
        Attempt(group="read-only paths", name=path, refusals=CLOSED,
                steps=(call("access", path_bytes(path), 2),))
        for path in paths
    ]  # fmt: skip
    return found


def devices(relaxed_by: str | None) -> list[Attempt]:
    """Making a device node and opening it; nothing is read."""
    found = []
    for mode, major, minor, name in NODES:
        place = path_bytes(f"/jaula-probe-{name}")
        number = major << 8 | minor
        steps = (
            call("mknodat", AT_FDCWD, place, mode, number),
            call("open", place, 0),
            call("unlink", place),
        )
        found.append(Attempt(group="devices", name=f"{name} {major}:{minor}", steps=steps,
                             refusals=CLOSED | {errno.EEXIST}, deciding=1, relaxed_by=relaxed_by))  # fmt: skip
    return found


def host_objects(
    canary: str, pid: int, shared: int, *, pids: str | None, ipc: str | None
) -> list[Attempt]:
    """A file, a process and a shared memory segment of the host."""
    return [
        Attempt(group="others", name="a file of the host", refusals=CLOSED,
                steps=(call("open", path_bytes(canary), 0),)),
        Attempt(group="others", name="a file by way of process 1", refusals=CLOSED,
                steps=(call("open", path_bytes(f"/proc/1/root{canary}"), 0),)),
        Attempt(group="others", name="a process of the host", refusals=frozenset({errno.ESRCH}),
                steps=(call("kill", pid, 0),), relaxed_by=pids),
        Attempt(group="others", name="shared memory of the host", refusals=CLOSED,
                steps=(call("shmget", shared, 0, 0),), relaxed_by=ipc),
    ]  # fmt: skip


def table(attempts: Sequence[Attempt]) -> list[Entry]:
    """The program's entries: a fork before each attempt."""
    return [entry for attempt in attempts for entry in (Entry(BEGIN), *attempt.steps)]
