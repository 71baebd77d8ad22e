"""Samples of /proc: programs, capabilities and sockets of the processes of a container.

Source: proc(5), proc_pid_net(5). What happens between two samples is not seen. A sample needs the
permission to trace the processes: root, or the user of a rootless engine.

A socket is the container's if one of its processes has a descriptor of it: with the network of the
host, the tables of /proc have the sockets of all processes.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaula.features.record import ebpf_events
from jaula.features.record.ebpf_events import UNKNOWN_PROGRAM, Key
from jaula.features.record.tables import PATH_DETACHED, Tables
from jaula.kernel.capabilities import NAMES

_MAX_PROCESSES = 512  # of one sample
_MAX_DESCRIPTORS = 8192  # of one sample
_MAX_TABLE = 4 << 20  # bytes of one table of sockets
_MAX_KNOWN = 65536
_TCP_CONNECT, _LISTEN = 3, 4  # enum address_use
_TCP, _UDP = 6, 17
_STATE_LISTEN, _STATES_CONNECTED = 0x0A, (0x01, 0x02)  # established, SYN sent
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


class Socket(NamedTuple):
    """A line of a table; addresses are structures ``sockaddr`` without their padding."""

    protocol: int
    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    inode: int


class ProcSampler:
    """Counts what one sample shows in the tables of a record."""

    def __init__(
        self, tables: Tables, processes: Callable[[], list[int]], *, executions: bool
    ) -> None:
        """``executions``: a process with another program than before has executed it."""
        self._tables = tables
        self._processes = processes
        self._executions = executions
        self._programs: dict[int, tuple[int, int]] = {}  # pid: start time, program
        self._held: set[tuple[int, int]] = set()
        self._sockets: set[tuple[int, int]] = set()  # inode, state
        self._listening: set[int] = set()  # ports
        self._ephemeral = _ephemeral_ports()
        self._sampled = False
        self.skipped = 0  # processes that a sample left out

    def program_of(self, pid: int) -> int:
        """Return the number of the program that a process runs now.

        A program of the host is a step of the runtime, and unknown: it is not the container's.
        """
        try:
            path = os.readlink(f"/proc/{pid}/exe".encode())
        except OSError:
            return UNKNOWN_PROGRAM
        return UNKNOWN_PROGRAM if is_of_host(pid) else self._tables.program(*program_path(path))

    def sample(self) -> None:
        """Look at every process once."""
        processes = self._processes()
        self.skipped += max(0, len(processes) - _MAX_PROCESSES)
        owners: dict[int, int] = {}
        networks: dict[str, int] = {}
        programs: dict[int, tuple[int, int]] = {}
        parents: dict[int, int] = {}
        left = _MAX_DESCRIPTORS
        for pid in processes[:_MAX_PROCESSES]:
            program = self.program_of(pid)
            if program == UNKNOWN_PROGRAM:
                continue
            start, parents[pid] = _start_and_parent(pid)
            programs[pid] = (start, program)
            self._note_capabilities(pid, program)
            try:
                networks.setdefault(os.readlink(f"/proc/{pid}/ns/net"), pid)
            except OSError:
                continue
            for inode in _socket_inodes(pid, left):
                left -= 1
                owners.setdefault(inode, program)
        if self._executions and self._sampled:
            for pid in programs:
                self._note_execution(pid, parents[pid], programs)
        self._sampled = True
        self._programs = programs
        for pid in networks.values():
            self._note_sockets(pid, owners)

    def _note_execution(self, pid: int, parent: int, programs: dict[int, tuple[int, int]]) -> None:
        """Count an execution, if a process has another program than before or than its parent."""
        start, program = programs[pid]
        before = self._programs.get(pid)
        if before is not None and before[0] == start:
            executor = before[1]
        else:
            executor = programs.get(parent, (0, UNKNOWN_PROGRAM))[1]
        if executor != program:
            self._tables.count(Key(executor, program, ebpf_events.EXEC, 0))

    def _note_capabilities(self, pid: int, program: int) -> None:
        mask = effective_capabilities(_text(f"/proc/{pid}/status", 1 << 16))
        if (program, mask) in self._held:
            return
        if len(self._held) >= _MAX_KNOWN:
            self._held.clear()
        self._held.add((program, mask))
        for number in range(len(NAMES)):
            if mask >> number & 1:
                self._tables.count(Key(program, 0, ebpf_events.CAPABILITY_HELD, number))

    def _note_sockets(self, pid: int, owners: dict[int, int]) -> None:
        sockets = [
            each
            for name, protocol in (("tcp", _TCP), ("tcp6", _TCP), ("udp", _UDP), ("udp6", _UDP))
            for each in parse_sockets(_text(f"/proc/{pid}/net/{name}", _MAX_TABLE), protocol)
        ]
        for each in sockets:
            if each.protocol == _TCP and each.state == _STATE_LISTEN:
                self._listening.add(each.local_port)
        for each in sockets:
            if each.inode not in owners or (each.inode, each.state) in self._sockets:
                continue
            if len(self._sockets) >= _MAX_KNOWN:
                self._sockets.clear()
            self._sockets.add((each.inode, each.state))
            program = owners[each.inode]
            if each.protocol == _TCP and each.state == _STATE_LISTEN:
                self._address(program, each.local, _LISTEN, _TCP)
            elif each.protocol == _TCP and each.state in _STATES_CONNECTED:
                if not self._is_accepted(each):
                    self._address(program, each.remote, _TCP_CONNECT, _TCP)
            elif each.protocol == _UDP and each.remote_port:
                self._address(program, each.remote, _TCP_CONNECT, _UDP)
            elif each.protocol == _UDP and each.local_port not in self._ephemeral:
                self._address(program, each.local, _LISTEN, _UDP)

    def _is_accepted(self, each: Socket) -> bool:
        """Return whether another process has connected to a socket. The kernel does not tell."""
        return each.local_port in self._listening or each.local_port not in self._ephemeral

    def _address(self, program: int, address: bytes, use: int, protocol: int) -> None:
        self._tables.text(ebpf_events.ADDRESS, program, address, use << 12 | protocol << 16)


def is_of_host(pid: int) -> bool:
    """Return whether a process runs a file of this mount namespace: it is not in the container."""
    try:
        outside = os.stat(os.readlink(f"/proc/{pid}/exe"))
        program = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return False
    return (outside.st_dev, outside.st_ino) == (program.st_dev, program.st_ino)


def program_path(link: bytes) -> tuple[bytes, bytes, int]:
    """Return path, name and flags of a link /proc/PID/exe. Pure."""
    if link.startswith(b"/memfd:"):
        return link.removesuffix(b" (deleted)"), b"", PATH_DETACHED
    return link.removesuffix(b" (deleted)"), b"", 0


def effective_capabilities(status: str) -> int:
    """Return the effective set in a text of /proc/PID/status, 0 if it has none. Pure."""
    for line in status.split("\n"):
        if line.startswith("CapEff:"):
            try:
                return int(line.removeprefix("CapEff:"), 16)
            except ValueError:
                return 0
    return 0


def parse_sockets(text: str, protocol: int) -> Iterator[Socket]:
    """Yield the sockets in a table of /proc/PID/net; a line that is cut off is left out. Pure."""
    for line in text.split("\n")[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        try:
            local, local_port = _address(fields[1])
            remote, remote_port = _address(fields[2])
            yield Socket(
                protocol, int(fields[3], 16), local, local_port, remote, remote_port,
                int(fields[9]),
            )  # fmt: skip
        except ValueError:
            continue


def _address(text: str) -> tuple[bytes, int]:
    """Return a structure ``sockaddr`` and the port of ``0100007F:1F90``."""
    host, _, port_text = text.partition(":")
    port = int(port_text, 16)
    if not 0 <= port < 1 << 16 or len(host) not in (8, 32):
        raise ValueError(text)
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    data = struct.pack(f"={len(words)}I", *words)  # the kernel prints words of the host's order
    if len(data) == 4:
        return struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + data + bytes(8), port
    head = struct.pack("=H", socket.AF_INET6) + port.to_bytes(2, "big") + bytes(4)
    return head + data + bytes(4), port


def _socket_inodes(pid: int, limit: int) -> Iterator[int]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names[: max(0, limit)]:
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if link.startswith("socket:["):
            yield int(link[8:-1])


def _start_and_parent(pid: int) -> tuple[int, int]:
    """Return the start time and the parent of a process; zeros if it has exited."""
    fields = _text(f"/proc/{pid}/stat", 4096).rpartition(")")[2].split()
    return (int(fields[19]), int(fields[1])) if len(fields) > 19 else (0, 0)


def _text(path: str, limit: int) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def _ephemeral_ports() -> range:
    """Return the ports that the kernel chooses for a socket that asks for none."""
    words = _text(_EPHEMERAL, 64).split()
    return range(int(words[0]), int(words[1]) + 1) if len(words) == 2 else range(32768, 61000)
