"""Proof of a profile: what it takes away is refused, and what it allows works.

The filters that the kernel has loaded are evaluated for every system call of each ABI. So calls
that cannot be attempted without harm (exit, reboot) are judged too. The twin attempts the others:
with arguments of -1, with which a call that the filter permits returns another error than EPERM.
A filter answers ENOSYS for calls that are newer than its list.

The twin's profile also has the calls and the file of the program that makes the attempts. What
other layers than the filter refuse is in :mod:`jaula.features.verify.escape.profile_layers`.
"""

from __future__ import annotations

import errno
import posixpath
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from jaula.features.verify import seccomp_compare
from jaula.features.verify.escape.attempts import CLOSED, SIGSEGV, SIGSYS, Attempt, call, path_bytes
from jaula.features.verify.escape.check_info import INFO
from jaula.features.verify.escape.program import CALL, CALL32, Entry
from jaula.features.verify.escape.results import AttemptResult
from jaula.features.verify.model.result import Result, Verdict
from jaula.kernel import seccomp
from jaula.kernel.capabilities import NAMES
from jaula.kernel.seccomp import SECCOMP_RET_ALLOW
from jaula.security.seccomp.compiler import severity
from jaula.security.seccomp.seccomp_filter import ALWAYS_ALLOWED
from jaula.spec.confinement_profile import Architecture, Profile

GROUP = "profile"
_TOKENS: dict[Architecture, str] = {
    "x86_64": "SCMP_ARCH_X86_64", "x86": "SCMP_ARCH_X86", "x32": "SCMP_ARCH_X32",
    "aarch64": "SCMP_ARCH_AARCH64",
}  # fmt: skip
_ABIS = {"x86_64": "x86_64", "x86": "i386", "x32": "x32", "aarch64": "aarch64"}
NOT_ATTEMPTED = frozenset(
    {"exit", "exit_group", "fork", "vfork", "pause", "rt_sigreturn", "restart_syscall", "reboot",
     "vhangup", "sync", "uretprobe", "uprobe", "msgget", "semget", "shmget", "rt_sigsuspend",
     "sigsuspend", "sigreturn"}
)  # fmt: skip
"""Calls that end or stop the process with any arguments, or that leave something behind."""
PROBE = ("alarm", "exit_group", "fork", "mmap", "open", "prctl", "unlink", "wait4", "write")
"""Calls of the program that makes the attempts."""
_O_WRONLY_CREATE = 0o1 | 0o100 | 0o200  # O_WRONLY, O_CREAT, O_EXCL
_PR_CAPBSET_READ = 23
_DIRECTORIES = (
    "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/media", "/mnt", "/opt",
    "/root", "/run", "/sbin", "/srv", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/var",
    "/var/cache", "/var/lib", "/var/log", "/var/tmp",
)  # fmt: skip
_ENGINE_TMPFS = ("/dev", "/dev/shm")  # writable, unless Landlock has rules for writing
_FILES = (
    "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/os-release", "/etc/profile", "/root",
    "/home", "/usr", "/var/lib", "/var/log",
)  # fmt: skip
_SHOWN = 8  # items of a row


def of_probe(
    profile: Profile, path: str, more: Sequence[str] = (), destinations: Sequence[str] = ()
) -> Profile:
    """Return the profile of the twin: with the program at ``path``, and its calls.

    ``more`` are further calls of its filter, and ``destinations`` of its egress list.
    """
    rules, files = profile.seccomp, profile.files
    calls = tuple(sorted({*rules.syscalls.get("x86_64", ()), *PROBE, *more}))
    changed: dict[str, Any] = {}
    if rules.syscalls:
        changed["seccomp"] = replace(rules, syscalls=rules.syscalls | {"x86_64": calls})
    if files.execute:
        changed["files"] = replace(files, execute=(*files.execute, path))
    if destinations and profile.network.egress is not None:
        changed["network"] = replace(
            profile.network, egress=(*profile.network.egress, *destinations)
        )
    return replace(profile, **changed)


