"""The directory of one run of a honeypot: its files and their documents.

Engine, supervisor, sink and client share this layout:

=====================  =====================================================================
``index.json``         :class:`Index`; written at the start, and again when the run has ended
``request.json``       :class:`Request`; the engine writes it before the start
``system.record``      system calls, programs, files and sockets: a record of ``jaula record``
``connections.jsonl``  one line for each connection or datagram, in both directions
``files.jsonl``        one :class:`File` for each write of a file
``files/SHA256``       contents of written files, mode 0400
``sessions/*.cast``    terminal sessions and the dialogues of published ports, asciicast
=====================  =====================================================================
"""

from __future__ import annotations

import msgspec

from jaula.spec.endpoint_record import PublishedPort

VERSION = 1
INDEX, REQUEST, RECORD = "index.json", "request.json", "system.record"
CONNECTIONS, FILE_LIST, FILES, SESSIONS = "connections.jsonl", "files.jsonl", "files", "sessions"
NAME = "honeypot"  # of the preset
SINK = "jaula-sink"  # name of the sink's process (proc_pid_comm(5))
INTERFACE, SINK_INTERFACE = "eth0", "sink0"
# The addresses that Docker gives to the first container of a fresh host.
ADDRESS, GATEWAY, PREFIX = "172.17.0.2", "172.17.0.1", 16
ADDRESS6, GATEWAY6, PREFIX6 = "fd00:17::2", "fd00:17::1", 64
LOCK = "lock"
"""A file that the supervisor holds locked (flock(2)) until the index is complete."""


class Subject(msgspec.Struct, frozen=True):
    """The container of a run."""

    id: str
    name: str
    image: str
    image_id: str


class Request(msgspec.Struct, frozen=True):
    """Request of the engine to the supervisor.

    ``upper`` is the writable layer on the host, '' if the storage driver has no such directory.
    """

    container: Subject
    mount_point: str
    upper: str = ""
    ports: tuple[PublishedPort, ...] = ()


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that was written. ``sha256`` is '' if its content was not kept, for ``reason``.

    Times are seconds since the epoch, ``mode`` is octal. ``program`` is the name of the process
    that closed the file (proc_pid_comm(5)); it names itself.
    """

    time: float
    path: str
    size: int
    mode: str
    uid: int
    gid: int
    mtime: float
    sha256: str = ""
    pid: int = 0
    program: str = ""
    deleted: bool = False
    truncated: bool = False
    reason: str = ""


class Sample(msgspec.Struct, frozen=True):
    """A kept content, with its paths."""

    sha256: str
    size: int
    mode: str
    paths: tuple[str, ...]
    writes: int


class Connections(msgspec.Struct, frozen=True):
    """Numbers of connections: out of the container, into it, and beyond the limits."""

    outgoing: int = 0
    datagrams: int = 0
    incoming: int = 0
    refused: int = 0
    unrecorded: int = 0


class Index(msgspec.Struct, frozen=True):
    """The summary of a run. ``ended`` and ``reason`` are empty while it runs."""

    version: int
    container: Subject
    started: str
    ended: str = ""
    reason: str = ""
    ports: tuple[PublishedPort, ...] = ()
    record: str = ""
    record_head: str = ""
    record_error: str = ""
    sessions: tuple[str, ...] = ()
    connections: Connections = Connections()
    samples: tuple[Sample, ...] = ()
    dropped: dict[str, int] = {}
