"""Controls of the container's cgroup beside the limits: reservation, swap, OOM, I/O, pages, state.

Evidence: the control files of the cgroup, which hold either what the request says or the kernel's
default. The requested values are those of the inspect document, because an update changes them and
not the spec; huge pages are those of the spec, which an update does not change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from jaula.cgroups.v2 import io
from jaula.features.verify.checks.cgroups import CgroupDirs, byte_limit
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer, integer
from jaula.features.verify.model.result import Result, Verdict, verdict_of
from jaula.spec import cpuset
from jaula.spec.runtime_spec import Resources

RATES = {
    "read_bps": ("rbps", "BlkioDeviceReadBps"),
    "write_bps": ("wbps", "BlkioDeviceWriteBps"),
    "read_iops": ("riops", "BlkioDeviceReadIOps"),
    "write_iops": ("wiops", "BlkioDeviceWriteIOps"),
}
"""v1's name of a rate, v2's, and the member of the request."""
DEFAULT_WEIGHTS = {"blkio.bfq.weight": 100, "io.bfq.weight": 100, "io.weight": 100}

INFO = CheckInfo(
    id="cgroup-controls",
    layer="cgroups",
    title="Controls of the cgroup",
    reason="Rates, weights and reservations divide disk and memory between containers; a raised "
    "one takes from the others.",
    references=("I19", "CIS 5.12", "cgroups(7)"),
    evidence="memory.*, blkio.* or io.*, cpuset.mems, hugetlb.*, freezer.state or cgroup.freeze",
    advice="set the value again with jaula update, and find the program that changed the file",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for each control that this kernel has; none for an engine without cgroups."""
    if container.rootless is not None:
        return
    groups = CgroupDirs(container)
    resources = container.linux.resources or Resources()
    yield from _reservation(container, groups)
    yield from _swappiness(container, groups)
    yield from _oom_killer(container, groups)
    yield from _memory_nodes(container, groups)
    yield from _io_weight(container, groups)
    yield from _io_device_weights(container, groups)
    yield from _io_rates(container, groups)
    yield from _huge_pages(groups, resources)
    yield from _state(container, groups)


def _row(name: str, requested: str, effective: str, evidence: str, holds: bool) -> Result:
    return Result(name, "cgroups", requested, effective, evidence, verdict_of(holds, None))


