"""Resource limits of the init process: a finite number of open files, and requested limits.

Evidence: /proc/<pid>/limits (getrlimit(2)). A program may lower its limits, so a lower value holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

LABELS = {
    "RLIMIT_AS": "Max address space",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_STACK": "Max stack size",
}
INFINITY = (1 << 64) - 1
MAX_FILES = 1 << 20
"""The kernel's default maximum for one process (fs.nr_open)."""


INFO = CheckInfo(
    id="rlimits",
    layer="rlimits",
    title="Resource limits",
    reason=(
        "Without limits one process can use all file descriptors and kernel memory that its "
        "user may have."
    ),
    references=("I19", "CIS 5.19", "getrlimit(2)"),
    evidence="/proc/<pid>/limits",
    advice="start it with --ulimit",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for open files, and for every limit of the spec."""
    hard_limits = parse(container.read("limits"))
    requested_limits = {limit.type: limit.hard for limit in container.process.rlimits}
    for name in ("RLIMIT_NOFILE", *(n for n in sorted(requested_limits) if n != "RLIMIT_NOFILE")):
        hard = hard_limits[LABELS[name]]
        requested_limit = requested_limits.get(name)
        bound = MAX_FILES if requested_limit is None else requested_limit
        requested = "a finite number" if requested_limit is None else _text(requested_limit)
        holds = hard <= bound and (name != "RLIMIT_NOFILE" or hard != INFINITY)
        yield Result(
            name.removeprefix("RLIMIT_").lower(), "rlimits", requested, _text(hard),
            f"{container.path('limits')} {LABELS[name]}", verdict_of(holds, None),
        )  # fmt: skip


def parse(text: str) -> dict[str, int]:
    """Return hard limits by the kernel's label."""
    limits = {}
    for line in text.splitlines():
        for label in LABELS.values():
            if line.startswith(label + " "):
                hard = line[len(label) :].split()[1]
                limits[label] = INFINITY if hard == "unlimited" else int(hard)
    return limits


def _text(value: int) -> str:
    return "unlimited" if value == INFINITY else str(value)
