"""``--host`` and ``--tls*`` of the engine: where it listens, and whom it lets in there. Pure.

Source: docker docs, "dockerd", "Bind Docker to another host/port or a Unix socket" and "Daemon
socket option". Unlike dockerd this engine listens on no network without knowing who its clients
are, unless it is told to in so many words, and then on the loopback interface only.
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
    """What the :data:`KEYS` among ``settings`` make of ``socket``, ``tcp`` and ``tls``.

    The keys are taken out. Raises ``InvalidRequest`` for what contradicts itself or is not safe.
    """
    given = {key: settings.pop(key) for key in KEYS if key in settings}
    verify, insecure = bool(given.get("tlsverify")), bool(given.get("insecure_tcp"))
    found: dict[str, object] = {}
    tcp: list[tuple[str, int]] = []
    for text in given.get("hosts", ()):
        scheme, _, place = text.partition("://")
        if scheme == "unix" and place.startswith("/"):
            if found.setdefault("socket", place) != place:
                raise InvalidRequest(f"host {text}: one unix socket is all that can be listened on")
        elif scheme == "tcp":
            tcp.append(_address(text, place, TLS_PORT if verify else PORT))
        elif scheme != "fd":  # systemd's sockets, which are found by themselves
            raise InvalidRequest(
                f"host {text}: an address is wanted",
                hint="such as unix:///run/jaula/jaula.sock or tcp://127.0.0.1:2376",
            )
    _check(given, tcp, verify=verify, insecure=insecure)
    found["tcp"] = tuple(dict.fromkeys(tcp))
    if verify:
        paths = [given.get(key) or f"{DIRECTORY}/{name}" for key, name in FILES.items()]
        found["tls"] = TlsConfig(*paths)
    return found


def _check(
    given: dict[str, Any], tcp: list[tuple[str, int]], *, verify: bool, insecure: bool
) -> None:
    if not verify and (given.get("tls") or any(key in given for key in FILES)):
        raise InvalidRequest(
            "TLS without a look at the client's certificate lets everybody in",
            hint="--tlsverify with --tlscacert",
        )
    if verify and insecure:
        raise InvalidRequest("--tlsverify and --insecure-tcp contradict each other")
    if (verify or insecure) and not tcp:
        raise InvalidRequest("there is no TCP socket", hint="--host tcp://ADDRESS:PORT")
    if verify or not tcp:
        return
    if not insecure:
        raise InvalidRequest(
            f"tcp://{tcp[0][0]}:{tcp[0][1]} without TLS: whoever reaches it could speak",
            hint="--tlsverify with certificates; or for the loopback interface --insecure-tcp",
        )
    for host, port in tcp:
        if host != "::1" and not host.startswith("127."):
            raise InvalidRequest(
                f"tcp://{host}:{port} without TLS can be reached from outside",
                hint="127.0.0.1, or --tlsverify with certificates",
            )


def _address(text: str, place: str, usual: int) -> tuple[str, int]:
    """An address in figures: a name could lead elsewhere tomorrow. None at all is the loopback."""
    import ipaddress

    host, colon, port = place.rstrip("/").rpartition(":")
    if not colon or port.endswith("]"):
        host, port = place.rstrip("/"), str(usual)
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise InvalidRequest(f"host {text}: {host!r} is no address", hint="in figures") from None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"host {text}: {port!r} is no port")
    return address, int(port)
