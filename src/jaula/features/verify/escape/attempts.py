"""Escape attempts of the twin: calls that must fail, each harmless if it does not. Pure.

Harmless means that a call which the kernel allows has an argument that makes it fail later (a bad
magic number, no such file), or that its effect ends with the twin. Kernel files are opened for
writing and closed, never written.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence

import msgspec

from jaula.features.verify.escape.program import BEGIN, CALL, CALL32, Argument, Entry
from jaula.features.verify.escape.syscalls import AT_FDCWD, CALLS, FAMILIES, NODES, WRITES
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
"""Architecture for the call numbers, and the operation that makes the call."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one child process; refused if one fails with an errno of ``refusals``.

    ``deciding`` is the index of the call that must fail (-1: the last). With ``max_value`` it may
    also succeed with a result from ``min_value`` to that value. ``continue_on`` are errnos of
    earlier calls after which the next call is made. ``signals`` may end the child instead. A child
    that ends with the status ``exit_code`` has executed a program. ``relaxed_by`` names the flag
    that allows the attempt. ``group`` is the report's row.
    """

    group: str
    name: str
    steps: tuple[Entry, ...]
    refusals: frozenset[int] = REFUSED
    signals: frozenset[int] = frozenset({SIGSYS})
    deciding: int = -1
    min_value: int = 0
    max_value: int | None = None
    exit_code: int | None = None
    continue_on: frozenset[int] = frozenset()
    relaxed_by: str | None = None


def call(name: str, *arguments: Argument, abi: str = "x86_64") -> Entry:
    """Return one system call by name.

    :raises KeyError: when the ABI does not have it.
    """
    table, operation = ABIS[abi]
    number = seccomp.resolve(name, table)
    if number is None:
        raise KeyError(name)
    return Entry(operation, number, arguments)


def path_bytes(path: str) -> bytes:
    """Encode a path for the kernel."""
    return path.encode("utf-8", "surrogateescape") + b"\0"


NO_FAMILY = REFUSED | {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}


def calls(relaxed_by: str | None) -> list[Attempt]:
    """Return attempts of every call on every ABI that has it."""
    attempts = []
    for abi in ABIS:
        for name, arguments in CALLS:
            if seccomp.resolve(name, ABIS[abi][0]) is None:
                continue
            attempts.append(
                Attempt(
                    group=f"calls {abi}",
                    name=name + ("(user)" if arguments == (0x10000000,) else ""),
                    steps=(call(name, *arguments, abi=abi),),
                    signals=frozenset({SIGSYS, SIGSEGV}) if abi == "i386" else frozenset({SIGSYS}),
                    relaxed_by=relaxed_by,
                )
            )
    return attempts


def families(relaxed_by: str | None) -> list[Attempt]:
    """Return attempts of rare socket families on every ABI, including ``socketcall`` of i386."""
    attempts = []
    for abi in ABIS:
        signals = frozenset({SIGSYS, SIGSEGV}) if abi == "i386" else frozenset({SIGSYS})
        for family, name, kind, protocol in FAMILIES:
            steps = [("", call("socket", family, kind, protocol, abi=abi))]
            if abi == "i386":
                packed = struct.pack("<III", family, kind, protocol)
                steps.append((" by socketcall", call("socketcall", 1, packed, abi=abi)))
            attempts += [
                Attempt(group=f"sockets {abi}", name=name + how, steps=(step,), refusals=NO_FAMILY,
                        signals=signals, relaxed_by=relaxed_by)
                for how, step in steps
            ]  # fmt: skip
    return attempts


def terminals(relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to insert terminal input, also with high request bits.

    CVE-2019-10063 is about the high bits.
    """
    requests = ((0x5412, "TIOCSTI"), (0x541C, "TIOCLINUX"), (1 << 32 | 0x5412, "TIOCSTI, 33 bits"))
    attempts = []
    for abi in ("x86_64", "i386"):
        for request, name in requests:
            step = call("ioctl", 0, request, b"x", abi=abi)
            attempts.append(
                Attempt(
                    group="terminal",
                    name=f"{name} {abi}",
                    steps=(step,),
                    signals=frozenset({SIGSYS, SIGSEGV}),
                    relaxed_by=relaxed_by,
                )
            )
    return attempts


def capabilities(relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to set every capability."""
    header = struct.pack("<II", 0x20080522, 0)
    everything = struct.pack("<6I", *[0xFFFFFFFF] * 2, 0, *[0x1FF] * 2, 0)
    return [
        Attempt(group="capabilities", name=f"capset of all, {abi}", relaxed_by=relaxed_by,
                steps=(call("capset", header, everything, abi=abi),),
                signals=frozenset({SIGSYS, SIGSEGV}))
        for abi in ("x86_64", "i386")
    ]  # fmt: skip


def masked_reads(paths: Iterable[str]) -> list[Attempt]:
    """Return attempts to read masked paths: refused, absent, or empty."""
    attempts = []
    for path in paths:
        opened = call("open", path_bytes(path), 0)
        refusals = CLOSED | {errno.EISDIR}
        attempts.append(Attempt(group="masked paths", name=f"{path} read", refusals=refusals,
                             steps=(opened, call("read", 3, bytes(16), 16)),
                             max_value=0))  # fmt: skip
        attempts.append(Attempt(group="masked paths", name=f"{path} listed", max_value=48,
                             refusals=CLOSED,
                             steps=(opened, call("getdents64", 3, bytes(4096), 4096))))  # fmt: skip
    return attempts


def writes(paths: Iterable[str], relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to open kernel files for writing, and to access directories for writing."""
    attempts = [
        Attempt(group="kernel files", name=path, refusals=CLOSED, relaxed_by=relaxed_by,
                steps=(call("open", path_bytes(path), O_WRONLY),))
        for path in WRITES
    ]  # fmt: skip
    attempts += [
        Attempt(group="read-only paths", name=path, refusals=CLOSED,
                steps=(call("access", path_bytes(path), 2),))
        for path in paths
    ]  # fmt: skip
    return attempts


def devices(relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to create and open a device node; nothing is read."""
    attempts = []
    for mode, major, minor, name in NODES:
        path = path_bytes(f"/jaula-probe-{name}")
        number = major << 8 | minor
        steps = (
            call("mknodat", AT_FDCWD, path, mode, number),
            call("open", path, 0),
            call("unlink", path),
        )
        attempts.append(Attempt(group="devices", name=f"{name} {major}:{minor}", steps=steps,
                             refusals=CLOSED | {errno.EEXIST}, deciding=1,
                             relaxed_by=relaxed_by))  # fmt: skip
    return attempts


def host_objects(
    canary: str, pid: int, shared: int, *, pids: str | None, ipc: str | None
) -> list[Attempt]:
    """Return attempts to reach a file, a process and a shared memory segment of the host."""
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
    """Return the program's entries: a fork before each attempt."""
    return [entry for attempt in attempts for entry in (Entry(BEGIN), *attempt.steps)]
