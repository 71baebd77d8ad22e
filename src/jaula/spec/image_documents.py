"""Documents of container images: configuration, manifest, index, descriptors.

Sources: opencontainers/image-spec 1.1 (``config.md``, ``manifest.md``, ``image-index.md``,
``descriptor.md``, ``image-layout.md``), the Docker image specification 1.2 (``manifest.json`` of a
``docker save`` archive) and the Docker v2 schema 2 media types, which have the same structure.

Facts about real documents: Go writes ``null`` for empty values, so null means absent everywhere.
Docker adds members of its own to the configuration (``ArgsEscaped``, ``Healthcheck``, ``OnBuild``,
``Shell``, ``docker_version``, ``container_config``). Unknown members are ignored here; they stay in
the blob, which is never rewritten.

Only sha256 digests are supported. The caller verifies the digest of a document before decoding it.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from jaula.errors import InvalidRequest
from jaula.sha256 import sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"

REF_NAME = "org.opencontainers.image.ref.name"

ESTARGZ_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
ZSTD_CHUNKED_DIGEST = "io.github.containers.zstd-chunked.manifest-checksum"
ZSTD_CHUNKED_POSITION = "io.github.containers.zstd-chunked.manifest-position"
_SOURCE = "+"  # between the parts of a layer's name
_TOC_ANNOTATIONS = (ESTARGZ_DIGEST, ZSTD_CHUNKED_DIGEST, ZSTD_CHUNKED_POSITION)

MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_LIST})
GZIP_LAYERS = frozenset({LAYER_GZIP, DOCKER_LAYER_GZIP})
LAYERS = frozenset({LAYER_TAR, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR})

DOCUMENT_LIMIT = 4 << 20
"""Maximum size in bytes of a manifest, index or configuration (registries have the same limit)."""

LAYERS_LIMIT = 500
"""Maximum number of layers of an image: the limit of overlayfs."""

Digest = Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EmptyObject = dict[str, Any]


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    media_type: str
    digest: Digest
    size: Size
    annotations: dict[str, str] = {}
    platform: Platform | None = None


def layer_name(layer: Descriptor, diff_id: str) -> str:
    """Return the name of a layer as one manifest describes it: its diff id, without a TOC. Pure.

    With a table of contents (TOC) it is ``<diff id>+<hex>``. The second part is a digest of all
    that the manifest states about the layer. So two manifests have the same name only if they
    state the same diff id, blob and TOC, and no statement of one is believed for the other.
    """
    stated = [layer.annotations.get(key, "") for key in _TOC_ANNOTATIONS]
    if not any(stated):
        return diff_id
    facts = (diff_id, layer.digest, str(layer.size), layer.media_type, *stated)
    return f"{diff_id}{_SOURCE}{sha256(msgspec.json.encode(facts)).hexdigest()}"


def diff_id_of(name: str) -> str:
    """Return the diff id in the name of a layer. Pure."""
    return name.partition(_SOURCE)[0]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = MANIFEST
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET  # absent if empty


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = INDEX
    manifests: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET  # absent if empty


class Layout(msgspec.Struct, frozen=True):
    """The ``oci-layout`` file."""

    image_layout_version: str = msgspec.field(name="imageLayoutVersion", default="1.0.0")


class Healthcheck(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A health check; durations are in nanoseconds."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """The ``config`` member: the defaults of a container created from the image."""

    user: str = ""
    exposed_ports: dict[str, EmptyObject] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, EmptyObject] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    args_escaped: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The layers by diff id, base first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image configuration; its digest is the image id."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    created: str = ""  # RFC 3339
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: ImageConfig = ImageConfig()
    rootfs: RootFS = RootFS()
    history: tuple[History, ...] = ()


class ArchiveImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of ``manifest.json`` in a Docker archive."""

    config: str
    repo_tags: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


_Kind = TypeVar("_Kind")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_nulls(member) for name, member in value.items() if member is not None
        }
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


def decode(data: bytes | memoryview, kind: type[_Kind], what: str) -> _Kind:
    """Decode a document; ``what`` names it in errors.

    :raises InvalidRequest: when the document is too large or not valid.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidRequest(
            f"{what} holds {len(data)} bytes, at most {DOCUMENT_LIMIT} are accepted"
        )
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(data)), kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not valid: {error}") from error


def encode(document: msgspec.Struct | tuple[ArchiveImage, ...]) -> bytes:
    """Encode a document as JSON in a fixed order, so that equal documents have equal digests."""
    return msgspec.json.encode(document, order="deterministic")
