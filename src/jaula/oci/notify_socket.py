"""The notify socket of a container whose caller is a service (sd_notify(3)), as in runc.

If ``NOTIFY_SOCKET`` is set, ``<root>/<id>/notify`` is bind-mounted in the container, and the
program gets the path of a socket there. The program's ``READY=1`` is relayed to the service manager
with ``MAINPID=`` of the process that the manager should watch. Other states are discarded.

``run`` binds the socket before the program starts; ``create`` leaves that to ``start``. In the
foreground the socket is read until the program exits. A detached ``run`` and ``start`` return when
the state is relayed, or when the program has exited. Both wait until the manager has read the
messages (sd_notify_barrier(3)): it finds the sender's unit by a process that still exists.
"""

from __future__ import annotations

import _socket
import array
import os
import select

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaula.oci.runtime_container import Container

VARIABLE = "NOTIFY_SOCKET"
DIRECTORY, NAME = "notify", "notify.sock"
MOUNT_POINT = "/run/notify"
MOUNT_OPTIONS = ("bind", "nosuid", "noexec", "nodev", "ro")
READY = b"READY=1"
TIMEOUT = 30.0  # seconds that the service manager may take to read a message
_MAX_MESSAGE = 4096  # bytes, PIPE_BUF; systemd reads no more either


def host_address(environment: Mapping[str, str]) -> str:
    """Return the caller's notify socket, a path or ``@`` and an abstract name; empty if none.

    :raises InvalidRequest: when it is another kind of address.
    """
    address = environment.get(VARIABLE, "")
    if address and address[0] not in "/@":
        raise InvalidRequest(
            f"{VARIABLE}: {address[:64]!r} is not a Unix socket",
            hint="an absolute path, or @ and an abstract name",
        )
    return address


def variable() -> str:
    """Return the variable of the program's environment."""
    return f"{VARIABLE}={MOUNT_POINT}/{NAME}"


def make_directory(container: Container) -> None:
    """Create the directory that is mounted in the container."""
    os.mkdir(DIRECTORY, dir_fd=container.fd)
    os.chmod(DIRECTORY, 0o755, dir_fd=container.fd)


class NotifySocket:
    """A container's notify socket, connected with the service manager's."""

    def __init__(self, container: Container, address: str, warn: Callable[[str], None]) -> None:
        """Connect to the manager's socket at ``address`` and bind the container's.

        ``warn`` gets errors of later messages, which do not concern the container.

        :raises InvalidRequest: when the container was created without a notify socket.
        :raises OSError: when the manager's socket cannot be reached.
        """
        self._warn = warn
        self._barrier = -1  # end of file follows when the manager has read the messages
        self._relayed = False
        self._manager = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._manager.settimeout(TIMEOUT)
        self._manager.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        path = f"{DIRECTORY}/{NAME}"
        try:
            os.unlink(path, dir_fd=container.fd)  # of a start that was killed
        except FileNotFoundError:
            pass
        # by descriptor, since an address has only 108 bytes
        try:
            self._socket.bind(f"/proc/self/fd/{container.fd}/{path}")
        except FileNotFoundError:
            raise InvalidRequest(
                f"container {container.id} was created without {VARIABLE}",
                hint=f"set {VARIABLE} for create as well, or unset it",
            ) from None
        os.chmod(path, 0o777, dir_fd=container.fd)  # any user of the container may connect

    def fileno(self) -> int:
        """Return the descriptor that is readable when the program has sent a message."""
        return self._socket.fileno()

    def relay(self, main_pid: int) -> None:
        """Read the program's messages; the first ``READY=1`` is relayed with ``main_pid``.

        Descriptors in the messages are closed, which ends a barrier of the program.
        """
        while True:
            try:
                message = self._socket.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            if not self._relayed and READY in message.split(b"\n"):
                self._relayed = True
                self._send(main_pid)

    def _send(self, main_pid: int) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._manager.send(READY + b"\n")
            self._manager.send(b"MAINPID=%d\n" % main_pid)
            rights = array.array("i", (write_end,))
            control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
            self._manager.sendmsg([b"BARRIER=1"], control)
            self._barrier = read_end
        except OSError as error:
            os.close(read_end)
            self._warn(f"{VARIABLE}: {READY.decode()} is lost: {error.strerror or error}")
        finally:
            os.close(write_end)

    def wait_for_ready(self, main_pid: int, pidfd: int | None) -> None:
        """Relay until ``READY=1`` is relayed or the program has exited; ``pidfd`` is None then."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        exited = pidfd is None
        while not exited and not self._relayed:
            exited = any(fd == pidfd for fd, _ in poll.poll())
            self.relay(main_pid)
        self.finish(main_pid)

    def finish(self, main_pid: int) -> None:
        """Relay what is left, wait until the manager has read it, and close the sockets."""
        self.relay(main_pid)
        if self._barrier >= 0:
            poll = select.poll()
            poll.register(self._barrier, select.POLLIN)
            if not poll.poll(TIMEOUT * 1000):
                self._warn(f"{VARIABLE}: the service manager has not answered in {TIMEOUT:.0f} s")
            os.close(self._barrier)
            self._barrier = -1
        self._socket.close()
        self._manager.close()


def open_socket(
    container: Container, address: str, warn: Callable[[str], None]
) -> NotifySocket | None:
    """Return the notify socket; None, with a warning, if the manager's cannot be reached.

    :raises InvalidRequest: when the container was created without a notify socket.
    """
    try:
        return NotifySocket(container, address, warn)
    except OSError as error:
        warn(f"{VARIABLE}: {address}: {error.strerror or error}")
        return None
