"""Which subnet a bridge gets, and which address a container gets. Pure decisions.

Addresses are handed out in turn, not lowest first: an address that was just given back may still
be answered for by the interface of a container whose namespace the kernel has not yet taken down.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from jaula.errors import Conflict, InvalidRequest, JaulaError

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


def parse_subnet(text: str) -> IPv4Network:
    """A CIDR with room for a gateway and a container; InvalidRequest for anything else."""
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 30 or subnet.prefixlen < 8:
        raise InvalidRequest(f"invalid subnet {text!r}", hint="the prefix must be from /8 to /30")
    return subnet


def parse_subnet6(text: str) -> IPv6Network:
    """An IPv6 CIDR; InvalidRequest for anything else."""
    try:
        subnet = IPv6Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 125 or subnet.prefixlen < 8 or subnet.is_link_local:
        raise InvalidRequest(
            f"invalid subnet {text!r}",
            hint="the prefix must be from /8 to /125, and not link-local",
        )
    return subnet


def unique_local_subnet(seed: bytes) -> IPv6Network:
    """A unique local /64 (RFC 4193) that follows from 7 bytes that are nobody else's."""
    return IPv6Network((b"\xfd" + seed[:7] + bytes(8), 64))


def link_local_address(mac: str) -> IPv6Address:
    """The address that an interface gives itself from its MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def mac_from_address(address: Address) -> str:
    """A MAC that follows from the address, ``02:42`` before its bytes as Docker has it.

    A neighbour's ARP entry stays right when another container gets the address.
    """
    return "02:42:" + address.packed[-4:].hex(":")


class Addresses:
    """The addresses of one subnet; the first host address is the gateway's, if none is named.

    ``within`` is the part of the subnet from which the next in turn is taken; an address that is
    asked for may be any of the subnet. ``reserved`` are given to nobody.
    """

    def __init__(
        self,
        subnet: Subnet,
        gateway: Address | None = None,
        *,
        within: Subnet | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet = subnet
        self.gateway: Address = gateway or subnet[1]
        self._kept = {int(self.gateway), *map(int, reserved)}
        self._taken: set[int] = set(self._kept)
        self._lowest = int(subnet.network_address) + 1
        self._highest = int(subnet.broadcast_address) - 1
        part = within or subnet
        self._first = max(self._lowest, int(part.network_address))
        self._last = min(self._highest, int(part.broadcast_address))
        self._next = self._first

    def allocate(self, wanted: str | None = None) -> Address:
        """Take an address, the wanted one or the next in turn.

        Raises ``InvalidRequest`` for one outside the subnet, ``Conflict`` for one in use and
        ``JaulaError`` when none is left.
        """
        if wanted is not None:
            return self._take(wanted)
        if len(self._taken) > self._last - self._first:
            self._check_room()
        while self._next in self._taken:
            self._advance()
        found = self._next
        self._taken.add(found)
        self._advance()
        return self._address(found)

    def _check_room(self) -> None:
        if sum(self._first <= number <= self._last for number in self._taken) > (
            self._last - self._first
        ):
            raise JaulaError(
                f"no available IPv{self.subnet.version} address in {self.subnet}",
                hint="remove containers that ended",
            )

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)

    def _take(self, wanted: str) -> Address:
        version = self.subnet.version
        try:
            address = ip_address(wanted)
        except ValueError as exc:
            raise InvalidRequest(f"invalid IPv{version} address {wanted!r}") from exc
        if address.version != version:
            raise InvalidRequest(f"invalid IPv{version} address {wanted!r}")
        if not self._lowest <= int(address) <= self._highest:
            raise InvalidRequest(f"address {address} is not in the network's subnet {self.subnet}")
        if int(address) in self._taken:
            raise Conflict(f"address already in use: {address}")
        self._taken.add(int(address))
        return address

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1

    def release(self, address: str) -> None:
        """Give an address back; one that is not taken is no error."""
        number = int(ip_address(address))
        if number not in self._kept:
            self._taken.discard(number)
