"""An agent that a spec's ``listenerPath`` names: receives listeners and answers notifications.

Source: seccomp_unotify(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

NOTIF = struct.Struct("=QII iIQ6Q")  # id, pid, flags, then seccomp_data: nr, arch, ip, args
RESPONSE = struct.Struct("=QqiI")  # id, value, negative errno, flags
NOTIF_RECV = 0xC0502100  # _IOWR('!', 0, struct seccomp_notif) of 80 bytes
NOTIF_SEND = 0xC0182101  # _IOWR('!', 1, struct seccomp_notif_resp) of 24 bytes


class Agent:
    """Listens at ``path``; answers every notification with ``error`` or, if 0, with ``value``."""

    def __init__(self, path: Path, error: int, value: int = 0) -> None:
        self.error = error
        self.value = value
        self.documents: list[dict[str, Any]] = []
        self.calls: list[tuple[int, int]] = []  # (pid, number of the system call)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            peer, _ = self._socket.accept()
        except OSError:
            return
        with peer:
            text, fds, _, _ = socket.recv_fds(peer, 1 << 16, 1)
        self.documents.append(json.loads(text))
        (listener,) = fds
        try:
            while True:
                notification = bytearray(NOTIF.size)
                fcntl.ioctl(listener, NOTIF_RECV, notification)
                number, pid, _, nr, *_ = NOTIF.unpack(notification)
                self.calls.append((pid, nr))
                answer = bytearray(RESPONSE.pack(number, self.value, -self.error, 0))
                fcntl.ioctl(listener, NOTIF_SEND, answer)
        except OSError:  # ENOENT: every process of the filter has ended
            return
        finally:
            os.close(listener)

    def close(self) -> None:
        self._socket.close()
        self._thread.join(10)
