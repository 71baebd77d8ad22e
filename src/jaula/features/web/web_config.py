"""Settings of the web view: the flags of ``jaula web`` and ``/etc/jaula/web.toml``. Pure.

The file decides who logs in, so it must belong to root and be writable by root only, as the policy.
"""

from __future__ import annotations

import ipaddress

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec import toml

DEFAULT_PATH = "/etc/jaula/web.toml"
DEFAULT_LISTEN = "127.0.0.1:8320"
MAX_SIZE = 1 << 20  # bytes
OIDC_LOGIN_SECONDS = 600  # from the redirect to the provider until its answer
_PORT_LIMIT = 65536


class TlsFiles(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """PEM files: the server's certificate and key, and the authority of its users, if any."""

    cert: str
    key: str
    client_ca: str = ""


class Oidc(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """An OpenID Connect provider.

    ``users`` maps values of ``claim`` to users of this host. Others have no access.
    """

    issuer: str
    client_id: str
    users: dict[str, str]
    client_secret_file: str = ""
    claim: str = "email"
    scopes: tuple[str, ...] = ("openid", "email")
    ca: str = ""  # PEM file of the provider's authority; empty: the system's
    name: str = "single sign-on"


class WebConfig(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``hosts`` are names under which browsers reach the view, besides its address.

    ``url`` is the address for links; empty: that of ``listen``.
    """

    listen: str = DEFAULT_LISTEN
    url: str = ""
    hosts: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    oidc: Oidc | None = None
    session_hours: float = 12.0
    idle_minutes: float = 60.0


def parse(data: bytes, path: str) -> WebConfig:
    """Return the settings of a file.

    :raises InvalidRequest: when they are not valid.
    """
    try:
        document = toml.loads(data)
        config = msgspec.convert(document, WebConfig)
    except ValueError as error:  # of UTF-8, TOML and msgspec
        raise InvalidRequest(f"{path}: {error}") from None
    if config.session_hours <= 0 or config.idle_minutes <= 0:
        raise InvalidRequest(f"{path}: session-hours and idle-minutes must be greater than 0")
    oidc = config.oidc
    if oidc is not None:
        local = oidc.issuer.startswith(("http://127.0.0.1:", "http://[::1]:"))
        if not (oidc.issuer.startswith("https://") or local):
            raise InvalidRequest(
                f"{path}: oidc.issuer {oidc.issuer[:80]!r} must begin with https://"
            )
        if "openid" not in oidc.scopes:
            raise InvalidRequest(f"{path}: oidc.scopes must contain openid")
    return config


def check(config: WebConfig) -> tuple[str, int]:
    """Return the address and the port to listen on.

    :raises InvalidRequest: when a browser's traffic could be read by other hosts.
    """
    host, port = address_of(config.listen)
    if config.tls is None and not ipaddress.ip_address(host).is_loopback:
        raise InvalidRequest(
            f"a web view on {config.listen} without TLS can be read by other hosts",
            hint="use 127.0.0.1, or tls.cert and tls.key in the file of --config",
        )
    return host, port


def address_of(text: str) -> tuple[str, int]:
    """Return the address and the port of ``ADDRESS:PORT``.

    :raises InvalidRequest: when it is not valid.
    """
    host, colon, port = text.rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host).strip("[]")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        raise InvalidRequest(
            f"listen {text[:80]!r}: {host[:80]!r} is not an IP address",
            hint=f"write ADDRESS:PORT, such as {DEFAULT_LISTEN}",
        ) from None
    if not (colon and port.isascii() and port.isdecimal() and int(port) < _PORT_LIMIT):
        raise InvalidRequest(f"listen {text[:80]!r}: {port[:20]!r} is not a port")
    return address, int(port)


def url_of(config: WebConfig, host: str, port: int) -> str:
    """Return the address of the view for a browser. ``host`` and ``port`` are those listened on."""
    if config.url:
        return config.url.rstrip("/")
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    scheme = "http" if config.tls is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def allowed_hosts(config: WebConfig, url: str) -> frozenset[str]:
    """Return the values of the header Host, so that no other name leads a browser here."""
    own = url.partition("://")[2]
    port = own.rpartition(":")[2] if ":" in own.rpartition("]")[2] else ""
    loopback = "127.0.0.1" in own or "[::1]" in own
    names = {own, *config.hosts}
    names |= {f"{name}:{port}" for name in config.hosts if port and ":" not in name}
    if loopback:
        names.add(f"localhost:{port}")
    return frozenset(name.lower() for name in names)
