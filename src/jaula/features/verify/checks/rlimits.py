"""Resource limits: a finite number of open files, requested limits, priorities of every process.

Evidence: /proc/<pid>/limits (getrlimit(2)), oom_score_adj and stat. A program may lower its limits
and its priority, so a lower value holds. What the spec does not set is inherited from the shim.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of

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
ORDINARY_POLICIES = (0, 3, 5)  # SCHED_OTHER, SCHED_BATCH, SCHED_IDLE (sched(7))
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
    evidence="/proc/<pid>/limits, oom_score_adj, stat",
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

    yield _every_process(container)


def _every_process(container: AuditedContainer) -> Result:
    """Compare each process with the limits of the spec, and with those that the shim passes on."""
    bounds = parse(_read(container, container.shim, "limits"))
    bounds |= {LABELS[limit.type]: limit.hard for limit in container.process.rlimits}
    oom_score = container.process.oom_score_adj
    if oom_score is None:
        oom_score = int(_read(container, container.shim, "oom_score_adj"))
    nice, _ = scheduling(_read(container, container.shim, "stat"))
    wrong = []
    for process in container.members:
        try:
            limits = parse(_read(container, process.pid, "limits"))
            score = int(_read(container, process.pid, "oom_score_adj"))
            own_nice, policy = scheduling(_read(container, process.pid, "stat"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has exited
        excess = [
            f"{label} {_text(hard)}"
            for label, hard in limits.items()
            if hard > bounds.get(label, INFINITY)
        ]
        if score < oom_score:
            excess.append(f"oom_score_adj {score}")
        if container.process.scheduler is None:
            if own_nice < nice:
                excess.append(f"nice {own_nice}")
            if policy not in ORDINARY_POLICIES:
                excess.append(f"scheduling policy {policy}")
        if excess:
            wrong.append(f"{process.name} {process.pid}: {', '.join(excess)}")
    by = _flag(container)
    return Result(
        "process limits", "rlimits", "the spec's or the shim's" + (f" ({by})" if by else ""),
        "; ".join(wrong) or f"{quantity(len(container.members), 'process')}, none has more",
        f"{container.proc_root}/*/limits, oom_score_adj, stat",
        verdict_of(not wrong or by is not None, by if wrong else None),
    )  # fmt: skip


def _flag(container: AuditedContainer) -> str | None:
    """Return the flags that let the program raise its own limits."""
    allowed = {"CAP_SYS_RESOURCE", "CAP_SYS_NICE"} & set(container.capabilities.bounding)
    if container.text("UsernsMode") == "host" and allowed:
        return f"--userns=host, {', '.join(sorted(allowed))}"
    return None


def _read(container: AuditedContainer, pid: int, name: str) -> str:
    with open(f"{container.proc_root}/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def scheduling(stat: str) -> tuple[int, int]:
    """Return nice value and scheduling policy of /proc/<pid>/stat. Pure."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[16]), int(fields[38])


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
