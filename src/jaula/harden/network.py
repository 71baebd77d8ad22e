"""Network and devices of a profile. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from jaula.harden.tally import Observation, Tallies, path_of, words
from jaula.record.document import Entry
from jaula.spec.profile import Evidence, Network

RESOLVERS = frozenset({"10.255.255.53", "127.0.0.11"})  # of the engine, and of Docker
MAX_EGRESS = 1024
MAX_DEVICES = 64
MAX_LISTEN = 1024
_ROUTED = frozenset(words("inet inet6 packet vsock netlink can tipc bluetooth"))
_DNS_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.){0,127}[a-z0-9_-]{1,63}")
_EPHEMERAL = 32768  # first port of net.ipv4.ip_local_port_range
_UNREACHABLE = frozenset({"ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EINVAL"})
_DEVICES = frozenset(
    f"/dev/{name}"
    for name in words(
        """null zero full random urandom tty console ptmx pts shm mqueue fd stdin stdout stderr
        core"""
    )
)


def network(
    observations: Sequence[Observation],
    evidence: dict[str, dict[str, Evidence]],
    notes: list[str],
    *,
    complete: bool,
    started: bool,
) -> Network:
    """Return ports that it listens on and destinations.

    ``complete``: no socket was lost. ``started``: the records have the start of the container; a
    server that began to listen before is not in them.
    """
    families, listen, egress, names = Tallies(), Tallies(), Tallies(), Tallies()
    chosen = {  # ports that programs named, by protocol
        (o.entry.protocol, o.entry.port) for o in observations if o.entry.kind == "bind"
    }
    for number, program, entry, _ in observations:
        if entry.kind == "socket" and entry.family != "unix":
            families[entry.family].add(number, program, entry.count)
        elif entry.kind == "listen" and entry.port:
            port = entry.port
            if port >= _EPHEMERAL and ("tcp", port) not in chosen:
                port = 0
            listen[f"tcp:{port}"].add(number, program, entry.count, f"on {entry.address}")
        elif entry.kind == "bind" and entry.protocol == "udp" and not entry.errno and entry.port:
            listen[f"udp:{entry.port}"].add(number, program, entry.count, f"on {entry.address}")
        elif entry.kind == "dns" and entry.query_type in ("A", "AAAA"):
            name = entry.name.lower().rstrip(".")
            if _DNS_NAME.fullmatch(name) and not name.rpartition(".")[2].isdigit():
                names[name].add(number, program, entry.count)
        elif item := _destination(entry):
            reason = entry.errno if entry.errno != "EINPROGRESS" else ""
            egress[item].add(number, program, entry.count, reason)
    for number, program, entry, _ in observations:  # of a client; Landlock refuses bind(2) too
        if entry.kind == "bind" and entry.protocol == "tcp" and not entry.errno and entry.port:
            item = f"tcp:{entry.port}"
            if item not in listen:
                listen[item].add(number, program, entry.count, f"bound to {entry.address}")
    services = {
        (item.partition(":")[0], item.rpartition(":")[2])
        for item in egress
        if not item.endswith(":53")
    }
    for name, occurrences in names.items():
        for protocol, service in services:
            tally = egress[f"{protocol}:{name}:{service}"]
            tally.merge(occurrences)
            tally.reasons["a name that it asked for, with a port that it connected to"] += 1
    if len(egress) > MAX_EGRESS:
        notes.append(f"{len(egress)} destinations are too many for a list: egress is unrestricted")
    restricted = complete and len(egress) <= MAX_EGRESS
    listed = complete and started and len(listen) <= MAX_LISTEN
    evidence["network.listen"] = listen.evidence() if listed else {}
    evidence["network.egress"] = egress.evidence() if restricted else {}
    if complete and not any(
        o.entry.kind == "socket" and o.entry.family in _ROUTED for o in observations
    ):
        return Network(mode="none", listen=() if started else None, egress=())
    raw = {o.entry.family for o in observations if o.entry.socket_type == "raw"}
    if "packet" in families or raw & {"inet", "inet6"}:
        notes.append("it uses raw sockets, whose destinations the records lack")
    return Network(
        listen=tuple(sorted(listen)) if listed else None,
        egress=tuple(sorted(egress)) if restricted else None,
    )


def _destination(entry: Entry) -> str:
    """Return where an entry connects or sends to, '' for the container itself or another family."""
    if entry.kind not in ("connect", "send") or entry.errno in _UNREACHABLE or not entry.port:
        return ""
    if entry.family not in ("inet", "inet6"):
        return ""
    if entry.protocol not in ("tcp", "udp", "mptcp"):
        return ""
    try:
        address = ip_address(entry.address)
    except ValueError:
        return ""
    if mapped := getattr(address, "ipv4_mapped", None):
        address = mapped
    if address.is_loopback or address.is_unspecified or str(address) in RESOLVERS:
        return ""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{'udp' if entry.protocol == 'udp' else 'tcp'}:{host}:{entry.port}"


def devices(
    observations: Sequence[Observation],
) -> tuple[tuple[str, ...], dict[str, Evidence]]:
    """Return the devices that it opened, besides those of each container."""
    devices = Tallies()
    for number, program, entry, _ in observations:
        path = path_of(entry) if entry.kind == "file" else None
        if path is None or not path.startswith("/dev/") or path in _DEVICES:
            continue
        if path.startswith(("/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/")):
            continue
        devices[path].add(number, program, entry.count, entry.mode)
    if len(devices) > MAX_DEVICES:  # files that it made in /dev
        return (), {}
    return tuple(sorted(devices)), devices.evidence()
