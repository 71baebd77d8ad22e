"""Limits of a container as properties of its unit. Pure.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5). systemd may write a unit's limits
at any time (``daemon-reload``, ``set-property``), so it must know those that it would otherwise
reset to a default. It does not touch a limit without a property; such a limit is only written to
the cgroup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from jaula.cgroups import device_rules
from jaula.cgroups.cgroup_files import Reader, limit
from jaula.cgroups.device_rules import DeviceRule
from jaula.cgroups.v2 import cpu_v2, io, memory_v2
from jaula.errors import InvalidRequest
from jaula.spec import cpuset
from jaula.spec.runtime_spec import Resources

INFINITY = 2**64 - 1
_PERIOD = 100_000  # microseconds, the kernel's own
_STEP = 10_000  # microseconds per second: systemd stores a quota in whole percent


class UnitProperty(msgspec.Struct, frozen=True):
    """A property with the D-Bus signature of its value."""

    name: str
    signature: str
    value: object

    def wire(self) -> tuple[str, tuple[str, Any]]:
        """Return the D-Bus ``(sv)`` pair."""
        return self.name, (self.signature, self.value)


def scope_properties(
    unit: str, parent: str, pid: int | None, description: str, version: int
) -> tuple[UnitProperty, ...]:
    """Return the properties of a new unit in the slice ``parent``.

    ``pid`` is None for a slice, which holds no process.
    """
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
    """Return the properties for the limits.

    ``read`` reads the current cgroup, ``version`` is its version. ``devices`` is the text of
    ``/proc/devices``, or None to leave device rules to the cgroup.

    :raises InvalidRequest: when limits contradict each other.
    """
    by_name = {
        p.name: p
        for p in (
            *_memory(resources, read, version),
            *_cpu(resources, read, version, systemd),
            *_pids_and_io(resources, version),
            *(_unified(resources.unified, systemd) if version == 2 else ()),
            *(
                _devices(device_rules.normalize(resources.devices), devices)
                if devices is not None
                else ()
            ),
        )
    }
    return tuple(by_name.values())


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
    now = limit(read(memory_v2.LIMIT))
    swap = memory_v2.swap_max(memory.limit or None, memory.swap or None, now)
    if swap is not None:
        yield UnitProperty("MemorySwapMax", "t", INFINITY if swap == "max" else int(swap))


def _cpu(resources: Resources, read: Reader, version: int, systemd: int) -> Iterator[UnitProperty]:
    cpu = resources.cpu
    if cpu is None:
        return
    if version == 2 and cpu.idle == 1 and systemd >= 252:
        yield UnitProperty("CPUWeight", "t", 0)
    elif cpu.shares and version == 2:
        yield UnitProperty("CPUWeight", "t", cpu_v2.weight(cpu.shares))
    elif cpu.shares:
        yield UnitProperty("CPUShares", "t", cpu.shares)
    if cpu.quota or cpu.period:
        quota, period = _current_bandwidth(read, version)
        yield from _quota(cpu.quota or quota, cpu.period or period, systemd)
    if systemd >= 244:
        for name, text in (("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)):
            if text:
                yield UnitProperty(name, "ay", _cpu_mask(text))


def _current_bandwidth(read: Reader, version: int) -> tuple[int, int]:
    """Return the current (quota, period) in microseconds; quota -1 means no quota."""
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
    # Rounded up, so that the value written to the cgroup afterwards does not exceed it.
    a_second = quota * 1_000_000 // period
    yield UnitProperty("CPUQuotaPerSecUSec", "t", -(-a_second // _STEP) * _STEP)


def _pids_and_io(resources: Resources, version: int) -> Iterator[UnitProperty]:
    if resources.pids is not None:
        most = resources.pids.limit
        yield UnitProperty("TasksMax", "t", most if most > 0 else INFINITY)
    block = resources.block_io
    if block is not None and block.weight:
        if version == 2:
            yield UnitProperty("IOWeight", "t", io.weight(block.weight))
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
            yield UnitProperty(kind, "ay", _cpu_mask(value))


def _cpu_mask(text: str) -> bytes:
    return cpuset.bit_mask(cpuset.parse(text, empty_elements=True))


def _number(name: str, word: str) -> int:
    if word == "max":
        return INFINITY
    if not (word.isascii() and word.isdigit()) or int(word) >= INFINITY:
        raise InvalidRequest(f"unified resource {name!r} value invalid: {word!r}")
    return int(word)


def _devices(rules: tuple[DeviceRule, ...], table: str) -> Iterator[UnitProperty]:
    """Yield the rules if systemd can express them: allow all, or an allow-list.

    Rules that deny after an allow are applied by the cgroup alone.
    """
    start = max((n for n, rule in enumerate(rules) if rule.everything), default=-1)
    if start < 0:
        return
    rest = rules[start + 1 :]
    if rules[start].allow and all(rule.allow for rule in rest):
        yield UnitProperty("DevicePolicy", "s", "auto")
        yield UnitProperty("DeviceAllow", "a(ss)", [])
        return
    names = [_device_names(rule, table) for rule in rest]
    if rules[start].allow or not all(rule.allow for rule in rest) or not all(names):
        return
    allowed = [
        (name, rule.access)
        for rule, device_names in zip(rest, names, strict=True)
        for name in device_names
    ]
    yield UnitProperty("DevicePolicy", "s", "strict")
    yield UnitProperty("DeviceAllow", "a(ss)", [])  # clear the previous list
    yield UnitProperty("DeviceAllow", "a(ss)", allowed)


def _device_names(rule: DeviceRule, table: str) -> tuple[str, ...]:
    """Return systemd's names of the rule's devices; () if it cannot express one."""
    names: list[str] = []
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
        names.append(name)
    return tuple(names)


def _group(word: str, major: int, table: str) -> str:
    """Return the driver name of a major number in ``/proc/devices``: the first match.

    systemd uses the first match too.
    """
    section = ""
    for line in table.splitlines():
        if line.endswith(" devices:"):
            section = line
        number, _, name = line.strip().partition(" ")
        if section.lower().startswith(word) and number == str(major):
            return name
    return ""
