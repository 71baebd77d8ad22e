"""Cgroup limits: the kernel's values compared with the requested ones (statement I19).

Evidence: /proc/<pid>/cgroup has the process's path in each hierarchy (cgroups(7)), and the limit
files there have the values. Both versions are supported. The requested values are those of the
inspect document, because an update changes them and not the spec.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.cgroups.v2.cpu_v2 import weight
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer, integer
from jaula.features.verify.model.host_process import parse_cgroups
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.spec import cpuset

UNLIMITED_V1 = 1 << 62  # bytes; a v1 limit at or above it is unlimited
PAGE = os.sysconf("SC_PAGE_SIZE")


class CgroupDirs:
    """Directories of a process's cgroups, as the reader sees them."""

    def __init__(self, container: AuditedContainer) -> None:
        self._legacy: dict[str, str] = {}
        self._unified: str | None = None
        self._roots: dict[str, str] = {}
        self.entries = parse_cgroups(container.read("cgroup"))
        self.paths = {path for _, path in self.entries}
        for names, path in self.entries:
            for mount in container.host_mounts:
                if names and mount.fstype == "cgroup":
                    shared = set(names.split(",")) & set(mount.super_options)
                    if shared and mount.root == "/":
                        self._roots.setdefault(names, mount.target)
                    for name in shared:
                        self._legacy.setdefault(name, _join(mount.target, mount.root, path))
                elif not names and mount.fstype == "cgroup2":
                    self._unified = self._unified or _join(mount.target, mount.root, path)
                    if mount.root == "/":
                        self._roots.setdefault(names, mount.target)

    def root(self, names: str) -> str | None:
        """Return where the hierarchy with these controllers is mounted, or None."""
        return self._roots.get(names)

    def directories(self) -> set[str]:
        """Return every directory."""
        return {*self._legacy.values(), *([self._unified] if self._unified else [])}

    def legacy(self, controller: str) -> str | None:
        """Return the directory in a v1 hierarchy, or None if the controller is not on v1."""
        return self._legacy.get(controller)

    def unified(self) -> str | None:
        """Return the directory in the v2 hierarchy, or None."""
        return self._unified

    def read(self, controller: str, v1: str, v2: str) -> tuple[str, str] | None:
        """Return (text, path) of a limit file on the version that has the controller, or None."""
        return _read(self.legacy(controller), v1, self.unified(), v2)

    def read_above(self, controller: str, v1: str, v2: str) -> tuple[str, str] | None:
        """Return (text, path) of a limit file in the cgroup above, or None."""
        legacy, unified = self.legacy(controller), self.unified()
        return _read(
            os.path.dirname(legacy) if legacy is not None else None,
            v1,
            os.path.dirname(unified) if unified is not None else None,
            v2,
        )


