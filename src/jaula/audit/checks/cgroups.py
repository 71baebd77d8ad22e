"""Cgroup limits: what the kernel enforces, against what was asked for (statement I19).

Evidence: /proc/<pid>/cgroup says where the process is in each tree (cgroups(7)); the limit files
there say the rest. Both versions are read. The numbers asked for are those of the inspect document,
since an update changes them while the spec stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer, integer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.cgroups.v2.cpu import weight

UNLIMITED_V1 = 1 << 62
PAGE = os.sysconf("SC_PAGE_SIZE")


class CgroupDirs:
    """Where a process is in each cgroup tree, as directories of the reader's."""

    def __init__(self, container: AuditedContainer) -> None:
        self._legacy: dict[str, str] = {}
        self._unified: str | None = None
        for line in container.read("cgroup").splitlines():
            _, names, path = line.split(":", 2)
            for mount in container.host_mounts:
                if names and mount.fstype == "cgroup":
                    shared = set(names.split(",")) & mount.super_options
                    for name in shared:
                        self._legacy.setdefault(name, _join(mount.target, mount.root, path))
                elif not names and mount.fstype == "cgroup2":
                    self._unified = self._unified or _join(mount.target, mount.root, path)

    def legacy(self, controller: str) -> str | None:
        """The directory in a v1 tree, or None where the controller is not mounted so."""
        return self._legacy.get(controller)

    def unified(self) -> str | None:
        """The directory in the v2 tree."""
        return self._unified

    def read(self, controller: str, v1: str, v2: str) -> tuple[str, str] | None:
        """(text, file) of a limit, by the name that it has where the controller is."""
        if (directory := self.legacy(controller)) is not None:
            path = f"{directory}/{v1}"
        elif (directory := self.unified()) is not None and v2:
            path = f"{directory}/{v2}"
        else:
            return None
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip(), path
        except FileNotFoundError:
            return None


def _join(target: str, root: str, path: str) -> str:
    below = path.removeprefix(root) if root != "/" and path.startswith(root) else path
    return f"{target}/{below.lstrip('/')}".rstrip("/")


