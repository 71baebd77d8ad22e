"""The address of an engine to which containers move. Pure."""

from __future__ import annotations

from jaula.errors import InvalidRequest

PORT = 2376  # of an engine with TLS


def parse_target(text: str) -> tuple[str, int]:
    """Return host and port of ``tcp://HOST[:PORT]`` or ``HOST[:PORT]``.

    :raises InvalidRequest: when it is not an address.
    """
    scheme, separator, rest = text.partition("://")
    address = rest if separator else text
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(PORT)
    host = host.strip("[]")
    valid = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if (separator and scheme != "tcp") or not host or not valid or set(host) & set("/ \r\n@"):
        raise InvalidRequest(
            f"target {text[:80]!r} is not an address", hint="write tcp://HOST:2376"
        )
    return host, int(port)


def canonical_target(text: str) -> str:
    """Return an address as ``HOST:PORT``, so that two of one engine can be compared.

    :raises InvalidRequest: when it is not an address.
    """
    host, port = parse_target(text)
    return f"[{host.lower()}]:{port}" if ":" in host else f"{host.lower()}:{port}"
