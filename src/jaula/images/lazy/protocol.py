"""The messages between an engine and a lazy server: JSON in datagrams of SOCK_SEQPACKET.

The server gets a :class:`Request` on its standard input, credentials included, and a listening
socket. To each engine that connects it sends its FUSE mount (SCM_RIGHTS) with the state of all
layers, and then each change of a state. The engine sends a :class:`Command`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.config import RegistryConfig
from jaula.images.reference import Reference
from jaula.images.registry.auth.token import Credentials
from jaula.spec.image import Descriptor

SERVER_MODULE = "jaula.images.lazy.server"
MESSAGE_LIMIT = 1 << 17  # bytes
WHOLE_SUFFIX = ".whole"


class LayerRequest(msgspec.Struct, frozen=True):
    """A layer with a TOC."""

    layer: Descriptor
    diff_id: str


class Request(msgspec.Struct, frozen=True):
    """The work of a lazy server. ``directory`` is for its files; ``image`` is for messages.

    ``chunk_index`` and ``stored_layers`` are the paths of chunks on the disk.
    """

    directory: str
    image: str
    reference: Reference
    registry: RegistryConfig
    credentials: Credentials
    layers: tuple[LayerRequest, ...]
    chunk_index: str
    stored_layers: str


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

    ``reason`` explains ``unfit`` and ``failed``.
    """

    digest: str
    diff_id: str
    blob_size: int
    status: Status = Status.PREPARING
    size: int = 0
    inodes: int = 0
    states_root: bool = False
    reason: str = ""


class Message(msgspec.Struct, frozen=True):
    """States of layers, or an error of a read. The first message to an engine has all layers."""

    image: str = ""
    layers: tuple[LayerState, ...] = ()
    read_error: str = ""


class Command(msgspec.Struct, frozen=True):
    """Layers, by diff id, that the engine has taken over or does not need any more."""

    release: tuple[str, ...] = ()


def metadata_name(diff_id: str) -> str:
    """Return the name of a layer's metadata image in the server's directory."""
    return diff_id.removeprefix("sha256:") + ".erofs"


def blob_name(diff_id: str) -> str:
    """Return the name of a layer's blob in the server's directory."""
    return diff_id.removeprefix("sha256:") + ".blob"


def whole_name(diff_id: str) -> str:
    """Return the name that a layer's blob gets when it is whole and verified."""
    return diff_id.removeprefix("sha256:") + WHOLE_SUFFIX


def device_name(diff_id: str) -> str:
    """Return the name of a layer's blob device in the FUSE mount."""
    return diff_id.removeprefix("sha256:")
