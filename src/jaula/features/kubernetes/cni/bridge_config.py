"""Configuration of a network for a single node: a bridge with addresses of the node's own ranges.

Source: the documents of the plugins bridge, host-local and portmap
(github.com/containernetworking/plugins). ``lo`` needs no plugin: the runtime sets it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cni import cni_config

FILE_NAME = "10-jaula.conflist"
_VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
_HOST_BITS = 3  # of the smallest subnet: its gateway and a few pods


def bridge_conflist(
    pod_cidrs: Sequence[str], *, name: str = "jaula", bridge: str = "jaula-cni0"
) -> bytes:
    """Return the configuration list for pods in one IPv4 or IPv6 subnet, or in one of each. Pure.

    The first address of a subnet is the bridge's. Traffic that leaves the subnets gets the address
    of the node.

    :raises InvalidRequest: when a subnet is malformed, too small, or the second of its family.
    """
    subnets = [_subnet(text) for text in pod_cidrs]
    if not subnets or len({subnet.version for subnet in subnets}) != len(subnets):
        raise InvalidRequest(
            f"pod CIDR {','.join(pod_cidrs)[:200]!r} must be one IPv4 subnet, one IPv6 subnet, or "
            "one of each"
        )
    bridge_plugin: dict[str, Any] = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,  # a pod reaches its own published port
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(subnet)}] for subnet in subnets],
            "routes": [
                {"dst": "0.0.0.0/0" if subnet.version == 4 else "::/0"} for subnet in subnets
            ],
        },
    }
    document = {
        "cniVersion": _VERSIONS[0],
        "cniVersions": _VERSIONS,
        "name": name,
        "plugins": [
            bridge_plugin,
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    cni_config.parse_list(data, FILE_NAME)  # the name is valid
    return data


def _subnet(text: str) -> IPv4Network | IPv6Network:
    try:
        subnet = ip_network(text.strip())
    except ValueError as error:
        raise InvalidRequest(f"invalid pod CIDR {text[:200]!r}: {error}") from None
    if subnet.max_prefixlen - subnet.prefixlen < _HOST_BITS:
        limit = subnet.max_prefixlen - _HOST_BITS
        raise InvalidRequest(f"pod CIDR {subnet} is too small: at most /{limit} is possible")
    return subnet
