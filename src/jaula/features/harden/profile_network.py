"""Network and devices of a profile. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from jaula.errors import InvalidRequest
from jaula.features.harden.tally import Observation, Tallies, path_of, shortened, words
from jaula.features.record.record_document import Container, Entry, GivenDevice
from jaula.spec import egress as egress_list
from jaula.spec import listen as listen_list
from jaula.spec.confinement_profile import Evidence, Network, is_device

RESOLVERS = frozenset({"10.255.255.53", "127.0.0.11"})  # of the engine, and of Docker
MAX_EGRESS = 1024
MAX_DEVICES = 64
MAX_LISTEN = 1024
_MAX_NAMED = 4  # paths in a note
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
    containers: Sequence[Container],
    evidence: dict[str, dict[str, Evidence]],
    notes: list[str],
    incomplete: dict[str, str],
    *,
    complete: bool,
    started: bool,
) -> Network:
    """Return ports that it listens on and destinations, of those that its lists allowed.

    ``incomplete`` gets the fields whose list is left out, with the reason.

    ``complete``: no socket was lost. ``started``: the records have the start of the container; a
    server that began to listen before is not in them.
    """
    families, listen, egress, names = Tallies(), Tallies(), Tallies(), Tallies()
    asked = Tallies()  # names of queries that ask for no address
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
        elif entry.kind == "dns" and entry.query_type:
            name = entry.name.lower().rstrip(".")
            if _is_item(f"{egress_list.DNS}:{name}"):
                asked[name].add(number, program, entry.count)
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
    for name, occurrences in (*names.items(), *asked.items()):
        if not (services and name in names):  # it connects to nothing of that name
            egress[f"{egress_list.DNS}:{name}"].merge(occurrences)
    for name, occurrences in names.items():
        for protocol, service in services:
            tally = egress[f"{protocol}:{name}:{service}"]
            tally.merge(occurrences)
            tally.reasons["a name that it asked for, with a port that it connected to"] += 1
    _keep_given(egress, listen, containers, notes)
    if len(egress) > MAX_EGRESS:
        incomplete["network.egress"] = (
            f"{len(egress)} destinations are too many for a list: egress is unrestricted"
        )
    restricted = complete and len(egress) <= MAX_EGRESS
    listed = complete and started and len(listen) <= MAX_LISTEN
    if len(listen) > MAX_LISTEN:
        incomplete["network.listen"] = (
            f"{len(listen)} ports are too many for a list: they are unrestricted"
        )
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


def _keep_given(
    egress: Tallies, listen: Tallies, containers: Sequence[Container], notes: list[str]
) -> None:
    """Remove what the container tried, and what its own lists refused to it."""
    lists = [each.egress for each in containers]
    if None not in lists:
        allowed = [egress_list.parse_item(item) for items in lists for item in items or ()]
        refused = [each for each in egress if not _allows(allowed, each)]
        _leave_out(egress, refused, "destinations", notes)
    lists = [each.listen for each in containers]
    if None not in lists:
        ports = [port for items in lists for port in listen_list.parse(items or ())]
        refused = [
            each
            for each in listen
            for port in listen_list.parse([each])
            if port not in ports and not listen_list.covers(ports, port.protocol, port.number)
        ]
        _leave_out(listen, refused, "ports", notes)


def _leave_out(tallies: Tallies, items: Sequence[str], what: str, notes: list[str]) -> None:
    for item in items:
        del tallies[item]
    if items:
        notes.append(f"{len(items)} {what} are left out: the container's own list refused them")


def _is_item(text: str) -> bool:
    try:
        egress_list.parse_item(text)
    except InvalidRequest:
        return False
    return not text.endswith(":*")


def _allows(allowed: Sequence[egress_list.Destination], item: str) -> bool:
    wanted = egress_list.parse_item(item)
    return any(egress_list.includes(each, wanted) for each in allowed)


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
    if getattr(address, "scope_id", None):
        return ""  # an egress list has no zones
    if mapped := getattr(address, "ipv4_mapped", None):
        address = mapped
    if address.is_loopback or address.is_unspecified or str(address) in RESOLVERS:
        return ""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{'udp' if entry.protocol == 'udp' else 'tcp'}:{host}:{entry.port}"


def devices(
    observations: Sequence[Observation],
    containers: Sequence[Container],
    notes: list[str],
    incomplete: dict[str, str],
) -> tuple[tuple[str, ...], dict[str, Evidence]]:
    """Return the devices that it opened, of those that the container of the record was given.

    A path alone proves nothing: root of a container makes any file below /dev. So the kernel has to
    have opened the node of that number too, for the same program.
    """
    opened = {
        (o.record, o.entry.program, o.entry.device)
        for o in observations
        if o.entry.kind == "device"
    }
    given = [{device.path: device for device in container.devices} for container in containers]
    devices, others = Tallies(), Tallies()
    for number, program, entry, _ in observations:
        path = path_of(entry) if entry.kind == "file" else None
        if path is None:
            continue
        device = given[number].get(path)
        if device is not None and (number, entry.program, device.device) in opened:
            if is_device(item := _device_item(device)):
                devices[item].add(number, program, entry.count, entry.mode)
            else:
                others[path].add(number, program, entry.count)
        elif _may_be_device(path):
            others[path].add(number, program, entry.count)
    if others:
        names = sorted(others)
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        notes.append(
            "no devices of the profile, since the container was not given them or opened no device"
            f" of that number: {', '.join(shortened(name) for name in names[:_MAX_NAMED])}{more}"
        )
    if len(devices) > MAX_DEVICES:
        incomplete["devices"] = (
            f"{len(devices)} devices are too many for a list: it has none of them"
        )
        return (), {}
    return tuple(sorted(devices)), devices.evidence()


def _device_item(device: GivenDevice) -> str:
    """Return the item of a device, as the container was given it."""
    access = f":{device.access}" if device.access != "rwm" else ""
    inside = f":{device.path}" if device.path != device.host or access else ""
    return f"{device.host}{inside}{access}"


def _may_be_device(path: str) -> bool:
    """Return whether a path is below /dev, and not of the files that each container has there."""
    return (
        path.startswith("/dev/")
        and path not in _DEVICES
        and not path.startswith(("/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/"))
    )
