"""Run nft(8) commands, and monitor changes of the ruleset by other programs.

Commands run in libnftables (libnftables(3)), or in the program ``nft`` if the library is absent.
One call is one kernel transaction: all of its commands take effect or none.

A reload of the host's firewall (``nft flush ruleset``, as Debian's nftables.service does) removes
every table, including the engine's. The kernel announces that on a multicast group of
NETLINK_NETFILTER (include/uapi/linux/netfilter/nfnetlink.h). The engine waits until
:class:`FirewallMonitor` becomes readable; then the manager reloads missing tables.

Facts about libnftables: a context opens a netlink socket and waits for it with select(2), which
knows descriptors below FD_SETSIZE. glibc aborts the process for a higher one, and the library exits
if it cannot open the socket. Published ports and clients have more descriptors than that.
"""

from __future__ import annotations

import _ctypes
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Protocol

from jaula.errors import JaulaError, Unsupported

LIBRARY = "libnftables.so.1"
PROGRAMS = ("/usr/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft")
OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
FD_SETSIZE = 1024  # descriptors, select(2)
_HELD = 2  # descriptors: for the context of the networks, and for that of a resolver
_ATTEMPTS = 10  # to open a socket before another thread opens a file


LoadMissing = Callable[[], bool]
"""Loads the tables of all networks that are missing, and returns whether one was."""


class FirewallError(JaulaError):
    """The kernel or nft refused a command. No command of the transaction took effect."""


class Nft(Protocol):
    """Runs nft commands. Not thread safe."""

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run one transaction and return its output, with ``json`` as JSON.

        :raises FirewallError: when the kernel or nft refuses a command.
        """
        ...

    def close(self) -> None:
        """Release its resources; the next command opens them again."""
        ...


class _LowDescriptors:
    """Descriptors below FD_SETSIZE that are held for the sockets of libnftables."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[int] = []

    def hold(self) -> None:
        """Hold descriptors, as far as there are free ones."""
        with self._lock:
            while len(self._held) < _HELD and (low := self._lowest()) is not None:
                self._held.append(low)

    def open_context(self, lib: ctypes.CDLL) -> int:
        """Open a context of libnftables whose socket has a low descriptor.

        :raises FirewallError: when there is none.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                low = self._lowest()
                if low is None and not self._held:
                    break
                low = self._held.pop() if low is None else low
                os.close(low)  # the lowest that is free: the next one that the process opens
                context: int = lib.nft_ctx_new(0) or 0
                if not context:
                    raise MemoryError("nft_ctx_new")
                if _is_netfilter_socket(low):
                    return context
                lib.nft_ctx_free(context)
        raise FirewallError(
            f"no file descriptor below {FD_SETSIZE} is free, which libnftables needs"
        )

    @staticmethod
    def _lowest() -> int | None:
        try:
            low = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # too many open files
            return None
        if low < FD_SETSIZE:
            return low
        os.close(low)
        return None


def _is_netfilter_socket(descriptor: int) -> bool:
    try:
        copy = os.dup(descriptor)
    except OSError:
        return False
    try:
        sock = socket.socket(fileno=copy)
    except OSError:  # not a socket
        os.close(copy)
        return False
    with sock:
        return (sock.family, sock.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER)


_low_descriptors = _LowDescriptors()


def hold_descriptors() -> None:
    """Hold descriptors for libnftables, before the process opens a thousand others."""
    _low_descriptors.hold()


class Libnftables:
    """libnftables, bound to the network namespace in which it is loaded. 0.1 ms a command.

    It takes 1 ms to load, and 2 MB of memory.

    :raises OSError: when the library cannot be loaded.
    :raises FirewallError: when no descriptor below FD_SETSIZE is free.
    """

    def __init__(self) -> None:
        self._lib: ctypes.CDLL | None = None
        self._context = 0
        self._load()

    def _load(self) -> ctypes.CDLL:
        if self._lib is not None:
            return self._lib
        lib = ctypes.CDLL(LIBRARY)
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
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
        self._context = _low_descriptors.open_context(lib)
        lib.nft_ctx_buffer_output(self._context)
        lib.nft_ctx_buffer_error(self._context)
        self._lib = lib
        return lib

    def run(self, commands: str, *, json: bool = False) -> str:
        lib = self._load()
        lib.nft_ctx_output_set_flags(self._context, OUTPUT_JSON if json else 0)
        status = lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = lib.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = lib.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise _error(error.decode(errors="replace"))
        return output.decode(errors="replace")

    def close(self) -> None:
        """Unload the library; the next command loads it again."""
        if self._lib is not None:
            lib, self._lib = self._lib, None
            lib.nft_ctx_free(self._context)
            _low_descriptors.hold()
            _ctypes.dlclose(lib._handle)


class NftProgram:
    """The program ``nft``, in the caller's network namespace. 2.5 ms a call."""

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, commands: str, *, json: bool = False) -> str:
        import subprocess  # only without the library

        result = subprocess.run(
            (self._program, *(("-j",) if json else ()), "-f", "-"),
            input=commands,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
        if result.returncode != 0:
            raise _error(result.stderr)
        return result.stdout

    def close(self) -> None:
        """Do nothing: no resource is open."""


def open_nft() -> Nft:
    """Load the library, or find the program if the library is absent.

    :raises Unsupported: when this host has neither.
    """
    try:
        return Libnftables()
    except OSError as error:
        programs = [path for path in PROGRAMS if os.access(path, os.X_OK)]
        if not programs:
            raise Unsupported(
                f"cannot set up a bridge network: {error}, and the nft program is not installed",
                hint="install nftables, or use --network none or host",
            ) from error
        return NftProgram(programs[0])


def _error(output: str) -> FirewallError:
    reasons = [line.strip() for line in output.splitlines() if "Error" in line]
    return FirewallError(f"nftables refused a rule: {'; '.join(reasons) or output.strip()}")


NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFT_MSG_DELTABLE = (10 << 8) | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE

_header = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid


class FirewallMonitor:
    """A socket that becomes readable when the ruleset changes; for ``loop.add_reader``."""

    def __init__(self) -> None:
        type_ = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, type_, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def table_deleted(self) -> bool:
        """Read all pending messages. Return whether a table was deleted or messages were lost."""
        programs = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return programs
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                programs = True
                continue
            programs = programs or NFT_MSG_DELTABLE in message_types(data)


def message_types(data: bytes) -> list[int]:
    """Return the types of the netlink messages in a datagram; truncated messages are ignored."""
    types = []
    offset = 0
    while offset + _header.size <= len(data):
        length, type_, _, _, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            break
        types.append(type_)
        offset += (length + 3) & ~3
    return types
