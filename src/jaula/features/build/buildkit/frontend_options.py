"""Translate the options of BuildKit's frontend ``dockerfile.v0`` to the engine's build options.

Pure. Source: moby/buildkit ``frontend/dockerui`` and ``frontend/dockerfile`` (the names of the
options), docker/buildx ``build`` (the values that clients send).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.features.build.build_options import (
    Annotation,
    BuildExport,
    BuildOptions,
    CacheExport,
    ClientCache,
    LocalDirectories,
    is_builtin_frontend,
)
from jaula.features.build.buildkit.attest_options import (
    FALSE,
    TRUE,
    attestation_request,
    recorded_arguments,
)
from jaula.features.build.buildkit.buildkit_session import UPLOAD_HOST
from jaula.features.build.buildkit.definition import remote_of, result_of
from jaula.features.build.buildkit.proto.ops_pb2 import Definition
from jaula.features.build.buildkit.proto.types_pb2 import CacheOptionsEntry
from jaula.images.image_platform import format_platform, host, normalize, parse_platform
from jaula.images.reference import parse
from jaula.spec.api_documents import HostConfig, Ulimit
from jaula.spec.layer_compression import LayerCompression, parse_compression

FRONTEND = "dockerfile.v0"
_GATEWAY = "gateway.v0"
_UPLOAD = f"http://{UPLOAD_HOST}/"
_FROM_BODY = "client-session"
_MAX_OPTIONS = 10_000
_MAX_NAMES = 128
_MAX_PLATFORMS = 32
_MAX_LISTED = 128  # exports of a build, and cache exports, cache imports and entitlements
_MAX_PREFIX = 200  # characters
_MAX_ANNOTATIONS = 1 << 20  # bytes of keys and values; a manifest has at most 4 MiB
_ANNOTATION = re.compile(
    r"annotation(?:-(?P<kind>[a-z-]+))?(?:\[(?P<platform>[A-Za-z0-9_/-]+)\])?\.(?P<key>\S+)",
    re.ASCII,
)
_ANNOTATION_KINDS = frozenset({"manifest", "manifest-descriptor", "index", "index-descriptor"})
_IMAGE_KINDS = frozenset({"moby", "image", "oci", "docker"})


class FrontendRequest(msgspec.Struct, frozen=True):
    """Request of a client to the frontend. ``upload`` is the path of an uploaded context, or ''."""

    options: BuildOptions
    upload: str = ""


def frontend_request(
    frontend: str,
    attributes: Mapping[str, str],
    inputs: Mapping[str, Definition],
    *,
    session: str,
    entitlements: Collection[str],
    exports: tuple[BuildExport, ...],
    cache_from: tuple[str, ...] = (),
    client_caches: tuple[ClientCache, ...] = (),
    cache_to: tuple[CacheExport, ...] = (),
    result: str,
) -> FrontendRequest:
    """Return the engine's options.

    :raises Unsupported: when the frontend or an option is not supported.
    :raises InvalidRequest: when a value is malformed.
    """
    if len(attributes) > _MAX_OPTIONS:
        raise InvalidRequest(f"more than {_MAX_OPTIONS} options of a build")
    check_number("entitlements", len(entitlements))
    check_frontend(frontend, attributes)
    platforms = _platforms(attributes)
    several = len(platforms) > 1 or is_true(attributes.get("multi-platform", ""))
    attestations = attestation_request(attributes)
    context = attributes.get(attributes.get("contextkey", "context"), "")
    if not context and "context" in inputs:
        context = remote_of(inputs["context"])
    dockerfile_key = attributes.get("dockerfilekey", "")
    upload = remote = ""
    if not context:
        local = LocalDirectories("context", dockerfile_key or "dockerfile")
    else:
        local = LocalDirectories("", dockerfile_key)
        remote = context
        if context.startswith(_UPLOAD):
            upload, remote = context[len(_UPLOAD) - 1 :], _FROM_BODY
        elif context.startswith("input:"):
            raise Unsupported("a context that is the result of another build is not supported")
    no_cache = attributes.get("no-cache")
    options = BuildOptions(
        dockerfile=attributes.get("filename", ""),
        remote=remote,
        target=attributes.get("target", ""),
        platform=platforms[0] if len(platforms) == 1 else "",
        platforms=(platforms or (format_platform(host()),)) if several else (),
        provenance=attestations.provenance,
        sbom=attestations.sbom,
        arguments=recorded_arguments(attributes),
        build_args={
            name: value
            for name, value in _prefixed(attributes, "build-arg:").items()
            if name != "BUILDKIT_SYNTAX"
        },
        labels=_prefixed(attributes, "label:"),
        cache_from=cache_from,
        client_caches=client_caches,
        cache_to=cache_to,
        no_cache=no_cache == "",
        no_cache_stages=tuple(no_cache.split(",")) if no_cache else (),
        pull=attributes.get("image-resolve-mode") == "pull",
        steps=True,
        host=_host(attributes),
        session=session,
        allow=tuple(entitlements),
        contexts=_contexts(attributes, inputs),
        local=local,
        exports=exports,
        result=result,
        subrequest=attributes.get("requestid", "").removeprefix("frontend."),
    )
    return FrontendRequest(options, upload)


def check_frontend(frontend: str, attributes: Mapping[str, str]) -> None:
    """Check that a request is for the frontend that is built in.

    :raises Unsupported: when it is for another one, which is named.
    """
    image = attributes.get("build-arg:BUILDKIT_SYNTAX", "").partition(" ")[0]
    if frontend == _GATEWAY:
        image = attributes.get("source", "")
        if not image:
            frontend = f"{_GATEWAY} without an image"
    if (image and not is_builtin_frontend(image)) or frontend not in (FRONTEND, _GATEWAY):
        raise Unsupported(
            f"the frontend {(image or frontend)[:128]!r} is not supported",
            hint="only dockerfile.v0, which is built in; no image is run as a frontend",
        )


def _platforms(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the platforms of a build, each once, in Docker's notation; none without a request."""
    texts = [text for text in attributes.get("platform", "").split(",") if text]
    if len(texts) > _MAX_PLATFORMS:
        raise InvalidRequest(f"{len(texts)} platforms exceed the limit of {_MAX_PLATFORMS}")
    parsed = (parse_platform(text) or host() for text in texts)
    return tuple(dict.fromkeys(format_platform(normalize(platform)) for platform in parsed))


