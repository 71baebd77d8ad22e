"""Records on the terminal: what the commands of ``jaula record`` share."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.record.record_document import Container, End, Entry, GivenDevice
    from jaula.features.record.record_reader import Record


def open_record(path: str) -> Record:
    """Return the record of a file.

    :raises CliError: when it cannot be read, or exceeds a limit.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.record import record_reader

    try:
        return record_reader.read(path)
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None


def loss_lines(end: End) -> list[str]:
    """Return a line for each table that lost something."""
    return [
        f"jaula: lost in {table}: {loss.occurrences} occurrences, {loss.texts} texts, "
        f"{loss.entries} entries; {loss.events} entries were written late"
        for table, loss in end.losses.items()
    ]


def container_of(document: dict[str, Any]) -> Container:
    """Return the container of an inspect document, for the header of a record."""
    from jaula.features.record.record_document import Container

    host = document["HostConfig"]
    targets = {each["Destination"] for each in document.get("Mounts") or ()}
    targets |= (host.get("Tmpfs") or {}).keys()
    egress, listen = host.get("Egress"), host.get("Listen")
    options = {option.partition("=")[0].partition(":")[0] for option in host["SecurityOpt"] or ()}
    return Container(
        id=document["Id"],
        name=document["Name"].lstrip("/"),
        image=document["Config"]["Image"],
        image_id=document["Image"],
        user=document["Config"].get("User") or "",
        mounts=tuple(sorted(targets)),
        devices=_devices(host),
        capabilities=_capabilities(host),
        egress=None if egress is None else tuple(egress),
        listen=None if listen is None else tuple(listen),
        no_new_privileges="no-new-privileges" in options,
    )


_MAX_DEVICES = 512  # of a header, whose line has a limit


def _devices(host: dict[str, Any]) -> tuple[GivenDevice, ...]:
    """Return the device nodes that the engine gives a container, besides those of each one."""
    from jaula.errors import InvalidRequest
    from jaula.features.record.record_document import GivenDevice
    from jaula.security.allowed_devices import host_devices, parse_device

    texts = []
    for mapping in host.get("Devices") or ():
        path = mapping["PathOnHost"]
        inside = mapping.get("PathInContainer") or path
        texts.append((path, inside, f":{mapping.get('CgroupPermissions') or 'rwm'}"))
    if host.get("Privileged") and host.get("UsernsMode") == "host":
        texts += [(path, path, "") for path in host_devices() if ":" not in path]
    found: dict[str, GivenDevice] = {}
    for path, inside, access in texts:
        try:
            nodes = parse_device(f"{path}:{inside}{access}")
        except InvalidRequest:  # the host has no such node by now: the container has none either
            continue
        for node, rule in nodes:
            below = node.path.removeprefix(inside.rstrip("/")) if node.path != inside else ""
            found[node.path] = GivenDevice(
                path=node.path,
                host=path.rstrip("/") + below,
                device=f"{node.type} {node.major}:{node.minor}",
                access=rule.access or "rwm",
            )
    return tuple(found[path] for path in sorted(found)[:_MAX_DEVICES])


def _capabilities(host: dict[str, Any]) -> tuple[str, ...] | None:
    from jaula.errors import InvalidRequest
    from jaula.security import capability_sets

    try:
        sets = capability_sets.resolve(
            host.get("CapAdd") or (), host.get("CapDrop") or (), privileged=bool(host["Privileged"])
        )
    except InvalidRequest:  # of an engine that knows more names
        return None
    return tuple(sorted(sets.bounding))


def printable(text: str) -> str:
    """Return a text whose control characters are escapes: a container chooses its names."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def program_name(record: Record, number: int) -> str:
    """Return a program as ``PATH (NAME)``, or ``(unknown)``."""
    from jaula.features.record.compare_records import program_of

    path, name = program_of(record, number)
    if not path:
        return f"({name or 'unknown'})"
    return f"{path} ({name})" if name else path


def subject(record: Record, entry: Entry) -> str:
    """Return what an entry is about, in one line."""
    call = entry.syscall + (f" ({entry.abi})" if entry.abi else "")
    if entry.lost_text:
        words = ["(text lost)"]
    elif entry.kind == "syscall":
        words = [call]
        if entry.layer:
            words.append(f"(refused by {entry.layer}{_capability(entry)})")
    elif entry.kind == "exec":
        words = [program_name(record, entry.executed)]
    elif entry.kind == "change":
        words = [entry.path, f"by {call}"]
    elif entry.kind in ("file", "file-refused"):
        words = [entry.path, entry.mode]
        if entry.layer:
            words.append(f"(refused by {entry.layer}{_capability(entry)})")
    elif entry.kind == "device":
        words = [entry.device, entry.mode]
    elif entry.kind == "dns":
        words = ["(malformed)" if entry.malformed else entry.name, entry.query_type]
        words.append(entry.protocol)
    elif entry.kind == "io-uring":
        words = [entry.operation, entry.path]
    elif entry.kind == "resource":
        words = [entry.resource, str(entry.value), entry.unit, f"({entry.source})"]
        words += [f"limit {entry.limit}"] if entry.limit else []
    elif entry.kind == "accept":
        words = [entry.family, entry.protocol]
        if entry.port:
            words += [f"port {entry.port}", f"from {entry.address}"]
        else:
            words.append(entry.address)
    elif entry.kind == "socket":
        words = [entry.family, entry.socket_type, entry.protocol]
    elif entry.kind == "capability-held":
        words = [entry.capability]
    elif entry.kind in ("capability", "capability-refused"):
        words = [entry.capability, f"for {call}", f"in the {entry.namespace}'s user namespace"]
    elif entry.kind in ("mount", "unmount"):
        words = [entry.path, entry.filesystem, f"from {entry.device}" if entry.device else ""]
    elif entry.kind == "signal":
        receiver = entry.receiver
        if receiver == "container":
            receiver = program_name(record, entry.receiver_program)
        words = [entry.signal, f"to {receiver}"]
    else:
        address = f"[{entry.address}]" if ":" in entry.address else entry.address
        words = [entry.family, f"{address}:{entry.port}" if entry.port else entry.address]
        words += [entry.protocol, f"(from the {entry.source})"]
    marks = [name for name in ("truncated", "detached") if getattr(entry, name)]
    return " ".join(word for word in (*words, *marks, entry.errno) if word)


def _capability(entry: Entry) -> str:
    return f": {entry.capability}" if entry.capability else ""
