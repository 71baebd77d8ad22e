"""The protocol of a migration: what two engines send to each other about one container.

The source is the client. It sends an :class:`Offer`; from then on every message has one answer or
is part of a transfer. A frame is a kind (one byte), the length of its payload (four bytes, big
endian) and the payload: one JSON document, or bytes of a transfer. Lengths are limited before a
payload is read. ``ALIVE`` frames have no payload: a peer that sends nothing for ``SILENCE`` seconds
is gone.

The order, with the side that sends::

    source  Offer                    target  Verdict
    source  Transfer(image) data     target  Prepared
    source  Transfer(root, volumes) data, Removed
    source  BeginRestore             target  RestoreBegun
    source  Transfer(root, volumes) data, Removed
    source  Restore                  target  Ready
    source  Commit                   target  Running

A sandbox of a pod has a connection of its own. :class:`SandboxOffer` takes the place of the offer,
no image and no root is sent, and its only file is the content of its /dev/shm.

``Cancel`` from the source, ``Failed`` from the target and the end of the connection undo everything
at the target until ``Commit``. An :class:`Inquiry` in place of an offer asks how a migration ended,
and a :class:`HostQuery` for the facts of the target's host.

The files of the checkpoint have a connection of their own, with the same certificates. It has
``DATA_PROTOCOL`` as its ALPN name (RFC 7301). The source sends the token of :class:`Prepared`, and
the target answers with ``DATA_ACCEPTED``. Data frames of the source follow: for each file ``NAME``,
any number of ``DATA`` and ``ZEROS``, and ``END``; at last ``FINISHED``. They begin with the head of
the other frames. The payload of ``NAME`` is the file's name in ASCII. ``ZEROS`` has no payload: its
length is the number of zero bytes of the file that it stands for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import AddressMode, ContainerCreate, VolumeMode
from jaula.spec.api_networks import NetworkCreate
from jaula.spec.pod import PodContainerRequest, PodSandboxRequest

VERSION = 3
DRY_RUN = "dry run"  # reason of a Cancel that is not a failure
PROTOCOL = "jaula-migration"  # of the header Upgrade
DATA_PROTOCOL = "jaula-migration-data"  # of ALPN
TOKEN_SIZE = 32  # bytes
DATA_ACCEPTED = b"\x01"
MAX_MESSAGE = 8 << 20  # bytes of a JSON document
MAX_DATA = 1 << 20  # bytes of one data frame, or of the zeros that one stands for
MAX_NAME = 128  # bytes of the name of a file
SILENCE = 15.0  # seconds without a frame, after which the peer is gone
ALIVE_INTERVAL = 3.0  # seconds between two frames of an idle peer
MAX_FILES = 1 << 16  # images of a checkpoint
MAX_REMOVED = 1000  # paths of one message
MAX_OFFERED = 1024  # networks of a container, and volumes of one: each is looked up by the target
_HEAD = struct.Struct("!BI")  # kind, bytes
_OFFERED = msgspec.Meta(max_length=MAX_OFFERED)


class FrameKind(IntEnum):
    """The kinds of frames."""

    MESSAGE = 1
    DATA = 2
    END = 3  # of the data of a transfer
    ALIVE = 4


_LIMITS = {
    FrameKind.MESSAGE: MAX_MESSAGE,
    FrameKind.DATA: MAX_DATA,
    FrameKind.END: 0,
    FrameKind.ALIVE: 0,
}


class DataKind(IntEnum):
    """The kinds of data frames."""

    NAME = 1
    DATA = 2
    ZEROS = 3
    END = 4  # of a file
    FINISHED = 5


DATA_HEAD_SIZE = _HEAD.size  # bytes
_DATA_LIMITS = {
    DataKind.NAME: MAX_NAME,
    DataKind.DATA: MAX_DATA,
    DataKind.ZEROS: MAX_DATA,
    DataKind.END: 0,
    DataKind.FINISHED: 0,
}


def pack_data_head(kind: DataKind, size: int = 0) -> bytes:
    """Return the head of a data frame."""
    return _HEAD.pack(kind, size)


def unpack_data_head(head: bytes | memoryview) -> tuple[DataKind, int]:
    """Return kind and length of a data frame.

    :raises ProtocolError: when the kind is unknown, or the length above its limit.
    """
    number, size = _HEAD.unpack(head)
    try:
        kind = DataKind(number)
    except ValueError:
        raise ProtocolError(f"the peer sent a data frame of the unknown kind {number}") from None
    if size > _DATA_LIMITS[kind]:
        limit = _DATA_LIMITS[kind]
        raise ProtocolError(f"the peer sent a data frame of {size} bytes, more than {limit}")
    return kind, size


class HostDescription(msgspec.Struct, frozen=True):
    """The facts of a host that decide whether it can continue the processes of another."""

    kernel: str
    architecture: str
    page_size: int  # bytes
    criu: str  # version; '' if it is not installed
    cpu_features: tuple[str, ...] = ()
    landlock: int = 0  # ABI version; 0: none
    cgroup_version: int = 2
    apparmor: bool = False


class OfferedNetwork(msgspec.Struct, frozen=True):
    """One network of the container, with its addresses there; '' for none.

    If the target has no network of that name, it makes one by ``definition``, if there is one.
    """

    name: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    definition: NetworkCreate | None = None


class OfferedMount(msgspec.Struct, frozen=True):
    """One volume of the container; ``name`` is '' for an anonymous one."""

    destination: str
    name: str = ""


class Offer(msgspec.Struct, frozen=True, tag="offer"):
    """Ask whether the target takes a container, and how.

    ``memory`` is what its processes use, in bytes. The create request follows with
    :class:`Prepare`, when the target has accepted: it has environment, labels and commands, which
    may be secrets, and a dry run needs none of them. So ``body`` is empty here.
    ``pre_copy`` is the largest number of rounds: each may send that much once more.
    ``members`` is the number of containers that move as one. A ``stopped`` container moves without
    processes: :class:`Keep` follows in place of :class:`Restore`.
    """

    version: int
    id: str  # of the migration
    name: str
    body: ContainerCreate
    image: str  # id
    asked_image: str  # the name or id of the create request
    host: HostDescription
    owner: str = "0"
    owner_gid: int = 0
    memory: int = 0
    networks: Annotated[tuple[OfferedNetwork, ...], _OFFERED] = ()
    volumes: Annotated[tuple[OfferedMount, ...], _OFFERED] = ()
    address: AddressMode = AddressMode.AUTO
    volume_mode: VolumeMode = VolumeMode.COPY
    members: int = 1
    stopped: bool = False
    pod: PodContainerRequest | None = None
    pre_copy: int = 0


class SandboxOffer(msgspec.Struct, frozen=True, tag="sandbox-offer"):
    """Ask whether the target takes a pod. ``addresses`` are those of its network.

    ``request`` has its metadata and its log directory; the whole one follows with
    :class:`Prepare`.
    """

    version: int
    id: str  # of the migration
    name: str  # of the sandbox
    request: PodSandboxRequest
    host: HostDescription
    addresses: tuple[str, ...] = ()
    owner: str = "0"
    owner_gid: int = 0
    address: AddressMode = AddressMode.AUTO
    members: int = 1


class CheckRow(msgspec.Struct, frozen=True):
    """The result of one check before a migration; ``hint`` is the way out of a refusal."""

    check: str
    passed: bool
    detail: str
    hint: str = ""


class Verdict(msgspec.Struct, frozen=True, tag="verdict"):
    """The answer to an offer. If a row has not passed, nothing follows."""

    rows: tuple[CheckRow, ...]
    keep_address: bool = True
    image_missing: bool = False


class TransferKind(StrEnum):
    """The kinds of transfers."""

    IMAGE = "image"  # an archive as of `save`
    ROOT = "root"  # files of the root file system, as a layer
    VOLUME = "volume"  # files of one volume
    SHM = "shm"  # files of the /dev/shm of a pod, as a tar


class Transfer(msgspec.Struct, frozen=True, tag="transfer"):
    """Data frames and an END frame follow. ``name`` is an image's id, or a volume's destination."""

    kind: TransferKind
    name: str = ""


class Removed(msgspec.Struct, frozen=True, tag="removed"):
    """Paths to remove from the root, or from the volume at ``name``. A character is one byte."""

    kind: TransferKind
    name: str
    paths: tuple[str, ...]


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """Create the container: its image has been sent, if it was missing.

    ``body`` is the create request, complete. ``pod`` takes its place for a container of a pod
    (its ``sandbox`` is a name), and ``sandbox`` for a sandbox.
    """

    body: ContainerCreate | None = None
    pod: PodContainerRequest | None = None
    sandbox: PodSandboxRequest | None = None


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """The container exists at the target; ``warnings`` are those of its creation.

    ``token`` is hexadecimal: it binds the connection of the checkpoint's files to this migration.
    ``volumes_there`` are the volumes of a stopped container that the target has already, for a
    container that moved before: their files stay as they are there. ``addresses`` are those of a
    sandbox, and ``keep_address`` says that they are the former ones; ``detail`` says why not.
    """

    container: str  # id
    warnings: tuple[str, ...] = ()
    volumes_there: tuple[str, ...] = ()
    token: str = ""
    addresses: tuple[str, ...] = ()
    keep_address: bool = True
    detail: str = ""


class SentFile(msgspec.Struct, frozen=True):
    """A file of the checkpoint; ``size`` is in bytes."""

    name: str
    size: int


class MountPoint(msgspec.Struct, frozen=True):
    """A path of the root at which something is mounted; a file if it is not a directory."""

    path: str
    directory: bool


class BeginRestore(msgspec.Struct, frozen=True, tag="begin-restore"):
    """Do what a restore can do without images. The processes are not stopped yet.

    Without ``keep_address`` the owner of the network has a new one: connections are closed.
    """

    mount_points: tuple[MountPoint, ...] = ()
    keep_address: bool = True


class RestoreBegun(msgspec.Struct, frozen=True, tag="restore-begun"):
    """The restore waits for the images: the processes may be stopped."""


class Restore(msgspec.Struct, frozen=True, tag="restore"):
    """Restore the processes up to the commit, :class:`Commit`, once all files have arrived.

    ``stdio`` are the inodes of the pipes that were stdin, stdout and stderr; 0: none.
    """

    created: int  # nanoseconds of Unix time
    files: tuple[SentFile, ...]
    mount_points: tuple[MountPoint, ...] = ()
    stdio: tuple[int, int, int] = (0, 0, 0)


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The processes are restored, verified, and wait."""


