"""Results of ADD: interfaces, addresses, routes and DNS of an attachment.

Source: CNI specification 1.1, section 5, and the sections of the same name of 0.2.0, 0.3.1, 0.4.0
and 1.0.0. Up to 0.2.0 a result has one address of each family (``ip4``, ``ip6``). From 0.3.0 it has
lists. 1.0.0 removed ``version`` of an address, and 1.1.0 added members. Every version is decoded to
one value, from which the document of any version is encoded.

``null`` is an absent member, as Go's decoder reads it. A member that the protocol does not define
is dropped, as libcni does.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cni import cni_version

_LEGACY = ("0.1.0", "0.2.0")
_WITH_FAMILY = ("0.3.0", "0.3.1", "0.4.0")  # an address has its family: "4" or "6"


class _Value(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the parts of a result: camelCase on the wire."""


class Interface(_Value, frozen=True, kw_only=True):
    """An interface. ``sandbox`` is the network namespace as given to ADD, '' on the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = msgspec.field(default="", name="pciID")


class IPConfig(_Value, frozen=True, kw_only=True):
    """An address with its prefix length. ``interface`` is an index of the interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None


class Route(_Value, frozen=True, kw_only=True):
    """A route. ``dst`` is a prefix; ``gw`` is '' if the gateway of the address applies."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class DNS(_Value, frozen=True, kw_only=True):
    """DNS settings that the network suggests."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(_Value, frozen=True, kw_only=True):
    """The result of ADD, independent of the version in which it was printed."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()

    def addresses(self, ifname: str) -> tuple[str, ...]:
        """Return the addresses of an interface of the pod, without prefix lengths, in order.

        An address that names no interface belongs to it: results up to 0.2.0 have no interfaces.
        """
        return tuple(
            ip.address.partition("/")[0] for ip in self.ips if self._belongs_to(ip, ifname)
        )

    def _belongs_to(self, ip: IPConfig, ifname: str) -> bool:
        if ip.interface is None:
            return True
        interface = self.interfaces[ip.interface]
        return interface.name == ifname and bool(interface.sandbox)

    def encode(self, version: str) -> bytes:
        """Return the document of a version as JSON.

        Up to 0.2.0 it has the first address of each family, and their routes.
        """
        document: dict[str, Any] = {"cniVersion": version}
        if version in _LEGACY:
            document |= self._legacy()
        elif version in _WITH_FAMILY:
            document |= self._with_family()
        else:
            document |= msgspec.to_builtins(self)
        if self.dns != DNS():
            document["dns"] = self.dns
        return msgspec.json.encode(document)

    def _with_family(self) -> dict[str, Any]:
        return {
            "interfaces": [
                Interface(name=one.name, mac=one.mac, sandbox=one.sandbox)
                for one in self.interfaces
            ],
            "ips": [
                {"version": str(_family(ip.address)), **msgspec.to_builtins(ip)} for ip in self.ips
            ],
            "routes": [Route(dst=one.dst, gw=one.gw) for one in self.routes],
        }

    def _legacy(self) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for ip in self.ips:
            family = _family(ip.address)
            routes = [
                Route(dst=one.dst, gw=one.gw) for one in self.routes if _family(one.dst) == family
            ]
            row: dict[str, Any] = {"ip": ip.address, "routes": routes}
            if ip.gateway:
                row["gateway"] = ip.gateway
            document.setdefault(f"ip{family}", row)
        return document


class _LegacyIP(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    gateway: str = ""
    routes: tuple[Route, ...] = ()


class _LegacyResult(msgspec.Struct, frozen=True, kw_only=True):
    ip4: _LegacyIP | None = None
    ip6: _LegacyIP | None = None
    dns: DNS = DNS()


def decode(data: bytes, version: str) -> Result:
    """Return the result in a plugin's output; ``version`` is that of the request. Pure.

    A result without ``cniVersion`` has the version of the request, as in libcni.

    :raises InvalidRequest: when the output is not a result, or has an unknown version.
    """
    try:
        document = _without_null(msgspec.json.decode(data))
        if document is None:
            document = {}
        if not isinstance(document, dict):
            raise InvalidRequest("the output is not a JSON object")
        own = msgspec.convert(document.get("cniVersion") or version, str)
        if own not in cni_version.SUPPORTED:
            raise InvalidRequest(f"unknown cniVersion {own[:200]!r} of the result")
        if own in _LEGACY:
            result = _from_legacy(msgspec.convert(document, _LegacyResult))
        else:
            result = msgspec.convert(document, Result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the output is not a result: {error}") from None
    return _checked(result)


def _from_legacy(document: _LegacyResult) -> Result:
    rows = [row for row in (document.ip4, document.ip6) if row is not None]
    return Result(
        ips=tuple(IPConfig(address=row.ip, gateway=row.gateway) for row in rows),
        routes=tuple(route for row in rows for route in row.routes),
        dns=document.dns,
    )


def _checked(result: Result) -> Result:
    """Return the result with every address checked, and no negative index of an interface."""
    ips = []
    for ip in result.ips:
        _check_prefix(ip.address, "address")
        _check_address(ip.gateway, "gateway")
        if ip.interface is not None and ip.interface < 0:
            ip = msgspec.structs.replace(ip, interface=None)
        elif ip.interface is not None and ip.interface >= len(result.interfaces):
            raise InvalidRequest(
                f"address {ip.address} has interface {ip.interface}, but the result has "
                f"{len(result.interfaces)} interfaces"
            )
        ips.append(ip)
    for route in result.routes:
        _check_prefix(route.dst, "destination")
        _check_address(route.gw, "gateway")
    return msgspec.structs.replace(result, ips=tuple(ips))


def _check_prefix(text: str, what: str) -> None:
    try:
        if not text.rpartition("/")[2].isdecimal() or "%" in text:
            raise ValueError
        ip_interface(text)
    except ValueError:
        raise InvalidRequest(
            f"{what} {text[:200]!r} of the result must be ADDRESS/PREFIX"
        ) from None


def _check_address(text: str, what: str) -> None:
    try:
        if text:
            ip_address(text)
    except ValueError:
        raise InvalidRequest(f"{what} {text[:200]!r} of the result must be an address") from None


def _family(text: str) -> int:
    return 6 if ":" in text else 4


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_null(one) for one in value]
    return value
