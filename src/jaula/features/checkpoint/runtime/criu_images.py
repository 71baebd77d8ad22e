"""CRIU's image files: read and write them with bounds.

Source: criu.org, "Images". A file starts with one or two 32-bit magic numbers, and messages follow,
each after its length in bytes. Some files hold other data, such as pages and archives.

A checkpoint may come from another program, so nothing in it is trusted: every length is checked
against the rest of the file, and a file is opened without following a link.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Collection, Iterable
from typing import TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.runtime.shim_protocol import MAX_ROUNDS

COMMON_MAGIC = 0x54564319
MAX_IMAGE = 64 << 20  # bytes of a file with messages
MAX_FILES = 100_000  # files of a checkpoint
MAX_MESSAGES = 1_000_000  # of one file

INVENTORY, PSTREE, FILES, SECCOMP, CGROUP = (
    "inventory.img",
    "pstree.img",
    "files.img",
    "seccomp.img",
    "cgroup.img",
)
AFFINITY = "affinity.json"  # of :mod:`jaula.features.checkpoint.runtime.affinity`, not of CRIU
_MAGICS = {
    "inventory": 0x58313116,
    "pstree": 0x50273030,
    "core": 0x55053847,
    "ids": 0x54432030,
    "userns": 0x55474906,
    "utsns": 0x54473203,
    "seccomp": 0x64413049,
    "cgroup": 0x59383330,
    "mountpoints": 0x55563928,
    "files": 0x56303138,
    "timens": 0x43114433,
    "fs": 0x51403912,
    "pagemap": 0x56084025,
    "pagemap-shmem": 0x56084025,
}
"""Second magic number by kind. An inventory has only this one."""
_PIPES_DATA_MAGIC = 0x56453709

_NUMBERED = (
    "fdinfo|pagemap|pagemap-shmem|core|ids|mm|fs|utsns|ipcns-var|ipcns-shm|ipcns-msg|ipcns-sem"
    "|timens|pidns|userns|mountpoints|pages|pages-shmem|itimers|posix-timers|rlimit|sigacts"
    "|signal-s|signal-p|creds|vmas"
)
_SINGLE = (
    "inventory|pstree|files|seccomp|cgroup|fs|tty-info|tty-data|filelocks|remap-fpath|eventpoll-tfd"
    "|inotify-wd|pipes-data|fifo-data|sk-queues|unixsk|memfd|cpuinfo|pidfd|fifo|pipes|reg-files"
    "|timerfd|inetsk|packetsk|netlinksk|tty|eventfd|eventpoll|signalfd|inotify"
)
_KNOWN = re.compile(
    rf"(?:(?:{_NUMBERED})-[0-9]+|(?:{_SINGLE})|(?:ghost-file|tcp-stream)-[0-9a-f]+"
    r"|tmpfs-(?:dev-)?[0-9]+\.tar\.gz)\.img|stats-dump|stats-restore|criu\.log|affinity\.json"
)
"""Names of the files that a checkpoint may hold; none of them configures the host's network."""

_MEMORY = re.compile(r"(?:pagemap|pages|pagemap-shmem|pages-shmem)-[0-9]+\.img|inventory\.img")
_ROUND = re.compile(rf"before-([1-9][0-9]?)\.({_MEMORY.pattern})")
PARENT = "parent"  # CRIU's name of the directory with the images of the round before

M = TypeVar("M", bound=Message)


class InvalidImages(InvalidRequest):
    """A checkpoint that cannot be used; ``problem`` is the part of the message that says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the checkpoint is damaged or was changed: {problem}")
        self.problem = problem


def invalid(problem: str) -> InvalidImages:
    """Return the error about a checkpoint that cannot be used."""
    return InvalidImages(problem)


def names(directory: int) -> tuple[str, ...]:
    """Return the names of the files of a checkpoint, sorted.

    :raises InvalidRequest: when one is not known, not a plain file, or there are too many.
    """
    found = sorted(os.listdir(directory))
    if len(found) > MAX_FILES:
        raise invalid(f"it has {len(found)} files")
    round_count(found)
    for name in found:
        number, own = split_round(name)
        if not number and not _KNOWN.fullmatch(own):
            raise invalid(f"unknown file {name!r}")
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise invalid(f"{name} is not a plain file")
    return tuple(found)


def round_name(number: int, name: str) -> str:
    """Return the name of an image of a round of the pre-copy, counted from 1. Pure."""
    return f"before-{number}.{name}"


def split_round(name: str) -> tuple[int, str]:
    """Return the round of a file, 0 for the dump, and CRIU's name of it. Pure."""
    match = _ROUND.fullmatch(name)
    return (int(match[1]), match[2]) if match is not None else (0, name)


