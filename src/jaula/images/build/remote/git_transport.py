"""How git gets to a repository: the address that it is to use, a proxy, the client's ssh agent.

The host's loopback and link-local addresses are refused as in :mod:`~.downloads`: the name is
looked up here, the address is judged, and git is told to use that one.
"""

from __future__ import annotations

import socket
from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.images.build.remote import git_sandbox
from jaula.images.build.remote.http import refuse_host
from jaula.images.registry.http.proxy import Proxies, Proxy
from jaula.images.registry.http.url import Url

SOCKET = "agent"
"""The ssh agent's socket in git's room."""
_PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
_NO_REDIRECTS = ("-c", "http.followRedirects=false")
_SSH = (
    "ssh -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oForwardAgent=no"
    f" -oUserKnownHostsFile={git_sandbox.ROOM}/known-hosts"
)


class GitTransport(msgspec.Struct, frozen=True):
    """How git gets to one repository: settings on its command line, variables."""

    settings: tuple[str, ...] = ()
    variables: Mapping[str, str] = {}


class GitTransports:
    """Of one build. ``agent`` says that there is an ssh agent."""

    def __init__(self, proxies: Proxies, *, host_network: bool, agent: bool) -> None:
        self._proxies = proxies
        self._host_network = host_network
        self._agent = agent

    def to(self, url: str) -> GitTransport:
        """The way to a repository.

        :raises InvalidRequest: one that is refused, :class:`Unavailable`: a name without address.
        """
        scheme, host, port = _place(url)
        if scheme in ("http", "https"):
            proxy = self._proxies.of(Url(scheme, host, port))
            if proxy is not None:
                address = f"http://{_credentials(proxy)}{proxy.host}:{proxy.port}"
                return GitTransport(_NO_REDIRECTS, {f"{scheme}_proxy": address})
        peer = "" if self._host_network else _judged(url, host, port)
        shown = f"[{peer}]" if ":" in peer else peer
        if scheme in ("http", "https"):
            if not peer:
                return GitTransport()
            return GitTransport(
                ("-c", f"http.curloptResolve={host}:{port}:{shown}", *_NO_REDIRECTS)
            )
        if scheme == "ssh":
            agent = f"{git_sandbox.ROOM}/{SOCKET}"
            pin = f" -oHostName={peer} -oHostKeyAlias={host}" if peer else ""
            settings = ("-c", f"core.sshCommand={_SSH}{pin}")
            return GitTransport(settings, {"SSH_AUTH_SOCK": agent} if self._agent else {})
        if not peer:
            return GitTransport()
        there = urlsplit(url).netloc
        return GitTransport(("-c", f"url.git://{shown}:{port}/.insteadOf=git://{there}/"))


def _judged(url: str, host: str, port: int) -> str:
    """The address that a name has now. Raises :class:`InvalidRequest` for one of the host's own."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{url} cannot be fetched: {error.strerror or error}") from None
    peer = str(found[0][4][0])
    refuse_host(peer, url)
    return peer


def _credentials(proxy: Proxy) -> str:
    """``user:password@``, in a variable that only git's own user can read."""
    if not proxy.authorization:
        return ""
    user, _, password = b64decode(proxy.authorization.partition(" ")[2]).decode().partition(":")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@"


def _place(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address that was read."""
    if "://" not in url:
        return "ssh", url.partition("@")[2].partition(":")[0], 22
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise InvalidRequest(f"{url} has a port that is none") from None
    if not parts.hostname:
        raise InvalidRequest(f"{url} names no host")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]
