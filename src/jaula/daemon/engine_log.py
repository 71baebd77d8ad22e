"""The engine's own log: lines of text, JSON with dockerd's members, or entries of the journal.

Source: docker docs, "dockerd", ``--log-format``; logrus, whose JSON dockerd prints: ``level``,
``msg`` and ``time``, sorted by name. systemd: "Native Journal Protocol", systemd.exec(5),
``$JOURNAL_STREAM``; sd-daemon(3) for priorities.

The messages of the engine are not written for this module. It reads what a message is about from
its template: ``container %s`` is followed by a container's name, and an argument that is an
exception is the error.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from jaula import request_context
from jaula.daemon.config.logging import LEVELS
from jaula.spec.visible_text import visible, visible_line

if TYPE_CHECKING:
    from jaula.config import EngineConfig

JOURNAL = "/run/systemd/journal/socket"
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LEVEL_NAMES = {"WARNING": "warning", "CRITICAL": "fatal"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_CONTAINER = "container %s"
_MAX_FIELD = 48 * 1024  # bytes of a field of the journal; two long ones fit a datagram

FindId = Callable[[str], str]
"""Returns the id of the container with a name, '' if there is none."""


class ContainerIds:
    """The ids of containers by name; ``names`` is the engine's own table once there is one."""

    def __init__(self) -> None:
        self.names: Mapping[str, str] = {}

    def find(self, name: str) -> str:
        """Return the id of the container with a name, '' if there is none."""
        return self.names.get(name, "")


def level(config: EngineConfig) -> int:
    """Return the level of ``logging`` for the settings; ``--debug`` is the level debug."""
    return logging.DEBUG if config.debug else LEVELS[config.log_level]


def handler(config: EngineConfig, find_id: FindId) -> logging.Handler:
    """Return the handler for standard error.

    If that is a stream of the journal, text goes to the journal as entries with fields.
    """
    if config.log_format == "json":
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(JsonFormatter(find_id))
        return stream
    if is_journal_stream(os.environ.get("JOURNAL_STREAM", ""), sys.stderr.fileno()):
        return JournalHandler(find_id)
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(TextFormatter(_TEXT))
    return stream


def is_journal_stream(variable: str, descriptor: int) -> bool:
    """Return whether a descriptor is the stream that ``$JOURNAL_STREAM`` names."""
    device, _, inode = variable.partition(":")
    if not (device.isascii() and device.isdigit() and inode.isascii() and inode.isdigit()):
        return False
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def fields(record: logging.LogRecord, find_id: FindId) -> dict[str, str]:
    """Return what a record is about: container, container_id, request_id, user, error."""
    found: dict[str, str] = {}
    arguments = record.args if isinstance(record.args, tuple) else ()
    if (name := _container(record.msg, arguments)) is not None:
        found["container"] = name
        if container_id := find_id(name):
            found["container_id"] = container_id
    errors = [value for value in arguments if isinstance(value, BaseException)]
    if record.exc_info and record.exc_info[1] is not None:
        errors.append(record.exc_info[1])
    if errors:
        found["error"] = str(errors[-1]) or type(errors[-1]).__name__
    if (request := request_context.current.get()) is not None:
        found["request_id"], found["user"] = request.id, request.user
        found["request"] = request.title
    return found


def _container(template: object, arguments: tuple[object, ...]) -> str | None:
    """Return the argument that follows ``container`` in a template; None if there is none."""
    if not isinstance(template, str):
        return None
    position = template.find(_CONTAINER)
    if position < 0 or (position and template[position - 1] not in " ("):
        return None
    number = template[:position].replace("%%", "").count("%")
    if number >= len(arguments) or not isinstance(arguments[number], str):
        return None
    return str(arguments[number])


def level_name(record: logging.LogRecord) -> str:
    """Return the level as logrus names it."""
    return _LEVEL_NAMES.get(record.levelname, record.levelname.lower())


class TextFormatter(logging.Formatter):
    """Lines of text. A message is one line without control characters: it has texts of others."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a message, to which a traceback is added."""
        return visible_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        """Return the lines of a traceback."""
        return visible(super().formatException(ei))  # type: ignore[arg-type]


class JsonFormatter(logging.Formatter):
    """Lines of JSON as dockerd prints them, with ``module`` and the members of :func:`fields`."""

    def __init__(self, find_id: FindId) -> None:
        super().__init__()
        self._find_id = find_id

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        document = {
            **fields(record, self._find_id),
            "level": level_name(record),
            "module": record.name,
            "msg": record.getMessage(),
            "time": format_time(record.created),
        }
        if record.exc_info:
            document["stack"] = self.formatException(record.exc_info)
        return msgspec.json.encode(dict(sorted(document.items()))).decode()


def format_time(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06d}Z"


class JournalHandler(logging.Handler):
    """Entries of the journal. One that the journal does not take is a line of standard error."""

    def __init__(self, find_id: FindId, address: str = JOURNAL) -> None:
        super().__init__()
        self._find_id = find_id
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._fallback = logging.StreamHandler(sys.stderr)
        self._fallback.setFormatter(TextFormatter(_TEXT))

    def emit(self, record: logging.LogRecord) -> None:
        """Send an entry."""
        try:
            self._socket.sendto(entry(record, self._find_id), self._address)
        except OSError:  # no journal any more, or its queue is full
            self._fallback.emit(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def entry(record: logging.LogRecord, find_id: FindId) -> bytes:
    """Return an entry in the native protocol of the journal."""
    message = record.getMessage()
    if record.exc_info:
        message += "\n" + logging.Formatter().formatException(record.exc_info)
    about = fields(record, find_id)
    container_id = about.get("container_id", "")
    values = {
        "MESSAGE": message,
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "jaula",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "CONTAINER_NAME": about.get("container", ""),
        "CONTAINER_ID": container_id[:12],
        "CONTAINER_ID_FULL": container_id,
        "JAULA_REQUEST_ID": about.get("request_id", ""),
        "JAULA_REQUEST": about.get("request", ""),
        "JAULA_USER": about.get("user", ""),
        "ERROR": about.get("error", ""),
    }
    return b"".join(_field(name, value) for name, value in values.items() if value)


def priority(level: int) -> int:
    """Return the priority of syslog(3) for a level of ``logging``."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def _field(name: str, value: str) -> bytes:
    """Return one field, of a value that is cut; one with a newline has its length before it."""
    data = value.encode("utf-8", "replace")[:_MAX_FIELD]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