def _prefixed(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name[len(prefix) :]: value for name, value in attributes.items() if name.startswith(prefix)
    }


def _contexts(attributes: Mapping[str, str], inputs: Mapping[str, Definition]) -> dict[str, str]:
    contexts = {}
    for name, value in _prefixed(attributes, "context:").items():
        kind, _, rest = value.partition(":")
        if kind == "input":
            result = result_of(inputs.get(rest))
            value = f"result:{result}" if result else remote_of(inputs.get(rest))
        elif kind == "oci-layout":
            value = f"layout:{_layout(name, rest)}"
        contexts[name] = value
    return contexts


def _layout(name: str, address: str) -> str:
    """Return ``STORE@DIGEST`` for ``//ID:TAG@DIGEST``: the client has the store ``oci:ID``.

    :raises InvalidRequest: when the address has another form.
    """
    found = re.fullmatch(r"//([^:@]+)(?::[^@]*)?@(sha256:[0-9a-f]{64})", address, re.ASCII)
    if found is None:
        raise InvalidRequest(
            f"the context {name[:64]!r} is not a valid OCI layout: {address[:128]!r}",
            hint="must be oci-layout://ID:TAG@DIGEST",
        )
    return f"oci:{found[1]}@{found[2]}"


def _host(attributes: Mapping[str, str]) -> HostConfig:
    def number(name: str) -> int:
        return _number(name, attributes.get(name) or "0")

    network = attributes.get("force-network-mode", "")
    if network not in ("", "host", "none", "sandbox"):
        raise InvalidRequest(f"invalid network mode {network[:64]!r}")
    return HostConfig(
        network_mode="" if network == "sandbox" else network,
        cpuset_cpus=attributes.get("cpusetcpus", ""),
        cpuset_mems=attributes.get("cpusetmems", ""),
        cgroup_parent=attributes.get("cgroup-parent", ""),
        extra_hosts=tuple(_extra_hosts(attributes.get("add-hosts", ""))),
        ulimits=tuple(_ulimits(attributes.get("ulimit", ""))),
        shm_size=number("shm-size"),
        memory=number("memory"),
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"),
    )


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"the option {name} is not a number: {text[:32]!r}") from None


def _fields(text: str) -> list[str]:
    """Return the fields of a line of CSV, as Go writes them."""
    if text.count(",") >= _MAX_OPTIONS:
        raise InvalidRequest(f"an option has more than {_MAX_OPTIONS} values")
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise InvalidRequest(f"an option is not valid: {error}") from None


