"""libbpf: loads the programs of an object file and reads their maps.

Source: https://docs.kernel.org/bpf/libbpf/, bpf(2). The library is called through ctypes. It
relocates the programs to the running kernel (CO-RE), which is most of its work.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaula.errors import Unsupported

LIBRARY = "libbpf.so.1"
BTF = "/sys/kernel/btf/vmlinux"  # types of the kernel
BPF_ANY, BPF_NOEXIST = 0, 1
_WARN = 0  # enum libbpf_print_level
_MESSAGES = 8  # kept for an error
_LOG_SIZE, _MESSAGE_SIZE = 1 << 24, 4096  # bytes, characters

_pointer = ctypes.c_void_p
_RING_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, ctypes.c_size_t)
_PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, _pointer)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # result, then arguments
    "libbpf_set_print": (_pointer, _PRINT_CALLBACK),
    "bpf_object__open_mem": (_pointer, ctypes.c_char_p, ctypes.c_size_t, _pointer),
    "bpf_object__load": (ctypes.c_int, _pointer),
    "bpf_object__close": (None, _pointer),
    "bpf_object__next_map": (_pointer, _pointer, _pointer),
    "bpf_object__next_program": (_pointer, _pointer, _pointer),
    "bpf_map__name": (ctypes.c_char_p, _pointer),
    "bpf_map__fd": (ctypes.c_int, _pointer),
    "bpf_map__key_size": (ctypes.c_uint32, _pointer),
    "bpf_map__value_size": (ctypes.c_uint32, _pointer),
    "bpf_map__max_entries": (ctypes.c_uint32, _pointer),
    "bpf_map__set_initial_value": (ctypes.c_int, _pointer, ctypes.c_char_p, ctypes.c_size_t),
    "bpf_program__name": (ctypes.c_char_p, _pointer),
    "bpf_program__attach": (_pointer, _pointer),
    "bpf_program__set_autoload": (ctypes.c_int, _pointer, ctypes.c_bool),
    "bpf_link__fd": (ctypes.c_int, _pointer),
    "bpf_link__destroy": (ctypes.c_int, _pointer),
    "bpf_iter_create": (ctypes.c_int, ctypes.c_int),
    "bpf_map_lookup_elem": (ctypes.c_int, ctypes.c_int, _pointer, _pointer),
    "bpf_map_update_elem": (ctypes.c_int, ctypes.c_int, _pointer, _pointer, ctypes.c_uint64),
    "bpf_map_lookup_batch": (ctypes.c_int, ctypes.c_int, *[_pointer] * 6),
    "ring_buffer__new": (_pointer, ctypes.c_int, _RING_CALLBACK, _pointer, _pointer),
    "ring_buffer__consume": (ctypes.c_int, _pointer),
    "ring_buffer__epoll_fd": (ctypes.c_int, _pointer),
    "ring_buffer__free": (None, _pointer),
}

_library: ctypes.CDLL | None = None
_messages: deque[str] = deque(maxlen=_MESSAGES)
_libc = ctypes.CDLL(None)


def _keep_message(level: int, form: bytes, arguments: int) -> int:
    if level == _WARN:
        text = ctypes.create_string_buffer(_LOG_SIZE)
        _libc.vsnprintf(text, ctypes.c_size_t(len(text)), form, ctypes.c_void_p(arguments))
        # The verifier states its reason at the end of its log.
        _messages.append(text.value.decode("utf-8", "replace").strip()[-_MESSAGE_SIZE:])
    return 0


_print_callback = _PRINT_CALLBACK(_keep_message)


def library() -> ctypes.CDLL:
    """Return libbpf.

    :raises Unsupported: when it is not installed.
    """
    global _library
    if _library is None:
        try:
            loaded = ctypes.CDLL(LIBRARY, use_errno=True)
        except OSError as error:
            raise Unsupported(
                f"{LIBRARY} cannot be loaded: {error}",
                hint="install libbpf1 (Debian, Ubuntu), libbpf (Fedora, Alpine)",
            ) from None
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        loaded.libbpf_set_print(_print_callback)
        _library = loaded
    return _library


def _error(number: int, operation: str) -> OSError:
    reason = reason_of(_messages)
    return OSError(number, f"{operation}: {os.strerror(number)}{reason and f': {reason}'}")


def reason_of(messages: Iterable[str]) -> str:
    """Return the reason in libbpf's messages: the verifier's, else the last message. Pure.

    The verifier's log ends with its reason, a line of statistics, and libbpf's marks.
    """
    reason = ""
    for message in messages:
        lines = message.splitlines()
        if "BEGIN PROG LOAD LOG" in message:
            found = [
                line for line in lines[1:] if line and not line.startswith(("processed ", "--"))
            ]
            return f"{lines[0].partition(': --')[0]}: {found[-1]}" if found else lines[0]
        if lines:
            reason = lines[-1]
    return reason


def traced_events(types: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys whose tracepoint this kernel has. A value is the event's name.

    :raises OSError: when the kernel's types cannot be read.
    """
    with open(BTF, "rb") as file:
        data = file.read()
    return tuple(key for key, event in types.items() if f"\0btf_trace_{event}\0".encode() in data)


