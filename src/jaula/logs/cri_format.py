"""The text format of Kubernetes' container logs. Pure.

``2006-01-02T15:04:05.999999999Z stdout F text\\n``. The tag ``F`` (full) ends a line. The tag ``P``
(partial) is that of a part: the reader joins it with the next entry. More tags may follow after a
colon. Source: Kubernetes, ``k8s.io/cri-client/pkg/logs``.
"""

from __future__ import annotations

import re

from jaula.logs.log_entry import LogEntry

_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)


def encode(data: bytes, stream: str, stamp: str) -> bytes:
    """Return whole lines, or a chunk of one, as entries."""
    head = f"{stamp} {stream} F ".encode()
    if not data.endswith(b"\n"):
        return head[:-2] + b"P " + data + b"\n"
    return head + data[:-1].replace(b"\n", b"\n" + head) + b"\n"


def decode(lines: bytes) -> list[LogEntry]:
    """Return the entries of whole lines. Lines that are not an entry are skipped."""
    return [entry for line in lines.split(b"\n") if (entry := _decode_line(line)) is not None]


def _decode_line(line: bytes) -> LogEntry | None:
    fields = line.split(b" ", 3)
    if len(fields) != 4:
        return None
    stamp, stream, tags, text = fields
    time = _utc(stamp.decode("ascii", "replace"))
    if time is None or stream not in _STREAMS:
        return None
    end = "" if tags.partition(b":")[0] == b"P" else "\n"
    return LogEntry(text.decode("utf-8", "surrogateescape") + end, _STREAMS[stream], time)


def _utc(stamp: str) -> str | None:
    """Return an RFC 3339 time in UTC, None if it is not one. Other runtimes write local time."""
    match = _TIME.fullmatch(stamp)
    if match is None:
        return None
    if match[3] is None:
        return stamp
    from datetime import datetime, timedelta

    offset = timedelta(hours=int(match[4]), minutes=int(match[5]))
    try:
        local = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S")
        utc = local - offset if match[3] == "+" else local + offset
    except (ValueError, OverflowError):
        return None
    return f"{utc.isoformat()}{match[2] or ''}Z"
