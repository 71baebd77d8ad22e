"""A spare init: it builds the system directories ahead, and waits for the rest of its container.

Most containers have the same /proc, /sys and /dev, with the same masked and read-only paths. A
spare init mounts them on a tmpfs in its own namespaces before there is a start. The start sends it
the root and all that depends on the request. It moves the three trees onto the root, and goes on as
any init does (:mod:`jaula.runtime.init.init`).

A spare init has no program, no root and no descriptor of a container. It reads one message, from
its parent, which alone holds the other end of the socket. At end of file it exits.

The message is pickled: :mod:`jaula.runtime.create.spare_init`, the sender, is the same program, and
already decides everything that this process does.
"""

from __future__ import annotations

import _socket
import os
import pickle
from collections.abc import Iterable, Mapping, Set

import msgspec

from jaula.kernel import mounts, process_calls
from jaula.runtime import seqpacket
from jaula.runtime.init.process_setup import ProcessConfig
from jaula.runtime.init.step import SYSTEM_SLOTS, RootfsContext, Step
from jaula.runtime.shim_protocol import SHIM_COMM


class SpareStart(msgspec.Struct, frozen=True):
    """The part of a start that a spare init does not have.

    Descriptors: the root, the prepared mounts of ``slots``, then stdin, stdout and stderr unless
    there is a terminal.
    """

    slots: tuple[int, ...]
    steps: tuple[Step, ...]
    process: ProcessConfig
    hostname: str | None
    domainname: str | None
    terminal: bool


def encode(request: SpareStart) -> bytes:
    """Return the message for :func:`wait`."""
    return pickle.dumps(request, pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> SpareStart:
    """Return the request of a message, which is that of the parent."""
    request: SpareStart = pickle.loads(data)
    return request


def build(steps: Iterable[Step], prepared: Mapping[int, int]) -> tuple[Set[int], dict[int, int]]:
    """Mount the system directories on a tmpfs that covers the working directory.

    ``prepared`` are the mounts that the parent created, by slot. Return the ids of the mounts that
    were made, and descriptors of the directories by their slots.
    """
    attributes = mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV
    staging = mounts.new_filesystem("tmpfs", (("mode", "755"),), attributes)
    mounts.move_mount(staging, ".")
    for name in SYSTEM_SLOTS:
        os.mkdir(name, 0o755, dir_fd=staging)
    context = RootfsContext(staging, dict(prepared))
    for step in steps:
        step.execute(context)
    context.finish()
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    trees = {slot: os.open(name, flags, dir_fd=staging) for name, slot in SYSTEM_SLOTS.items()}
    os.close(staging)
    return context.made_mounts, trees


def wait(sync_sock: _socket.socket) -> tuple[SpareStart, list[int]]:
    """Wait for the message of a start, and return it with its descriptors.

    Exit if there is none: the parent has ended.
    """
    seqpacket.send(sync_sock, b"W")
    data, fds = seqpacket.receive(sync_sock)
    if not data:
        os._exit(0)
    process_calls.set_name(SHIM_COMM)
    return decode(data), fds
