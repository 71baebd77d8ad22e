"""The system call filter is in effect (statement I9).

Evidence: Seccomp (2 is a filter) and Seccomp_filters (Linux 5.9) in /proc/<pid>/status, and the
program itself, which the kernel gives to a tracer (ptrace(2)). The program is compared byte by byte
with the compiled profile of the spec, and by its results if another compiler wrote it. This stops
the init process for a moment, unless tracing is disabled or the container is paused. If the kernel
does not return the program, mode and number are the evidence, and ``--probe`` shows which calls are
refused. A program may add filters of its own, which only restrict further.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from jaula.features.verify import seccomp_compare
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel import ptrace
from jaula.kernel.seccomp import resolve
from jaula.security.seccomp.default_profile import GROUPS
from jaula.spec.runtime_spec import Seccomp

MODES = {"0": "off", "1": "strict", "2": "filter"}


INFO = CheckInfo(
    id="seccomp",
    layer="seccomp",
    title="System call filter",
    reason=(
        "The filter blocks kernel code that a container does not need, where most escapes of "
        "recent years began."
    ),
    references=("I9", "I23", "CIS 5.22", "seccomp(2)"),
    evidence="/proc/<pid>/status; PTRACE_SECCOMP_GET_FILTER gives the program itself",
    advice=(
        "start it without seccomp=unconfined; a replaced program means that the engine or the "
        "runtime was replaced"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield whether there is a filter, and whether it is that of the spec."""
    options = container.security_option("seccomp")
    by = None
    if options and options[-1] == "unconfined":
        by = "seccomp=unconfined"
    elif container.privileged and not options:
        by = container.flag("--privileged")
    mode = container.status("Seccomp")
    try:
        filters = int(container.status("Seccomp_filters"))
    except KeyError:  # before Linux 5.9
        filters = 1 if mode == "2" else 0
    effective = f"{MODES.get(mode, mode)}, {filters} filter{'s' if filters != 1 else ''}"
    profile = container.linux.seccomp
    if by:
        requested, holds = f"off ({by})", True
    else:
        own = options and options[-1] not in ("", "builtin", "default")
        requested = "own profile" if own else "default profile"
        if names := container.security_option("seccomp-allow"):
            requested += f", of it {len(','.join(names).split(','))} calls"
        holds = mode == "2" and filters >= 1 and profile is not None
        if profile is None:
            effective += "; the spec has no profile"
        elif profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") and own:
            by = "seccomp profile that allows by default"
            requested += f" ({by})"
        elif profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
            holds = False
            effective += "; the spec's profile allows by default"
    evidence = f"{container.path('status')} Seccomp, Seccomp_filters"
    programs: tuple[bytes, ...] | None = None
    if profile is not None and mode == "2" and container.traceable:
        try:
            programs = ptrace.seccomp_filters(container.pid)
        except OSError as error:
            effective += f"; the program is not readable: {error}"
    yield Result("seccomp", "seccomp", requested, effective, evidence, verdict_of(holds, by))
    if profile is not None and programs is not None:
        yield _program(container, profile, programs)


def _program(container: AuditedContainer, profile: Seccomp, loaded: tuple[bytes, ...]) -> Result:
    """Compare the programs in the kernel with the profile."""
    expected = container.snapshot.program(profile)
    requested = f"program {_name(expected)}"
    evidence = f"PTRACE_SECCOMP_GET_FILTER {container.pid}"
    effective = ", ".join(map(_name, loaded)) or "none"
    holds = expected in loaded
    if not holds:
        more = seccomp_compare.more_permissive(expected, loaded)
        holds = bool(loaded) and not more
        effective += "; different instructions, as strict on every call"
        if more:
            calls = ", ".join(map(_call, more[:5])) + (
                f" and {len(more) - 5} more" if len(more) > 5 else ""
            )
            effective = f"{', '.join(map(_name, loaded)) or 'none'}; allows {calls}"
    return Result(
        "seccomp program", "seccomp", requested, effective, evidence, verdict_of(holds, None)
    )


def _call(text: str) -> str:
    """Return ``x86_64 16`` with the name of the call, if a table of the profile has it."""
    abi, number = text.split()
    table = {"x86_64": "SCMP_ARCH_X86_64", "i386": "SCMP_ARCH_X86"}.get(abi)
    names = (*(name for group in GROUPS for name in group.calls), "socket", "socketcall",
             "socketpair", "ioctl", "personality")  # fmt: skip
    if table is not None:
        for name in names:
            if resolve(name, table) == int(number):
                return f"{abi} {name}"
    return text


def _name(program: bytes) -> str:
    return f"{sha256(program).hexdigest()[:12]} ({len(program) // ptrace.INSTRUCTION} instructions)"
