"""Documents about networks that clients of the Docker Engine API send.

Source: the Docker Engine API, version 1.45 (``swagger.yaml``: NetworkingConfig, EndpointSettings,
IPAM, NetworkCreateRequest ...). :mod:`jaula.spec.api_documents` describes the common rules.
"""

from __future__ import annotations

import msgspec

from jaula.spec.decode import Document, Int64


class EndpointIPAMConfig(Document, frozen=True, kw_only=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = msgspec.field(name="LinkLocalIPs", default=())


class EndpointSettings(Document, frozen=True, kw_only=True):
    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: Int64 = 0  # the network with the highest has the default routes


class NetworkingConfig(Document, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings] = {}


class IPAMPool(Document, frozen=True, kw_only=True):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAM(Document, frozen=True, kw_only=True):
    driver: str = ""
    options: dict[str, str] | None = None
    config: tuple[IPAMPool, ...] = ()


class ConfigReference(Document, frozen=True, kw_only=True):
    """A network whose configuration another one takes."""

    network: str = ""


class NetworkCreate(Document, frozen=True, kw_only=True):
    """``POST /networks/create``."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkConnect(Document, frozen=True, kw_only=True):
    """``POST /networks/{id}/connect``."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Document, frozen=True, kw_only=True):
    """``POST /networks/{id}/disconnect``."""

    container: str = ""
    force: bool = False
