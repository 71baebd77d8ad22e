"""The messages between an engine and a lazy server: JSON in datagrams of SOCK_SEQPACKET.

The server gets a :class:`Request` in a memory file, credentials included, and a listening
socket. To each engine that connects it sends its FUSE mount (SCM_RIGHTS) with the state of all
layers, and then each change of a state. The engine sends a :class:`Command`. If the path of the
socket is removed, the engine makes another one and sends it: the server cannot.

The server is not privileged, so it asks the engine for what it may not read: a chunk that a layer
on the disk has, and whether a reader of a file is being killed. Without an engine there is no
answer, and the server fetches the chunk.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.config import RegistryConfig
from jaula.images.reference import Reference
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.registry_hosts import Endpoint
from jaula.spec.image_documents import Descriptor, layer_name

SERVER_FUNCTION = "jaula.features.lazy.lazy_server:serve"
MESSAGE_LIMIT = 1 << 17  # bytes
WHOLE_SUFFIX = ".whole"


class LayerRequest(msgspec.Struct, frozen=True):
    """A layer with a TOC, as one manifest states it."""

    layer: Descriptor
    diff_id: str

    @property
    def name(self) -> str:
        return layer_name(self.layer, self.diff_id)


class Request(msgspec.Struct, frozen=True):
    """The work of a lazy server. ``image`` is for messages.

    ``endpoints`` are the servers of the registry, in the order of trial.
    """

    image: str
    reference: Reference
    registry: RegistryConfig
    credentials: Credentials
    layers: tuple[LayerRequest, ...]
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def origin(self) -> str:
        return self.reference.full_repository


class Status(StrEnum):
    """The state of a layer.

    ``unfit``: it cannot be mounted before it is whole. ``ready``: it can be mounted. ``whole``: the
    verified blob is in the file. ``failed``: the blob cannot be fetched, or has another digest.
    """

    PREPARING = "preparing"
    UNFIT = "unfit"
    READY = "ready"
    WHOLE = "whole"
    FAILED = "failed"


class LayerState(msgspec.Struct, frozen=True):
    """The state of a layer. ``size`` is that of its regular files, in bytes.

    ``reason`` explains ``unfit`` and ``failed``. A failed layer is ``denied`` if the registry asks
    for other credentials than the server has: with these it goes on. ``missing`` are the bytes of
    its blob that are absent.
    """

    name: str
    digest: str
    blob_size: int
    status: Status = Status.PREPARING
    size: int = 0
    inodes: int = 0
    states_root: bool = False
    reason: str = ""
    denied: bool = False
    missing: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """A question. ``number`` is that of the answer.

    It is about the chunk with a digest and a size, or about the process ``reader``.
    """

    number: int
    digest: str = ""
    size: int = 0
    reader: int = 0


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """States of layers, an error of a read, or a question.

    The first message to an engine has all layers. The states after ``resumed`` are those with the
    credentials that an engine has sent.
    """

    layers: tuple[LayerState, ...] = ()
    read_error: str = ""
    wanted: Wanted | None = None
    resumed: bool = False


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """Layers, by name, that the engine has taken over or does not need any more, or an answer.

    With ``credentials`` the server goes on with the layers that were denied. A socket comes
    with ``listener``: it accepts engines there from now on.
    """

    release: tuple[str, ...] = ()
    credentials: Credentials | None = None
    answer: int = 0  # number of the question; with a chunk comes a descriptor of its content
    killed: bool = False
    listener: bool = False


def metadata_name(name: str) -> str:
    """Return the name of a layer's metadata image in the server's directory."""
    return device_name(name) + ".erofs"


def toc_name(name: str) -> str:
    """Return the name of a layer's table of contents in the server's directory."""
    return device_name(name) + ".toc"


def blob_name(name: str) -> str:
    """Return the name of a layer's blob in the server's directory."""
    return device_name(name) + ".blob"


def whole_name(name: str) -> str:
    """Return the name that a layer's blob gets when it is whole and verified."""
    return device_name(name) + WHOLE_SUFFIX


def device_name(name: str) -> str:
    """Return the name of a layer's blob device in the FUSE mount: that of the statement."""
    return name.rpartition("+")[2]