def _read(legacy: str | None, v1: str, unified: str | None, v2: str) -> tuple[str, str] | None:
    """Return (text, path) of the file in the directory of the version that is there, or None."""
    if legacy is not None:
        path = f"{legacy}/{v1}"
    elif unified is not None and v2:
        path = f"{unified}/{v2}"
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
        "One container without limits can take memory, CPU and processes from the others and "
        "the host."
    ),
    references=("I19", "CIS 5.11", "CIS 5.12", "CIS 5.25", "CIS 5.29", "cgroups(7)"),
    evidence="/proc/<pid>/cgroup and the limit files of that cgroup",
    advice="set the limit again with jaula update, and find the program that changed the file",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for membership, then one for each limit."""
    groups = CgroupDirs(container)
    yield _membership(container, groups)
    yield _tree(container)
    yield _memory(container, groups)
    yield _swap(container, groups)
    yield _cpu(container, groups)
    yield _shares(container, groups)
    yield _cpuset(container, groups)
    yield _pids(container, groups)
    if container.is_sandbox and container.text("CgroupParent"):
        yield _pod_cgroup(container, groups)


def _pod_cgroup(container: AuditedContainer, groups: CgroupDirs) -> Result:
    """Return a row on the cgroup of a pod: its containers are in it, with the kubelet's limits.

    The limits are in the row as they are. The engine does not know what the kubelet asked for.
    """
    parent = container.text("CgroupParent")
    wrong = [
        other.pod_name
        for other in (container, *container.others)
        if os.path.basename(_pod_directory(CgroupDirs(other), "memory"))
        != os.path.basename(parent.rstrip("/"))
    ]
    limits = []
    for name, controller, v1, v2 in (
        ("memory", "memory", "memory.limit_in_bytes", "memory.max"),
        ("pids", "pids", "pids.max", "pids.max"),
        ("cpu quota", "cpu", "cpu.cfs_quota_us", "cpu.max"),
    ):
        file = v1 if groups.legacy(controller) is not None else v2
        try:
            with open(f"{_pod_directory(groups, controller)}/{file}", encoding="ascii") as opened:
                value = byte_limit(opened.read().split()[0])
        except FileNotFoundError:
            continue  # the parent does not have the controller
        limits.append(f"{name} {'unlimited' if value is None else value}")
    effective = f"{quantity(1 + len(container.others), 'container')}, {', '.join(limits)}"
    if wrong:
        effective += f"; not in it: {', '.join(wrong)}"
    return Result(
        "pod cgroup", "cgroups", f"{parent}, with the kubelet's limits", effective,
        _pod_directory(groups, "memory"), verdict_of(not wrong, None),
    )  # fmt: skip


def _pod_directory(groups: CgroupDirs, controller: str) -> str:
    """Return the directory above that of a container in the hierarchy of a controller."""
    return os.path.dirname(groups.legacy(controller) or groups.unified() or "")


def _membership(container: AuditedContainer, groups: CgroupDirs) -> Result:
    expected = container.linux.cgroups_path or f"/{container.container_id}"
    paths = []
    for names, path in groups.entries:
        limited = any(
            groups.legacy(name) is not None
            for name in names.split(",")
            if name in ("memory", "pids", "cpu", "cpuset", "devices", "freezer")
        )
        if limited or (not names and groups.legacy("memory") is None):
            paths.append((names or "unified", path))
    wrong = [f"{n} at {p}" for n, p in paths if p != expected and not p.endswith(expected)]
    effective = f"{quantity(len(paths), 'tree')} at {expected}" if not wrong else "; ".join(wrong)
    if wrong and container.rootless is not None:  # such an engine refuses limits
        by = container.rootless
        return Result("cgroup", "cgroups", f"none ({by})", f"the engine's: {effective}",
                   container.path("cgroup"), verdict_of(True, by))  # fmt: skip
    return Result("cgroup", "cgroups", expected, effective, container.path("cgroup"),
               verdict_of(bool(paths) and not wrong, None))  # fmt: skip


def _tree(container: AuditedContainer) -> Result:
    """Check that the container has its cgroup tree read-only."""
    mounts = [m for m in container.mounts if m.fstype in ("cgroup", "cgroup2")]
    writable = [m.target for m in mounts if "ro" not in m.options.union(m.super_options)]
    by = container.flag("--privileged") if container.privileged else None
    effective = f"writable: {', '.join(writable)}" if writable else f"{len(mounts)} read-only"
    return Result("cgroup tree", "cgroups", f"writable ({by})" if by else "read-only", effective,
               container.path("mountinfo"), verdict_of(bool(by) or not writable, by))  # fmt: skip


def byte_limit(text: str) -> int | None:
    """Return the number in a limit file; None if it means no limit."""
    if text in ("max", "-1"):
        return None
    value = integer(text)
    return None if value >= UNLIMITED_V1 else value


def _memory(container: AuditedContainer, groups: CgroupDirs) -> Result:
    requested = container.number("Memory")
    actual = groups.read("memory", "memory.limit_in_bytes", "memory.max")
    return _bytes("memory limit", requested, actual)


def _swap(container: AuditedContainer, groups: CgroupDirs) -> Result:
    memory, with_swap = container.number("Memory"), container.number("MemorySwap")
    limit_file = groups.read("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    if with_swap == 0 and memory > 0:
        with_swap = 2 * memory
    if limit_file is None:
        requested = container.number("MemorySwap") > 0
        resources = container.linux.resources
        in_spec = resources is not None and resources.memory is not None and resources.memory.swap
        verdict = Verdict.FAILS if requested and in_spec else Verdict.HOLDS
        return Result("memory and swap", "cgroups", str(with_swap or "no limit"),
                   "this kernel does not limit swap", "", verdict)  # fmt: skip
    if groups.legacy("memory") is None and with_swap > 0:
        with_swap -= memory  # v2 limits swap alone
        if with_swap == 0:
            holds = byte_limit(limit_file[0]) == 0
            return Result("memory and swap", "cgroups", "no swap", limit_file[0], limit_file[1],
                       verdict_of(holds, None))  # fmt: skip
    return _bytes("memory and swap", with_swap, limit_file)


def _bytes(name: str, requested_bytes: int, limit_file: tuple[str, str] | None) -> Result:
    if limit_file is None:
        verdict = Verdict.FAILS if requested_bytes > 0 else Verdict.HOLDS
        return Result(
            name, "cgroups", str(requested_bytes or "no limit"), "no memory controller", "", verdict
        )
    actual = byte_limit(limit_file[0])
    holds = (
        actual is None
        if requested_bytes <= 0
        else actual == requested_bytes - requested_bytes % PAGE
    )
    requested = f"{requested_bytes} bytes" if requested_bytes > 0 else "no limit"
    effective = "no limit" if actual is None else f"{actual} bytes"
    return Result(name, "cgroups", requested, effective, limit_file[1], verdict_of(holds, None))


def _cpu(container: AuditedContainer, groups: CgroupDirs) -> Result:
    quota, period = container.number("CpuQuota"), container.number("CpuPeriod") or 100_000
    if (nano := container.number("NanoCpus")) > 0:
        quota, period = nano * 100_000 // 1_000_000_000, 100_000
    requested = f"{quota / period:.2f} CPUs" if quota > 0 else "no limit"
    limit_file = groups.read("cpu", "cpu.cfs_quota_us", "cpu.max")
    if limit_file is None:
        verdict = Verdict.FAILS if quota > 0 else Verdict.HOLDS
        return Result("cpu limit", "cgroups", requested, "no cpu quota on this host", "", verdict)
    text, path = limit_file
    if groups.legacy("cpu") is not None:
        period_file = groups.read("cpu", "cpu.cfs_period_us", "")
        text = f"{text} {period_file[0] if period_file else 100_000}"
    first, _, second = text.partition(" ")
    actual, base = byte_limit(first), integer(second or "100000")
    holds = actual is None if quota <= 0 else (actual, base) == (quota, period)
    effective = "no limit" if actual is None else f"{actual / base:.2f} CPUs"
    return Result("cpu limit", "cgroups", requested, effective, path, verdict_of(holds, None))


def _shares(container: AuditedContainer, groups: CgroupDirs) -> Result:
    shares = container.number("CpuShares")
    limit_file = groups.read("cpu", "cpu.shares", "cpu.weight")
    if limit_file is None:
        verdict = Verdict.FAILS if shares else Verdict.HOLDS
        return Result("cpu shares", "cgroups", str(shares or "default"), "no cpu controller", "",
                   verdict)  # fmt: skip
    actual = integer(limit_file[0])
    if groups.legacy("cpu") is None:
        expected = weight(shares) if shares else 100
        requested = f"{shares}, weight {expected}" if shares else "default"
        return Result(
            "cpu shares",
            "cgroups",
            requested,
            f"weight {actual}",
            limit_file[1],
            verdict_of(actual == expected, None),
        )
    holds = actual == (max(shares, 2) if shares else 1024)
    return Result("cpu shares", "cgroups", str(shares or "default"), str(actual), limit_file[1],
               verdict_of(holds, None))  # fmt: skip


def _cpuset(container: AuditedContainer, groups: CgroupDirs) -> Result:
    requested = container.text("CpusetCpus")
    allowed = container.status("Cpus_allowed_list")
    limit_file = groups.read("cpuset", "cpuset.cpus", "cpuset.cpus")
    if not requested:
        evidence = f"{container.path('status')} Cpus_allowed_list"
        return Result("cpuset", "cgroups", "any CPU", allowed, evidence, verdict_of(True, None))
    if limit_file is None:
        return Result("cpuset", "cgroups", requested, "no cpuset controller", "", Verdict.FAILS)
    holds = _cpus(limit_file[0]) == _cpus(requested) and _cpus(allowed) <= _cpus(requested)
    return Result("cpuset", "cgroups", requested, f"{limit_file[0]}, allowed {allowed}",
               limit_file[1], verdict_of(holds, None))  # fmt: skip


def _cpus(text: str) -> frozenset[int]:
    return cpuset.parse(text, empty_elements=True)


def _pids(container: AuditedContainer, groups: CgroupDirs) -> Result:
    requested_limit = container.host_config.get("PidsLimit")
    resources = container.linux.resources
    if requested_limit is None and resources is not None and resources.pids is not None:
        requested_limit = resources.pids.limit
    limit_file = groups.read("pids", "pids.max", "pids.max")
    unlimited = requested_limit is not None and int(requested_limit) <= 0
    by = container.flag(f"--pids-limit={requested_limit}") if unlimited else None
    requested = f"no limit ({by})" if by else str(requested_limit or "a limit")
    if limit_file is None:
        return Result("pids limit", "cgroups", requested, "no pids controller", "",
                   verdict_of(unlimited, by))  # fmt: skip
    actual = byte_limit(limit_file[0])
    holds = (
        actual is None
        if unlimited
        else actual is not None and actual == (requested_limit or actual)
    )
    effective = "no limit" if actual is None else str(actual)
    return Result(
        "pids limit", "cgroups", requested, effective, limit_file[1], verdict_of(holds, by)
    )