def filter_rows(profile: Profile, programs: Sequence[bytes]) -> Iterator[Result]:
    """Yield a row for each ABI: are exactly the listed calls allowed by the loaded filters?

    ``programs`` are the container's, from PTRACE_SECCOMP_GET_FILTER.
    """
    if not profile.seccomp.syscalls:
        return  # the default filter is not narrowed
    codes = [seccomp_compare.decode(program) for program in programs]
    for architecture, token in _TOKENS.items():
        abi = _ABIS[architecture]
        audit, bit = next((t, b) for name, t, b in seccomp_compare.ABIS if name == abi)
        names = profile.seccomp.syscalls.get(architecture, ())
        kept = ALWAYS_ALLOWED if names else ()  # without a list no call is allowed
        numbers = (seccomp.resolve(name, token) for name in (*names, *kept))
        listed = {number for number in numbers if number is not None}
        wider, narrower, allowed, refused = [], [], 0, 0
        for number in (each | bit for each in range(seccomp_compare.SYSCALL_LIMIT)):
            permitted = _permits(codes, audit, number)
            if number not in listed:
                refused += not permitted
                if permitted:
                    wider.append(seccomp.name_of(number, token) or str(number))
            elif permitted:
                allowed += 1
            else:
                narrower.append(seccomp.name_of(number, token) or str(number))
        expected = seccomp_compare.SYSCALL_LIMIT - len(listed)
        requested = f"{expected} refused, {len(listed)} allowed"
        effective = f"{refused} of {expected} refused, {allowed} of {len(listed)} allowed"
        verdict = Verdict.FAILS if wider or narrower else Verdict.HOLDS
        if wider:
            effective += f"; also allowed: {_listing(wider)}"
        if narrower:
            effective += f"; refused: {_listing(narrower)}"
        yield Result(
            f"profile: calls {abi}", INFO.layer, requested, effective,
            "the loaded filter, evaluated for each call", verdict, INFO.id,
        )  # fmt: skip


def _permits(codes: Sequence[seccomp_compare.Code], audit: int, number: int) -> bool:
    """Return whether the filters allow a call with some arguments; zeros and ones are tried."""
    for arguments in ([0] * 6, [1] * 6, [2] * 6):
        data = struct.pack("=IIQ6Q", number, audit, 0, *arguments)
        if all(
            severity(seccomp_compare.run(code, data)[0]) == severity(SECCOMP_RET_ALLOW)
            for code in codes
        ):
            return True
    return False


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def attempts(profile: Profile) -> list[Attempt]:
    """Return the attempts that the profile must stop."""
    return [*_calls(profile), *_capabilities(profile), *_writes(profile), *_reads(profile)]


def _calls(profile: Profile) -> Iterator[Attempt]:
    """Yield an attempt of each call that the profile does not list, of each ABI of this machine."""
    if not profile.seccomp.syscalls:
        return
    tables: tuple[tuple[Architecture, str, int], ...] = (
        ("x86_64", "calls not in it", CALL),
        ("x86", "calls of i386 not in it", CALL32),
        ("x32", "calls of x32 not in it", CALL),
    )
    for architecture, group, operation in tables:
        token, native = f"SCMP_ARCH_{architecture.upper()}", architecture == "x86_64"
        names = profile.seccomp.syscalls.get(architecture, ())
        listed = {*names, *(ALWAYS_ALLOWED if names else ())}
        absent = set(profile.seccomp.unavailable.get(architecture, ()))
        bit = 1 << 30 if architecture == "x32" else 0
        for number in (each | bit for each in range(seccomp_compare.SYSCALL_LIMIT)):
            name = seccomp.name_of(number, token)
            if (
                name is None
                or name in listed
                or name in NOT_ATTEMPTED
                or (native and name in PROBE)
            ):
                continue
            refusals = {errno.ENOSYS} if name in absent else {errno.EPERM, errno.ENOSYS}
            yield Attempt(
                group=f"{GROUP}: {group}", name=name,
                steps=(Entry(operation, number, (-1,) * 6),), refusals=frozenset(refusals),
                signals=frozenset({SIGSYS} if native else {SIGSYS, SIGSEGV}),
            )  # fmt: skip


def _capabilities(profile: Profile) -> Iterator[Attempt]:
    """Yield whether each capability that the profile does not list is in the bounding set."""
    for number, name in enumerate(NAMES):
        if name.removeprefix("CAP_") not in profile.capabilities:
            yield Attempt(
                group=f"{GROUP}: capabilities not in it", name=name, max_value=0,
                steps=(call("prctl", _PR_CAPBSET_READ, number),),
                refusals=frozenset({errno.EINVAL, errno.EPERM}),
            )  # fmt: skip


