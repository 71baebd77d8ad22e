"""The servers of a registry and how each may be contacted.

Sources: docker docs, "Verify repository client with certificates", "Registry as a pull through
cache", "insecure registries"; containerd ``docs/hosts.md``.

* ``docker.io`` is served by ``registry-1.docker.io``; its credentials are stored under
  ``https://index.docker.io/v1/``.
* HTTPS with a verified certificate is the default. Loopback addresses and entries of ``insecure``
  (a name, name:port or network) may have any certificate or use plain HTTP. A host with its own
  certificates in a ``certs.d`` directory is always verified against them.
* A file ``hosts.toml`` in that directory names the servers of a registry
  (:mod:`jaula.images.registry.hosts_file`). It is read for each operation. The certificates beside
  it are those that it names.
* Without hosts in such a file, the mirrors of the configuration are tried first for images of
  docker.io.
* A mirror gets no credentials. It is a server that was not named by the registry or for this
  registry alone, and to which no image is pushed.
"""

from __future__ import annotations

import ipaddress
import os

import msgspec

from jaula.config import RegistryConfig
from jaula.errors import InvalidRequest
from jaula.images.reference import DEFAULT_DOMAIN
from jaula.images.registry import hosts_file
from jaula.images.registry.hosts_file import (
    API_ROOT,
    CAPABILITIES,
    PULL,
    PUSH,
    RESOLVE,
    HostSettings,
    HostsFile,
)
from jaula.images.registry.http import certs_d
from jaula.images.registry.http.certs_d import Certificates
from jaula.images.registry.http.url import Url, is_loopback, parse

HUB = "registry-1.docker.io"
HUB_INDEX = "index.docker.io"
HUB_KEY = "https://index.docker.io/v1/"
_MIRROR = frozenset({PULL, RESOLVE})
_FALLBACK = "_default"
"""Name of the directory for registries without one of their own."""


class Security(msgspec.Struct, frozen=True):
    """The verification of a server."""

    verify: bool = True
    certificates: Certificates = Certificates()


