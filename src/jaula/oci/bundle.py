"""Documents that a caller hands to the runtime as files: ``config.json``, a process, resources.

Follows runtime-spec bundle.md. Whoever writes a bundle need not be who runs the runtime, so a file
is looked at before it is opened: a FIFO, a device or a directory in its place is refused without
waiting for it or touching it, and so is one that is too large. A symbolic link is followed, as
other runtimes do. What is in a document is judged by :mod:`jaula.runtime.validation`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TypeVar

import msgspec

from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.spec.runtime import Process, Resources, Spec, decode

CONFIG = "config.json"
LARGEST = 16 << 20  # bytes; the largest profiles of system calls are below 200 KiB

T = TypeVar("T")


class _Head(msgspec.Struct, rename="camel"):
    """What a document says of itself, and sections of other platforms."""

    oci_version: str = ""
    windows: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    solaris: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    zos: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    vm: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def load(bundle: str) -> Spec:
    """The spec of a bundle; raises ``NotFound``, ``InvalidRequest`` or ``Unsupported``."""
    try:
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unopened(f"bundle {bundle}", error) from None
    name = os.path.join(bundle, CONFIG)
    try:
        data = _read(CONFIG, name, directory)
    finally:
        os.close(directory)
    return parse(data, name)


def parse(data: bytes, name: str = CONFIG) -> Spec:
    """The spec in the bytes of a ``config.json``, which ``name`` stands for in errors."""
    head = _decoded(msgspec.json.Decoder(_Head).decode, data, name)
    if not head.oci_version:
        raise InvalidRequest(f"{name}: ociVersion is missing")
    for section in ("windows", "solaris", "zos", "vm"):
        if getattr(head, section) is not msgspec.UNSET:
            raise Unsupported(f"{name}: section {section!r} is for another platform than Linux")
    return _decoded(decode, data, name)


def load_process(path: str) -> Process:
    """The document of ``exec --process``."""
    return _decoded(msgspec.json.Decoder(Process).decode, _read(path, path), path)


def load_resources(source: str, stdin: int = 0) -> Resources:
    """The document of ``update --resources``: a file, or ``-`` for the descriptor ``stdin``."""
    if source == "-":
        return parse_resources(_read_all(stdin, "standard input"), "standard input")
    return parse_resources(_read(source, source), source)


def parse_resources(data: bytes, name: str) -> Resources:
    """Resources from bytes, which ``name`` stands for in errors."""
    return _decoded(msgspec.json.Decoder(Resources).decode, data, name)


def _read(path: str, name: str, directory: int | None = None) -> bytes:
    """All of a regular file of bounded size."""
    try:
        looked_at = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    except (OSError, ValueError) as error:
        raise _unopened(name, error) from None
    try:
        facts = os.fstat(looked_at)
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidRequest(f"{name} is {_kind(facts.st_mode)}, not a regular file")
        if facts.st_size > LARGEST:
            raise _too_large(name)
        fd = os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unopened(name, error) from None
    finally:
        os.close(looked_at)
    try:
        return _read_all(fd, name)
    finally:
        os.close(fd)


def _read_all(fd: int, name: str) -> bytes:
    """Read to the end; the size that a file tells may be wrong, so this is bounded too."""
    data = bytearray()
    while len(data) <= LARGEST:
        try:
            piece = os.read(fd, 1 << 18)
        except OSError as error:
            raise _unopened(name, error) from None
        if not piece:
            return bytes(data)
        data += piece
    raise _too_large(name)


def _decoded(decoder: Callable[[bytes], T], data: bytes, name: str) -> T:
    try:
        return decoder(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{name}: {_plain(str(error))}") from None
    except RecursionError:
        raise InvalidRequest(f"{name}: objects or lists are nested too deeply") from None


def _plain(text: str) -> str:
    """The decoder's text, place first: ``$.process.args[1]: expected `str`, got `int```."""
    what, separator, place = text.partition(" - at `")
    if not what.startswith("JSON"):
        what = what[:1].lower() + what[1:]
    if separator and place.startswith("$") and place.endswith("`"):
        return f"{place[:-1]}: {what}"
    return what


def _unopened(name: str, error: OSError | ValueError) -> InvalidRequest | NotFound:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{name}: no such file or directory")
    if isinstance(error, OSError):
        return InvalidRequest(f"{name}: {(error.strerror or 'cannot be read').lower()}")
    return InvalidRequest(f"{name!r} is no path: {error}")


def _too_large(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} is larger than {LARGEST >> 20} MiB")


def _kind(mode: int) -> str:
    for test, kind in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return kind
    return "something else"
