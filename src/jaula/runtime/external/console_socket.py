"""The console socket: how another runtime hands over the terminal that it made.

The runtime connects to the socket of ``--console-socket`` and sends the terminal's master with
SCM_RIGHTS; runc's documentation, "docs/terminals.md", has the protocol.
"""

from __future__ import annotations

import os
import select
import socket

from jaula.errors import RuntimeFailure
from jaula.runtime import seqpacket

NAME = "console.sock"
PATIENCE = 2.0  # seconds for what must be there when the runtime has ended
_NOTHING = "OCI runtime: it sent no terminal to the console socket"


class ConsoleSocket:
    """A socket in a run directory, there for the time of one call."""

    def __init__(self, run_dir: str) -> None:
        self._directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # By descriptor, since a socket's address has only 108 bytes.
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{NAME}"

    def __enter__(self) -> ConsoleSocket:
        self._remove()
        self._listener.bind(self.path)
        os.chmod(self.path, 0o600)
        self._listener.listen(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._remove()
        os.close(self._directory)

    def _remove(self) -> None:
        try:
            os.unlink(NAME, dir_fd=self._directory)
        except FileNotFoundError:
            return

    def receive(self) -> int:
        """The master that was sent by now. Raises ``RuntimeFailure`` where it was none."""
        self._listener.settimeout(PATIENCE)
        try:
            connection, _address = self._listener.accept()
        except TimeoutError:
            raise RuntimeFailure(_NOTHING) from None
        with connection:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(PATIENCE * 1000):
                raise RuntimeFailure(_NOTHING)
            _, fds = seqpacket.receive(connection)
        for fd in fds[1:]:
            os.close(fd)
        if not fds:
            raise RuntimeFailure(_NOTHING)
        if not os.isatty(fds[0]):
            os.close(fds[0])
            raise RuntimeFailure("OCI runtime: what it sent to the console socket is no terminal")
        return fds[0]
