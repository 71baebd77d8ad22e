"""The v1 controllers ``net_cls`` and ``net_prio``: class and priority of a container's packets.

Source: OCI config-linux.md "Network"; kernel ``admin-guide/cgroup-v1/net_cls.rst`` and
``net_prio.rst``. v2 has neither; packet filters match the cgroup itself instead.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_files import FileWrite, Reader, Step
from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

_INTERFACE_NAME_MAX = 15  # bytes, IFNAMSIZ - 1


class NetCls:
    """The ``net_cls`` controller."""

    name = "net_cls"
    section = "network"
    limits = ("net_cls.classid",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        network = resources.network
        if network is None or network.class_id is None:
            return ()
        return (FileWrite("net_cls.classid", str(network.class_id)),)


class NetPrio:
    """The ``net_prio`` controller."""

    name = "net_prio"
    section = "network"
    limits = ("net_prio.ifpriomap",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        if resources.network is None:
            return ()
        for interface in resources.network.priorities:
            name = interface.name
            if not name or len(name) > _INTERFACE_NAME_MAX or not name.isascii() or " " in name:
                raise InvalidRequest(f"bad network interface name {name!r}")
        return tuple(
            FileWrite("net_prio.ifpriomap", f"{interface.name} {interface.priority}")
            for interface in resources.network.priorities
        )
