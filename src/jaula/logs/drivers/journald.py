"""The log driver ``journald``: each line as an entry of the systemd journal.

Follows systemd's "Native Journal Protocol" (fields as ``NAME=value`` in one datagram) and docker
docs "Journald logging driver" for the names of the fields.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from jaula.logs import options
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.drivers.remote_base import COMMON, RemoteWriter, buffer_size

SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {"stdout": b"6", "stderr": b"3"}  # syslog(3): info, err


def check(given: Mapping[str, str]) -> int:
    """Bytes that may be held back. Raises ``InvalidRequest``."""
    options.check_names("journald", given, COMMON)
    return buffer_size("journald", given)


def open_writer(given: Mapping[str, str], address: str = SOCKET) -> RemoteWriter:
    """Raises ``InvalidRequest`` for an option, ``OSError`` where there is no journal."""
    limit = check(given)

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    identity = given.get("container-id", "")
    fixed = b"".join(
        name + b"=" + value.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n"
        for name, value in (
            (b"CONTAINER_ID", identity[:12]),
            (b"CONTAINER_ID_FULL", identity),
            (b"CONTAINER_NAME", given.get("container-name", "")),
            (b"CONTAINER_TAG", given.get("tag", "")),
            (b"SYSLOG_IDENTIFIER", given.get("tag", "")),
        )
    )

    def record(stream: str, line: bytes, whole: bool) -> bytes:
        entry = b"MESSAGE=" + line + b"\nPRIORITY=" + _PRIORITY[stream] + b"\n" + fixed
        return entry if whole else entry + b"CONTAINER_PARTIAL_MESSAGE=true\n"

    return RemoteWriter(BufferedSender(connect, limit, stream=False), record)
