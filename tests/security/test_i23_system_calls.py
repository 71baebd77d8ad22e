"""I23: a table of system call x socket family x ABI gives the expected errno, x32 included.

Each row is tried in a default container and in one without the protection, where the result must
differ: a row that cannot fail proves nothing.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Mapping

import pytest

from harness import escape_program
from harness.engine import PrivateEngine
from jaula.features.verify.escape import attempts
from jaula.features.verify.escape.attempts import call
from jaula.features.verify.escape.program import Answer, Entry
from jaula.kernel import seccomp
from jaula.security.seccomp.default_profile import FAMILIES as ALLOWED

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the i386 and x32 ABIs are of x86"
)
BARE = ("--privileged", "--userns", "host")
ABIS = ("x86_64", "i386", "x32")
ALLOWED_FAMILIES = {number for number, _, _ in ALLOWED}
HIGHEST_FAMILY = 46  # AF_MCTP is 45; above it the kernel knows none
NO_I386 = -10011  # ended by SIGSEGV: a kernel without the i386 ABI
SOCK_RAW_FAMILIES = {17: 3}

# Calls of i386 that no C library makes, with arguments that neither wait nor change anything.
OBSOLETE: dict[str, tuple[int, ...]] = {
    "oldstat": (0, 0),
    "oldlstat": (0, 0),
    "oldfstat": (99, 0),
    "olduname": (0,),
    "oldolduname": (0,),
    "readdir": (99, 0, 1),
    "nice": (0,),
    "sigaction": (99, 0, 0),
    "sigpending": (0,),
    "sgetmask": (),
    "ssetmask": (0,),
}

CVES = {
    "AF_ALG": "CVE-2026-31431",
    "AF_PACKET": "CVE-2020-14386",
    "unshare(user)": "CVE-2022-0185",
    "fsopen": "CVE-2022-0185",
    "open_by_handle_at": "CVE-2014-3519",
    "keyctl": "CVE-2016-0728",
    "userfaultfd": "CVE-2016-5195",
    "bpf": "CVE-2020-8835",
    "io_uring_setup": "CVE-2022-29582",
    "TIOCSTI": "CVE-2017-5226",
    "33 bits": "CVE-2019-10063",
}

Row = tuple[tuple[Entry, ...], int]
"""Calls, and the errno that the last one must give (0: none of the filter's)."""


def refused_calls() -> dict[str, Row]:
    """Return the refused system calls, on every ABI that has them."""
    rows: dict[str, Row] = {}
    for abi in ABIS:
        for name, arguments in attempts.CALLS:
            if seccomp.resolve(name, attempts.ABIS[abi][0]) is None:
                continue
            expected = errno.ENOSYS if abi == "x32" or name == "clone3" else errno.EPERM
            what = f"{name}(user)" if arguments == (0x10000000,) else name
            rows[f"{abi} {what}"] = ((call(name, *arguments, abi=abi),), expected)
    return rows


def families() -> dict[str, Row]:
    """Return every family by ``socket``, and on i386 by ``socketcall`` too."""
    names = {number: name for number, name, *_ in attempts.FAMILIES}
    rows: dict[str, Row] = {}
    for abi in ABIS:
        for family in range(HIGHEST_FAMILY):
            kind, expected = 2, errno.EPERM
            if family in ALLOWED_FAMILIES:
                kind, expected = SOCK_RAW_FAMILIES.get(family, 2), 0
            if abi == "x32":
                expected = errno.ENOSYS
            what = names.get(family, f"family {family}")
            rows[f"{abi} socket {what}"] = ((call("socket", family, kind, 0, abi=abi),), expected)
        pair = errno.ENOSYS if abi == "x32" else errno.EPERM
        rows[f"{abi} socketpair AF_INET"] = (
            (call("socketpair", 2, 1, 0, bytes(8), abi=abi),), pair,
        )  # fmt: skip
        # upper bits of the argument that the kernel does not look at
        if abi == "x86_64":
            rows["x86_64 socket AF_ALG, 33 bits"] = (
                (call("socket", 1 << 32 | 38, 5, 0),), errno.EPERM,
            )  # fmt: skip
    for family in (1, 2, 38, 40):
        packed = struct.pack("<III", family, 1, 0)
        for operation, what in ((1, "socket"), (8, "socketpair")):
            rows[f"i386 socketcall {what} {family}"] = (
                (call("socketcall", operation, packed, abi="i386"),), errno.EPERM,
            )  # fmt: skip
    return rows


def requests() -> dict[str, Row]:
    """Return the requests that push input into the terminal."""
    return {
        f"{abi} ioctl {name}": ((call("ioctl", 0, number, b"x", abi=abi),), errno.EPERM)
        for abi in ("x86_64", "i386")
        for number, name in (
            (0x5412, "TIOCSTI"),
            (0x541C, "TIOCLINUX"),
            (1 << 32 | 0x5412, "TIOCSTI, 33 bits"),
        )
    }


def others() -> dict[str, Row]:
    """Return unassigned numbers, and calls that must still work."""
    clone = 0x7E020000
    obsolete = {
        f"i386 {name}": ((call(name, *arguments, abi="i386"),), errno.EPERM)
        for name, arguments in OBSOLETE.items()
    }
    protocol = {
        f"{abi} socket NETLINK_AUDIT": (
            (call("socket", 16, 3, 9, abi=abi),),
            errno.ENOSYS if abi == "x32" else errno.EAFNOSUPPORT,
        )
        for abi in ABIS
    }
    rows: dict[str, Row] = {
        "x86_64 number 1000": ((Entry(1, 1000),), errno.ENOSYS),
        "i386 number 1000": ((Entry(2, 1000),), errno.ENOSYS),
        "x86_64 personality ADDR_NO_RANDOMIZE": ((call("personality", 0x40000),), errno.EPERM),
        "x86_64 getpid": ((call("getpid"),), 0),
        "i386 getpid": ((call("getpid", abi="i386"),), 0),
        "x32 getpid": ((call("getpid", abi="x32"),), errno.ENOSYS),
        "x86_64 personality asked": ((call("personality", 0xFFFFFFFF),), 0),
        "x86_64 process_madvise": ((call("process_madvise", 99, 0, 0, 0, 0),), errno.EPERM),
        "i386 process_madvise": (
            (call("process_madvise", 99, 0, 0, 0, 0, abi="i386"),), errno.EPERM,
        ),
        "x86_64 socket NETLINK_AUDIT, 33 bits": (
            (call("socket", 16, 3, 1 << 32 | 9),), errno.EAFNOSUPPORT,
        ),
        "x86_64 socket NETLINK_ROUTE": ((call("socket", 16, 3, 0),), 0),
        **obsolete,
        **protocol,
    }  # fmt: skip
    for bit in range(32):
        if clone >> bit & 1:
            flags = 1 << bit | 17
            rows[f"x86_64 clone {flags:#x}"] = ((call("clone", flags, 0, 0, 0, 0),), errno.EPERM)
            rows[f"i386 clone {flags:#x}"] = (
                (call("clone", flags, 0, 0, 0, 0, abi="i386"),), errno.EPERM,
            )  # fmt: skip
    return rows


TABLE: dict[str, Row] = {**refused_calls(), **families(), **requests(), **others()}
Found = Mapping[str, tuple[Answer, tuple[Answer, ...]]]


def named(row: str) -> str:
    """Return the row with its CVE as a pytest parameter."""
    return next((f"{row} {cve}" for word, cve in CVES.items() if row.endswith(word)), row)


@pytest.fixture(scope="module")
def default(engine: PrivateEngine, busybox: str) -> Found:
    calls = {name: steps for name, (steps, _) in TABLE.items()}
    return escape_program.answers(engine, busybox, calls, ())


@pytest.fixture(scope="module")
def bare(engine: PrivateEngine, busybox: str) -> Found:
    """Run the same without a filter, with every capability of the host's root."""
    calls = {name: steps for name, (steps, _) in TABLE.items()}
    return escape_program.answers(engine, busybox, calls, BARE)


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_a_call_has_the_result_of_the_table(default: Found, row: str) -> None:
    _, expected = TABLE[row]
    value = escape_program.last(default[row])
    if row.startswith("i386") and value == NO_I386:
        pytest.skip("a kernel without the i386 ABI")
    if expected:
        assert value == -expected, f"{row}: {_text(value)}, {os.strerror(expected)} is due"
    else:
        assert value not in (-errno.EPERM, -errno.EACCES, -errno.ENOSYS), f"{row}: {_text(value)}"


@pytest.mark.parametrize("row", [row for row, (_, errno_) in TABLE.items() if errno_], ids=named)
def test_the_row_fails_without_the_protection(bare: Found, row: str) -> None:
    """If the kernel has no such call, it returns ENOSYS, not the filter's EPERM."""
    _, expected = TABLE[row]
    value = escape_program.last(bare[row])
    if value == -errno.ENOSYS and expected == errno.ENOSYS:
        assert row.startswith("x32") or "number" in row, f"{row}: the kernel lacks it"
        pytest.skip("this kernel has no such call, so nothing can be taken away")
    assert value != -expected, f"{row}: refused by something else than the filter"


def test_the_families_are_a_range() -> None:
    """Two rules with ``!=`` would be alternatives and refuse nothing: the filter has none."""
    from jaula.security.capability_sets import resolve
    from jaula.security.seccomp.seccomp_filter import default_profile

    for rule in default_profile(resolve()).syscalls:
        if set(rule.names) & {"socket", "socketpair", "socketcall"}:
            assert all(arg.op != "SCMP_CMP_NE" for arg in rule.args), rule


def _text(value: int) -> str:
    if value < -10000:
        return f"ended by signal {-10000 - value}"
    return os.strerror(-value) if value < 0 else f"it worked ({value})"
