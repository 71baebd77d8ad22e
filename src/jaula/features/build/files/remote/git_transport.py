"""How git connects to a repository: the IP address, a proxy, the client's ssh agent and tokens.

The host's loopback and link-local addresses are refused as in :mod:`~.http`. The name is resolved
here, the address is checked, and git is configured to use exactly that address.

Source of the names of tokens: docker docs, "Build secrets", 'Git authentication for remote
contexts', and moby/buildkit ``source/git`` (their order, and the repositories that get them).
"""

from __future__ import annotations

import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.build.files.remote.http_download import refuse_host
from jaula.images.registry.http.proxy_choice import Proxies, Proxy
from jaula.images.registry.http.url import Url

MOUNT_POINT = "/tmp"
"""Where git and its helpers find the directory that they may write to."""
SOCKET = "agent"
"""The name of the ssh agent's socket in the sandbox directory."""
_PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
_TOKEN, _HEADER = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"
_GITHUB = ("https://github.com/", "https://www.github.com/")
_NO_REDIRECTS = ("-c", "http.followRedirects=false")
_SSH = (
    "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oForwardAgent=no"
    f" -oUserKnownHostsFile={MOUNT_POINT}/known-hosts"
)


class GitTransport(msgspec.Struct, frozen=True):
    """The settings on git's command line and the variables for one repository."""

    settings: tuple[str, ...] = ()
    variables: Mapping[str, str] = {}


class GitTransports:
    """The transports of one build. ``agent`` is true if there is an ssh agent."""

    def __init__(self, proxies: Proxies, *, host_network: bool, agent: bool) -> None:
        self._proxies = proxies
        self._host_network = host_network
        self._agent = agent

    def to(self, url: str) -> GitTransport:
        """Return the transport for a repository.

        :raises InvalidRequest: if its address is refused.
        :raises Unavailable: if its name cannot be resolved.
        """
        scheme, host, port = _split(url)
        if scheme in ("http", "https"):
            proxy = self._proxies.of(Url(scheme, host, port))
            if proxy is not None:
                address = f"http://{_credentials(proxy)}{proxy.host}:{proxy.port}"
                return GitTransport(_NO_REDIRECTS, {f"{scheme}_proxy": address})
        peer = "" if self._host_network else _resolve(url, host, port)
        literal = f"[{peer}]" if ":" in peer else peer
        if scheme in ("http", "https"):
            if not peer:
                return GitTransport()
            return GitTransport(
                ("-c", f"http.curloptResolve={host}:{port}:{literal}", *_NO_REDIRECTS)
            )
        if scheme == "ssh":
            agent = f"{MOUNT_POINT}/{SOCKET}"
            pin = f" -oHostName={peer} -oHostKeyAlias={host}" if peer else ""
            settings = ("-c", f"core.sshCommand={_SSH}{pin}")
            return GitTransport(settings, {"SSH_AUTH_SOCK": agent} if self._agent else {})
        if not peer:
            return GitTransport()
        netloc = urlsplit(url).netloc
        return GitTransport(("-c", f"url.git://{literal}:{port}/.insteadOf=git://{netloc}/"))


def authorization_of(url: str, secret: Callable[[str], bytes | None]) -> Mapping[str, str]:
    """Return variables that configure the client's token for an address; none without a token.

    git sends it to this repository only, or to all of github.com if it is one of these. The
    variables are readable for git's own user, other than its arguments.

    :raises InvalidRequest: if the token cannot be the value of a header.
    """
    parts = urlsplit(url) if "://" in url else None
    if parts is None or parts.scheme not in ("http", "https"):
        return {}
    host = parts.netloc.rpartition("@")[2]
    for id in (f"{_HEADER}.{host}", f"{_TOKEN}.{host}", _HEADER, _TOKEN):
        data = secret(id)
        if data is None:
            continue
        value = data.decode("latin-1").strip()
        if not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"the secret {id} is not a token or the value of a header")
        if id.startswith(_TOKEN):
            value = "basic " + b64encode(f"x-access-token:{value}".encode()).decode()
        scope = next((prefix for prefix in _GITHUB if url.startswith(prefix)), url)
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{scope}.extraheader",
            "GIT_CONFIG_VALUE_0": f"Authorization: {value}",
        }
    return {}


def _resolve(url: str, host: str, port: int) -> str:
    """Return the address of a name.

    :raises InvalidRequest: if it is one of the host's own addresses.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{url} cannot be fetched: {error.strerror or error}") from None
    peer = str(addresses[0][4][0])
    refuse_host(peer, url)
    return peer


def _credentials(proxy: Proxy) -> str:
    """Return ``user:password@``, for a variable that only git's own user can read."""
    if not proxy.authorization:
        return ""
    user, _, password = b64decode(proxy.authorization.partition(" ")[2]).decode().partition(":")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@"


def _split(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a parsed address."""
    if "://" not in url:
        return "ssh", url.partition("@")[2].partition(":")[0], 22
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise InvalidRequest(f"{url} has an invalid port") from None
    if not parts.hostname:
        raise InvalidRequest(f"{url} has no host name")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]
