"""``--stream-*``: the server of exec, attach and port-forward for pods. Pure.

Source: containerd's ``docs/cri/config.md``, the settings ``stream_server_address``,
``stream_server_port``, ``stream_idle_timeout`` and ``x509_key_pair_streaming``. Unlike containerd,
this engine listens on the loopback interface by default, and on others with TLS only: the token in
a URL is the only authentication of a client.
"""

from __future__ import annotations

from typing import Any

from jaula.config import StreamConfig
from jaula.errors import InvalidRequest

_PREFIX = "stream_"
_MAX_PORT = 65535


def pop_stream_config(settings: dict[str, Any]) -> StreamConfig:
    """Remove the settings ``stream_*`` from ``settings`` and return them.

    :raises InvalidRequest: when a value is not valid, or clients would not be safe.
    """
    values = {
        key.removeprefix(_PREFIX): settings.pop(key)
        for key in tuple(settings)
        if key.startswith(_PREFIX)
    }
    default = StreamConfig()
    config = StreamConfig(
        address=_address(values.get("server_address", default.address)),
        port=values.get("server_port", default.port),
        idle_timeout=values.get("idle_timeout", default.idle_timeout),
        certificate=values.get("tls_cert", ""),
        key=values.get("tls_key", ""),
    )
    if not 0 <= config.port <= _MAX_PORT:
        raise InvalidRequest(
            f"--stream-server-port {config.port} must be one of 0 to {_MAX_PORT}",
            hint="with 0 a free port is chosen",
        )
    if config.idle_timeout <= 0:
        raise InvalidRequest(
            f"--stream-idle-timeout {config.idle_timeout} must be a positive number of seconds"
        )
    if bool(config.certificate) != bool(config.key):
        raise InvalidRequest("--stream-tls-cert and --stream-tls-key are required together")
    if not config.certificate and not _is_loopback(config.address):
        raise InvalidRequest(
            f"streams on {config.address} without TLS can be read by other hosts",
            hint="use 127.0.0.1, or --stream-tls-cert and --stream-tls-key",
        )
    return config


def _is_loopback(address: str) -> bool:
    if address == StreamConfig().address:
        return True
    import ipaddress  # every shim would share it with the zygote

    return ipaddress.ip_address(address).is_loopback


def _address(text: str) -> str:
    """Return an address of one interface. Its text is a part of the URLs for clients."""
    if text == StreamConfig().address:
        return text
    import ipaddress

    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise InvalidRequest(
            f"--stream-server-address {text[:80]!r} is not an IP address",
            hint="use a numeric address",
        ) from None
    if address.is_unspecified:
        raise InvalidRequest(
            f"--stream-server-address {text}: clients cannot connect to the address of every"
            " interface",
            hint="use the node's address, or 127.0.0.1",
        )
    return str(address)