class Map:
    """One map of a loaded object. Keys and values are bytes of its sizes."""

    def __init__(self, handle: int) -> None:
        lib = library()
        self.name: str = lib.bpf_map__name(handle).decode()
        self.fd: int = lib.bpf_map__fd(handle)
        self._key_size: int = lib.bpf_map__key_size(handle)
        self._value_size: int = lib.bpf_map__value_size(handle)
        self._max_entries: int = lib.bpf_map__max_entries(handle)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it is absent.

        :raises OSError: when the kernel refuses.
        """
        value = ctypes.create_string_buffer(self._value_size)
        result = library().bpf_map_lookup_elem(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        if result:
            raise _error(-result, f"cannot read the map {self.name}")
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Store a value.

        :raises OSError: when the kernel refuses; ``EEXIST`` for ``BPF_NOEXIST`` and a known key.
        """
        result = library().bpf_map_update_elem(self.fd, key, value, flags)
        if result:
            raise _error(-result, f"cannot write the map {self.name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all keys and values of a hash map, read with one call.

        :raises OSError: when the kernel refuses.
        """
        keys = ctypes.create_string_buffer(self._key_size * self._max_entries)
        values = ctypes.create_string_buffer(self._value_size * self._max_entries)
        number = ctypes.c_uint32(self._max_entries)
        position = ctypes.c_uint64()
        result = library().bpf_map_lookup_batch(
            self.fd, None, ctypes.addressof(position), keys, values, ctypes.addressof(number), None
        )
        if result not in (0, -errno.ENOENT):  # ENOENT: the end of the map
            raise _error(-result, f"cannot read the map {self.name}")
        for n in range(number.value):
            yield (
                ctypes.string_at(ctypes.addressof(keys) + n * self._key_size, self._key_size),
                ctypes.string_at(ctypes.addressof(values) + n * self._value_size, self._value_size),
            )


def load(data: bytes, constants: bytes, optional: Iterable[str]) -> BpfObject:
    """Load the programs of an object file whose constants are in the structure ``config``.

    ``optional`` are the programs to load of those that the object marks as optional.

    :raises Unsupported: when libbpf is not installed.
    :raises OSError: when the kernel refuses; nothing stays loaded.
    """
    bpf = BpfObject(data)
    try:
        bpf.set_constants(".rodata.config", constants)
        for name in optional:
            bpf.enable(name)
        bpf.load()
    except OSError:
        bpf.close()
        raise
    return bpf


class BpfObject:
    """An object file: open, :meth:`load`, attach. :meth:`close` detaches its programs."""

    def __init__(self, data: bytes) -> None:
        """Open the text of an object file.

        :raises Unsupported: when libbpf is not installed.
        :raises OSError: when libbpf refuses the file.
        """
        lib = library()
        _messages.clear()
        handle = lib.bpf_object__open_mem(data, len(data), None)
        if not handle:
            raise _error(ctypes.get_errno(), "cannot open the eBPF object")
        self._data = data
        self._handle: int | None = handle
        self._links: list[int] = []
        self.maps: dict[str, Map] = {}
        self._maps = {lib.bpf_map__name(each).decode(): each for each in self._each("map")}
        self.programs = {
            lib.bpf_program__name(each).decode(): each for each in self._each("program")
        }

    def _each(self, kind: str) -> Iterator[int]:
        following = getattr(library(), f"bpf_object__next_{kind}")
        each = following(self._handle, None)
        while each:
            yield each
            each = following(self._handle, each)

    def set_constants(self, map_name: str, value: bytes) -> None:
        """Set the content of a read-only data section, before :meth:`load`."""
        result = library().bpf_map__set_initial_value(self._maps[map_name], value, len(value))
        if result:
            raise _error(-result, f"cannot set {map_name}")

    def enable(self, program: str) -> None:
        """Load a program that the object marks as optional."""
        library().bpf_program__set_autoload(self.programs[program], True)

    def load(self) -> None:
        """Relocate the programs and load them into the kernel.

        :raises OSError: when the kernel refuses one.
        """
        _messages.clear()
        result = library().bpf_object__load(self._handle)
        if result:
            raise _error(-result, "the kernel refuses the eBPF programs")
        self.maps = {name: Map(handle) for name, handle in self._maps.items()}

    def attach(self, program: str) -> int:
        """Attach a program at the place that its section names, and return the link's descriptor.

        :raises OSError: when the kernel refuses.
        """
        lib = library()
        _messages.clear()
        link = lib.bpf_program__attach(self.programs[program])
        if not link:
            raise _error(ctypes.get_errno(), f"cannot attach the eBPF program {program}")
        self._links.append(link)
        descriptor: int = lib.bpf_link__fd(link)
        return descriptor

    def iterate(self, link: int) -> bytes:
        """Run an attached iterator and return its output.

        :raises OSError: when the kernel refuses.
        """
        descriptor = library().bpf_iter_create(link)
        if descriptor < 0:
            raise _error(-descriptor, "cannot run the eBPF iterator")
        try:
            chunks = []
            while chunk := os.read(descriptor, 1 << 16):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(descriptor)

    def detach(self) -> None:
        """Detach the programs. The maps stay readable."""
        while self._links:
            library().bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach and unload everything."""
        self.detach()
        if self._handle is not None:
            library().bpf_object__close(self._handle)
            self._handle = None


class RingBuffer:
    """A ring buffer; ``receive`` is called with each event by :meth:`consume`."""

    def __init__(self, source: Map, receive: Callable[[bytes], None]) -> None:
        def callback(context: int, data: int, size: int) -> int:
            receive(ctypes.string_at(data, size))
            return 0

        self._callback = _RING_CALLBACK(callback)  # ctypes does not keep it
        handle = library().ring_buffer__new(source.fd, self._callback, None, None)
        if not handle:
            raise _error(ctypes.get_errno(), "cannot map the ring buffer")
        self._handle: int | None = handle

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""
        descriptor: int = library().ring_buffer__epoll_fd(self._handle)
        return descriptor

    def consume(self) -> int:
        """Receive the waiting events and return their number.

        :raises OSError: when the buffer cannot be read.
        """
        number: int = library().ring_buffer__consume(self._handle)
        if number < 0:
            raise _error(-number, "cannot read the ring buffer")
        return number

    def close(self) -> None:
        """Unmap the buffer."""
        if self._handle is not None:
            library().ring_buffer__free(self._handle)
            self._handle = None
