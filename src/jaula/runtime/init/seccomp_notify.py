"""Handing a seccomp listener to the agent that a spec names.

Follows runtime-spec config-linux.md, "Seccomp" (``listenerPath``, ``listenerMetadata``) and "The
Container Process State"; seccomp_unotify(2). The agent's socket is connected by the maker, with the
host's view; the process sends the listener itself, since only it has it. The system call that
sends must therefore not be one that the filter hands to the agent: that is refused beforehand.
"""

from __future__ import annotations

import _socket
import array
import os

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.spec.runtime import ContainerProcessState, Seccomp, State

SENDER = "sendmsg"  # the call that :func:`send` makes
_encode = msgspec.json.Encoder().encode


class SeccompListener(msgspec.Struct, frozen=True):
    """Where a listener goes: a connected socket, and the document without the process's pid."""

    socket: int
    document: ContainerProcessState


def connect(seccomp: Seccomp, state: State) -> SeccompListener | None:
    """A connection to the agent, or None where the filter notifies nobody.

    The caller closes the socket. Raises ``InvalidRequest`` where notifications have no agent or
    would catch their own sending, ``RuntimeFailure`` where the agent does not listen.
    """
    notified = {
        name for call in seccomp.syscalls if call.action == "SCMP_ACT_NOTIFY" for name in call.names
    }
    if not notified and seccomp.default_action != "SCMP_ACT_NOTIFY":
        return None
    if not seccomp.listener_path:
        raise InvalidRequest("seccomp: SCMP_ACT_NOTIFY is used, but listenerPath is not set")
    if SENDER in notified or seccomp.default_action == "SCMP_ACT_NOTIFY":
        raise InvalidRequest(
            f"seccomp: SCMP_ACT_NOTIFY cannot be used for {SENDER} nor as the default action",
            hint=f"{SENDER} is what hands the listener over",
        )
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.connect(seccomp.listener_path)
    except OSError as error:
        agent.close()
        raise RuntimeFailure(
            f"seccomp: cannot reach the agent at listenerPath {seccomp.listener_path}: {error}"
        ) from None
    document = ContainerProcessState(
        fds=("seccompFd",), metadata=seccomp.listener_metadata or "", state=state
    )
    return SeccompListener(agent.detach(), document)


def message(listener: SeccompListener, pid: int) -> bytes:
    """The document for the process ``pid``, as the agent's pid namespace numbers it."""
    return _encode(msgspec.structs.replace(listener.document, pid=pid))


def send(listener: SeccompListener, text: bytes, fd: int) -> None:
    """Send the document with the listener's descriptor, and close both here."""
    agent = _socket.socket(fileno=listener.socket)
    rights = array.array("i", (fd,))
    agent.sendmsg([text], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    agent.close()
    os.close(fd)
