"""``--host`` and ``--tls*``: the API's sockets, and the authentication of their clients. Pure.

Source: docker docs, "dockerd", "Bind Docker to another host/port or a Unix socket" and "Daemon
socket option". Unlike dockerd, this engine does not listen on TCP without authenticating its
clients, unless ``--insecure-tcp`` is set, and then only on the loopback interface.
"""

from __future__ import annotations

from typing import Any

from jaula.config import TlsConfig
from jaula.errors import InvalidRequest

PORT, TLS_PORT = 2375, 2376
DIRECTORY = "/etc/jaula/tls"
FILES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}
KEYS = ("hosts", "tls", "tlsverify", *FILES, "insecure_tcp")


def pop_listen_settings(settings: dict[str, Any]) -> dict[str, object]:
    """Remove the :data:`KEYS` from ``settings``. Return ``socket``, ``tcp`` and ``tls``.

    :raises InvalidRequest: when settings contradict each other or are not safe.
    """
    values = {key: settings.pop(key) for key in KEYS if key in settings}
    verify, insecure = bool(values.get("tlsverify")), bool(values.get("insecure_tcp"))
    result: dict[str, object] = {}
    tcp: list[tuple[str, int]] = []
    for text in values.get("hosts", ()):
        scheme, _, address = text.partition("://")
        if scheme == "unix" and address.startswith("/"):
            if result.setdefault("socket", address) != address:
                raise InvalidRequest(f"host {text}: only one unix socket is supported")
        elif scheme == "tcp":
            tcp.append(_address(text, address, TLS_PORT if verify else PORT))
        elif scheme != "fd":  # systemd's sockets are always used
            raise InvalidRequest(
                f"host {text}: not a valid address",
                hint="use an address such as unix:///run/jaula/jaula.sock or tcp://127.0.0.1:2376",
            )
    _check(values, tcp, verify=verify, insecure=insecure)
    result["tcp"] = tuple(dict.fromkeys(tcp))
    if verify:
        paths = [values.get(key) or f"{DIRECTORY}/{name}" for key, name in FILES.items()]
        result["tls"] = TlsConfig(*paths)
    return result


def _check(
    values: dict[str, Any], tcp: list[tuple[str, int]], *, verify: bool, insecure: bool
) -> None:
    if not verify and (values.get("tls") or any(key in values for key in FILES)):
        raise InvalidRequest(
            "TLS without verification of client certificates lets every client in",
            hint="use --tlsverify with --tlscacert",
        )
    if verify and insecure:
        raise InvalidRequest("--tlsverify and --insecure-tcp contradict each other")
    if (verify or insecure) and not tcp:
        raise InvalidRequest("TLS settings need a TCP socket", hint="add --host tcp://ADDRESS:PORT")
    if verify or not tcp:
        return
    if not insecure:
        raise InvalidRequest(
            f"tcp://{tcp[0][0]}:{tcp[0][1]} without TLS: every client that reaches it has access",
            hint="use --tlsverify with certificates; or for the loopback interface --insecure-tcp",
        )
    for host, port in tcp:
        if host != "::1" and not host.startswith("127."):
            raise InvalidRequest(
                f"tcp://{host}:{port} without TLS is reachable from other hosts",
                hint="use 127.0.0.1, or --tlsverify with certificates",
            )


def _address(text: str, address: str, default_port: int) -> tuple[str, int]:
    """Return address and port; the default address is the loopback address.

    Host names are refused, since they may resolve to another address later.
    """
    import ipaddress

    host, separator, port = address.rstrip("/").rpartition(":")
    if not separator or port.endswith("]"):
        host, port = address.rstrip("/"), str(default_port)
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise InvalidRequest(
            f"host {text}: {host!r} is not an IP address", hint="use a numeric address"
        ) from None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"host {text}: {port!r} is not a valid port")
    return address, int(port)
