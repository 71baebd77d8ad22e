"""The text of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname. Pure.

Follows Docker (``docker run --add-host --dns --dns-search --dns-option --link``) and
resolv.conf(5). The engine writes the files and mounts them.

A legacy link is one line of /etc/hosts: the address, a tab, the alias, the other container's host
name, and its name unless that is the alias. The container may have changed the file since, so it is
read as bytes with any content. Only the first line with the link's names after the address is the
link's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from jaula.errors import InvalidRequest

HOST_GATEWAY = "host-gateway"
"""In ``--add-host``: the address of the host on the container's network."""

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
"""Docker's name servers for a host whose name servers are all on loopback."""

_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def hosts(
    hostname: str,
    *,
    domain: str = "",
    address: str | None = None,
    more: Iterable[str] = (),
    extra: Iterable[str] = (),
    linked: Iterable[str] = (),
    gateway: str | None = None,
) -> str:
    """Return /etc/hosts: localhost, then ``extra`` (``NAME:ADDRESS``), then the container itself.

    :param more: addresses of the container in addition to ``address``.
    :param linked: complete lines of legacy links.
    :param gateway: replaces ``host-gateway``.
    :raises InvalidRequest: when an entry is malformed.
    """
    lines = [_LOCAL]
    for entry in extra:
        name, ip = parse_extra_host(entry)
        if ip == HOST_GATEWAY:
            if gateway is None:
                raise InvalidRequest(
                    f"cannot derive the address of {HOST_GATEWAY} for {name!r}",
                    hint="the container has no network with a gateway; name an address",
                )
            ip = gateway
        lines.append(f"{ip}\t{name}\n")
    lines += linked
    lines += container_lines(hostname, domain, [*([address] if address is not None else []), *more])
    return "".join(lines)


def container_lines(hostname: str, domain: str, addresses: Iterable[str]) -> list[str]:
    """Return the lines of /etc/hosts for the container itself.

    As in Docker, a name with dots has its first part as an alias.
    """
    full = f"{hostname}.{domain}" if domain else hostname
    short, dot, _ = full.partition(".")
    names = f"{full} {hostname if domain else short}" if dot else full
    return [f"{ip}\t{names}\n" for ip in addresses]


def parse_extra_host(entry: str) -> tuple[str, str]:
    """Parse an ``--add-host`` entry, ``NAME:ADDRESS`` or ``NAME=ADDRESS``.

    :raises InvalidRequest: when the entry is malformed.
    """
    separator = "=" if "=" in entry else ":"
    name, separated, address = entry.partition(separator)
    address = address.removeprefix("[").removesuffix("]") if separated else ""
    if not is_name(name) or not address:
        raise InvalidRequest(f"bad format for add-host: {entry!r}", hint="write NAME:ADDRESS")
    if address != HOST_GATEWAY and not _is_address(address):
        raise InvalidRequest(f"invalid IP address in add-host: {address!r}")
    return name, address


def resolv_conf(
    host: str,
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """Return /etc/resolv.conf: the host's text, each non-empty argument replacing its part.

    The host's servers on loopback are left out, since only the host can reach them. IPv6 servers
    are left out too, since a container on the default bridge has no IPv6. Docker's public servers
    are the fallback. ``search`` of a single dot means no search list.

    :raises InvalidRequest: when a server is not an IP address, or a word is not printable.
    """
    for server in dns:
        if not _is_address(server):
            raise InvalidRequest(f"invalid DNS server address {server!r}")
    for word in (*search, *options):
        if not word or " " in word or not word.isprintable():  # no other white space is printable
            raise InvalidRequest(f"invalid word {word!r} for resolv.conf")
    servers = list(dns)
    domains: list[str] = []
    flags: list[str] = []
    for line in host.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_] if not dns and _is_usable(address):
                servers.append(address)
            case ["search" | "domain", *names] if names:
                domains = names
            case ["options", *names]:
                flags += names
    lines = [f"nameserver {address}" for address in servers or FALLBACK_SERVERS]
    chosen = list(search) or domains
    if chosen and chosen != ["."]:
        lines.append("search " + " ".join(chosen))
    if options or flags:
        lines.append("options " + " ".join(options or flags))
    return "\n".join(lines) + "\n"


def name_servers(host: str) -> tuple[str, ...]:
    """Return every name server of the host, including those on loopback (resolv.conf(5))."""
    rows = (line.split("#")[0].split(";")[0].split() for line in host.splitlines())
    return tuple(
        words[1]
        for words in rows
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1])
    )


def resolver_conf(
    host: str, resolver: str, *, search: Sequence[str], options: Sequence[str]
) -> str:
    """Return /etc/resolv.conf of a container that uses the engine's resolver.

    ``ndots:0`` is Docker's: a container's name is a single word and is queried as it is.
    """
    text = resolv_conf(host, dns=(resolver,), search=search, options=options)
    if "ndots:" in text:
        return text
    lines = [line for line in text.splitlines() if not line.startswith("options ")]
    flags = [line for line in text.splitlines() if line.startswith("options ")]
    return "\n".join([*lines, " ".join([*(flags or ["options"]), "ndots:0"])]) + "\n"


def hostname(name: str) -> str:
    """Return /etc/hostname.

    :raises InvalidRequest: when the name is not a valid host name.
    """
    if not is_name(name) or len(name) > 63:
        raise InvalidRequest(f"invalid hostname {name!r}")
    return name + "\n"


def is_name(text: str) -> bool:
    """Return whether the text has letters, digits, dots, dashes and underscores only.

    Such a name cannot start another line of a file.
    """
    return (
        0 < len(text) <= 253
        and text.isascii()
        and all(c.isalnum() or c in "-._" for c in text)
        and text[0] not in "-."
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_usable(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback and not address.is_unspecified


def link_line(address: str, alias: str, hostname: str, name: str) -> str:
    """Return the line of a legacy link, with its newline.

    :raises InvalidRequest: when the alias is not valid in a hosts file.
    """
    if not is_name(alias):
        raise InvalidRequest(
            f"invalid alias in link: {alias!r}", hint="letters, digits, dots, dashes, underscores"
        )
    names = (alias, hostname) if name == alias else (alias, hostname, name)
    return f"{address}\t{' '.join(names)}\n"


def set_link_address(text: bytes, names: Sequence[str], address: str) -> bytes:
    """Return the file with a new address in the link's line; unchanged if the line is absent."""
    before, line, after = _split(text, names)
    _, tab, rest = line.partition(b"\t")
    return before + address.encode() + tab + rest + after if line else text


def remove_link_line(text: bytes, names: Sequence[str]) -> bytes:
    """Return the file without the link's line."""
    before, _, after = _split(text, names)
    return before + after


def _split(text: bytes, names: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """Return the text before the link's line, the line with its newline, and the text after it."""
    prefix = [name.encode() for name in names]
    start = 0
    for line in text.splitlines(keepends=True):
        _, tab, rest = line.partition(b"\t")
        if tab and rest.split()[: len(prefix)] == prefix:
            return text[:start], line, text[start + len(line) :]
        start += len(line)
    return text, b"", b""