def _writes(profile: Profile) -> Iterator[Attempt]:
    """Yield attempts to make a file in each directory outside of what the profile lets write."""
    writable = (*profile.files.write, *profile.files.tmpfs, *profile.files.volumes)
    if not profile.files.read_only_root and not profile.files.write:
        return
    for directory in _DIRECTORIES:
        if any(_includes(each, directory) for each in writable):
            continue
        path = path_bytes(posixpath.join(directory, ".jaula-probe-file"))
        yield Attempt(
            group=f"{GROUP}: writes outside of it", name=directory, refusals=CLOSED,
            steps=(call("open", path, _O_WRONLY_CREATE, 0o600), call("unlink", path)),
            deciding=0,
            relaxed_by="without files.write the mounts decide, and this is a tmpfs of the engine"
            if directory in _ENGINE_TMPFS and not profile.files.write else None,
        )  # fmt: skip


def _reads(profile: Profile) -> Iterator[Attempt]:
    """Yield attempts to open files that the profile does not let read."""
    files = profile.files
    if not files.read:
        return
    readable = (*files.read, *files.write, *files.execute, *files.tmpfs, *files.volumes)
    for path in _FILES:
        if not any(path == each or _includes(each, path) for each in readable):
            yield Attempt(
                group=f"{GROUP}: reads outside of it", name=path, refusals=CLOSED,
                steps=(call("open", path_bytes(path), 0),),
            )  # fmt: skip


def permitted(profile: Profile) -> list[Attempt]:
    """Return attempts that the profile must not stop: files that it lets read, and its tmpfs.

    A file that is absent is not refused. Volumes are left out, since those of a twin are read-only.
    """
    refusals = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
    group = f"{GROUP}: files in it"
    opened = [
        Attempt(
            group=group, name=path, refusals=refusals, steps=(call("open", path_bytes(path), 0),)
        )
        for path in (*profile.files.read, *profile.files.execute)
    ]
    for directory in profile.files.tmpfs:
        if not any(_includes(each, directory) for each in profile.files.write):
            continue
        path = path_bytes(posixpath.join(directory, ".jaula-probe-file"))
        steps = (call("open", path, _O_WRONLY_CREATE, 0o600), call("unlink", path))
        opened.append(
            Attempt(group=group, name=directory, refusals=refusals, steps=steps, deciding=0)
        )
    return opened


def permitted_rows(found: Sequence[AttemptResult]) -> list[Result]:
    """Return a row for each group of the attempts that must work."""
    groups = dict.fromkeys(each.attempt.group for each in found)
    return [_permitted_row(name, [e for e in found if e.attempt.group == name]) for name in groups]


def _permitted_row(group: str, found: Sequence[AttemptResult]) -> Result:
    refused = [each for each in found if each.refused is True]
    not_made = [each for each in found if each.refused is None]
    effective = f"{len(found) - len(refused) - len(not_made)} of {len(found)} work"
    if refused:
        effective += f"; refused: {_listing([each.attempt.name for each in refused])}"
    if not_made:
        effective += f"; not tried: {_listing([each.attempt.name for each in not_made])}"
    verdict = Verdict.FAILS if refused else Verdict.UNKNOWN if not_made else Verdict.HOLDS
    return Result(
        f"tried: {group}", INFO.layer, f"{len(found)} work", effective,
        "a twin's system calls", verdict, INFO.id,
    )  # fmt: skip


def _includes(item: str, directory: str) -> bool:
    """Return whether an item of a profile is a directory or above it."""
    base = item.rstrip("/")
    return directory == base or f"{directory}/".startswith(f"{base}/")


def summary(
    rows: Sequence[Result], stopped: Sequence[AttemptResult], worked: Sequence[AttemptResult]
) -> Result:
    """Return a row that sums up rows of a profile, and counts the attempts.

    ``stopped`` are the attempts that must be refused and ``worked`` those that must work.
    """
    refused = sum(each.refused is True for each in stopped)
    allowed = sum(each.refused is False for each in worked)
    effective = f"{refused} of {len(stopped)} refused, {allowed} of {len(worked)} allowed work"
    verdict = Verdict.HOLDS
    for wrong in (Verdict.RELAXED, Verdict.UNKNOWN, Verdict.FAILS):
        if any(row.verdict is wrong for row in rows):
            verdict = wrong
    if failed := [row.id for row in rows if row.verdict is Verdict.FAILS]:
        effective += f"; fail: {', '.join(failed)}"
    if unknown := [row.id for row in rows if row.verdict is Verdict.UNKNOWN]:
        effective += f"; unknown: {', '.join(unknown)}"
    return Result(
        GROUP, INFO.layer, "what it does not list is refused, what it lists works", effective,
        "the rows of the profile", verdict, INFO.id,
    )  # fmt: skip