def _extra_hosts(text: str) -> Iterable[str]:
    for field in _fields(text):
        host, equals, address = field.partition("=")
        if not equals:
            raise InvalidRequest(f"invalid host {field[:64]!r}: must be NAME=ADDRESS")
        yield f"{host}:{address}"


def _ulimits(text: str) -> Iterable[Ulimit]:
    for field in _fields(text):
        name, _, limits = field.partition("=")
        soft, _, hard = limits.partition(":")
        yield Ulimit(name=name, soft=_number("ulimit", soft), hard=_number("ulimit", hard or soft))


# -- exports and cache imports ---------------------------------------------------------------------


def build_export(number: int, kind: str, attributes: Mapping[str, str]) -> BuildExport:
    """Return one output of a build. Attributes that BuildKit does not know are ignored, as there.

    :raises InvalidRequest: when a name or a value is not valid.
    :raises Unsupported: when a value is valid but not supported.
    """
    names = tuple(name for name in attributes.get("name", "").split(",") if name)
    if len(names) > _MAX_NAMES:
        raise InvalidRequest(f"{len(names)} names exceed the limit of {_MAX_NAMES}")
    for name in names:
        if parse(name).digest is not None:
            raise InvalidRequest(f"{name!r} has a digest; an image is tagged with a name and a tag")
    split, prefix = attributes.get("platform-split", ""), attributes.get("attestation-prefix", "")
    if split and split not in TRUE | FALSE:
        raise InvalidRequest(f"non-bool value for platform-split: {split[:64]!r}")
    if "/" in prefix or "\0" in prefix or len(prefix) > _MAX_PREFIX:
        raise InvalidRequest(f"the attestation-prefix {prefix[:64]!r} is not the start of a name")
    if kind not in _IMAGE_KINDS:
        _check_mode(attributes.get("mode", ""))
        return BuildExport(
            kind=kind,
            id=number,
            names=names,
            split=is_true(split) if split else None,
            attestation_prefix=prefix,
        )
    compression = _compression(attributes)
    export = BuildExport(
        kind="image" if kind == "moby" else kind,
        id=number,
        names=names,
        push=kind in ("moby", "image") and _flag(attributes, "push", default=False),
        artifact=_flag(attributes, "oci-artifact", default=True),
        annotations=_annotations(attributes),
        compression=compression,
        oci_types=_flag(attributes, "oci-mediatypes", default=True),
        tar=_flag(attributes, "tar", default=True),
    )
    if export.oci_types:
        return export
    if compression is not None and compression.kind not in ("gzip", "uncompressed"):
        raise Unsupported(
            f'exporter option "compression={compression.kind}" conflicts with '
            '"oci-mediatypes=false"',
            hint="must be gzip or uncompressed",
        )
    if is_true(attributes.get("oci-artifact", "")):
        raise InvalidRequest(
            'exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false"'
        )
    return export


