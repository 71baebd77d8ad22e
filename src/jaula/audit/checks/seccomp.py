"""The system call filter: a filter is in force (statement I9).

Evidence: Seccomp (2 is a filter) and Seccomp_filters (Linux 5.9) in /proc/<pid>/status. Which
filter it is the kernel shows only to a tracer, which would have to stop the program.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.row import Row, judge
from jaula.audit.subject import Subject

MODES = {"0": "off", "1": "strict", "2": "filter"}


def check(subject: Subject) -> Iterator[Row]:
    """One row."""
    options = subject.security_option("seccomp")
    by = None
    if options and options[-1] == "unconfined":
        by = "seccomp=unconfined"
    elif subject.privileged and not options:
        by = "--privileged"
    mode = subject.status("Seccomp")
    try:
        filters = int(subject.status("Seccomp_filters"))
    except KeyError:  # before Linux 5.9
        filters = 1 if mode == "2" else 0
    effective = f"{MODES.get(mode, mode)}, {filters} filter{'s' if filters != 1 else ''}"
    if by:
        requested, holds = f"off ({by})", True
    else:
        profile = subject.linux.seccomp
        own = options and options[-1] not in ("", "builtin", "default")
        requested = "own profile" if own else "default profile"
        holds = mode == "2" and filters >= 1 and profile is not None
        if profile is None:
            effective += "; the spec has no profile"
        elif profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG") and own:
            by = "seccomp profile that allows by default"
            requested += f" ({by})"
        elif profile.default_action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
            holds = False
            effective += "; the spec's profile allows by default"
    evidence = f"{subject.path('status')} Seccomp, Seccomp_filters"
    yield Row("seccomp", "seccomp", requested, effective, evidence, judge(holds, by))
