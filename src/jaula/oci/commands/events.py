"""``events``: a container's figures, and word of memory that ran out, one JSON document a line.

The documents are those of runc, which callers decode: ``{"type":"stats","id":ID,"data":{...}}`` at
once and after each interval, ``{"type":"oom","id":ID}`` when the kernel has killed for want of
memory. The command ends with the container, unless ``--stats`` asks for one look.
"""

from __future__ import annotations

import os
import select
import time

from jaula.cgroups.events import events_document
from jaula.errors import Conflict, InvalidRequest
from jaula.oci import services
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.commands.delete import open_process
from jaula.oci.container import Container
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup

FLAGS = {"stats": SWITCH, "interval": VALUE}
USAGE = "[--stats] [--interval DURATION] CONTAINER-ID"
DEFAULT_INTERVAL = "5s"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SETTLING, _LOOK = 1.0, 20  # seconds and milliseconds: v1 tells before it counts a kill
_LONGEST = (1 << 31) - 1  # milliseconds that poll(2) takes


def run(call: CommandArgs) -> int:
    """Print them. Raises ``Conflict`` where the container has stopped."""
    seconds = duration(call.options.get("interval") or DEFAULT_INTERVAL)
    with Container.find(call.settings.root, call.container_id()) as container:
        record = container.record()
        status = container.status(record)
    process = open_process(record)
    if status in ("stopped", "creating") or process is None:
        raise Conflict(f"container {record.id} is not running: it is {status}")
    try:
        with services.cgroup_of(record) as cgroup:
            _say("stats", record.id, events_document(cgroup.stats(detailed=True)))
            if not call.options.on("stats"):
                _follow(record.id, cgroup, process, seconds)
    finally:
        os.close(process)
    return 0


def duration(text: str) -> float:
    """Seconds of a length of time such as ``1m30s``, ``0.5s`` or ``100ms``. ``InvalidRequest``."""
    total, rest = 0.0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise InvalidRequest(f"--interval: {text!r} is not a duration", hint="such as 5s")
        total += float(number) * _UNITS[unit]
    if total <= 0:
        raise InvalidRequest("--interval: must be greater than 0")
    return total


def _follow(container_id: str, cgroup: Cgroup, process: int, seconds: float) -> None:
    """Until the process ends; what it has used is printed again after each interval."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    memory = cgroup.oom_fd()
    if memory is not None:
        poll.register(memory, select.POLLIN)
    killed = cgroup.oom_kills()
    due = time.monotonic() + seconds
    told = -_SETTLING  # when the kernel last said that memory ran out
    try:
        ended = False
        while not ended:
            left = max(0, round((due - time.monotonic()) * 1000))
            if time.monotonic() < told + _SETTLING:
                left = min(left, _LOOK)
            ready = [fd for fd, _ in poll.poll(min(left, _LONGEST))]
            if memory is not None and memory in ready:
                _drain(memory)
                told = time.monotonic()
            now = cgroup.oom_kills()
            for _ in range(now - killed):
                _say("oom", container_id)
            killed = now
            ended = process in ready
            if not ended and time.monotonic() >= due:
                due += seconds
                _say("stats", container_id, events_document(cgroup.stats(detailed=True)))
    finally:
        if memory is not None:
            os.close(memory)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 1 << 12):
            pass
    except BlockingIOError:
        return


def _say(kind: str, container_id: str, data: object = None) -> None:
    document: dict[str, object] = {"type": kind, "id": container_id}
    if data is not None:
        document["data"] = data
    os.write(1, f"{fast_json.encode(document)}\n".encode())
