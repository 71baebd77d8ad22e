"""The v1 controllers ``net_cls`` and ``net_prio``: marks on the packets of a container.

Source: OCI config-linux.md "Network"; kernel ``admin-guide/cgroup-v1/net_cls.rst`` and
``net_prio.rst``. v2 has neither; there packets are matched by the cgroup itself.
"""

from __future__ import annotations

from jaula.cgroups.files import FileWrite, Reader, Step
from jaula.errors import InvalidRequest
from jaula.spec.runtime import Resources

_INTERFACE_LONGEST = 15  # IFNAMSIZ - 1


class NetCls:
    name = "net_cls"
    limits = ("net_cls.classid",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        network = resources.network
        if network is None or network.class_id is None:
            return ()
        return (FileWrite("net_cls.classid", str(network.class_id)),)


class NetPrio:
    name = "net_prio"
    limits = ("net_prio.ifpriomap",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        if resources.network is None:
            return ()
        for interface in resources.network.priorities:
            name = interface.name
            if not name or len(name) > _INTERFACE_LONGEST or not name.isascii() or " " in name:
                raise InvalidRequest(f"bad network interface name {name!r}")
        return tuple(
            FileWrite("net_prio.ifpriomap", f"{interface.name} {interface.priority}")
            for interface in resources.network.priorities
        )
