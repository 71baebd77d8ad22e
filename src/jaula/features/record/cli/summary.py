"""The summary of a record: a screen or two, whatever the record has.

Each section has at most a few rows; what is left out is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from jaula.features.record.cli.record_output import printable, program_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jaula.features.record.record_document import Entry
    from jaula.features.record.record_reader import Record

    Row = tuple[str, ...]

ROWS = 10  # of programs, and of directories
LISTED = 6  # addresses, names or files in a row
WIDTH = 96  # characters of a path or an address

_WRITES = ("write", "create", "truncate", "append")
_OPENS = ("open", "openat", "openat2", "creat")  # their refusals have the file
_NOT_REFUSED = ("", "EINPROGRESS", "unknown")  # results of a connect(2) that may succeed
_ADDRESSED = ("inet", "inet6", "unix")  # families whose addresses are texts
_UNSPECIFIED = "0"
_DEVICES = {
    "c 1:3": "null", "c 1:5": "zero", "c 1:7": "full", "c 1:8": "random", "c 1:9": "urandom",
    "c 5:0": "tty", "c 5:1": "console", "c 5:2": "ptmx", "c 10:229": "fuse",
}  # fmt: skip


def lines(record: Record) -> Iterator[str]:
    """Yield lines whose cells are separated by tabs, with control characters as escapes."""
    entries = tuple(record.entries.values())
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[entry.kind].append(entry)
    written = _paths((*by_kind["file"], *by_kind["change"]), _is_write)
    read = _paths(by_kind["file"], lambda entry: not _is_write(entry))
    for title, rows in (
        (("Programs", "EXECUTED", "SYSTEM CALLS"), _programs(record, by_kind)),
        (("Files written, created or removed", "PATHS", "TIMES"), _directories(written)),
        (
            ("Files only read", "PATHS", "TIMES"),
            _directories({path: times for path, times in read.items() if path not in written}),
        ),
        (("Network",), _network(by_kind)),
        (("Capabilities",), _capabilities(by_kind)),
        (("Refused",), _refusals(by_kind)),
        (("Devices, mounts, io_uring, signals",), _others(by_kind)),
        (("Resources",), _resources(by_kind["resource"])),
    ):
        found = list(rows)
        if found:
            yield ""
            yield "\t".join(title)
            for row in found:
                yield "  " + "\t".join(printable(cell) for cell in row)


def _programs(record: Record, by_kind: Mapping[str, list[Entry]]) -> Iterator[Row]:
    executed: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for entry in by_kind["exec"]:
        executed[program_name(record, entry.executed)] += entry.count
    for entry in by_kind["syscall"]:
        calls[program_name(record, entry.program)] += entry.count
    names = sorted(executed.keys() | calls.keys(), key=lambda name: (-calls[name], name))
    for name in names[:ROWS]:
        yield _short(name), str(executed[name] or "-"), f"{calls[name]:,}"
    yield from _rest(len(names), "programs")


def _paths(entries: Iterable[Entry], select: Callable[[Entry], bool]) -> Counter[str]:
    """Return how often each path occurs. A path that is not whole is in no directory."""
    result: Counter[str] = Counter()
    for entry in entries:
        if not select(entry):
            continue
        if entry.lost_text:
            result["(lost)"] += entry.count
        elif entry.detached or entry.truncated:
            mark = "detached" if entry.detached else "truncated"
            result[f"({mark}) {entry.path}"] += entry.count
        else:
            result[entry.path] += entry.count
    return result


def _is_write(entry: Entry) -> bool:
    return entry.kind == "change" or any(word in entry.mode.split(",") for word in _WRITES)


def _directories(paths: Mapping[str, int]) -> Iterator[Row]:
    """Yield at most :data:`ROWS` directories that have all paths, the ones with most first."""
    groups = sorted(group(paths, ROWS), key=lambda each: (-len(each[1]), each[0]))
    for name, members in groups:
        times = sum(paths[path] for path in members)
        if len(members) == 1:
            name = members[0]
        yield _short(name), f"{len(members):,}", f"{times:,}"


def group(paths: Iterable[str], limit: int) -> list[tuple[str, list[str]]]:
    """Return directories, each with its paths: as deep as ``limit`` directories allow. Pure.

    The name of a directory ends in a slash. Paths that are not absolute are one group each, and
    together one if they are several.
    """
    absolute = [path for path in paths if path.startswith("/")]
    others = [path for path in paths if not path.startswith("/")]
    final = [("(without a path)", others)] if others else []
    open_groups = [("/", absolute)] if absolute else []
    while open_groups:
        open_groups.sort(key=lambda each: len(each[1]))
        name, members = open_groups.pop()
        children: dict[str, list[str]] = defaultdict(list)
        for path in members:
            end = path.find("/", len(name))
            children[path[len(name) : end + 1]].append(path)
        own = children.pop("", [])
        parts = [(name + each, found) for each, found in children.items()]
        total = len(parts) + bool(own) + len(open_groups) + len(final)
        if not parts or total > limit:
            final.append((name, members))
            continue
        if own:
            final.append((name, own))
        open_groups += parts
    return final


def _network(by_kind: Mapping[str, list[Entry]]) -> Iterator[Row]:
    listened = {_address(entry): None for entry in by_kind["listen"]}
    yield from _row("listened on", listened)
    bound = dict.fromkeys(
        _address(entry)
        for entry in by_kind["bind"]
        if not entry.errno
        and entry.family in _ADDRESSED
        and entry.address
        and _address(entry) not in listened
    )
    yield from _row("bound", bound)
    kernel = {
        (entry.family, entry.address, entry.port)
        for entry in by_kind["connect"]
        if entry.source == "kernel"
    }
    connected: dict[str, None] = {}
    failed: dict[str, None] = {}
    for entry in by_kind["connect"]:
        if entry.family == _UNSPECIFIED:  # it disconnects a socket
            continue
        if entry.errno not in _NOT_REFUSED:
            failed[f"{_address(entry)} {entry.errno}"] = None
        elif entry.source == "kernel" or (entry.family, entry.address, entry.port) not in kernel:
            connected[_address(entry)] = None
    yield from _row("connected to", connected)
    yield from _row("failed to connect to", failed)
    yield from _row(
        "sent to", dict.fromkeys(_address(entry) for entry in by_kind["send"] if entry.address)
    )
    peers: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in by_kind["accept"]:
        place = f"{entry.protocol} port {entry.port}" if entry.port else f"unix {entry.address}"
        peers[place][entry.address if entry.port else f"{entry.count} times"] = None
    for place, found in list(peers.items())[:ROWS]:
        yield from _row(f"accepted, {_short(place)}", found)
    yield from _rest(len(peers), "listeners with accepted connections")
    questions = dict.fromkeys(
        "(malformed)" if entry.malformed else f"{entry.name} {entry.query_type}"
        for entry in by_kind["dns"]
    )
    yield from _row("asked DNS for", questions)


def _address(entry: Entry) -> str:
    if entry.lost_text:
        return "(lost)"
    address = f"[{entry.address}]" if ":" in entry.address and entry.port else entry.address
    if entry.family not in _ADDRESSED:
        return entry.family
    kind = entry.protocol or entry.family
    return f"{kind} {address}:{entry.port}" if entry.port else f"{entry.family} {address}"


def _capabilities(by_kind: Mapping[str, list[Entry]]) -> Iterator[Row]:
    for kind, title in (
        ("capability", "used"),
        ("capability-refused", "asked for, not held"),
        ("capability-held", "held"),
    ):
        calls: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for entry in by_kind[kind]:
            calls[entry.capability, entry.namespace][entry.syscall] += entry.count
        for (capability, namespace), counts in sorted(calls.items()):
            host = ", host" if namespace == "host" else ""
            for row in _row(capability, _counted(counts)):
                yield title + host, *row


def _refusals(by_kind: Mapping[str, list[Entry]]) -> Iterator[Row]:
    """Yield the refusals by layer. Results of calls that no layer refused are not listed."""
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    files: dict[str, Counter[str]] = defaultdict(Counter)
    absent = 0
    for entry in by_kind["syscall"]:
        layer = entry.layer or ("no known layer" if entry.errno in ("EPERM", "EACCES") else "")
        if layer and (entry.syscall not in _OPENS or not by_kind["file-refused"]):
            words = (entry.syscall, entry.abi, entry.errno, entry.capability)
            calls[layer][" ".join(word for word in words if word)] += entry.count
    for entry in by_kind["file-refused"]:
        if not entry.layer and entry.errno in ("ENOENT", "ENOTDIR"):
            absent += 1
            continue
        parts = (entry.path, entry.errno, entry.capability)
        files[entry.layer or "no known layer"][" ".join(filter(None, parts))] += entry.count
    for layer in sorted(calls.keys() | files.keys()):
        if calls[layer]:
            yield from _row(f"by {layer}", _counted(calls[layer]))
        if files[layer]:
            yield from _row(f"by {layer}, files", dict.fromkeys(files[layer]))
    if absent:
        yield "files that do not exist", f"{absent:,}"


def _others(by_kind: Mapping[str, list[Entry]]) -> Iterator[Row]:
    devices: dict[str, set[str]] = defaultdict(set)
    for entry in by_kind["device"]:
        devices[entry.device].update(entry.mode.split(","))
    yield from _row(
        "devices",
        dict.fromkeys(
            " ".join(filter(None, (name, _DEVICES.get(name, ""), ",".join(sorted(modes)))))
            for name, modes in devices.items()
        ),
    )
    for kind in ("mount", "unmount"):
        yield from _row(
            f"{kind}s",
            dict.fromkeys(
                " ".join(filter(None, (each.path, each.filesystem, each.errno)))
                for each in by_kind[kind]
            ),
        )
    operations: Counter[str] = Counter()
    for entry in by_kind["io-uring"]:
        operations[entry.operation] += entry.count
    yield from _row("io_uring", _counted(operations))
    signals: Counter[str] = Counter()
    for entry in by_kind["signal"]:
        if entry.receiver == "outside":
            signals[entry.signal] += entry.count
    yield from _row("signals to processes outside", _counted(signals))


def _resources(entries: Iterable[Entry]) -> Iterator[Row]:
    found = {entry.resource: entry for entry in entries}
    for name, entry in found.items():
        if not entry.value:
            continue
        value = _quantity(entry.value, entry.unit)
        limit = f"of at most {_quantity(entry.limit, entry.unit)}" if entry.limit else ""
        source = "(largest sample)" if entry.source == "sampled" else ""
        yield name, " ".join(filter(None, (value, limit, source)))


def _quantity(value: int, unit: str) -> str:
    from jaula.spec.units import human_size

    if unit == "bytes":
        return human_size(value, 3)
    if unit == "bytes/second":
        return f"{human_size(value, 3)}/s"
    if unit == "microseconds":
        return f"{value / 1e6:.3f} s"
    if unit == "millicpus":
        return f"{value / 1000:.2f} processors"
    return f"{value:,} {unit}"


def _counted(counts: Counter[str]) -> dict[str, None]:
    return dict.fromkeys(
        f"{name} ({count:,})" if name else f"({count:,})" for name, count in counts.most_common()
    )


def _row(title: str, cells: Mapping[str, None]) -> Iterator[Row]:
    """Yield a row of the first cells, with the number of the rest."""
    if not cells:
        return
    shown = [_short(cell) for cell in list(cells)[:LISTED]]
    if len(cells) > LISTED:
        shown.append(f"and {len(cells) - LISTED:,} more")
    yield title, ", ".join(shown)


def _rest(total: int, noun: str) -> Iterator[Row]:
    if total > ROWS:
        yield (f"and {total - ROWS:,} more {noun}",)


def _short(text: str) -> str:
    """Return a text of at most :data:`WIDTH` characters; its end tells more than its middle."""
    if len(text) <= WIDTH:
        return text
    return f"{text[: WIDTH // 3]}...{text[-(WIDTH * 2 // 3 - 3) :]}"