def _reservation(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    requested = container.number("MemoryReservation")
    actual = groups.read("memory", "memory.soft_limit_in_bytes", "memory.low")
    if actual is None:
        return
    value = byte_limit(actual[0])
    default = None if groups.legacy("memory") is not None else 0
    page = os.sysconf("SC_PAGE_SIZE")
    expected = requested - requested % page if requested > 0 else default
    yield _row("memory reservation", str(requested or "none"), actual[0], actual[1],
               value == expected)  # fmt: skip


def _swappiness(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    requested = container.host_config.get("MemorySwappiness")
    directory = groups.legacy("memory")
    if directory is None or (actual := groups.read("memory", "memory.swappiness", "")) is None:
        return  # not a control of v2
    if requested is None or int(requested) < 0:
        with open(f"{os.path.dirname(directory)}/memory.swappiness", encoding="ascii") as file:
            inherited = file.read().strip()
        yield _row("swappiness", f"inherited, {inherited}", actual[0], actual[1],
                   actual[0] == inherited)  # fmt: skip
    else:
        yield _row("swappiness", str(requested), actual[0], actual[1],
                   integer(actual[0]) == int(requested))  # fmt: skip


def _oom_killer(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    requested = bool(container.host_config.get("OomKillDisable"))
    actual = groups.read("memory", "memory.oom_control", "")
    if actual is None:
        return  # not a control of v2
    disabled = pairs(actual[0]).get("oom_kill_disable") == "1"
    by = "--oom-kill-disable" if requested else None
    yield Result(
        "oom killer", "cgroups", f"off ({by})" if by else "on", "off" if disabled else "on",
        actual[1], verdict_of(disabled == requested, by),
    )  # fmt: skip


def _memory_nodes(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    requested = container.text("CpusetMems")
    if not requested:
        return
    actual = groups.read("cpuset", "cpuset.mems", "cpuset.mems")
    if actual is None:
        yield Result("memory nodes", "cgroups", requested, "no cpuset controller", "",
                     Verdict.FAILS)  # fmt: skip
        return
    holds = cpuset.parse(actual[0], empty_elements=True) == cpuset.parse(
        requested, empty_elements=True
    )
    yield _row("memory nodes", requested, actual[0], actual[1], holds)


def _weight_file(groups: CgroupDirs) -> tuple[str, str, str] | None:
    """Return (file, text, path) of the weight that this kernel has, or None."""
    v1, v2 = groups.legacy("blkio") is not None, groups.unified() is not None
    names = ("blkio.weight", "blkio.bfq.weight") if v1 else ("io.bfq.weight", "io.weight")
    for name in names if v1 or v2 else ():
        if (actual := groups.read("blkio", name, name)) is not None:
            return name, *actual
    return None


def _io_weight(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    requested = container.number("BlkioWeight")
    actual = _weight_file(groups)
    if actual is None:
        return
    name, text, path = actual
    value = integer(pairs(text).get("default") or text.split()[0])
    expected = DEFAULT_WEIGHTS.get(name, value)
    if requested:
        expected = io.weight(requested) if name == "io.weight" else requested
    yield _row("io weight", str(requested or "default"), str(value), path, value == expected)


def _by_device(container: AuditedContainer, member: str, value: str) -> dict[str, int]:
    """Return the values of a list of ``HostConfig`` that are not 0, by device number.

    :raises OSError: when the host has no such device any more.
    """
    numbers: dict[str, int] = {}
    for each in container.host_config.get(member) or ():
        number = os.stat(str(each["Path"])).st_rdev
        if each[value]:
            numbers[f"{os.major(number)}:{os.minor(number)}"] = int(each[value])
    return numbers


def _io_device_weights(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    actual = _weight_file(groups)
    if actual is None:
        return
    name, text, path = actual
    if not name.startswith("io."):
        listed = groups.read("blkio", f"{name}_device", "")
        if listed is None:
            return
        text, path = listed
    weights = {key: value for key, value in pairs(text).items() if ":" in key}
    expected = {
        device: str(io.weight(weight) if name == "io.weight" else weight)
        for device, weight in _by_device(container, "BlkioWeightDevice", "Weight").items()
    }
    yield _row("io device weights", _text(expected), _text(weights), path, weights == expected)


def _io_rates(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    """Yield a row for each of the four rates."""
    for name, (key, member) in RATES.items():
        expected = {d: str(rate) for d, rate in _by_device(container, member, "Rate").items()}
        v1 = f"blkio.throttle.{name}_device"
        actual = groups.read("blkio", v1, "io.max")
        if actual is None:
            continue
        rates = pairs(actual[0]) if groups.legacy("blkio") is not None else io_max(actual[0], key)
        yield _row(f"io {name}", _text(expected), _text(rates), actual[1], rates == expected)


def _huge_pages(groups: CgroupDirs, resources: Resources) -> Iterator[Result]:
    expected = {limit.page_size: limit.limit for limit in resources.hugepage_limits}
    directory = groups.legacy("hugetlb") or groups.unified()
    if directory is None:
        return
    ending = ".limit_in_bytes" if groups.legacy("hugetlb") is not None else ".max"
    wrong, count = [], 0
    for name in sorted(os.listdir(directory)):
        size = name.removeprefix("hugetlb.").removesuffix(ending)
        if name != f"hugetlb.{size}{ending}" or size.endswith(".rsvd"):
            continue
        count += 1
        with open(f"{directory}/{name}", encoding="ascii") as file:
            actual = byte_limit(file.read().strip())
        if actual != expected.get(size):
            wrong.append(f"{size} {actual if actual is not None else 'unlimited'}")
    if count:
        requested = ", ".join(f"{k} {v}" for k, v in expected.items()) or "unlimited"
        yield _row("huge pages", requested, ", ".join(wrong) or "as requested", directory,
                   not wrong)  # fmt: skip


def _state(container: AuditedContainer, groups: CgroupDirs) -> Iterator[Result]:
    paused = bool(container.inspect.get("PauseRequested"))  # State.Paused is the kernel's
    actual = groups.read("freezer", "freezer.state", "cgroup.freeze")
    if actual is None:
        return
    frozen = actual[0] in ("FROZEN", "FREEZING", "1")
    yield _row("frozen", "paused" if paused else "running", "frozen" if frozen else "thawed",
               actual[1], frozen == paused)  # fmt: skip


def pairs(text: str) -> dict[str, str]:
    """Return the lines ``key value`` of a control file. Pure."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def io_max(text: str, key: str) -> dict[str, str]:
    """Return one rate of each device in ``io.max``, if it has a limit. Pure."""
    rates = {}
    for line in text.splitlines():
        device, *values = line.split()
        for name, _, value in (pair.partition("=") for pair in values):
            if name == key and value != "max":
                rates[device] = value
    return rates


def _text(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(values.items())) or "none"
