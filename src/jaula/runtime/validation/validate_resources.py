"""Validation of ``linux.resources`` without the cgroup controllers, which check the rest.

Follows config-linux.md "Control groups"; also used for the resources of ``update``.
"""

from __future__ import annotations

import msgspec

from jaula.runtime.validation.field import between, one_of, quote, refuse
from jaula.spec.runtime_spec import DeviceCgroup, Resources


def check(limits: Resources, field: str = "linux.resources") -> None:
    """Validate resources.

    :raises InvalidRequest: when a value is invalid.
    """
    for index, rule in enumerate(limits.devices):
        _device_rule(f"{field}.devices[{index}]", rule)
    for name in limits.unified:
        if not name or "/" in name or name.startswith("."):
            raise refuse(f"{field}.unified", f"{quote(name)} is not a file name")
    _numbers(field, msgspec.to_builtins(limits))


def _device_rule(field: str, rule: DeviceCgroup) -> None:
    if rule.type:
        one_of(f"{field}.type", rule.type, ("a", "c", "b"))
    for name, number in (("major", rule.major), ("minor", rule.minor)):
        if number is not None:  # some callers write -1 for 'any'
            between(f"{field}.{name}", number, -1, 0xFFFFFFFF)
    if rule.access and not set(rule.access) <= set("rwm"):
        raise refuse(f"{field}.access", f"{quote(rule.access)} must consist of r, w and m")


def _numbers(field: str, value: object) -> None:
    """Refuse integers beyond 64 bits with a sign: no limit of the kernel is larger."""
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise refuse(field, f"{value} is not a 64-bit number with a sign")
    elif isinstance(value, dict):
        for key, item in value.items():
            _numbers(f"{field}.{key if key.isprintable() else quote(key)}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _numbers(f"{field}[{index}]", item)