def round_count(names: Iterable[str]) -> int:
    """Return the number of rounds of the pre-copy. Pure.

    :raises InvalidImages: when one is missing, or there are too many.
    """
    found = {split_round(name)[0] for name in names} - {0}
    if found != set(range(1, len(found) + 1)) or len(found) > MAX_ROUNDS:
        raise invalid(f"it has the rounds {sorted(found)} of a pre-copy")
    return len(found)


def restore_path(name: str, count: int) -> str:
    """Return the path of a file below the directory of a restore, after ``count`` rounds. Pure.

    CRIU finds the images of the last round in ``parent``, those before in ``parent/parent``.
    """
    number, own = split_round(name)
    return own if number == 0 else f"{PARENT}/" * (count - number + 1) + own


def is_memory(name: str) -> bool:
    """Return whether a file that CRIU wrote in a round is needed for a restore. Pure."""
    return _MEMORY.fullmatch(name) is not None


def open_file(directory: int, name: str) -> int:
    """Open a file of a checkpoint to read it.

    :raises InvalidRequest: when it is missing or not a plain file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        raise invalid(f"{name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise invalid(f"{name} is not a plain file")
    return fd


def kind_of(name: str) -> str:
    """Return the kind of an image: the name without number and suffix. Pure."""
    return re.sub(r"-[0-9a-f]+\Z", "", name.removesuffix(".img"))


def decode(data: bytes, name: str, message: type[M]) -> list[M]:
    """Return the messages of a file. Pure.

    :raises InvalidRequest: when it is truncated, or another kind of file.
    """
    magic = _MAGICS[kind_of(name)]
    heads = (magic,) if name == INVENTORY else (COMMON_MAGIC, magic)
    offset = 4 * len(heads)
    if data[:offset] != _numbers(heads):
        raise invalid(f"{name} is not an image of that kind")
    messages: list[M] = []
    while offset < len(data):
        if len(messages) == MAX_MESSAGES:
            raise invalid(f"{name} has too many messages")
        length = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        body = data[offset : offset + length]
        if offset > len(data) or len(body) != length:
            raise invalid(f"{name} is truncated")
        decoded = message()
        try:
            decoded.MergeFromString(body)
        except (DecodeError, UnicodeDecodeError):
            raise invalid(f"{name} has a malformed message") from None
        if not decoded.IsInitialized():
            raise invalid(f"{name} has an incomplete message")
        if not _is_text(decoded):
            raise invalid(f"{name} has a string that is not UTF-8")
        messages.append(decoded)
        offset += length
    return messages


def _is_text(message: Message) -> bool:
    """Return whether all strings are UTF-8: the value of another one is of bytes (proto2). Pure."""
    for name in _text_fields(message.DESCRIPTOR):
        value = getattr(message, name)
        for each in (value,) if isinstance(value, str | bytes | Message) else value:
            if not (_is_text(each) if isinstance(each, Message) else isinstance(each, str)):
                return False
    return True


@functools.cache
def _text_fields(descriptor: Descriptor) -> tuple[str, ...]:
    """Return the fields that are strings, or messages with strings below them."""
    return tuple(
        field.name
        for field in descriptor.fields
        if field.type == field.TYPE_STRING
        or (field.message_type is not None and _text_fields(field.message_type))
    )


def encode(name: str, messages: Iterable[Message]) -> bytes:
    """Return the content of a file. Pure."""
    magic = _MAGICS[kind_of(name)]
    data = _numbers((magic,) if name == INVENTORY else (COMMON_MAGIC, magic))
    for message in messages:
        body = message.SerializeToString()
        data += len(body).to_bytes(4, "little") + body
    return data


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def read(directory: int, name: str, message: type[M]) -> list[M]:
    """Return the messages of a file in a directory.

    :raises InvalidRequest: when it is missing, too large or malformed.
    """
    with open(open_file(directory, name), "rb") as file:
        data = file.read(MAX_IMAGE + 1)
    if len(data) > MAX_IMAGE:
        raise invalid(f"{name} is larger than {MAX_IMAGE >> 20} MiB")
    return decode(data, name, message)


def read_one(directory: int, name: str, message: type[M]) -> M:
    """Return the only message of a file.

    :raises InvalidRequest: when it has none or several.
    """
    messages = read(directory, name, message)
    if len(messages) != 1:
        raise invalid(f"{name} has {len(messages)} messages")
    return messages[0]


def without_pipes(data: bytes, inodes: Collection[int]) -> bytes:
    """Return the content of ``pipes-data.img`` without the data of some pipes. Pure.

    Each message is followed by as many bytes as it says.

    :raises InvalidRequest: when it is truncated, or another kind of file.
    """
    offset = 8
    if data[:offset] != _numbers((COMMON_MAGIC, _PIPES_DATA_MAGIC)):
        raise invalid("pipes-data.img is not an image of that kind")
    kept = [data[:offset]]
    while offset < len(data):
        start = offset
        length = int.from_bytes(data[offset : offset + 4], "little")
        entry = images_pb2.PipeData()
        try:
            entry.MergeFromString(data[offset + 4 : offset + 4 + length])
        except DecodeError:
            raise invalid("pipes-data.img has a malformed message") from None
        offset += 4 + length + entry.bytes
        if offset > len(data) or not entry.IsInitialized():
            raise invalid("pipes-data.img is truncated")
        if entry.pipe_id not in inodes:
            kept.append(data[start:offset])
    return b"".join(kept)


class Images(msgspec.Struct, frozen=True):
    """The messages of a checkpoint that describe its confinement, by what they describe."""

    inventory: images_pb2.Inventory
    tree: tuple[images_pb2.PstreeEntry, ...]
    ids: dict[int, images_pb2.Ids]  # by pid
    cores: dict[int, images_pb2.Core]  # by pid or thread id
    user_namespaces: tuple[str, ...]  # names of the files
    cgroups: images_pb2.Cgroup
    filters: tuple[images_pb2.SeccompFilter, ...]
    mounts: tuple[images_pb2.Mount, ...]
    files: tuple[images_pb2.File, ...]
    clocks: dict[int, images_pb2.TimeNamespace] = {}  # by id of the time namespace
    uts_namespaces: tuple[str, ...] = ()  # names of the files
    directories: frozenset[int] = frozenset()  # ids of the files that are a root or cwd


def read_all(directory: int) -> Images:
    """Read the images that describe the confinement of a checkpoint.

    :raises InvalidRequest: when a file is unknown, missing, too large or malformed.
    """
    found = names(directory)

    def numbered(kind: str) -> list[str]:
        return [name for name in found if kind_of(name) == kind]

    mounts = numbered("mountpoints")
    if len(mounts) != 1:
        raise invalid(f"it has {len(mounts)} mount namespaces")
    seccomp = [read_one(directory, SECCOMP, images_pb2.Seccomp)] if SECCOMP in found else []
    return Images(
        inventory=read_one(directory, INVENTORY, images_pb2.Inventory),
        tree=tuple(read(directory, PSTREE, images_pb2.PstreeEntry)),
        ids={_number(name): read_one(directory, name, images_pb2.Ids) for name in numbered("ids")},
        cores={
            _number(name): read_one(directory, name, images_pb2.Core) for name in numbered("core")
        },
        user_namespaces=tuple(numbered("userns")),
        uts_namespaces=tuple(numbered("utsns")),
        cgroups=read_one(directory, CGROUP, images_pb2.Cgroup),
        filters=tuple(each for image in seccomp for each in image.seccomp_filters),
        mounts=tuple(read(directory, mounts[0], images_pb2.Mount)),
        files=tuple(read(directory, FILES, images_pb2.File)),
        clocks={
            _number(name): read_one(directory, name, images_pb2.TimeNamespace)
            for name in numbered("timens")
        },
        directories=frozenset(
            number
            for name in numbered("fs")
            for each in read(directory, name, images_pb2.FileSystemContext)
            for number in (each.cwd_id, each.root_id)
        ),
    )


def _number(name: str) -> int:
    return int(name.removesuffix(".img").rpartition("-")[2])
