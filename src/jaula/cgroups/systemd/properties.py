"""A container's limits as properties of its unit. Pure.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5). systemd writes a unit's limits
again whenever it likes (``daemon-reload``, ``set-property``), so it has to know those that it
would otherwise put back to a default. What it knows no property for is left alone by it, and only
written to the cgroup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from jaula.cgroups import cpulist, device_rules
from jaula.cgroups.device_rules import DeviceRule
from jaula.cgroups.files import Reader, limit
from jaula.cgroups.v2 import cpu as v2cpu
from jaula.cgroups.v2 import io as v2io
from jaula.cgroups.v2 import memory as v2memory
from jaula.errors import InvalidRequest
from jaula.spec.runtime import Resources

INFINITY = 2**64 - 1
_PERIOD = 100_000  # microseconds, the kernel's own
_STEP = 10_000  # microseconds a second: systemd keeps a quota in whole percents


class UnitProperty(msgspec.Struct, frozen=True):
    """A property with the D-Bus signature of its value."""

    name: str
    signature: str
    value: Any

    def wire(self) -> tuple[str, tuple[str, Any]]:
        """The pair that D-Bus calls ``(sv)``."""
        return self.name, (self.signature, self.value)


def scope_properties(
    unit: str, parent: str, pid: int | None, description: str, version: int
) -> tuple[UnitProperty, ...]:
    """Of a new unit in the slice ``parent``; without ``pid`` for a slice, which holds none."""
    accounting = ("Memory", "CPU", "IO" if version == 2 else "BlockIO", "Tasks")
    kind: tuple[UnitProperty, ...]
    if unit.endswith(".slice"):
        kind = (UnitProperty("Wants", "as", [parent]),)
    else:
        kind = (UnitProperty("Slice", "s", parent), UnitProperty("Delegate", "b", True))
    return (
        UnitProperty("Description", "s", description),
        *kind,
        *((UnitProperty("PIDs", "au", [pid]),) if pid is not None else ()),
        *(UnitProperty(f"{name}Accounting", "b", True) for name in accounting),
        UnitProperty("DefaultDependencies", "b", False),
        UnitProperty("CollectMode", "s", "inactive-or-failed"),
    )


def resource_properties(
    resources: Resources, read: Reader, *, version: int, systemd: int, devices: str | None
) -> tuple[UnitProperty, ...]:
    """Of the limits. ``read`` reads the cgroup as it is, ``version`` is that of its files.

    ``devices`` is the text of ``/proc/devices``, None to leave device rules to the cgroup.
    Raises ``InvalidRequest`` for contradictions.
    """
    found = {
        p.name: p
        for p in (
            *_memory(resources, read, version),
            *_cpu(resources, read, version, systemd),
            *_others(resources, version),
            *(_unified(resources.unified, systemd) if version == 2 else ()),
            *(
                _devices(device_rules.normalize(resources.devices), devices)
                if devices is not None
                else ()
            ),
        )
    }
    return tuple(found.values())


def _bytes(value: int) -> int:
    return INFINITY if value < 0 else value


def _memory(resources: Resources, read: Reader, version: int) -> Iterator[UnitProperty]:
    memory = resources.memory
    if memory is None:
        return
    if memory.limit:
        name = "MemoryMax" if version == 2 else "MemoryLimit"
        yield UnitProperty(name, "t", _bytes(memory.limit))
    if version == 1:
        return
    if memory.reservation:
        yield UnitProperty("MemoryLow", "t", _bytes(memory.reservation))
    now = limit(read(v2memory.LIMIT))
    swap = v2memory.swap_max(memory.limit or None, memory.swap or None, now)
    if swap is not None:
        yield UnitProperty("MemorySwapMax", "t", INFINITY if swap == "max" else int(swap))


def _cpu(resources: Resources, read: Reader, version: int, systemd: int) -> Iterator[UnitProperty]:
    cpu = resources.cpu
    if cpu is None:
        return
    if version == 2 and cpu.idle == 1 and systemd >= 252:
        yield UnitProperty("CPUWeight", "t", 0)
    elif cpu.shares and version == 2:
        yield UnitProperty("CPUWeight", "t", v2cpu.weight(cpu.shares))
    elif cpu.shares:
        yield UnitProperty("CPUShares", "t", cpu.shares)
    if cpu.quota or cpu.period:
        quota, period = _in_force(read, version)
        yield from _quota(cpu.quota or quota, cpu.period or period, systemd)
    if systemd >= 244:
        for name, text in (("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)):
            if text:
                yield UnitProperty(name, "ay", cpulist.bits(text))


def _in_force(read: Reader, version: int) -> tuple[int, int]:
    """(quota, period) microseconds; -1 is no quota."""
    if version == 2:
        words = (read("cpu.max") or "").split()
    else:
        words = [read("cpu.cfs_quota_us") or "", read("cpu.cfs_period_us") or ""]
    first, second = words if len(words) == 2 else ("", "")
    return (
        int(first) if first.isdigit() else -1,
        int(second) if second.isdigit() else _PERIOD,
    )


def _quota(quota: int, period: int, systemd: int) -> Iterator[UnitProperty]:
    if systemd >= 242:
        yield UnitProperty("CPUQuotaPeriodUSec", "t", period)
    if quota < 0:
        yield UnitProperty("CPUQuotaPerSecUSec", "t", INFINITY)
        return
    # Rounded up, so that what is written to the cgroup afterwards fits below it.
    a_second = quota * 1_000_000 // period
    yield UnitProperty("CPUQuotaPerSecUSec", "t", -(-a_second // _STEP) * _STEP)


def _others(resources: Resources, version: int) -> Iterator[UnitProperty]:
    if resources.pids is not None:
        most = resources.pids.limit
        yield UnitProperty("TasksMax", "t", most if most > 0 else INFINITY)
    block = resources.block_io
    if block is not None and block.weight:
        if version == 2:
            yield UnitProperty("IOWeight", "t", v2io.weight(block.weight))
        else:
            yield UnitProperty("BlockIOWeight", "t", block.weight)


_UNIFIED = {
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
    "memory.min": "MemoryMin",
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "memory.zswap.max": "MemoryZSwapMax",
    "pids.max": "TasksMax",
}


def _unified(unified: Mapping[str, str], systemd: int) -> Iterator[UnitProperty]:
    for name, raw in unified.items():
        value = raw.strip()
        if name in _UNIFIED:
            word = value.removeprefix("default ")
            yield UnitProperty(_UNIFIED[name], "t", _number(name, word))
        elif name == "cpu.max":
            words = value.split()
            if not 1 <= len(words) <= 2:
                raise InvalidRequest(f"unified resource {name!r} value invalid: {raw!r}")
            quota = -1 if words[0] == "max" else _number(name, words[0])
            period = _number(name, words[1]) if len(words) == 2 else _PERIOD
            if period == 0:
                raise InvalidRequest(f"unified resource {name!r} value invalid: {raw!r}")
            yield from _quota(quota, period, systemd)
        elif name == "cpu.idle" and value == "1" and systemd >= 252:
            yield UnitProperty("CPUWeight", "t", 0)
        elif name in ("cpuset.cpus", "cpuset.mems") and systemd >= 244:
            kind = "AllowedCPUs" if name == "cpuset.cpus" else "AllowedMemoryNodes"
            yield UnitProperty(kind, "ay", cpulist.bits(value))


def _number(name: str, word: str) -> int:
    if word == "max":
        return INFINITY
    if not (word.isascii() and word.isdigit()) or int(word) >= INFINITY:
        raise InvalidRequest(f"unified resource {name!r} value invalid: {word!r}")
    return int(word)


def _devices(given: tuple[DeviceRule, ...], table: str) -> Iterator[UnitProperty]:
    """The rules where systemd can say them: all allowed, or those allowed of none.

    A list that takes something away again is kept by the cgroup alone.
    """
    start = max((n for n, rule in enumerate(given) if rule.everything), default=-1)
    if start < 0:
        return
    rest = given[start + 1 :]
    if given[start].allow and all(rule.allow for rule in rest):
        yield UnitProperty("DevicePolicy", "s", "auto")
        yield UnitProperty("DeviceAllow", "a(ss)", [])
        return
    names = [_device_names(rule, table) for rule in rest]
    if given[start].allow or not all(rule.allow for rule in rest) or not all(names):
        return
    allowed = [
        (name, rule.access) for rule, found in zip(rest, names, strict=True) for name in found
    ]
    yield UnitProperty("DevicePolicy", "s", "strict")
    yield UnitProperty("DeviceAllow", "a(ss)", [])  # forget those of before
    yield UnitProperty("DeviceAllow", "a(ss)", allowed)


def _device_names(rule: DeviceRule, table: str) -> tuple[str, ...]:
    """What systemd calls the rule's devices; () where it has no word for them."""
    found: list[str] = []
    for kind in rule.kinds:
        word = "char" if kind == "c" else "block"
        if rule.major is None:
            name = f"{word}-*" if rule.minor is None else ""
        elif rule.minor is None:
            group = _group(word, rule.major, table)
            name = f"{word}-{group}" if group else ""
        else:
            name = f"/dev/{word}/{rule.major}:{rule.minor}"
        if not name:
            return ()
        found.append(name)
    return tuple(found)


def _group(word: str, major: int, table: str) -> str:
    """The name of a major number in ``/proc/devices``; the first is what systemd would find."""
    section = ""
    for line in table.splitlines():
        if line.endswith(" devices:"):
            section = line
        number, _, name = line.strip().partition(" ")
        if section.lower().startswith(word) and number == str(major):
            return name
    return ""