def _flag(attributes: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return a Boolean attribute. One without a value is true.

    :raises InvalidRequest: when the value is not one of Go's words.
    """
    text = attributes.get(name)
    if text is None:
        return default
    if text and text not in TRUE | FALSE:
        raise InvalidRequest(f"non-bool value specified for {name}: {text[:64]!r}")
    return not text or is_true(text)


def _check_mode(text: str) -> None:
    """Check the attribute ``mode`` of an output of files."""
    mode = text.strip().lower()
    if mode == "delete":
        raise Unsupported(
            "mode=delete of an output is not supported",
            hint="remove the directory before the build",
        )
    if mode not in ("", "copy"):
        raise InvalidRequest(f"invalid local exporter mode {text[:64]!r}", hint="must be copy")


def _compression(attributes: Mapping[str, str]) -> LayerCompression | None:
    """Return the compression of an output, None if no attribute is about it.

    :raises InvalidRequest: when a value is not valid.
    """
    kind, level = attributes.get("compression"), attributes.get("compression-level")
    force = _flag(attributes, "force-compression", default=False)
    if kind is None and level is None and not force:
        return None
    return parse_compression("gzip" if kind is None else kind, level, force=force)


def _annotations(attributes: Mapping[str, str]) -> tuple[Annotation, ...]:
    """Return the annotations of an output, sorted.

    :raises InvalidRequest: when a type or a platform is not valid, or they are too long.
    """
    annotations = []
    size = 0
    for name, value in attributes.items():
        if (found := _ANNOTATION.fullmatch(name)) is None:
            continue  # as BuildKit: not an annotation
        kind = found["kind"] or "manifest"
        if kind not in _ANNOTATION_KINDS:
            raise InvalidRequest(
                f"unrecognized annotation type {kind[:64]}",
                hint=f"must be one of {', '.join(sorted(_ANNOTATION_KINDS))}",
            )
        platform = ""
        if found["platform"] and (parsed := parse_platform(found["platform"])):
            platform = format_platform(normalize(parsed))
        size += len(found["key"].encode()) + len(value.encode())
        annotations.append(Annotation(kind, found["key"], value, platform))
    if size > _MAX_ANNOTATIONS:
        raise InvalidRequest(f"{size} bytes of annotations exceed the limit of {_MAX_ANNOTATIONS}")
    return tuple(sorted(annotations, key=lambda a: (a.kind, a.platform, a.key)))


def check_number(what: str, number: int) -> None:
    """Check that a list of a request is not longer than a build needs.

    :raises InvalidRequest: when it is.
    """
    if number > _MAX_LISTED:
        raise InvalidRequest(f"{number} {what} exceed the limit of {_MAX_LISTED}")


def cache_exports(entries: Collection[CacheOptionsEntry]) -> tuple[CacheExport, ...]:
    """Return the cache exports of a request. An image has the keys of its steps in any case.

    :raises Unsupported: when a kind of export is not supported.
    :raises InvalidRequest: when a name is missing or not valid, or there are too many.
    """
    check_number("cache exports", len(entries))
    exports = []
    for entry in entries:
        name = store = ""
        match entry.Type:
            case "inline":
                continue
            case "registry":
                name = str(parse(entry.Attrs.get("ref", "")))
            case "local":
                store = _client_store(entry.Attrs.get("dest", ""), "--cache-to type=local", "dest")
            case _:
                raise Unsupported(
                    f"--cache-to type={entry.Type[:32]} is not supported",
                    hint="must be registry, local or inline",
                )
        exports.append(
            CacheExport(
                name=name,
                store=store,
                all_stages=entry.Attrs.get("mode", "") == "max",
                ignore_error=is_true(entry.Attrs.get("ignore-error", "")),
            )
        )
    return tuple(exports)


class CacheImports(msgspec.Struct, frozen=True):
    """The caches that a build may use: names of images, and caches in the client's directories."""

    images: tuple[str, ...]
    client: tuple[ClientCache, ...]


def cache_imports(
    entries: Collection[CacheOptionsEntry], attributes: Mapping[str, str]
) -> CacheImports:
    """Return the cache imports of a request. Clients send them in one of three places.

    :raises Unsupported: when a kind of import is not supported.
    :raises InvalidRequest: when a value is missing or malformed, or there are too many.
    """
    names = attributes.get("cache-from", "")
    check_number("cache imports", max(len(entries), names.count(",") + 1))
    listed = [(entry.Type, dict(entry.Attrs)) for entry in entries]
    if text := attributes.get("cache-imports", ""):
        try:
            decoded = msgspec.json.decode(text, type=list[_CacheImport])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidRequest(f"cache-imports is not valid: {error}") from None
        check_number("cache imports", len(decoded))
        listed += [(entry.type, entry.attributes) for entry in decoded]
    listed += [("registry", {"ref": ref}) for ref in names.split(",")]
    images, client = dict[str, None](), dict[ClientCache, None]()
    for kind, values in listed:
        match kind:
            case "registry":
                images[values.get("ref", "")] = None
            case "local":
                store = _client_store(values.get("src", ""), "--cache-from type=local", "src")
                client[ClientCache(store, values.get("digest", ""))] = None
            case _:
                raise Unsupported(
                    f"--cache-from type={kind[:32]} is not supported",
                    hint="must be registry or local",
                )
    return CacheImports(tuple(name for name in images if name), tuple(client))


class _CacheImport(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="Type", default="")
    attributes: dict[str, str] = msgspec.field(name="Attrs", default={})


def _client_store(directory: str, option: str, attribute: str) -> str:
    """Return the name of the content store that a client serves for a directory. Pure."""
    if not directory:
        raise InvalidRequest(f"{option} requires {attribute}")
    return f"local:{directory}"


def is_true(text: str) -> bool:
    """Return whether a text is one of Go's words for true. Pure."""
    return text in TRUE
