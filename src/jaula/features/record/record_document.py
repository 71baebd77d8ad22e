"""The record: its lines, and what each may contain. Pure.

A record is a file of JSON lines. Each has its number ``n``, the SHA-256 ``prev`` of the line before
it (as in the audit log, :mod:`jaula.state.audit_log`) and a ``type``:

* ``header``, the first line: the container, the kernel, the mechanism.
* ``program``: a program by its path. Entries refer to it by the number of its line.
* ``entry``: something that a program did, with the time when it did it first.
* ``total``: the final numbers of an entry that occurred again.
* ``end``, the last line: why the recorder ended, and what was lost.

Times are microseconds since the recorder started, of a clock that is never set (CLOCK_BOOTTIME).
Texts of the container are bytes. They are stored as UTF-8; a backslash is doubled and a byte that
is not UTF-8 becomes ``\\xff``, so no two texts are stored alike (:func:`text_of`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from jaula.state.audit_log import Head

OUTSIDE = (
    "files by descriptors that a process outside passes",
    "what a process outside does for the container",
    "accesses by a mapping",
    "code that is written into memory",
)
"""What no mechanism sees: it is not a system call of the container."""

VERSION = 1
MAX_LINE = 1 << 16  # bytes
UNKNOWN = 0  # `program` of what ran before its program was read
UNLISTED = -1  # `program` when the table of programs was full

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Line = Annotated[int, msgspec.Meta(ge=1, le=(1 << 62) - 1)]
Reference = Annotated[int, msgspec.Meta(ge=UNLISTED, le=(1 << 62) - 1)]

Kind = Literal[
    "syscall",
    "exec",
    "file",
    "file-refused",
    "change",
    "socket",
    "connect",
    "bind",
    "send",
    "listen",
    "capability",
    "capability-refused",
    "capability-held",
    "signal",
    "mount",
    "unmount",
    "accept",
    "dns",
    "device",
    "io-uring",
    "resource",
]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Kernel(_Struct, frozen=True, kw_only=True):
    """The kernel that is the witness."""

    release: str
    version: str
    machine: str
    boot_id: str


class GivenDevice(_Struct, frozen=True, kw_only=True):
    """A device node that the engine gave the container, besides those of each container.

    ``path`` is inside of the container, ``host`` is the host's node, and ``device`` is
    TYPE MAJOR:MINOR, as in an entry of kind ``device``.
    """

    path: str
    host: str
    device: str
    access: str = "rwm"


class Container(_Struct, frozen=True, kw_only=True):
    """The container, as the engine names it when the recorder starts.

    ``mounts`` are the targets of its volumes, bind mounts and tmpfs. The other fields are what it
    was given: a profile of the record has no more. None: not restricted, or not known.
    """

    id: str
    name: str
    image: str
    image_id: str
    user: str = ""
    mounts: tuple[str, ...] = ()
    devices: tuple[GivenDevice, ...] = ()
    capabilities: tuple[str, ...] | None = None  # with CAP_
    egress: tuple[str, ...] | None = None
    listen: tuple[str, ...] | None = None
    no_new_privileges: bool = False


class Header(_Struct, frozen=True, kw_only=True, tag_field="type", tag="header"):
    """The first line. ``sources`` are the events of the kernel that are recorded.

    ``from_start``: the recorder was attached before the container had a process.
    ``not_recorded`` is what the mechanism does not see. ``unseen`` is what a program can hide from
    it, in a kind that it records.
    """

    version: int
    time: str  # RFC 3339, of the moment that times are relative to
    recorder: str
    kernel: Kernel
    container: Container
    mechanism: str
    sources: tuple[str, ...]
    not_recorded: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    cgroup: str  # hierarchy and path
    from_start: bool = False


class Program(_Struct, frozen=True, kw_only=True, tag_field="type", tag="program"):
    """A program: the file, and the name that execve(2) had if it is another text.

    ``detached``: the file was in no mount namespace. ``truncated``: the path was too long, and its
    first components are absent.
    """

    path: str
    name: str = ""
    detached: bool = False
    truncated: bool = False


class Entry(_Struct, frozen=True, kw_only=True, tag_field="type", tag="entry"):
    """Something that a program did ``count`` times. The fields in use depend on ``kind``.

    ``source`` says where paths and addresses come from: ``kernel``, or ``process``, whose memory
    another thread may have changed. ``lost_text``: it occurred, but its path or address was lost.
    """

    kind: Kind
    program: Reference
    count: Count = 1
    first: Count = 0
    last: Count = 0
    syscall: str = ""
    abi: str = ""  # i386, x32
    errno: str = ""
    path: str = ""
    mode: str = ""
    filesystem: str = ""  # of a mount, its type
    device: str = ""  # of a mount, its source; of a device TYPE MAJOR:MINOR
    detached: bool = False
    truncated: bool = False
    executed: Reference = UNKNOWN
    family: str = ""
    socket_type: str = ""
    protocol: str = ""
    address: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0
    source: str = ""
    capability: str = ""
    namespace: str = ""  # of the capability: host, or the container's
    signal: str = ""
    receiver: str = ""  # container, outside
    receiver_program: Reference = UNKNOWN
    lost_text: bool = False
    layer: str = ""  # that refused a system call: seccomp, capability, read-only, ...
    name: str = ""  # of a DNS query
    query_type: str = ""
    malformed: bool = False  # a DNS query without a name
    operation: str = ""  # of io_uring
    resource: str = ""
    value: Count = 0  # of a resource
    limit: Count = 0  # of a resource, 0: none
    unit: str = ""


class Total(_Struct, frozen=True, kw_only=True, tag_field="type", tag="total"):
    """The final numbers of the entry on line ``entry``."""

    entry: Line
    count: Count
    first: Count
    last: Count


class Loss(_Struct, frozen=True, kw_only=True):
    """Losses of one table: occurrences that are not in the record.

    ``occurrences``: in no entry, since the table or the file was full. ``entries``: left out, since
    the file was full. ``texts``: a path or address could not be read. ``events``: the ring buffer
    was full; the entry has its text only if it occurred again.
    """

    occurrences: Count = 0
    events: Count = 0
    texts: Count = 0
    entries: Count = 0


class End(_Struct, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The last line."""

    reason: str
    duration: Count
    losses: dict[str, Loss]


Document = Header | Program | Entry | Total | End

_decoder: msgspec.json.Decoder[Document] = msgspec.json.Decoder(Document)


def encode_line(head: Head, document: Document) -> bytes:
    """Return the line that follows the line ``head``, without its newline."""
    start = f'{{"n":{head.n + 1},"prev":"{head.hash}",'
    return start.encode() + msgspec.json.encode(document)[1:]


def decode_line(line: bytes) -> Document:
    """Return the document of a line.

    :raises ValueError: when it is not a line of a record.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def text_of(data: bytes) -> str:
    """Return bytes of a container as text; :func:`bytes_of` is the inverse."""
    return data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def bytes_of(text: str) -> bytes:
    """Return the bytes that :func:`text_of` had.

    :raises ValueError: when it cannot have been made by it.
    """
    parts = text.split("\\\\")
    result = []
    for part in parts:
        head, *escaped = part.split("\\x")
        data = [head.encode()]
        for each in escaped:
            data.append(bytes.fromhex(each[:2]) + each[2:].encode())
        if "\\" in head or any("\\" in each for each in escaped):
            raise ValueError("a backslash without a second one")
        result.append(b"".join(data))
    return b"\\".join(result)
