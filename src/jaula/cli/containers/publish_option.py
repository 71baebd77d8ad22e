"""Port specifications of ``--publish`` and ``--expose``: ``[[ip:]host:]container[/protocol]``."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


def documents(publish: list[str], expose: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``ExposedPorts`` and ``PortBindings`` of the API.

    :raises UsageError: when a port is invalid.
    """
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in publish:
        for port, address, host in _parse(word):
            exposed[port] = {}
            bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host})
    for word in expose:
        number, protocol = _protocol(word, word)
        low, high = _range(number, word)
        for port_number in range(low, high + 1):
            exposed[f"{port_number}/{protocol}"] = {}
    return exposed, bindings


def _parse(word: str) -> list[tuple[str, str, str]]:
    rest, protocol = _protocol(word, word)
    before, _, container = rest.rpartition(":")
    address, host = "", before
    if before.startswith("["):
        address, bracket, host = before[1:].partition("]")
        if not bracket or (host and not host.startswith(":")):
            raise _bad(word, "invalid ip address")
        host = host[1:]
    elif ":" in before:
        address, _, host = before.rpartition(":")
    if address and not _is_address(address):
        raise _bad(word, f"invalid ip address: {address}")
    low, high = _range(container, word)
    if not host:
        return [(f"{port}/{protocol}", address, "") for port in range(low, high + 1)]
    if host == "0":  # any free port of the host
        return [(f"{port}/{protocol}", address, "0") for port in range(low, high + 1)]
    host_low, host_high = _range(host, word)
    if host_high - host_low != high - low:
        if low != high:
            raise _bad(word, "invalid ranges specified for container and host ports")
        return [(f"{low}/{protocol}", address, f"{host_low}-{host_high}")]
    return [
        (f"{low + step}/{protocol}", address, str(host_low + step))
        for step in range(high - low + 1)
    ]


def _protocol(text: str, word: str) -> tuple[str, str]:
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise _bad(word, f"invalid proto: {protocol}")
    return rest, protocol


def _range(text: str, word: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    high = high if dash else low
    if not (low.isascii() and low.isdigit() and high.isascii() and high.isdigit()):
        raise _bad(word, f"invalid port: {text}" if text else "no port specified")
    if not 0 < int(low) <= int(high) <= 65535:
        raise _bad(word, f"invalid port range: {text}")
    return int(low), int(high)


def _is_address(text: str) -> bool:
    import _socket

    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        _socket.inet_pton(family, text)
    except OSError:
        return False
    return True


def _bad(word: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "-p, --publish" flag: {reason}')
