"""The log driver ``journald``: each line becomes an entry of the systemd journal.

Follows systemd's "Native Journal Protocol" (fields as ``NAME=value`` in one datagram) and docker
docs "Journald logging driver" for the names of the fields.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from jaula.logs import log_opt
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.drivers.remote_base import COMMON, RemoteWriter, buffer_size

SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {"stdout": b"6", "stderr": b"3"}  # syslog(3): info, err


def check(log_opts: Mapping[str, str]) -> int:
    """Return how many bytes may be buffered.

    :raises InvalidRequest: when an option is not valid.
    """
    log_opt.check_names("journald", log_opts, COMMON)
    return buffer_size("journald", log_opts)


def open_writer(log_opts: Mapping[str, str], address: str = SOCKET) -> RemoteWriter:
    """Connect to the journal.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when the host has no journal.
    """
    limit = check(log_opts)

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    container_id = log_opts.get("container-id", "")
    fields = b"".join(
        name + b"=" + value.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n"
        for name, value in (
            (b"CONTAINER_ID", container_id[:12]),
            (b"CONTAINER_ID_FULL", container_id),
            (b"CONTAINER_NAME", log_opts.get("container-name", "")),
            (b"CONTAINER_TAG", log_opts.get("tag", "")),
            (b"SYSLOG_IDENTIFIER", log_opts.get("tag", "")),
        )
    )

    def message(stream: str, line: bytes, complete: bool) -> tuple[bytes]:
        entry = b"MESSAGE=" + line + b"\nPRIORITY=" + _PRIORITY[stream] + b"\n" + fields
        return (entry if complete else entry + b"CONTAINER_PARTIAL_MESSAGE=true\n",)

    return RemoteWriter(BufferedSender(connect, limit, stream=False), message)