class Endpoint(msgspec.Struct, frozen=True):
    """One server of a registry. ``urls`` are tried in order; a ``mirror`` gets no credentials.

    ``root`` is the path of the API. ``namespace`` is the registry, if the server is another one:
    distribution-spec 1.1, "Registry Proxying". ``headers`` are sent with each request to
    the server. ``dial_timeout`` is in seconds, 0 for the default. ``source`` is the file with these
    settings, or empty.
    """

    name: str  # as in a reference: host[:port]
    urls: tuple[Url, ...]
    security: Security = Security()
    mirror: bool = False
    capabilities: frozenset[str] = CAPABILITIES
    root: str = API_ROOT
    namespace: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    dial_timeout: float = 0.0
    source: str = ""

    def serves(self, url: Url) -> bool:
        """Return whether ``url`` is on this server."""
        return any(url.origin == own.origin for own in self.urls)


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
        for url in self._mirrors:
            if url.scheme == "http" and not self.is_insecure(url.host, url.port):
                raise InvalidRequest(
                    f"the mirror {url} has no encryption", hint="list it as an insecure registry"
                )

    def endpoints(self, domain: str) -> tuple[Endpoint, ...]:
        """Return the servers of ``domain`` in the order of trial; the registry's own is the last.

        :raises InvalidRequest: if its hosts file is not valid.
        """
        file = self._file(domain)
        mirrors: tuple[Endpoint, ...] = ()
        if file is not None and file.hosts:
            mirrors = tuple(self._host(domain, file, settings) for settings in file.hosts)
        elif domain == DEFAULT_DOMAIN:
            mirrors = tuple(self._docker_mirror(url) for url in self._mirrors)
        return (*mirrors, self._server(domain, file))

    def endpoint(self, domain: str) -> Endpoint:
        """Return the server of the registry itself.

        :raises InvalidRequest: if its hosts file is not valid.
        """
        # The index of Docker Hub serves searches only, so the settings for pulls do not apply.
        return self._server(domain, None if domain == HUB_INDEX else self._file(domain))

    def push_endpoint(self, domain: str) -> Endpoint:
        """Return the server that images are pushed to.

        :raises InvalidRequest: if none accepts a push.
        """
        endpoints = self.endpoints(domain)
        for endpoint in endpoints:
            if PUSH in endpoint.capabilities:
                return endpoint
        raise InvalidRequest(
            f"no server of {domain} may be pushed to",
            hint=f"add the capability {PUSH!r} to one in {endpoints[-1].source}",
        )

    def _docker_mirror(self, url: Url) -> Endpoint:
        return Endpoint(
            url.authority,
            (url,),
            self.security(url.host, url.port, url.authority),
            mirror=True,
            capabilities=_MIRROR,
        )

    def _host(self, domain: str, file: HostsFile, settings: HostSettings) -> Endpoint:
        """Return a server that need not be the registry.

        Images are pushed to it only if the file says so. It is not a mirror then.
        """
        assert settings.url is not None, "a table has an address"
        own = _is_own(domain, settings.url)
        capabilities = settings.capabilities or (CAPABILITIES if own else _MIRROR)
        return self._configured(
            domain, file, settings, capabilities, mirror=not own and PUSH not in capabilities
        )

    def _server(self, domain: str, file: HostsFile | None) -> Endpoint:
        """Return the server that is tried last."""
        if file is None:
            return self._registry(domain, HostSettings(), "")
        settings = file.server
        if settings.url is None:
            return self._registry(domain, settings, file.path)
        if os.path.basename(os.path.dirname(file.path)) == _FALLBACK:
            return self._host(domain, file, settings)
        capabilities = settings.capabilities or CAPABILITIES
        return self._configured(domain, file, settings, capabilities, mirror=False)

    def _configured(
        self,
        domain: str,
        file: HostsFile,
        settings: HostSettings,
        capabilities: frozenset[str],
        *,
        mirror: bool,
    ) -> Endpoint:
        url = settings.url
        assert url is not None
        return Endpoint(
            url.authority,
            (url,),
            self._security(url, url.authority, settings),
            mirror,
            capabilities,
            settings.root,
            "" if _is_own(domain, url) else domain,
            settings.headers,
            settings.dial_timeout,
            file.path,
        )

    def _registry(self, domain: str, settings: HostSettings, source: str) -> Endpoint:
        """Return the registry itself, by its name."""
        name = HUB if domain == DEFAULT_DOMAIN else domain
        secure = parse(f"https://{name}/")
        security = self._security(secure, name, settings)
        plain = (
            self.is_insecure(secure.host, secure.port)
            and not security.verify
            and not security.certificates
        )
        return Endpoint(
            name,
            (secure, parse(f"http://{name}/")) if plain else (secure,),
            security,
            capabilities=settings.capabilities or CAPABILITIES,
            headers=settings.headers,
            dial_timeout=settings.dial_timeout,
            source=source,
        )

    def _security(self, url: Url, name: str, settings: HostSettings) -> Security:
        """Return the stated verification; without one, that of the certificate directories."""
        security = self.security(url.host, url.port, name)
        if settings.certificates:
            security = Security(True, settings.certificates)
        if settings.verify is not None:
            security = msgspec.structs.replace(security, verify=settings.verify)
        return security

    def security(self, host: str, port: int, name: str) -> Security:
        """Return the verification of a host. ``name`` is that of its certificate directory."""
        certificates = certs_d.in_directories(self._certificate_directories(name))
        return Security(bool(certificates) or not self.is_insecure(host, port), certificates)

    def is_insecure(self, host: str, port: int) -> bool:
        """Return whether the host may have any certificate, or none."""
        if is_loopback(host) or host in self._names or f"{host}:{port}" in self._names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False  # names are not resolved: a DNS response must not weaken security
        return any(address in network for network in self._networks)

    def _certificate_directories(self, name: str) -> tuple[str, ...]:
        """Return the directories of a host that exist and have Docker's layout."""
        directories = []
        for top in self._config.certificates:
            for form in _forms(name):
                path = os.path.join(top, form)
                has_file = os.path.exists(os.path.join(path, hosts_file.NAME))
                if os.path.isdir(path) and not (has_file and top in self._config.hosts):
                    directories.append(path)
        return tuple(directories)

    def _file(self, domain: str) -> HostsFile | None:
        """Return the hosts file of a registry.

        That of ``_default`` counts if the registry has no directory of its own.
        """
        for top in self._config.hosts:
            for form in _forms(domain):
                file = hosts_file.read(os.path.join(top, form, hosts_file.NAME))
                if file is not None:
                    return file
        if self._certificate_directories(domain):
            return None
        for top in self._config.hosts:
            file = hosts_file.read(os.path.join(top, _FALLBACK, hosts_file.NAME))
            if file is not None:
                return file
        return None

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


def _forms(name: str) -> tuple[str, ...]:
    """Return the names of the directory of a host: ``host_port_``, then ``host:port``."""
    host, colon, port = name.rpartition(":")
    if name in ("", ".", "..") or "/" in name:
        return ()
    return (f"{host}_{port}_", name) if colon and port.isdecimal() else (name,)


def _is_own(domain: str, url: Url) -> bool:
    """Return whether ``url`` is on the registry itself, by its name."""
    own = parse(f"https://{HUB if domain == DEFAULT_DOMAIN else domain}/")
    return (url.host, url.port) == (own.host, own.port)


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
