"""``events``: a container's statistics and OOM notifications, one JSON document per line.

The documents are those of runc, which callers decode: ``{"type":"stats","id":ID,"data":{...}}`` at
once and after each interval, ``{"type":"oom","id":ID}`` after an OOM kill. The command exits with
the container, or after one document with ``--stats``.
"""

from __future__ import annotations

import os
import select
import time

from jaula.cgroups.cgroup_stats import events_document
from jaula.errors import Conflict, InvalidRequest
from jaula.oci import runtime_services
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.runtime_container import Container, open_process
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup

FLAGS = {"stats": SWITCH, "interval": VALUE}
USAGE = "[--stats] [--interval DURATION] CONTAINER-ID"
DEFAULT_INTERVAL = "5s"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_OOM_WINDOW, _OOM_POLL = 1.0, 20  # seconds, milliseconds: v1 notifies before it counts the kill
_MAX_TIMEOUT = (1 << 31) - 1  # milliseconds, the maximum of poll(2)


def run(args: CommandArgs) -> int:
    """Print the events.

    :raises Conflict: when the container is not running.
    """
    seconds = duration(args.options.get("interval") or DEFAULT_INTERVAL)
    with Container.open(args.settings.root, args.container_id()) as container:
        record = container.record()
        status = container.status(record)
    pidfd = open_process(record)
    if status in ("stopped", "creating") or pidfd is None:
        raise Conflict(f"container {record.id} is not running: it is {status}")
    try:
        with runtime_services.cgroup_of(record) as cgroup:
            _print_event("stats", record.id, events_document(cgroup.stats(detailed=True)))
            if not args.options.on("stats"):
                _follow(record.id, cgroup, pidfd, seconds)
    finally:
        os.close(pidfd)
    return 0


def duration(text: str) -> float:
    """Return the seconds of a duration such as ``1m30s``, ``0.5s`` or ``100ms``.

    :raises InvalidRequest: when the text is malformed.
    """
    total, remaining = 0.0, text
    while remaining:
        number = remaining[: len(remaining) - len(remaining.lstrip("0123456789."))]
        remaining = remaining[len(number) :]
        unit = remaining[: len(remaining) - len(remaining.lstrip("nuµmsh"))]
        remaining = remaining[len(unit) :]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise InvalidRequest(f"--interval: {text!r} is not a duration", hint="such as 5s")
        total += float(number) * _UNITS[unit]
    if total <= 0:
        raise InvalidRequest("--interval: must be greater than 0")
    return total


def _follow(container_id: str, cgroup: Cgroup, pidfd: int, seconds: float) -> None:
    """Print events until the process exits."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    oom_fd = cgroup.oom_fd()
    if oom_fd is not None:
        poll.register(oom_fd, select.POLLIN)
    reported = cgroup.oom_kills()
    due = time.monotonic() + seconds
    last_oom = -_OOM_WINDOW  # time of the last OOM notification
    try:
        exited = False
        while not exited:
            timeout_ms = max(0, round((due - time.monotonic()) * 1000))
            if time.monotonic() < last_oom + _OOM_WINDOW:
                timeout_ms = min(timeout_ms, _OOM_POLL)
            ready = [fd for fd, _ in poll.poll(min(timeout_ms, _MAX_TIMEOUT))]
            if oom_fd is not None and oom_fd in ready:
                _drain_events(oom_fd)
                last_oom = time.monotonic()
            kills = cgroup.oom_kills()
            for _ in range(kills - reported):
                _print_event("oom", container_id)
            reported = kills
            exited = pidfd in ready
            if not exited and time.monotonic() >= due:
                due += seconds
                _print_event("stats", container_id, events_document(cgroup.stats(detailed=True)))
    finally:
        if oom_fd is not None:
            os.close(oom_fd)


def _drain_events(fd: int) -> None:
    try:
        while os.read(fd, 1 << 12):
            pass
    except BlockingIOError:
        return


def _print_event(kind: str, container_id: str, data: object = None) -> None:
    document: dict[str, object] = {"type": kind, "id": container_id}
    if data is not None:
        document["data"] = data
    os.write(1, f"{fast_json.encode(document)}\n".encode())
