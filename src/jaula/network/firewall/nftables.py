"""Running nft(8) commands: libnftables in this process, the ``nft`` program where it is missing.

One call is one transaction of the kernel: all of its commands take effect or none. Follows
libnftables(3). What the rules say is decided in :mod:`jaula.network.firewall.bridge_rules`.


Noticing that another program has changed the firewall.

A reload of the host's own firewall (``nft flush ruleset``, as Debian's nftables.service does)
removes every table, the engine's too. The kernel announces that on a multicast group of
NETLINK_NETFILTER (include/uapi/linux/netfilter/nfnetlink.h). The engine waits for this object to
become readable and has the manager repair what is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Protocol

from jaula.errors import JaulaError, Unsupported

LIBRARY = "libnftables.so.1"
PROGRAMS = ("/usr/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")
OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class FirewallError(JaulaError):
    """The kernel or nft refused a command; nothing of the transaction took effect."""


class Nft(Protocol):
    """Where nft commands are run. Not thread safe."""

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run one transaction and return what it printed, with ``json`` in that form.

        Raises ``FirewallError`` when it was refused.
        """
        ...

    def close(self) -> None: ...


class Libnftables:
    """libnftables, bound to the network namespace in which it was opened. 0.1 ms a command."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(LIBRARY)
        for name, result, arguments in (
            ("nft_ctx_new", ctypes.c_void_p, (ctypes.c_uint32,)),
            ("nft_ctx_free", None, (ctypes.c_void_p,)),
            ("nft_ctx_buffer_output", ctypes.c_int, (ctypes.c_void_p,)),
            ("nft_ctx_buffer_error", ctypes.c_int, (ctypes.c_void_p,)),
            ("nft_ctx_get_output_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
            ("nft_ctx_get_error_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
            ("nft_ctx_output_set_flags", None, (ctypes.c_void_p, ctypes.c_uint)),
            ("nft_run_cmd_from_buffer", ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)),
        ):
            function = getattr(self._lib, name)
            function.restype = result
            function.argtypes = arguments
        self._context: int | None = self._lib.nft_ctx_new(0)
        if not self._context:
            raise MemoryError("nft_ctx_new")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, json: bool = False) -> str:
        self._lib.nft_ctx_output_set_flags(self._context, OUTPUT_JSON if json else 0)
        status = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise _refused(error.decode(errors="replace"))
        return output.decode(errors="replace")

    def close(self) -> None:
        if self._context:
            self._lib.nft_ctx_free(self._context)
            self._context = None


class NftProgram:
    """The ``nft`` program: 2.5 ms a call, in the caller's network namespace."""

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, commands: str, *, json: bool = False) -> str:
        import subprocess  # only where the library is missing

        done = subprocess.run(
            (self._program, *(("-j",) if json else ()), "-f", "-"),
            input=commands,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise _refused(done.stderr)
        return done.stdout

    def close(self) -> None:
        """Nothing is held."""


def open_nft() -> Nft:
    """The library if it loads, else the program; Unsupported when this host has neither."""
    try:
        return Libnftables()
    except OSError as missing:
        found = [path for path in PROGRAMS if os.access(path, os.X_OK)]
        if not found:
            raise Unsupported(
                f"cannot set up a bridge network: {missing}, and there is no nft program",
                hint="install nftables, or use --network none or host",
            ) from missing
        return NftProgram(found[0])


def _refused(said: str) -> FirewallError:
    reasons = [line.strip() for line in said.splitlines() if "Error" in line]
    return FirewallError(f"nftables refused a rule: {'; '.join(reasons) or said.strip()}")


NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFT_MSG_DELTABLE = (10 << 8) | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE

_header = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid


class FirewallMonitor:
    """A socket that becomes readable when rules change; for ``loop.add_reader``."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def table_deleted(self) -> bool:
        """Read all news; whether some table was deleted, or news were lost."""
        found = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return found
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found = found or NFT_MSG_DELTABLE in message_types(data)


def message_types(data: bytes) -> list[int]:
    """Types of the netlink messages in a datagram; what is cut short is left out."""
    types = []
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, _, _, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            break
        types.append(kind)
        offset += (length + 3) & ~3
    return types
