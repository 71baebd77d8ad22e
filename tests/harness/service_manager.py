"""A service manager for tests: the notify socket of systemd, and the environment of a service."""

from __future__ import annotations

import array
import os
import socket
import time
from pathlib import Path


class ServiceManager:
    """A notify socket at ``path`` and the messages that arrive there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self.senders: list[int] = []  # pids, one for each message
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "NOTIFY_SOCKET": str(self.path), **more}

    def read(self, seconds: float) -> None:
        """Read the messages of that time; descriptors in them are closed, as by systemd."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, control, _, _ = self._socket.recvmsg(4096, 4096)
            except TimeoutError:
                return
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    numbers = array.array("i")
                    numbers.frombytes(payload)
                    for number in numbers:
                        os.close(number)
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    self.senders.append(array.array("i", payload[:4])[0])
            self.messages += data.decode().split("\n")

    def expect(self, line: str, seconds: float = 20.0) -> bool:
        """Return whether ``line`` arrives in that time, or has arrived."""
        end = time.monotonic() + seconds
        while line not in self.messages and time.monotonic() < end:
            self.read(0.1)
        return line in self.messages

    def value(self, name: str) -> str:
        """Return the last value of a state, '' if there is none."""
        values = [m.partition("=")[2] for m in self.messages if m.startswith(f"{name}=")]
        return values[-1] if values else ""
