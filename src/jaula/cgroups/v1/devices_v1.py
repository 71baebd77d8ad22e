"""The v1 ``devices`` controller: which device nodes may be opened or created.

Source: OCI config-linux.md "Device allow list"; kernel ``admin-guide/cgroup-v1/devices.rst``. Rules
are written in the document's order; ``a`` clears the list and denies (or allows) all. v2 has no
such files: :mod:`jaula.cgroups.v2.devices_v2` compiles the same rules to a program.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_files import FileWrite, Reader, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.spec.runtime_spec import Resources


class Devices:
    """The v1 ``devices`` controller."""

    name = "devices"
    section = "devices"
    limits = ("devices.list",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return tuple(_writes(resources))


def _writes(resources: Resources) -> Iterator[Step]:
    from jaula.cgroups.device_rules import normalize  # has no use without limits

    for rule in normalize(resources.devices):
        file = "devices.allow" if rule.allow else "devices.deny"
        if rule.everything:
            yield FileWrite(file, "a")
            continue
        for kind in rule.kinds:
            major = "*" if rule.major is None else rule.major
            minor = "*" if rule.minor is None else rule.minor
            yield FileWrite(file, f"{kind} {major}:{minor} {rule.access}")