class Commit(msgspec.Struct, frozen=True, tag="commit"):
    """The container is given away: it runs at the target or nowhere.

    ``group`` are the migrations of all members of a group, which this commit is for. If one of
    them is not ready at the target, none has it.
    """

    group: tuple[str, ...] = ()


class Running(msgspec.Struct, frozen=True, tag="running"):
    """The container runs at the target."""

    container: str  # id


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """Keep a container that does not run: all files have been sent."""


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """The container is recorded at the target, which keeps it."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The source gives up: undo everything."""

    reason: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The target has failed, and has undone everything unless it had received the commit."""

    message: str
    hint: str = ""


class Inquiry(msgspec.Struct, frozen=True, tag="inquiry"):
    """Ask how a migration ended. One without the commit is cancelled by this question."""

    version: int
    id: str


class Outcome(StrEnum):
    """The end of a migration at the target."""

    NEVER_RAN = "never-ran"  # it did not receive the commit, and never will
    GIVEN = "given"  # it received the commit; the container does not run
    RUNNING = "running"  # it received the commit, and the container runs or ran


class Report(msgspec.Struct, frozen=True, tag="report"):
    """The answer to an inquiry."""

    outcome: Outcome
    container: str = ""  # id
    detail: str = ""


class HostQuery(msgspec.Struct, frozen=True, tag="host-query"):
    """Ask for the facts of the target's host; nothing is moved."""

    version: int


