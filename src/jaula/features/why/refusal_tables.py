"""The tables in which eBPF programs count refusals, and the process that loads the programs.

:mod:`jaula.features.why.refusal_counter` is the other end. The programs are attached while the
engine has the descriptors of their links, so they end with it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.system.jaula_process import command, environment
from jaula.errors import Unsupported
from jaula.kernel import bpf_syscall

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULE = "jaula.features.why.refusal_counter"
_TIMEOUT = 300.0  # seconds; a second is usual, but the machine may be busy or emulated
_MAX_DESCRIPTORS = 8
_KEY = struct.Struct("=64sIxxxx")  # struct key of counts.bpf.c: id, layer
_VALUE = struct.Struct("=QIxxxx")  # struct value: count, system call
_LAYERS = ("seccomp", "landlock")  # enum layer


class Row(NamedTuple):
    """New refusals of a container by a layer; ``number`` is the last refused system call."""

    container: str
    layer: str
    added: int
    number: int


class RefusalTables:
    """The descriptors of the tables and links. ``layers`` are those that are counted."""

    def __init__(self, layers: tuple[str, ...], descriptors: tuple[int, ...]) -> None:
        """``descriptors`` are the tables ``counts`` and ``lost``, then the links."""
        self.layers = layers
        self._descriptors = descriptors
        self._counts, self._lost = descriptors[:2]
        self._last: dict[bytes, int] = {}
        self._last_lost = 0

    def read(self, known: Callable[[str], bool]) -> tuple[list[Row], int]:
        """Return what was counted since the last call, and the number of lost refusals.

        ``known`` returns whether the engine has a container. Entries of others are removed: those
        of removed ones, and of other engines.

        :raises OSError: when the kernel refuses.
        """
        rows: list[Row] = []
        for key, value in tuple(bpf_syscall.items(self._counts, _KEY.size, _VALUE.size)):
            digits, layer = _KEY.unpack(key)
            count, number = _VALUE.unpack(value)
            container = digits.decode("ascii", "replace")
            if not known(container) or layer >= len(_LAYERS):
                bpf_syscall.delete(self._counts, key)
                self._last.pop(key, None)
                continue
            if new := count - self._last.get(key, 0):
                rows.append(Row(container, _LAYERS[layer], new, number))
                self._last[key] = count
        lost = bpf_syscall.lookup(self._lost, bytes(4), 8)
        total = int.from_bytes(lost or b"", "little")
        new_lost, self._last_lost = total - self._last_lost, total
        return rows, new_lost

    def close(self) -> None:
        """Detach and unload the programs."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = ()


async def load() -> RefusalTables:
    """Load and attach the programs in a process of its own.

    :raises Unsupported: when this host cannot run them.
    """
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        process = await asyncio.create_subprocess_exec(
            *command(_MODULE),
            stdin=other.fileno(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        other.close()
        try:
            _, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT)
        except TimeoutError:
            raise Unsupported("the eBPF programs are not loaded in five minutes") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise Unsupported(last[:300] or f"the loader ended with status {process.returncode}")
        own.setblocking(False)
        flags = socket.MSG_CMSG_CLOEXEC
        data, descriptors, _, _ = socket.recv_fds(own, 256, _MAX_DESCRIPTORS, flags)
    return RefusalTables(tuple(data.decode("ascii").split(",")), tuple(descriptors))
