"""Options of a build: the parsed query of ``POST /build``.

Source: Docker Engine API 1.45, ``ImageBuild``. jaula's own parameters: ``session``
(:mod:`.build_session`), ``progress``, ``allow`` and ``buildcontexts``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from jaula.spec.api_documents import HostConfig, RegistryAuth
from jaula.spec.layer_compression import LayerCompression


class LocalDirectories(msgspec.Struct, frozen=True):
    """The names of the client's directories in its session; '' if the client has none.

    ``context`` is the directory of the context, and ``dockerfile`` that of the Dockerfile.
    """

    context: str = ""
    dockerfile: str = ""


class Annotation(msgspec.Struct, frozen=True):
    """An annotation of an output (``--annotation``).

    ``kind`` is ``manifest``, ``manifest-descriptor``, ``index`` or ``index-descriptor``.
    ``platform`` is in Docker's notation, '' for all.
    """

    kind: str
    key: str
    value: str
    platform: str = ""


class BuildExport(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a build. ``id`` is its number at the client.

    ``kind`` is ``image``, ``local``, ``tar``, ``oci`` or ``docker``. ``push`` pushes an image.
    ``artifact`` selects the form of an attestation: an OCI artifact, or an image as before OCI 1.1.
    ``compression`` is None if the client does not request one. ``oci_types`` selects OCI's media
    types, else Docker's. ``tar`` is whether an archive is one file, else a directory of the client.

    The others are for files. ``split`` is whether each platform has a directory of its own, None
    for the default: if there are several. ``attestation_prefix`` begins the names of attestations.
    """

    kind: str
    id: int = 0
    names: tuple[str, ...] = ()
    push: bool = False
    artifact: bool = True
    annotations: tuple[Annotation, ...] = ()
    compression: LayerCompression | None = None
    oci_types: bool = True
    tar: bool = True
    split: bool | None = None
    attestation_prefix: str = ""


class ProvenanceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``--provenance``: an attestation of how the image was built.

    ``version`` is that of SLSA, ``v1`` or ``v0.2``. ``detailed`` (``mode=max``) adds build
    arguments, labels, secrets by id, and the Dockerfile. ``inline_only`` leaves it out where it
    would be the only reason for an index. ``complete`` refuses a build whose sources are not all
    recorded.
    """

    version: str = "v1"
    detailed: bool = True
    inline_only: bool = False
    reproducible: bool = False
    complete: bool = False
    builder: str = ""
    filename: str = "provenance.json"


class CacheExport(msgspec.Struct, frozen=True, kw_only=True):
    """An export of a build's cache: to the registry under ``name``, or to the client.

    ``store`` is the name of the client's content store, '' for the registry. ``all_stages``
    includes the steps of stages that are not part of the result.
    """

    name: str = ""
    store: str = ""
    all_stages: bool = False
    ignore_error: bool = False


class ClientCache(msgspec.Struct, frozen=True):
    """A cache in a content store of the client, and the digest of its manifest."""

    store: str
    digest: str


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one build.

    ``host`` holds the limits and modes of all RUN steps. A build argument with value None is unset.
    ``names`` are the image's names. ``dockerfile`` is '' for the default name. ``remote`` is the
    address of the context if the body does not hold it. ``steps`` requests progress messages for
    each step. ``allow`` lists entitlements, as ``docker buildx build --allow`` does. ``contexts``
    maps the name of a further context to ``docker-image://NAME`` or an address, to
    ``local:DIRECTORY`` of the client, to ``layout:STORE@DIGEST`` in one of its content stores, to
    ``result:ID`` of another build, or to '' for the
    client's directory of the same name. With ``cache_from_only`` steps come from the local images
    of ``cache_from`` only.

    The remaining options are BuildKit's. ``local`` means that the engine asks the client for the
    context. ``exports`` None means an image in the store. ``client_caches`` are caches that the
    client has. ``cache_to`` are the places that get the steps. ``no_cache_stages`` are stages that
    are not looked up in the cache. ``result`` is an id under which the result is kept for other
    builds of the same caller. ``subrequest`` is what the client asks about the Dockerfile instead
    of a build: ``lint``, ``outline`` or ``targets``. ``platforms`` are those of an index, each
    once; empty for one image. ``provenance`` and ``sbom`` request attestations. ``arguments`` are
    the options of the client, for the provenance.
    """

    names: tuple[str, ...] = ()
    dockerfile: str = ""
    remote: str = ""
    target: str = ""
    platform: str = ""
    build_args: Mapping[str, str | None] = {}
    labels: Mapping[str, str] = {}
    cache_from: tuple[str, ...] = ()
    cache_from_only: bool = False
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    squash: bool = False
    steps: bool = False
    host: HostConfig = HostConfig()
    auths: Mapping[str, RegistryAuth] = {}
    session: str = ""
    build_id: str = ""
    allow: tuple[str, ...] = ()
    contexts: Mapping[str, str] = {}
    local: LocalDirectories | None = None
    exports: tuple[BuildExport, ...] | None = None
    client_caches: tuple[ClientCache, ...] = ()
    cache_to: tuple[CacheExport, ...] = ()
    no_cache_stages: tuple[str, ...] = ()
    result: str = ""
    subrequest: str = ""
    platforms: tuple[str, ...] = ()
    provenance: ProvenanceOptions | None = None
    sbom: bool = False
    arguments: Mapping[str, str] = {}


def is_builtin_frontend(image: str) -> bool:
    """Return whether ``# syntax=`` names Docker's own frontend, whose language is the builder's.

    Pure.
    """
    own = r"(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"
    return re.fullmatch(own, image, re.ASCII) is not None


class PruneOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``all`` includes the cache that images share. The others are bytes, 0 for not set.

    ``reserved`` is what is kept in any case, ``maximum`` what may be used, and ``free`` what is to
    be free on the disk.
    """

    all: bool = False
    reserved: int = 0
    maximum: int = 0
    free: int = 0
    filters: dict[str, list[str]] = {}
