"""``linux.resources``: what can be said of it without the controllers, which judge the rest.

Follows config-linux.md "Control groups"; also for the resources that ``update`` is given.
"""

from __future__ import annotations

import msgspec

from jaula.runtime.validation.field import between, one_of, refuse, shown
from jaula.spec.runtime import DeviceCgroup, Resources


def check(wanted: Resources, field: str = "linux.resources") -> None:
    """Raises ``InvalidRequest``."""
    for index, rule in enumerate(wanted.devices):
        _device_rule(f"{field}.devices[{index}]", rule)
    for name in wanted.unified:
        if not name or "/" in name or name.startswith("."):
            raise refuse(f"{field}.unified", f"{shown(name)} is not a file's name")
    _numbers(field, msgspec.to_builtins(wanted))


def _device_rule(field: str, rule: DeviceCgroup) -> None:
    if rule.type:
        one_of(f"{field}.type", rule.type, ("a", "c", "b"))
    for name, number in (("major", rule.major), ("minor", rule.minor)):
        if number is not None:  # -1 is how some callers write 'any'
            between(f"{field}.{name}", number, -1, 0xFFFFFFFF)
    if rule.access and not set(rule.access) <= set("rwm"):
        raise refuse(f"{field}.access", f"{shown(rule.access)} has other letters than r, w and m")


def _numbers(field: str, value: object) -> None:
    """Refuse what is no 64-bit number, signed or not."""
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise refuse(field, "is not a 64-bit number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _numbers(f"{field}.{key if key.isprintable() else shown(key)}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _numbers(f"{field}[{index}]", item)