INFO = CheckInfo(
    id="cgroups",
    layer="cgroups",
    title="Limits",
    reason=(
        "One container without ceilings can take memory, CPU and processes from all others "
        "and from the host."
    ),
    references=("I19", "CIS 5.11", "CIS 5.12", "CIS 5.25", "CIS 5.29", "cgroups(7)"),
    evidence="/proc/<pid>/cgroup and the limit files of that cgroup",
    advice="set the limit again with jaula update, and find out who changed the file",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Membership, then a row for each limit."""
    groups = CgroupDirs(container)
    yield _membership(container, groups)
    yield _tree(container)
    yield _memory(container, groups)
    yield _swap(container, groups)
    yield _cpu(container, groups)
    yield _shares(container, groups)
    yield _cpuset(container, groups)
    yield _pids(container, groups)


def _membership(container: AuditedContainer, groups: CgroupDirs) -> Result:
    wanted = container.linux.cgroups_path or f"/{container.container_id}"
    places = []
    for line in container.read("cgroup").splitlines():
        number, names, path = line.split(":", 2)
        limited = any(
            groups.legacy(name) is not None
            for name in names.split(",")
            if name in ("memory", "pids", "cpu", "cpuset", "devices", "freezer")
        )
        if limited or (number == "0" and groups.legacy("memory") is None):
            places.append((names or "unified", path))
    wrong = [f"{n} at {p}" for n, p in places if p != wanted and not p.endswith(wanted)]
    effective = f"{len(places)} trees at {wanted}" if not wrong else "; ".join(wrong)
    if wrong and container.rootless is not None:  # limits were refused: there are none to keep
        by = container.rootless
        return Result("cgroup", "cgroups", f"none ({by})", f"the engine's: {effective}",
                   container.path("cgroup"), verdict_of(True, by))  # fmt: skip
    return Result("cgroup", "cgroups", wanted, effective, container.path("cgroup"),
               verdict_of(bool(places) and not wrong, None))  # fmt: skip


def _tree(container: AuditedContainer) -> Result:
    """The container sees its cgroup tree read-only."""
    mounts = [m for m in container.mounts if m.fstype in ("cgroup", "cgroup2")]
    writable = [m.target for m in mounts if "ro" not in m.options | m.super_options]
    by = "--privileged" if container.privileged else None
    effective = f"writable: {', '.join(writable)}" if writable else f"{len(mounts)} read-only"
    return Result("cgroup tree", "cgroups", f"writable ({by})" if by else "read-only", effective,
               container.path("mountinfo"), verdict_of(bool(by) or not writable, by))  # fmt: skip


def _limit(text: str) -> int | None:
    if text in ("max", "-1"):
        return None
    value = integer(text)
    return None if value >= UNLIMITED_V1 else value


def _memory(container: AuditedContainer, groups: CgroupDirs) -> Result:
    wanted = container.number("Memory")
    found = groups.read("memory", "memory.limit_in_bytes", "memory.max")
    return _bytes("memory limit", wanted, found)


def _swap(container: AuditedContainer, groups: CgroupDirs) -> Result:
    memory, both = container.number("Memory"), container.number("MemorySwap")
    found = groups.read("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    if both == 0 and memory > 0:
        both = 2 * memory
    if found is None:
        asked = container.number("MemorySwap") > 0
        resources = container.linux.resources
        told = resources is not None and resources.memory is not None and resources.memory.swap
        verdict = Verdict.FAILS if asked and told else Verdict.HOLDS
        return Result("memory and swap", "cgroups", str(both or "no limit"),
                   "this kernel does not limit swap", "", verdict)  # fmt: skip
    if groups.legacy("memory") is None and both > 0:
        both -= memory  # v2 limits swap alone
        if both == 0:
            holds = _limit(found[0]) == 0
            return Result("memory and swap", "cgroups", "no swap", found[0], found[1],
                       verdict_of(holds, None))  # fmt: skip
    return _bytes("memory and swap", both, found)


def _bytes(name: str, wanted: int, found: tuple[str, str] | None) -> Result:
    if found is None:
        verdict = Verdict.FAILS if wanted > 0 else Verdict.HOLDS
        return Result(
            name, "cgroups", str(wanted or "no limit"), "no memory controller", "", verdict
        )
    actual = _limit(found[0])
    holds = actual is None if wanted <= 0 else actual == wanted - wanted % PAGE
    requested = f"{wanted} bytes" if wanted > 0 else "no limit"
    effective = "no limit" if actual is None else f"{actual} bytes"
    return Result(name, "cgroups", requested, effective, found[1], verdict_of(holds, None))


def _cpu(container: AuditedContainer, groups: CgroupDirs) -> Result:
    quota, period = container.number("CpuQuota"), container.number("CpuPeriod") or 100_000
    if (nano := container.number("NanoCpus")) > 0:
        quota, period = nano * 100_000 // 1_000_000_000, 100_000
    requested = f"{quota / period:.2f} CPUs" if quota > 0 else "no limit"
    found = groups.read("cpu", "cpu.cfs_quota_us", "cpu.max")
    if found is None:
        verdict = Verdict.FAILS if quota > 0 else Verdict.HOLDS
        return Result("cpu limit", "cgroups", requested, "no cpu quota on this host", "", verdict)
    text, path = found
    if groups.legacy("cpu") is not None:
        other = groups.read("cpu", "cpu.cfs_period_us", "")
        text = f"{text} {other[0] if other else 100_000}"
    first, _, second = text.partition(" ")
    actual, base = _limit(first), integer(second or "100000")
    holds = actual is None if quota <= 0 else (actual, base) == (quota, period)
    effective = "no limit" if actual is None else f"{actual / base:.2f} CPUs"
    return Result("cpu limit", "cgroups", requested, effective, path, verdict_of(holds, None))


def _shares(container: AuditedContainer, groups: CgroupDirs) -> Result:
    shares = container.number("CpuShares")
    found = groups.read("cpu", "cpu.shares", "cpu.weight")
    if found is None:
        verdict = Verdict.FAILS if shares else Verdict.HOLDS
        return Result("cpu shares", "cgroups", str(shares or "default"), "no cpu controller", "",
                   verdict)  # fmt: skip
    actual = integer(found[0])
    if groups.legacy("cpu") is None:
        wanted = weight(shares) if shares else 100
        requested = f"{shares}, weight {wanted}" if shares else "default"
        return Result(
            "cpu shares",
            "cgroups",
            requested,
            f"weight {actual}",
            found[1],
            verdict_of(actual == wanted, None),
        )
    holds = actual == (max(shares, 2) if shares else 1024)
    return Result("cpu shares", "cgroups", str(shares or "default"), str(actual), found[1],
               verdict_of(holds, None))  # fmt: skip


def _cpuset(container: AuditedContainer, groups: CgroupDirs) -> Result:
    wanted = container.text("CpusetCpus")
    allowed = container.status("Cpus_allowed_list")
    found = groups.read("cpuset", "cpuset.cpus", "cpuset.cpus")
    if not wanted:
        return Result("cpuset", "cgroups", "any CPU", allowed,
                   f"{container.path('status')} Cpus_allowed_list", verdict_of(True, None))  # fmt: skip
    if found is None:
        return Result("cpuset", "cgroups", wanted, "no cpuset controller", "", Verdict.FAILS)
    holds = numbers(found[0]) == numbers(wanted) and numbers(allowed) <= numbers(wanted)
    return Result("cpuset", "cgroups", wanted, f"{found[0]}, allowed {allowed}", found[1],
               verdict_of(holds, None))  # fmt: skip


def numbers(text: str) -> frozenset[int]:
    """The kernel's list format, ``0-2,5`` (cpuset(7))."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found.update(range(integer(first), integer(last or first) + 1))
    return frozenset(found)


def _pids(container: AuditedContainer, groups: CgroupDirs) -> Result:
    wanted = container.host_config.get("PidsLimit")
    resources = container.linux.resources
    if wanted is None and resources is not None and resources.pids is not None:
        wanted = resources.pids.limit
    found = groups.read("pids", "pids.max", "pids.max")
    unlimited = wanted is not None and int(wanted) <= 0
    by = f"--pids-limit={wanted}" if unlimited else None
    requested = f"no limit ({by})" if by else str(wanted or "a limit")
    if found is None:
        return Result("pids limit", "cgroups", requested, "no pids controller", "",
                   verdict_of(unlimited, by))  # fmt: skip
    actual = _limit(found[0])
    holds = actual is None if unlimited else actual is not None and actual == (wanted or actual)
    effective = "no limit" if actual is None else str(actual)
    return Result("pids limit", "cgroups", requested, effective, found[1], verdict_of(holds, by))
