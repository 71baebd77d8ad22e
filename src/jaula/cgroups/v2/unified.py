"""OCI's ``unified``: values for files of a v2 cgroup by name. Pure.

Source: OCI config-linux.md "Unified"; kernel ``admin-guide/cgroup-v2.rst``. Of the core files only
limits may be set, because the others move, freeze or kill processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jaula.cgroups.cgroup_files import FileWrite, Reader, Step
from jaula.errors import InvalidRequest, Unsupported

_CORE = ("cgroup.max.depth", "cgroup.max.descendants")
_ANYWHERE = ("cpu.pressure", "memory.pressure", "io.pressure", "irq.pressure")


def decide(
    resources: Mapping[str, str], controllers: Collection[str], current: Reader
) -> tuple[Step, ...]:
    """Return one write per line, because files such as ``io.max`` take one device at a time.

    :raises InvalidRequest: when a name or value is not valid.
    :raises Unsupported: when a controller is not enabled, or the kernel lacks a file.
    """
    steps: list[Step] = []
    for name, value in resources.items():
        check(name, value, controllers)
        if current(name) is None and not _is_write_only(name):
            raise Unsupported(
                f"unified resource {name!r} can't be set: this kernel has no such limit"
            )
        steps += [FileWrite(name, line) for line in value.strip().splitlines()]
    return tuple(steps)


def check(name: str, value: str, controllers: Collection[str]) -> None:
    """Check a name and the form of its value; the kernel checks the value itself.

    :raises InvalidRequest: when they are not valid.
    :raises Unsupported: when the controller is not one of ``controllers``.
    """
    if "/" in name:
        raise InvalidRequest(f"unified resource {name!r} must be a file name (no slashes)")
    controller, dot, rest = name.partition(".")
    if not dot or not controller.isalnum() or not rest or not name.isprintable():
        raise InvalidRequest(
            f"bad unified resource {name!r}: it must be in the form CONTROLLER.PARAMETER",
            hint="for example memory.high",
        )
    if (controller == "cgroup" and name not in _CORE) or "\0" in value or not value.isascii():
        raise InvalidRequest(f"unified resource {name!r} may not be set to {value!r}")
    if not value.strip():
        raise InvalidRequest(f"unified resource {name!r} has no value")
    if controller != "cgroup" and controller not in controllers and name not in _ANYWHERE:
        raise Unsupported(
            f"unified resource {name!r} can't be set: controller {controller!r} not available"
        )


def _is_write_only(name: str) -> bool:
    return name == "memory.reclaim"
