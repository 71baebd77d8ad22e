"""The device rules that every OCI runtime adds to those of a spec. Pure.

Source: OCI config-linux.md "Default Devices": the runtime supplies these nodes, so that a spec's
list does not name them. Making a node of any kind is allowed as well, which other runtimes do and
images expect (a package that runs mknod); opening one is not, unless it is listed. The engine
writes complete lists of its own, without that, and does not use this.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.cgroups import device_rules
from jaula.spec.runtime import DeviceCgroup

_DENY_ALL = DeviceCgroup(allow=False, access="rwm")

DEFAULT: tuple[DeviceCgroup, ...] = (
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
    """``devices`` with the default ones behind, so that they hold whatever stands before.

    A list that begins with no word on every device begins with denying all. Raises
    ``InvalidRequest`` for a malformed rule.
    """
    given = tuple(devices)
    complete = bool(given) and device_rules.normal(given[:1])[0].everything
    return (*(() if complete else (_DENY_ALL,)), *given, *DEFAULT)
