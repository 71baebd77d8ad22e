"""Device rules in the form that both versions use, and the default rules of a runtime. Pure.

Source: OCI config-linux.md "Device allow list": an absent type is ``a``, absent numbers match any,
and the access letters are ``r``, ``w``, ``m`` (mknod).

OCI config-linux.md "Default Devices": the runtime supplies these nodes, so the list of a spec does
not name them. :data:`DEFAULT_DEVICES` also allows mknod of any node, as other runtimes do and
images expect (a package that runs mknod). Opening a node needs a rule. The engine writes complete
lists of its own, without mknod, and does not use the default.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.runtime_spec import DeviceCgroup

_MAX_NUMBER = 2**32 - 1


class DeviceRule(msgspec.Struct, frozen=True):
    """A rule; ``kinds`` is one or both of ``c`` and ``b``, ``access`` is in the order ``rwm``."""

    allow: bool
    kinds: tuple[str, ...]
    major: int | None
    minor: int | None
    access: str

    @property
    def everything(self) -> bool:
        """Whether the rule matches every device and every access."""
        return (
            len(self.kinds) == 2
            and self.major is None
            and self.minor is None
            and self.access == "rwm"
        )


def normalize(devices: Iterable[DeviceCgroup]) -> tuple[DeviceRule, ...]:
    """Return validated rules in the same order.

    :raises InvalidRequest: when a rule is not valid.
    """
    return tuple(_rule(device) for device in devices)


def _rule(device: DeviceCgroup) -> DeviceRule:
    kinds = {"a": ("c", "b"), "c": ("c",), "u": ("c",), "b": ("b",)}.get(device.type or "a")
    if kinds is None:
        raise InvalidRequest(f"bad device rule type {device.type!r}", hint="a, b or c")
    access = "rwm" if device.access is None else device.access
    if not access or set(access) - set("rwm"):
        raise InvalidRequest(f"bad device access {access!r}", hint="letters of rwm")
    return DeviceRule(
        device.allow,
        kinds,
        _number("major", device.major),
        _number("minor", device.minor),
        "".join(letter for letter in "rwm" if letter in access),
    )


def _number(what: str, value: int | None) -> int | None:
    if value is None or value == -1:  # runtimes write -1 for "any" too
        return None
    if not 0 <= value <= _MAX_NUMBER:
        raise InvalidRequest(f"bad device {what} {value}", hint=f"0 to {_MAX_NUMBER}, or absent")
    return value


_DENY_ALL = DeviceCgroup(allow=False, access="rwm")

DEFAULT_DEVICES: tuple[DeviceCgroup, ...] = (
    DeviceCgroup(allow=True, type="c", access="m"),
    DeviceCgroup(allow=True, type="b", access="m"),
    *(
        DeviceCgroup(allow=True, type="c", major=major, minor=minor, access="rwm")
        for major, minor in (
            (1, 3),  # null
            (1, 5),  # zero
            (1, 7),  # full
            (1, 8),  # random
            (1, 9),  # urandom
            (5, 0),  # tty
            (5, 1),  # console
            (5, 2),  # ptmx
            (136, None),  # pts
        )
    ),
)


def with_default_devices(devices: Iterable[DeviceCgroup]) -> tuple[DeviceCgroup, ...]:
    """Return ``devices`` followed by the default rules, which therefore always apply.

    If the first rule does not match every device, the result begins with a rule that denies all.

    :raises InvalidRequest: when the first rule is not valid.
    """
    rules = tuple(devices)
    complete = bool(rules) and normalize(rules[:1])[0].everything
    return (*(() if complete else (_DENY_ALL,)), *rules, *DEFAULT_DEVICES)
