"""The process that answers a container's calls after its record has ended.

Without it each chosen call would fail with ENOSYS. It ends with the container.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading

from jaula.features.record.seccomp_tracer import receive_listener
from jaula.kernel import seccomp_notify
from jaula.kernel.process_calls import pidfd_open


def main() -> None:
    """Answer until the container exits. The arguments are those of :func:`respond`."""
    path, pid, server, *listeners = sys.argv[1:]
    respond(path, int(pid), int(server), [int(each) for each in listeners])


def respond(path: str, pid: int, server: int, listeners: list[int]) -> None:
    """Answer the calls of ``listeners``, and of those that later programs send to ``server``.

    ``path`` is that of the socket ``server``, and is removed at the end. ``pid`` is the first
    process of the container.
    """
    with socket.socket(fileno=server) as accepting:
        accepting.setblocking(False)
        try:
            exit_fd = pidfd_open(pid)
        except OSError:  # it has exited meanwhile
            os.unlink(path)
            return
        for listener in listeners:
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
        poller = select.poll()
        poller.register(exit_fd, select.POLLIN)
        poller.register(accepting.fileno(), select.POLLIN)
        while not any(descriptor == exit_fd for descriptor, _ in poller.poll()):
            try:
                peer, _ = accepting.accept()
            except BlockingIOError:
                continue
            with peer:
                peer.settimeout(10)
                listener = receive_listener(peer)
            if listener >= 0:
                threading.Thread(target=answer, args=(listener,), daemon=True).start()
        os.unlink(path)


def answer(listener: int) -> None:
    """Continue every call, until no process has the filter."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        _, mask = poller.poll()[0]
        if mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            os.close(listener)
            return
        try:
            notification = seccomp_notify.receive_notification(listener)
            seccomp_notify.continue_call(listener, notification.id)
        except OSError:
            continue  # the thread was killed
