"""The seccomp filter of a container: the default profile, and BPF programs from specs.

Follows the OCI runtime specification (``config-linux.md``, Seccomp) for the document.
:mod:`jaula.security.seccomp.default_profile` lists the allowed calls.
:mod:`jaula.security.seccomp.compiler` generates the program.
:mod:`jaula.security.seccomp.docker_profile` parses Docker's profile files. The runtime loads the
program (:mod:`jaula.kernel.seccomp`).

Facts about 32-bit ABIs: on x86_64 every process can make i386 calls with ``int 0x80``, so the same
list filters i386. Its ``socketcall`` has the address family behind a pointer, which a filter cannot
read, so it would bypass the rule on families. Its two operations that create sockets are refused.
The others, which use existing sockets, are allowed. As a consequence 32-bit glibc programs, which
create sockets that way, have no network with the default profile. x32 is not listed, so it returns
ENOSYS, as on distributions that build the kernel without it: no current program uses it, and its
numbers doubled every hole (CVE-2014-0038).

Facts about clone3: its flags are behind a pointer too. Without CAP_SYS_ADMIN it returns ENOSYS. C
libraries then use clone, whose flags a filter can read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.kernel import seccomp as kernel
from jaula.kernel.seccomp import ARCHITECTURES, NATIVE
from jaula.security.seccomp.compiler import ArgCondition, SyscallRule, assemble
from jaula.security.seccomp.constants import ACTIONS, COMPARISONS, FLAGS
from jaula.security.seccomp.default_profile import (
    FAMILIES,
    GROUPS,
    NAMESPACE_FLAGS,
    NETLINK_AUDIT,
    PERSONALITIES,
    SOCKETCALL_MAKERS,
    TERMINAL_REQUESTS,
)
from jaula.sha256 import sha256
from jaula.spec.runtime_spec import Capabilities, Seccomp, Syscall, SyscallArg

_SECOND_ABI = {"SCMP_ARCH_X86_64": "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64": "SCMP_ARCH_ARM"}
_FORMAT = b"jaula-bpf-1\n"


def _allow(*names: str, args: tuple[SyscallArg, ...] = ()) -> Syscall:
    return Syscall(names, "SCMP_ACT_ALLOW", args=args)


def _refuse(*names: str, number: int, args: tuple[SyscallArg, ...] = ()) -> Syscall:
    return Syscall(names, "SCMP_ACT_ERRNO", errno_ret=number, args=args)


def default_profile(capabilities: Capabilities | Collection[str]) -> Seccomp:
    """Return the allow-list for a container with these capabilities (the bounding set decides)."""
    bounding = capabilities.bounding if isinstance(capabilities, Capabilities) else capabilities
    rules: list[Syscall] = []
    rules += (
        _allow(*group.calls)
        for group in GROUPS
        if group.capability is None or group.capability in bounding
    )
    low, equal, masked = 0xFFFFFFFF, "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"
    rules += (_allow("socket", args=(SyscallArg(0, f, equal),)) for f, _, _ in FAMILIES)
    netlink = next(number for number, name, _ in FAMILIES if name == "AF_NETLINK")
    audit = (SyscallArg(0, netlink, equal), SyscallArg(2, low, masked, NETLINK_AUDIT))
    if not {"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ"} & set(bounding):
        rules.append(_refuse("socket", number=errno.EAFNOSUPPORT, args=audit))
    rules.append(_allow("socketpair", args=(SyscallArg(0, FAMILIES[0][0], equal),)))
    rules.append(_allow("socketcall"))
    rules += (
        _refuse("socketcall", number=errno.EPERM, args=(SyscallArg(0, low, masked, operation),))
        for operation, _ in SOCKETCALL_MAKERS
    )
    rules += (_allow("personality", args=(SyscallArg(0, p, equal),)) for p, _ in PERSONALITIES)
    rules.append(_allow("ioctl"))
    rules += (
        _refuse("ioctl", number=errno.EPERM, args=(SyscallArg(1, low, masked, request),))
        for request, _ in TERMINAL_REQUESTS
    )
    if "CAP_SYS_ADMIN" not in bounding:
        rules.append(_allow("clone", args=(SyscallArg(0, NAMESPACE_FLAGS, masked, 0),)))
        rules.append(_refuse("clone3", number=errno.ENOSYS))
    second = _SECOND_ABI.get(NATIVE)
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=(NATIVE, second) if second else (NATIVE,),
        syscalls=tuple(rules),
    )


ALWAYS_ALLOWED = frozenset(
    ("execve", "exit", "exit_group", "rt_sigreturn", "sigreturn", "restart_syscall")
)
"""Calls without which no program starts, returns from a signal handler or ends."""
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")


def names_of(items: Collection[str], architecture: str) -> set[str]:
    """Return the names of a list that are for an architecture (``SCMP_ARCH_*``).

    An item is ``NAME``, for all architectures, or ``ARCHITECTURE:NAME``, such as ``x86:read``.
    """
    own = architecture.removeprefix("SCMP_ARCH_").lower()
    return {
        name or prefix
        for prefix, _, name in (item.partition(":") for item in items)
        if not name or prefix == own
    }


def narrow(seccomp: Seccomp, names: Collection[str], unavailable: Collection[str] = ()) -> Seccomp:
    """Return the filter without the calls that are not in ``names``; an empty list keeps all.

    The result allows nothing that ``seccomp`` refuses: its rules on arguments stay. Calls of
    ``unavailable`` fail with ENOSYS, unless they are in ``names``: a C library then uses others.
    Items are those of :func:`names_of`. An architecture without a name in ``names`` has no calls.

    :raises InvalidRequest: when ``seccomp`` allows calls by default, so a list cannot narrow it, or
        no name is for the native architecture.
    """
    if seccomp.default_action in _PERMISSIVE:
        raise InvalidRequest(
            "seccomp-allow: the seccomp profile allows system calls by default",
            hint="leave seccomp= out, or use a profile with defaultAction SCMP_ACT_ERRNO",
        )
    if names and not names_of(names, NATIVE):
        own = NATIVE.removeprefix("SCMP_ARCH_").lower()
        raise InvalidRequest(
            f"seccomp-allow: no system call is for the architecture of this host, {own}",
            hint=f"seccomp-allow={own}:read,write",
        )
    if not any(":" in item for item in (*names, *unavailable)):
        rules = _narrowed(seccomp.syscalls, set(names), set(unavailable), keep_all=not names)
        return msgspec.structs.replace(seccomp, syscalls=tuple(rules))
    rules = []
    for architecture in dict.fromkeys((NATIVE, *seccomp.architectures)):
        own_rules = (r for r in seccomp.syscalls if _is_for(r, architecture))
        rules += (
            msgspec.structs.replace(rule, architectures=(architecture,))
            for rule in _narrowed(
                own_rules,
                names_of(names, architecture),
                names_of(unavailable, architecture),
                keep_all=not names,
            )
        )
    return msgspec.structs.replace(seccomp, syscalls=tuple(rules))


def _is_for(rule: Syscall, architecture: str) -> bool:
    return not rule.architectures or architecture in rule.architectures


def _narrowed(
    rules: Iterable[Syscall], names: set[str], unavailable: set[str], *, keep_all: bool
) -> list[Syscall]:
    """Return the rules of one list: permissive ones for ``names`` only, the others unchanged."""
    absent = sorted(unavailable - names - ALWAYS_ALLOWED)
    kept = ALWAYS_ALLOWED | names if names else names
    result = [_refuse(*absent, number=errno.ENOSYS)] if absent else []
    for rule in rules:
        if rule.action in _PERMISSIVE:
            allowed = tuple(
                name for name in rule.names if name not in absent and (keep_all or name in kept)
            )
            if not allowed:
                continue
            rule = msgspec.structs.replace(rule, names=allowed)
        result.append(rule)
    return result


def refused_names(seccomp: Seccomp, items: Collection[str]) -> tuple[str, ...]:
    """Return the items of a list whose calls no rule of the filter allows.

    Items for architectures that the filter lacks are among them, except those of another machine.
    """
    refused = []
    known = [a.removeprefix("SCMP_ARCH_").lower() for a in (NATIVE, *seccomp.architectures)]
    for item in items:
        prefix, _, name = item.rpartition(":")
        if prefix and prefix not in known:
            if prefix == "x32" and known[0] == "x86_64":
                refused.append(item)
            continue
        if not any(
            rule.action in _PERMISSIVE
            and name in rule.names
            and (not prefix or _is_for(rule, f"SCMP_ARCH_{prefix.upper()}"))
            for rule in seccomp.syscalls
        ):
            refused.append(item)
    return tuple(sorted(set(refused)))


def build(seccomp: Seccomp) -> bytes:
    """Return the BPF program of a spec's filter.

    Names that an architecture does not have are skipped. As in runc, the native architecture is
    always filtered, and comparisons of the same argument in one rule are alternatives.

    :raises InvalidRequest: when an action, comparison or architecture is unknown.
    :raises Unsupported: when libseccomp is not installed.
    """
    tables: list[tuple[str, dict[int, list[SyscallRule]]]] = []
    for architecture in dict.fromkeys((NATIVE, *seccomp.architectures)):
        if architecture not in ARCHITECTURES:
            raise InvalidRequest(f"unknown seccomp architecture {architecture!r}")
        tables.append((architecture, {}))
    for syscall in seccomp.syscalls:
        rules = [
            SyscallRule(return_value(syscall.action, syscall.errno_ret), conditions)
            for conditions in _alternatives(syscall.args)
        ]
        for name in syscall.names:
            for architecture, table in tables:
                if not _is_for(syscall, architecture):
                    continue
                if (number := _resolve(name, architecture)) is not None:
                    table.setdefault(number, []).extend(rules)
    return assemble(tables, return_value(seccomp.default_action, seccomp.default_errno_ret))


def program(seccomp: Seccomp, cache: str | None = None) -> tuple[bytes, int]:
    """Return the BPF program and the SECCOMP_FILTER_FLAG bits of a spec's filter.

    ``cache`` is a directory of compiled programs by digest of the filter. It is created with mode
    0700. A cached program is used only if its file is private to this user and its checksum is
    right. A cache that cannot be written costs time only.

    :raises InvalidRequest: when a flag, action, comparison or architecture is unknown.
    :raises Unsupported: when libseccomp is not installed.
    """
    flags = 0
    for name in seccomp.flags:
        if name not in FLAGS:
            raise InvalidRequest(f"unknown seccomp flag {name!r}", hint=", ".join(sorted(FLAGS)))
        flags |= FLAGS[name]
    if cache is None:
        return build(seccomp), flags
    digest = sha256(_FORMAT + NATIVE.encode() + msgspec.json.encode(seccomp)).hexdigest()
    path = f"{cache}/{digest}.bpf"
    if (code := _load_cached(path)) is None:
        code = build(seccomp)
        _store_cached(cache, path, code)
    return code, flags


def return_value(action: str, errno_ret: int | None) -> int:
    """Return the SECCOMP_RET_* value of an action. The errno defaults to EPERM, as in OCI.

    :raises InvalidRequest: when the action is unknown or the errno is out of range.
    """
    if action not in ACTIONS:
        raise InvalidRequest(f"unknown seccomp action {action!r}", hint=", ".join(ACTIONS))
    value = ACTIONS[action]
    if value not in (kernel.SECCOMP_RET_ERRNO, kernel.SECCOMP_RET_TRACE):
        return value
    data = errno.EPERM if errno_ret is None else errno_ret
    if not 0 <= data <= 0xFFFF:
        raise InvalidRequest(f"seccomp errno {data} is not between 0 and 65535")
    return value | data


def _alternatives(args: tuple[SyscallArg, ...]) -> list[tuple[ArgCondition, ...]]:
    """Return the lists of conditions of one OCI rule. One matching list is enough."""
    conditions = []
    for arg in args:
        if arg.op not in COMPARISONS:
            raise InvalidRequest(
                f"unknown seccomp comparison {arg.op!r}", hint=", ".join(sorted(COMPARISONS))
            )
        if not 0 <= arg.index <= 5:
            raise InvalidRequest(f"seccomp argument index {arg.index} is not between 0 and 5")
        if arg.value >> 64 or arg.value_two >> 64:
            raise InvalidRequest("a seccomp argument value is not an unsigned 64-bit number")
        conditions.append(ArgCondition(arg.index, arg.op, arg.value, arg.value_two))
    if len({condition.index for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _resolve(name: str, architecture: str) -> int | None:
    if not name.isascii() or not name or "\0" in name:
        raise InvalidRequest(f"system call name {name!r} is not valid")
    try:
        return kernel.resolve(name, architecture)
    except OSError as error:
        raise Unsupported(
            f"libseccomp.so.2 cannot be loaded: {error}",
            hint="install libseccomp2 (Debian), libseccomp (Fedora, Alpine)",
        ) from None


def _load_cached(path: str) -> bytes | None:
    """Return a cached program, None if there is no trusted one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_uid != os.geteuid()
            or stat.S_IMODE(status.st_mode) & 0o077
            or status.st_size > 32 + kernel.BPF_MAXINSNS * 8
        ):
            return None
        data = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    digest, code = data[:32], data[32:]
    if not code or len(code) % 8 or sha256(code).digest() != digest:
        return None
    return code


def _store_cached(directory: str, path: str, code: bytes) -> None:
    """Write a program to the cache by rename. A full or read-only disk is ignored."""
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(
            temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return
    try:
        os.write(fd, sha256(code).digest() + code)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
    finally:
        os.close(fd)


def from_docker(
    data: bytes, capabilities: Capabilities | Collection[str], kernel_release: str | None = None
) -> Seccomp:
    """Return the filter of a Docker profile file (``--security-opt seccomp=FILE``).

    :raises InvalidRequest: when the profile is not valid.
    """
    from jaula.security.seccomp.docker_profile import parse  # not needed by zygote, shim and init

    bounding = capabilities.bounding if isinstance(capabilities, Capabilities) else capabilities
    return parse(data, bounding, kernel_release or os.uname().release)