class HostAnswer(msgspec.Struct, frozen=True, tag="host-answer"):
    """The answer to a :class:`HostQuery`."""

    version: int
    host: HostDescription


FromSource = (
    Offer
    | SandboxOffer
    | Inquiry
    | HostQuery
    | Transfer
    | Removed
    | Prepare
    | BeginRestore
    | Restore
    | Commit
    | Keep
    | Cancel
)
FromTarget = (
    Verdict | Prepared | RestoreBegun | Ready | Running | Kept | Failed | Report | HostAnswer
)
Message = FromSource | FromTarget

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class ProtocolError(InvalidRequest):
    """The peer has sent what the protocol does not have."""


class Frame(msgspec.Struct, frozen=True):
    """One frame; ``payload`` are the bytes of a message or of a transfer."""

    kind: FrameKind
    payload: bytes = b""


def message_frame(message: Message) -> bytes:
    """Return the frame of a message.

    :raises InvalidRequest: when it is too large.
    """
    data = _encode(message)
    if len(data) > MAX_MESSAGE:
        raise InvalidRequest(f"a message of {len(data)} bytes is larger than {MAX_MESSAGE}")
    return _HEAD.pack(FrameKind.MESSAGE, len(data)) + data


def data_head(size: int) -> bytes:
    """Return the head of a frame with ``size`` bytes of a transfer."""
    return _HEAD.pack(FrameKind.DATA, size)


END = _HEAD.pack(FrameKind.END, 0)
ALIVE = _HEAD.pack(FrameKind.ALIVE, 0)


def decode_message(payload: bytes) -> Message:
    """Return the message of a frame.

    :raises ProtocolError: when it is not one.
    """
    try:
        message: Message = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the peer sent a message that is not valid: {error}") from None
    return message


class FrameParser:
    """Parses frames from chunks of a stream. Holds at most one frame and one chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[FrameKind, int] | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with these bytes.

        :raises ProtocolError: when a frame has an unknown kind or is too large.
        """
        self._buffer += data
        while True:
            if self._head is None:
                if len(self._buffer) < _HEAD.size:
                    return
                self._head = _check_head(*_HEAD.unpack_from(self._buffer))
                del self._buffer[: _HEAD.size]
            kind, size = self._head
            if len(self._buffer) < size:
                return
            with memoryview(self._buffer) as view:
                payload = bytes(view[:size])
            del self._buffer[:size]
            self._head = None
            yield Frame(kind, payload)

    @property
    def empty(self) -> bool:
        """Whether the stream may end here."""
        return self._head is None and not self._buffer


def _check_head(number: int, size: int) -> tuple[FrameKind, int]:
    try:
        kind = FrameKind(number)
    except ValueError:
        raise ProtocolError(f"the peer sent a frame of the unknown kind {number}") from None
    if size > _LIMITS[kind]:
        raise ProtocolError(f"the peer sent a frame of {size} bytes, more than {_LIMITS[kind]}")
    return kind, size
