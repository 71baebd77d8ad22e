"""Entries of a record in forms of other tools: JSON lines, and events of OCSF. Pure.

Source: the Open Cybersecurity Schema Framework, https://schema.ocsf.io, classes process_activity,
file_activity, kernel_activity, network_activity and dns_activity with the profiles host and
container. An entry stands for ``count`` occurrences between ``start_time`` and ``end_time``. What
the schema has no attribute for is in ``unmapped``, as ``jaula record show`` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from jaula.features.record.compare_records import document_of, program_of
from jaula.features.record.record_document import Entry, Header
from jaula.features.record.record_reader import Record

OCSF_VERSION = "1.6.0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# class: uid, name, category uid, category name
_BASE = (0, "Base Event", 0, "Uncategorized")
_FILE = (1001, "File System Activity", 1, "System Activity")
_KERNEL = (1003, "Kernel Activity", 1, "System Activity")
_PROCESS = (1007, "Process Activity", 1, "System Activity")
_NETWORK = (4001, "Network Activity", 4, "Network Activity")
_DNS = (4003, "DNS Activity", 4, "Network Activity")
_Class = tuple[int, str, int, str]

_REGULAR, _DIRECTORY, _CHARACTER_DEVICE, _BLOCK_DEVICE = 1, 2, 3, 4  # file.type_id
_SYSTEM_CALL = 2  # kernel.type_id
_LINUX = 200  # os.type_id
_SUCCESS, _FAILURE = 1, 2  # status_id
_INFORMATIONAL, _LOW = 1, 2  # severity_id
_INBOUND, _OUTBOUND, _UNKNOWN_DIRECTION = 1, 2, 0  # connection_info.direction_id
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


def json_lines(record: Record) -> Iterator[dict[str, Any]]:
    """Yield each entry with its container and its times as RFC 3339."""
    header = _header_of(record)
    start = _start_of(header)
    container = {"id": header.container.id, "name": header.container.name}
    for n, entry in record.entries.items():
        yield {
            "time": _rfc3339(start, entry.first),
            "end_time": _rfc3339(start, entry.last),
            "container": container,
        } | document_of(record, n)


def ocsf(record: Record) -> Iterator[dict[str, Any]]:
    """Yield an event of OCSF for each entry."""
    header = _header_of(record)
    start = _start_of(header)
    for n, entry in record.entries.items():
        (uid, name, category, category_name), activity, activity_name, attributes = _event(
            record, header, entry
        )
        refused = bool(entry.errno) or entry.kind == "capability-refused"
        event = {
            "activity_id": activity,
            "activity_name": activity_name,
            "category_uid": category,
            "category_name": category_name,
            "class_uid": uid,
            "class_name": name,
            "type_uid": uid * 100 + activity,
            "type_name": f"{name}: {activity_name}",
            "time": _milliseconds(start, entry.first),
            "start_time": _milliseconds(start, entry.first),
            "end_time": _milliseconds(start, entry.last),
            "count": max(1, entry.count),
            "severity_id": _LOW if refused else _INFORMATIONAL,
            "status_id": _FAILURE if refused else _SUCCESS,
            "metadata": _metadata(record, header, n),
            "actor": {"process": _process(record, header, entry.program)},
            "device": _device(header),
            "container": _container(header),
            "unmapped": document_of(record, n),
        }
        if entry.errno:
            event["status_code"] = entry.errno
        if entry.layer:
            event["status_detail"] = f"refused by {entry.layer}"
        yield event | attributes


def _event(record: Record, header: Header, entry: Entry) -> tuple[_Class, int, str, dict[str, Any]]:
    """Return class, activity, its name, and the attributes of the class."""
    kind = entry.kind
    if kind == "exec":
        return _PROCESS, 1, "Launch", {"process": _process(record, header, entry.executed)}
    if kind == "signal":
        receiver = _process(record, header, entry.receiver_program)
        return _PROCESS, 99, f"Signal {entry.signal}", {"process": receiver}
    if kind == "file":
        activity, name = _activity_of(entry.mode)
        return _FILE, activity, name, {"file": _file(entry.path, _REGULAR)}
    if kind == "device":
        number = _BLOCK_DEVICE if entry.device.startswith("b") else _CHARACTER_DEVICE
        activity, name = _activity_of(entry.mode)
        return _FILE, activity, name, {"file": {"name": entry.device, "type_id": number}}
    if kind == "file-refused" or (kind == "io-uring" and entry.path):
        return _FILE, 14, "Open", {"file": _file(entry.path, 0)}
    if kind == "mount":
        return _FILE, 12, "Mount", {"file": _file(entry.path, _DIRECTORY)}
    if kind == "unmount":
        return _FILE, 13, "Unmount", {"file": _file(entry.path, _DIRECTORY)}
    if kind == "dns":
        query = {"hostname": entry.name or "(malformed)"}
        if entry.query_type:
            query |= {"type": entry.query_type, "class": "IN"}
        source = {"uid": header.container.id, "name": header.container.name}
        return _DNS, 1, "Query", {"query": query, "src_endpoint": source}
    if kind in _CONNECTIONS:
        return _connection(header, entry)
    if kind == "resource":
        return _BASE, 99, f"Resource {entry.resource}", {}
    call = entry.syscall or (f"io_uring {entry.operation}" if entry.operation else kind)
    kernel = {"name": call, "type_id": _SYSTEM_CALL, "type": "System Call", "system_call": call}
    return _KERNEL, 4, "Invoke", {"kernel": kernel}


_CONNECTIONS = {  # kind: activity, its name, direction
    "connect": (1, "Open", _OUTBOUND),
    "accept": (1, "Open", _INBOUND),
    "send": (6, "Traffic", _OUTBOUND),
    "bind": (7, "Listen", _UNKNOWN_DIRECTION),
    "listen": (7, "Listen", _UNKNOWN_DIRECTION),
}


def _connection(header: Header, entry: Entry) -> tuple[_Class, int, str, dict[str, Any]]:
    activity, name, direction = _CONNECTIONS[entry.kind]
    address = {"ip": entry.address} if entry.family in ("inet", "inet6") else {}
    far: dict[str, Any] = address or {"name": entry.address or f"({entry.family or 'unknown'})"}
    near: dict[str, Any] = {"uid": header.container.id, "name": header.container.name}
    connection: dict[str, Any] = {"direction_id": direction}
    if entry.protocol:
        connection["protocol_name"] = entry.protocol
    if entry.protocol in _PROTOCOLS:
        connection["protocol_num"] = _PROTOCOLS[entry.protocol]
    if entry.kind == "accept":
        endpoints = {"src_endpoint": far, "dst_endpoint": near | _port(entry)}
    elif direction == _OUTBOUND:
        endpoints = {"src_endpoint": near, "dst_endpoint": far | _port(entry)}
    else:
        endpoints = {"dst_endpoint": far | _port(entry)}
    return _NETWORK, activity, name, endpoints | {"connection_info": connection}


def _port(entry: Entry) -> dict[str, int]:
    return {"port": entry.port} if entry.port else {}


def _activity_of(mode: str) -> tuple[int, str]:
    words = mode.split(",")
    for word, activity, name in (("create", 1, "Create"), ("write", 3, "Update"),
                                 ("read", 2, "Read")):  # fmt: skip
        if word in words:
            return activity, name
    return 14, "Open"


def _file(path: str, type_id: int) -> dict[str, Any]:
    return {
        "name": path.rstrip("/").rpartition("/")[2] or path or "(lost)",
        "path": path,
        "type_id": type_id,
    }


def _process(record: Record, header: Header, number: int) -> dict[str, Any]:
    """Return a program: its processes are counted together, so there is no pid."""
    path, name = program_of(record, number)
    process: dict[str, Any] = {
        "uid": f"{header.container.id}/{number}",
        "name": (name or path).rpartition("/")[2] or "(unknown)",
    }
    return process | ({"file": _file(path, _REGULAR)} if path else {})


def _metadata(record: Record, header: Header, n: int) -> dict[str, Any]:
    product, _, version = header.recorder.partition(" ")
    return {
        "version": OCSF_VERSION,
        "product": {"name": product or "jaula", "vendor_name": "jaula", "version": version},
        "profiles": ["host", "container"],
        "log_name": header.mechanism,
        "uid": f"{record.head.hash}/{n}",
        "sequence": n,
    }


def _device(header: Header) -> dict[str, Any]:
    return {
        "type_id": 0,
        "uid": header.kernel.boot_id or "(unknown)",
        "os": {"name": "Linux", "type_id": _LINUX, "version": header.kernel.release},
    }


def _container(header: Header) -> dict[str, Any]:
    container = header.container
    image = {"uid": container.image_id, "name": container.image}
    return {"uid": container.id, "name": container.name, "image": image}


def _header_of(record: Record) -> Header:
    """Return the header.

    :raises ValueError: when the record has none.
    """
    if record.header is None:
        raise ValueError("the record has no header, so times and container are not known")
    return record.header


def _start_of(header: Header) -> datetime:
    """Return the moment that times are relative to.

    :raises ValueError: when it is not a time.
    """
    start = datetime.fromisoformat(header.time)
    if start.tzinfo is None:
        raise ValueError(f"the time of the header has no zone: {header.time}")
    return start


def _rfc3339(start: datetime, microseconds: int) -> str:
    return (start + _span(microseconds)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _milliseconds(start: datetime, microseconds: int) -> int:
    return (start + _span(microseconds) - _EPOCH) // timedelta(milliseconds=1)


def _span(microseconds: int) -> timedelta:
    # A record that was altered may have any number: the largest ones become a year that exists.
    return timedelta(microseconds=min(microseconds, 1 << 56))


FORMATS: dict[str, Callable[[Record], Iterator[dict[str, Any]]]] = {
    "jsonl": json_lines,
    "ocsf": ocsf,
}
