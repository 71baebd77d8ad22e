"""Documents that a caller passes as files: ``config.json``, a process, resources.

Follows runtime-spec bundle.md. The author of a bundle need not be the user of the runtime. So a
file is checked before it is opened: a FIFO, a device or a directory in its place is refused without
blocking on it, and so is a file that is too large. A symbolic link is followed, as in other
runtimes. The documents of ``exec`` and ``update`` are the caller's, and may come from a pipe.
:mod:`jaula.runtime.validation` checks the content of a document.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TypeVar

import msgspec

from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.spec.runtime_spec import Process, Resources, Spec, decode, decode_as

CONFIG = "config.json"
MAX_SIZE = 16 << 20  # bytes; the largest profiles of system calls are below 200 KiB

T = TypeVar("T")
_NULL = msgspec.Raw(b"null")


class _Head(msgspec.Struct, rename="camel"):
    """The version of a document, and its sections for other platforms."""

    oci_version: str = ""
    windows: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    solaris: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    zos: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    vm: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def load(bundle: str) -> Spec:
    """Read the spec of a bundle.

    :raises NotFound: when the bundle or its config.json does not exist.
    :raises InvalidRequest: when the document is malformed.
    :raises Unsupported: when it is for another platform.
    """
    try:
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _open_error(f"bundle {bundle}", error) from None
    name = os.path.join(bundle, CONFIG)
    try:
        data = _read(CONFIG, name, directory)
    finally:
        os.close(directory)
    return parse(data, name)


def parse(data: bytes, name: str = CONFIG) -> Spec:
    """Decode a ``config.json``; ``name`` stands for it in errors.

    :raises InvalidRequest: when the document is malformed.
    :raises Unsupported: when it is for another platform.
    """
    head = _decode(msgspec.json.Decoder(_Head).decode, data, name)
    if not head.oci_version:
        raise InvalidRequest(f"{name}: ociVersion is missing")
    for section in ("windows", "solaris", "zos", "vm"):
        if getattr(head, section) not in (msgspec.UNSET, _NULL):
            raise Unsupported(f"{name}: section {section!r} is for a platform other than Linux")
    return _decode(decode, data, name)


def load_process(path: str) -> Process:
    """Read the document of ``exec --process``, also from a pipe: the caller is its author."""
    return _decode(_process, _read(path, path, pipe=True), path)


def _process(data: bytes) -> Process:
    return decode_as(data, Process, msgspec.json.Decoder(Process).decode)


def load_resources(source: str, stdin: int = 0) -> Resources:
    """Read the document of ``update --resources``; ``-`` means the descriptor ``stdin``."""
    if source == "-":
        return parse_resources(_read_all(stdin, "standard input"), "standard input")
    return parse_resources(_read(source, source, pipe=True), source)


def parse_resources(data: bytes, name: str) -> Resources:
    """Decode resources; ``name`` stands for the document in errors."""
    return _decode(_resources, data, name)


def _resources(data: bytes) -> Resources:
    return decode_as(data, Resources, msgspec.json.Decoder(Resources).decode)


def _read(path: str, name: str, directory: int | None = None, *, pipe: bool = False) -> bytes:
    """Read a regular file of bounded size; with ``pipe`` also wait for the writer of a pipe."""
    try:
        path_fd = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    except (OSError, ValueError) as error:
        raise _open_error(name, error) from None
    try:
        st = os.fstat(path_fd)
        is_pipe = pipe and stat.S_ISFIFO(st.st_mode)
        if not stat.S_ISREG(st.st_mode) and not is_pipe:
            raise InvalidRequest(f"{name} is {_file_type(st.st_mode)}, not a regular file")
        if st.st_size > MAX_SIZE:
            raise _too_large(name)
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if is_pipe else os.O_NONBLOCK)
        fd = os.open(f"/proc/self/fd/{path_fd}", flags)
    except OSError as error:
        raise _open_error(name, error) from None
    finally:
        os.close(path_fd)
    try:
        return _read_all(fd, name)
    finally:
        os.close(fd)


def _read_all(fd: int, name: str) -> bytes:
    """Read to the end, up to a limit: the size that fstat reports may be wrong."""
    data = bytearray()
    while len(data) <= MAX_SIZE:
        try:
            chunk = os.read(fd, 1 << 18)
        except OSError as error:
            raise _open_error(name, error) from None
        if not chunk:
            return bytes(data)
        data += chunk
    raise _too_large(name)


def _decode(decoder: Callable[[bytes], T], data: bytes, name: str) -> T:
    try:
        return decoder(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: {_decode_error(str(error))}") from None
    except RecursionError:
        raise InvalidRequest(f"{name}: objects or lists are nested too deeply") from None


def _decode_error(text: str) -> str:
    """Return the decoder's error, location first: ``$.process.args[1]: expected `str```."""
    message, separator, location = text.partition(" - at `")
    if not message.startswith("JSON"):
        message = message[:1].lower() + message[1:]
    if separator and location.startswith("$") and location.endswith("`"):
        return f"{location[:-1]}: {message}"
    return message


def _open_error(name: str, error: OSError | ValueError) -> InvalidRequest | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{name}: no such file or directory")
    if isinstance(error, OSError):
        return InvalidRequest(f"{name}: {(error.strerror or 'cannot be read').lower()}")
    return InvalidRequest(f"{name!r} is not a valid path: {error}")


def _too_large(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} is larger than {MAX_SIZE >> 20} MiB")


def _file_type(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "something else"
