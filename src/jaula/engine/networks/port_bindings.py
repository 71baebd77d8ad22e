"""Published ports: parse ``PortBindings`` of a request. Pure.

Source: Docker Engine API 1.45, ``PortMap``; go-connections ``nat`` for the notation ``80/tcp``.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import PortMapping

_PROTOCOLS = ("tcp", "udp", "sctp")
MAX_PUBLISHED = 16384  # ports of one container
_DIGITS = 16  # of a port, with zeros in front


def parse_port(text: str) -> tuple[int, str]:
    """Return number and protocol of ``80`` or ``80/udp``.

    :raises InvalidRequest: when the text is not a port.
    """
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidRequest(f"invalid port {text[:80]!r}: unknown protocol {protocol[:80]!r}")
    return _number(number, text), protocol


def parse_port_range(name: str, text: str) -> tuple[int, int, str]:
    """Return first and last number and the protocol of ``80``, ``80-90`` or ``80-90/udp``.

    ``name`` is that of the filter with this value, for the error.

    :raises InvalidRequest: when the text is not a port or a range of ports.
    """
    numbers, slash, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    try:
        low = _number(first, text)
        high = _number(last, text) if dash else low
    except InvalidRequest as error:
        what = f"error while looking up for {name} {text[:40]}"
        raise InvalidRequest(f"{what}: {error.message}") from None
    if high < low:
        raise InvalidRequest(
            f"error while looking up for {name} {text}: invalid range specified for port"
        )
    return low, high, protocol.lower() if slash else "tcp"


def port_mappings(body: ContainerCreate) -> tuple[PortMapping, ...]:
    """Return every port that the request publishes.

    :raises InvalidRequest: when a port or an address is not valid, or there are too many ports.
    """
    check_number(sum(len(each) or 1 for each in body.host_config.port_bindings.values()))
    mappings = []
    for text, bindings in body.host_config.port_bindings.items():
        port, protocol = parse_port(text)
        for binding in bindings:
            mappings.append(
                PortMapping(port, protocol, _address(binding.host_ip), *_range(binding.host_port))
            )
        if not bindings:
            mappings.append(PortMapping(port, protocol))
    published = {(mapping.container_port, mapping.protocol) for mapping in mappings}
    for text in body.exposed_ports:
        port, protocol = parse_port(text)
        if body.host_config.publish_all_ports and (port, protocol) not in published:
            mappings.append(PortMapping(port, protocol))
    check_number(len(mappings))
    return tuple(mappings)


def check_number(published: int) -> None:
    """Check how many ports a request publishes.

    :raises InvalidRequest: when there are too many.
    """
    if published > MAX_PUBLISHED:
        raise InvalidRequest(
            f"{published} published ports; at most {MAX_PUBLISHED} are allowed",
            hint="a network such as macvlan reaches all ports of a container",
        )


def host_network_warnings(exposed: Iterable[str], first_unprivileged: int) -> tuple[str, ...]:
    """Return a warning for exposed ports that only root of the host may bind in its network.

    Root of a container's user namespace has no power over the host's network.
    """
    low = sorted({port for port, _ in map(parse_port, exposed) if port < first_unprivileged})
    if not low:
        return ()
    ports = ", ".join(map(str, low))
    warning = (
        f"With host network mode the container cannot bind ports below {first_unprivileged} of the"
        f" host (exposed: {ports}). Set net.ipv4.ip_unprivileged_port_start={low[0]} on the host,"
        " or use --userns=host"
    )
    return (warning,)


def _number(text: str, whole: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not is_number or not 1 <= int(text) <= 65535:
        raise InvalidRequest(f"invalid port {whole[:80]!r}: must be a number from 1 to 65535")
    return int(text)


def _range(text: str) -> tuple[int | None, int | None]:
    if text in ("", "0"):
        return None, None
    first, dash, last = text.partition("-")
    low = _number(first, text)
    high = _number(last, text) if dash else low
    if high < low:
        raise InvalidRequest(f"invalid port range {text!r}: the end is less than the start")
    return low, high if high > low else None


def _address(text: str) -> str:
    if not text:
        return ""
    import ipaddress  # rarely needed, and slow to import

    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise InvalidRequest(f"invalid IP address {text!r} in a port binding") from None
