"""The texts of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname. Pure.

Follows Docker (``docker run --add-host --dns --dns-search --dns-option``) and resolv.conf(5). The
engine writes the files and mounts them.


The line of a hosts file that stands for a legacy link: made, given another address, taken out.

Follows Docker: address, tab, alias, the other's host name, and its name unless that is the alias.
What is read back may have been written by a container: bytes, of any kind. Only the first line that
begins with the wanted names behind its address is a link's. Pure; who writes the file is left to
the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from jaula.errors import InvalidRequest

HOST_GATEWAY = "host-gateway"
"""In ``--add-host``: the address of the host on the container's network."""

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
"""Docker's choice for a host whose every name server is on its own loopback."""

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
    """/etc/hosts: localhost, ``extra`` entries as ``NAME:ADDRESS``, then the container itself.

    ``linked`` are whole lines, of links. ``more`` are its addresses beyond ``address``;
    ``gateway`` stands for ``host-gateway``. Raises ``InvalidRequest`` for a malformed entry.
    """
    lines = [_LOCAL]
    for entry in extra:
        name, where = parse_extra_host(entry)
        if where == HOST_GATEWAY:
            if gateway is None:
                raise InvalidRequest(
                    f"cannot derive the address of {HOST_GATEWAY} for {name!r}",
                    hint="the container has no network with a gateway; name an address",
                )
            where = gateway
        lines.append(f"{where}\t{name}\n")
    lines += linked
    lines += container_lines(hostname, domain, [*([address] if address is not None else []), *more])
    return "".join(lines)


def container_lines(hostname: str, domain: str, addresses: Iterable[str]) -> list[str]:
    """The lines of /etc/hosts for the container itself."""
    names = f"{hostname}.{domain} {hostname}" if domain else hostname
    return [f"{where}\t{names}\n" for where in addresses]


def parse_extra_host(entry: str) -> tuple[str, str]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS`` as (name, address); Docker's ``--add-host``."""
    separator = "=" if "=" in entry else ":"
    name, found, address = entry.partition(separator)
    address = address.removeprefix("[").removesuffix("]") if found else ""
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
    """/etc/resolv.conf from the host's text, each given part in place of the host's.

    The host's servers on loopback are left out: they answer the host only. IPv6 servers are left
    out too, since a container on the default bridge has no IPv6. When no server is left, Docker's
    public ones stand in. ``search`` of a single dot means no search list.
    """
    for server in dns:
        if not _is_address(server):
            raise InvalidRequest(f"invalid DNS server address {server!r}")
    for word in (*search, *options):
        if not word or any(c.isspace() or not c.isprintable() for c in word):
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
    """Every server that the host itself asks, those on its loopback too (resolv.conf(5))."""
    rows = (line.split("#")[0].split(";")[0].split() for line in host.splitlines())
    return tuple(
        words[1]
        for words in rows
        if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1])
    )


def resolver_conf(
    host: str, resolver: str, *, search: Sequence[str], options: Sequence[str]
) -> str:
    """/etc/resolv.conf of a container that asks the engine's resolver.

    ``ndots:0``, as Docker has it: a name of a container is one word and is asked as it stands.
    """
    text = resolv_conf(host, dns=(resolver,), search=search, options=options)
    if "ndots:" in text:
        return text
    lines = [line for line in text.splitlines() if not line.startswith("options ")]
    flags = [line for line in text.splitlines() if line.startswith("options ")]
    return "\n".join([*lines, " ".join([*(flags or ["options"]), "ndots:0"])]) + "\n"


def hostname(name: str) -> str:
    """/etc/hostname."""
    if not is_name(name) or len(name) > 63:
        raise InvalidRequest(f"invalid hostname {name!r}")
    return name + "\n"


def is_name(text: str) -> bool:
    """A word of letters, digits, dots, dashes and underscores, so that it cannot start a line."""
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
    """The line with its end.

    :raises InvalidRequest: the alias could not stand in a hosts file.
    """
    if not is_name(alias):
        raise InvalidRequest(
            f"invalid alias in link: {alias!r}", hint="letters, digits, dots, dashes, underscores"
        )
    names = (alias, hostname) if name == alias else (alias, hostname, name)
    return f"{address}\t{' '.join(names)}\n"


def set_link_address(text: bytes, names: Sequence[str], address: str) -> bytes:
    """The file with another address in the link's line; without one it is as it was."""
    before, found, after = _split(text, names)
    _, tab, rest = found.partition(b"\t")
    return before + address.encode() + tab + rest + after if found else text


def remove_link_line(text: bytes, names: Sequence[str]) -> bytes:
    """The file without the link's line."""
    before, _, after = _split(text, names)
    return before + after


def _split(text: bytes, names: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """What is before the link's line, the line with its end, and what is after it."""
    wanted = [name.encode() for name in names]
    start = 0
    for found in text.splitlines(keepends=True):
        _, tab, rest = found.partition(b"\t")
        if tab and rest.split()[: len(wanted)] == wanted:
            return text[:start], found, text[start + len(found) :]
        start += len(found)
    return text, b"", b""
