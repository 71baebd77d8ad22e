"""The servers of a registry and how each may be contacted. Pure.

Sources: docker docs, "Verify repository client with certificates", "Registry as a pull through
cache", "insecure registries".

* ``docker.io`` is served by ``registry-1.docker.io``; its credentials are stored under
  ``https://index.docker.io/v1/``.
* HTTPS with a verified certificate is the default. Loopback addresses and entries of ``insecure``
  (a name, name:port or network) may have any certificate or use plain HTTP. A host with its own
  certificates in a ``certs.d`` directory is always verified against them.
* Mirrors are tried first for images of docker.io, without credentials.
"""

from __future__ import annotations

import ipaddress
import os

import msgspec

from jaula.config import RegistryConfig
from jaula.errors import InvalidRequest
from jaula.images.reference import DEFAULT_DOMAIN
from jaula.images.registry.http.url import Url, is_loopback, parse

HUB = "registry-1.docker.io"
HUB_INDEX = "index.docker.io"
HUB_KEY = "https://index.docker.io/v1/"


class Endpoint(msgspec.Struct, frozen=True):
    """One server of a registry. ``urls`` are tried in order; a ``mirror`` gets no credentials."""

    name: str  # as in a reference: host[:port]
    urls: tuple[Url, ...]
    verify: bool = True
    mirror: bool = False


class Hosts:
    """The operator's settings for registries."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._networks = []
        self._names = set()
        for entry in config.insecure:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.add(entry.lower())
        self._mirrors = tuple(_mirror(text) for text in config.mirrors)
        self._realms: dict[str, set[str]] = {}
        for entry in config.realms:
            registry, equals, realm = entry.partition("=")
            if not equals or not registry or not realm:
                raise InvalidRequest(
                    f"invalid registry realm {entry!r}", hint="use REGISTRY=HOST_OF_TOKEN_SERVER"
                )
            self._realms.setdefault(registry.lower(), set()).add(realm.lower())

    def endpoints(self, domain: str) -> tuple[Endpoint, ...]:
        """Return the servers to try for images of ``domain``, in order."""
        if domain != DEFAULT_DOMAIN:
            return (self.endpoint(domain),)
        mirrors = []
        for url in self._mirrors:
            insecure = self.is_insecure(url.host, url.port)
            if url.scheme == "http" and not insecure:
                raise InvalidRequest(
                    f"the mirror {url} has no encryption", hint="list it as an insecure registry"
                )
            mirrors.append(Endpoint(url.authority, (url,), verify=not insecure, mirror=True))
        return (*mirrors, self.endpoint(domain))

    def endpoint(self, domain: str) -> Endpoint:
        """Return the server of the registry itself."""
        name = HUB if domain == DEFAULT_DOMAIN else domain
        secure = parse(f"https://{name}/")
        if not self.is_insecure(secure.host, secure.port) or self.has_certificates(name):
            return Endpoint(name, (secure,))
        return Endpoint(name, (secure, parse(f"http://{name}/")), verify=False)

    def is_insecure(self, host: str, port: int) -> bool:
        """Return whether the host may have any certificate, or none."""
        if is_loopback(host) or host in self._names or f"{host}:{port}" in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False  # names are not resolved: a DNS response must not weaken security
        return any(address in network for network in self._networks)

    def certificate_directories(self, name: str) -> tuple[str, ...]:
        """Return the ``certs.d/HOST[:PORT]`` directories that exist."""
        paths = (os.path.join(top, name) for top in self._config.certificates)
        return tuple(path for path in paths if os.path.isdir(path))

    def has_certificates(self, name: str) -> bool:
        return any(
            entry.endswith((".crt", ".cert"))
            for directory in self.certificate_directories(name)
            for entry in os.listdir(directory)
        )

    def trusts_realm(self, endpoint: Endpoint, realm: Url) -> bool:
        """Return whether credentials for ``endpoint`` may be sent to this token server.

        A trusted server is the same host. With HTTPS it may also be the registered domain or a host
        below it (``auth.docker.io`` for ``registry-1.docker.io``), or a host that the operator
        configured.
        """
        host = endpoint.urls[0].host
        if realm.host == host:
            return True
        if realm.scheme != "https":
            return False
        configured = self._realms.get(endpoint.name.lower(), set())
        if realm.host in configured or realm.authority in configured:
            return True
        domain = _registered_domain(host)
        return domain is not None and (realm.host == domain or realm.host.endswith("." + domain))


def credentials_key(domain: str) -> str:
    """Return the key of a registry's credentials in Docker's configuration file."""
    return HUB_KEY if domain in (DEFAULT_DOMAIN, HUB, HUB_INDEX) else domain


def domain_of(server: str) -> str:
    """Return the registry of a server address: ``https://index.docker.io/v1/``, ``host/``."""
    name = server.partition("://")[2] if "://" in server else server
    name = name.partition("/")[0]
    return DEFAULT_DOMAIN if name in ("", HUB, HUB_INDEX, DEFAULT_DOMAIN) else name


# Second-level labels below which anyone can register names: registry.co.uk and evil.co.uk.
_PUBLIC_SUFFIXES = frozenset(
    {"ac", "co", "com", "edu", "gob", "gov", "gv", "ne", "net", "nom", "or", "org"}
)


def _registered_domain(host: str) -> str | None:
    """Return the registered domain of a host, or None for addresses and single labels."""
    labels = host.split(".")
    if len(labels) < 2 or ":" in host or labels[-1].isdigit():
        return None
    count = 3 if len(labels[-1]) == 2 and labels[-2] in _PUBLIC_SUFFIXES else 2
    return ".".join(labels[-count:]) if len(labels) >= count else None


def _mirror(text: str) -> Url:
    try:
        url = parse(text if "://" in text else f"https://{text}")
    except InvalidRequest:
        raise InvalidRequest(
            f"invalid registry mirror {text!r}", hint="use https://HOST[:PORT]"
        ) from None
    if url.target != "/":
        raise InvalidRequest(f"invalid registry mirror {text!r}: it has a path or a query")
    return url
