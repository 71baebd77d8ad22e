"""Capability arguments: values of one pod that a plugin gets if its configuration asks for them.

Source: CNI specification 1.1, "Deriving runtimeConfig", and CONVENTIONS.md of the same repository.
"""

from __future__ import annotations

import msgspec

from jaula.features.kubernetes.cni.cni_config import PluginConfig


class _Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the documents: camelCase on the wire."""


class PortMapping(_Value, frozen=True, kw_only=True):
    """A port of the host that leads to a port of the pod. ``protocol`` is in lower case."""

    host_port: int
    container_port: int
    protocol: str = msgspec.field(default_factory=lambda: "tcp")  # a factory: always written
    host_ip: str = msgspec.field(default="", name="hostIP")


class Bandwidth(_Value, frozen=True, kw_only=True):
    """Limits of the traffic to (ingress) and from the pod: bits per second, bursts in bits."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class DNSConfig(_Value, frozen=True, kw_only=True):
    """Name servers, search domains and options of the pod's resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class CapabilityArgs(_Value, frozen=True, kw_only=True):
    """The capability arguments of one attachment; a default value means that it is absent."""

    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    dns: DNSConfig | None = None
    ips: tuple[str, ...] = ()
    mac: str = ""
    cgroup_path: str = ""


def runtime_config(plugin: PluginConfig, values: CapabilityArgs) -> dict[str, msgspec.Raw]:
    """Return the arguments whose capability the plugin has. Pure."""
    document = msgspec.json.decode(msgspec.json.encode(values), type=dict[str, msgspec.Raw])
    return {name: value for name, value in document.items() if name in plugin.capabilities}
