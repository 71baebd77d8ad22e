"""From the options of BuildKit's frontend to those of a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.features.build.build_options import (
    Annotation,
    BuildExport,
    BuildOptions,
    CacheExport,
    ClientCache,
    LocalDirectories,
)
from jaula.features.build.buildkit.buildkit_server import _exports
from jaula.features.build.buildkit.definition import RESULT, result_of
from jaula.features.build.buildkit.frontend_options import (
    build_export,
    cache_exports,
    cache_imports,
    check_frontend,
    frontend_request,
)
from jaula.features.build.buildkit.proto.control_pb2 import Exporter, SolveRequest
from jaula.features.build.buildkit.proto.ops_pb2 import Definition, Op, SourceOp
from jaula.features.build.buildkit.proto.types_pb2 import CacheOptionsEntry
from jaula.spec.api_documents import Ulimit
from jaula.spec.layer_compression import LayerCompression

REF = {"Type": "registry", "Attrs": {"ref": "a"}}


def request(attributes: dict[str, str], **more: Any) -> BuildOptions:
    arguments: dict[str, Any] = {
        "session": "s",
        "entitlements": (),
        "exports": (),
        "cache_from": (),
        "result": "r",
    }
    made = frontend_request("dockerfile.v0", attributes, more.pop("inputs", {}), **arguments | more)
    return made.options


def test_the_options_of_a_plain_build() -> None:
    made = request(
        {
            "filename": "Dockerfile",
            "target": "t",
            "platform": "linux/AMD64",
            "build-arg:A": "b",
            "label:l": "x",
            "image-resolve-mode": "pull",
            "no-cache": "one,two",
            "add-hosts": "a=1.2.3.4,b=::1",
            "ulimit": "nofile=1:2,core=0:0",
            "shm-size": "64",
            "force-network-mode": "none",
            "frontend.caps": "unknown",
        }
    )
    assert made.local == LocalDirectories("context", "dockerfile")
    assert (made.dockerfile, made.target, made.platform) == ("Dockerfile", "t", "linux/amd64")
    assert made.build_args == {"A": "b"} and made.labels == {"l": "x"}
    assert made.pull and not made.no_cache and made.no_cache_stages == ("one", "two")
    assert made.host.extra_hosts == ("a:1.2.3.4", "b:::1")
    assert made.host.ulimits == (
        Ulimit(name="nofile", soft=1, hard=2),
        Ulimit(name="core", soft=0, hard=0),
    )
    assert (made.host.shm_size, made.host.network_mode) == (64, "none")
    assert request({"no-cache": ""}).no_cache


def test_where_the_context_comes_from() -> None:
    url = "https://example.org/x.git#main"
    made = request({"context": url})
    assert (made.remote, made.local) == (url, LocalDirectories("", ""))
    made = request({"context": url, "dockerfilekey": "dockerfile"})
    assert made.local == LocalDirectories("", "dockerfile")
    made = request({"context:n": "local:n", "context:i": "docker-image://x"})
    assert made.contexts == {"n": "local:n", "i": "docker-image://x"}
    upload = frontend_request(
        "dockerfile.v0",
        {"context": "http://buildkit-session/abc"},
        {},
        session="s",
        entitlements=(),
        exports=(),
        cache_from=(),
        result="r",
    )
    assert upload.upload == "/abc" and upload.options.remote == "client-session"


def test_an_oci_layout_is_a_context_in_a_store_of_the_client() -> None:
    digest = "sha256:" + "0" * 64
    made = request({"context:a": f"oci-layout://id:tag@{digest}"})
    assert made.contexts == {"a": f"layout:oci:id@{digest}"}


def test_the_result_of_another_target_is_a_context() -> None:
    source = Op(source=SourceOp(identifier=RESULT + "id")).SerializeToString()
    definition = Definition(ops=[source, Op().SerializeToString()])
    made = request({"context:base": "input:k"}, inputs={"k": definition})
    assert made.contexts == {"base": "result:id"}
    with pytest.raises(Unsupported, match="LLB"):
        request({"context:base": "input:other"}, inputs={"k": definition})
    image = Op(source=SourceOp(identifier="docker-image://x")).SerializeToString()
    assert result_of(Definition(ops=[image])) == ""
    assert result_of(Definition(ops=[b"\xff\xff garbage"])) == ""


@pytest.mark.parametrize(
    "attributes",
    [
        {"add-hosts": "nothing"},
        {"ulimit": "nofile=x:y"},
        {"ulimit": "nofile"},
        {"shm-size": "1g"},
        {"force-network-mode": "mine"},
        {"context:x": "oci-layout://store@sha256:0"},
        {"context:x": "oci-layout://store:latest"},
        {"context:x": "oci-layout://a@b@sha256:" + "0" * 64},
        {"context:x": "oci-layout:store@sha256:" + "0" * 64},
        {"context": "input:x"},
        {"source": "x/y", "build-arg:BUILDKIT_SYNTAX": "x/y"},
        {str(n): "" for n in range(20_000)},
    ],
)
def test_what_is_not_supported_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(JaulaError):
        request(attributes)


def test_caches_are_in_registries_and_in_directories_of_the_client() -> None:
    local = CacheOptionsEntry(Type="local", Attrs={"src": "/c", "digest": "sha256:1"})
    text = '[{"Type":"registry","Attrs":{"ref":"b"}},{"Type":"local","Attrs":{"src":"d"}}]'
    imports = cache_imports([local], {"cache-from": "a,b,,a", "cache-imports": text})
    assert imports.images == ("b", "a")
    assert imports.client == (ClientCache("local:/c", "sha256:1"), ClientCache("local:d", ""))
    exports = cache_exports(
        [
            CacheOptionsEntry(Type="inline"),
            CacheOptionsEntry(Type="local", Attrs={"dest": "/c", "mode": "max"}),
            CacheOptionsEntry(Type="registry", Attrs={"ref": "a", "ignore-error": "true"}),
        ]
    )
    assert exports == (
        CacheExport(store="local:/c", all_stages=True),
        CacheExport(name="a:latest", ignore_error=True),
    )


@pytest.mark.parametrize(
    ("kind", "attributes"), [("local", {}), ("local", {"dest": ""}), ("s3", {}), ("registry", {})]
)
def test_a_cache_without_a_place_is_refused(kind: str, attributes: dict[str, str]) -> None:
    with pytest.raises(JaulaError):
        cache_exports([CacheOptionsEntry(Type=kind, Attrs=attributes)])


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '[{"Type":"gha"}]', '[{"Type":"local"}]', '[{"Type":1}]', "[" * 100_000, "\ud800"],
)
def test_a_malformed_cache_import_is_refused(text: str) -> None:
    with pytest.raises(JaulaError):
        cache_imports([], {"cache-imports": text})


@pytest.mark.parametrize(
    "convert",
    [
        lambda n: request({}, entitlements=["network.host"] * n),
        lambda n: cache_exports([CacheOptionsEntry(Type="inline")] * n),
        lambda n: cache_imports([CacheOptionsEntry(Type="registry")] * n, {}),
        lambda n: cache_imports([], {"cache-from": ",".join(["a"] * n)}),
        lambda n: cache_imports([], {"cache-imports": msgspec.json.encode([REF] * n).decode()}),
        lambda n: _exports(SolveRequest(Exporters=[Exporter(Type="cacheonly")] * n)),
    ],
)
def test_a_list_of_a_request_is_bounded(convert: Callable[[int], object]) -> None:
    convert(128)
    with pytest.raises(InvalidRequest, match=r"129 .* exceed the limit of 128"):
        convert(129)


@pytest.mark.parametrize(("name", "value"), [("add-hosts", "a=::1"), ("ulimit", "core=0:0")])
def test_the_values_of_an_option_are_bounded(name: str, value: str) -> None:
    request({name: ",".join([value] * 10_000)})
    with pytest.raises(InvalidRequest, match="an option has more than 10000 values"):
        request({name: ",".join([value] * 10_001)})


def test_only_the_own_frontend_is_accepted() -> None:
    check_frontend("dockerfile.v0", {})
    check_frontend("gateway.v0", {"source": "docker/dockerfile:1.9"})
    check_frontend("gateway.v0", {"source": "docker.io/docker/dockerfile"})
    check_frontend("dockerfile.v0", {"build-arg:BUILDKIT_SYNTAX": "docker/dockerfile:1 x"})
    for frontend, source in (
        ("gateway.v0", "evil/frontend:1"),
        ("gateway.v0", "docker/dockerfile.evil.org/x"),
        ("gateway.v0", ""),
        ("other.v0", ""),
    ):
        with pytest.raises(Unsupported):
            check_frontend(frontend, {"source": source})


def test_outputs() -> None:
    made = build_export(2, "moby", {"name": "a:1,b", "push": "true"})
    assert made == BuildExport(kind="image", id=2, names=("a:1", "b"), push=True)
    assert build_export(0, "image", {"name": "a", "push": "1"}).push
    with pytest.raises(InvalidRequest):
        build_export(0, "image", {"name": "a@sha256:" + "0" * 64})
    with pytest.raises(InvalidRequest):
        build_export(0, "image", {"name": "A B"})


def test_several_platforms_make_an_index() -> None:
    made = request({"platform": "linux/amd64,linux/arm64/v8,arm,linux/amd64"})
    assert made.platforms == ("linux/amd64", "linux/arm64", "linux/arm/v7")
    assert made.platform == ""
    made = request({"platform": "linux/arm64", "multi-platform": "true"})
    assert (made.platform, made.platforms) == ("linux/arm64", ("linux/arm64",))
    assert len(request({"multi-platform": "1"}).platforms) == 1
    assert request({"platform": "linux/arm64"}).platforms == ()


@pytest.mark.parametrize(
    "text", ["linux/$x", "a/b/c/d", ",".join(f"linux/a{n}" for n in range(33)), "linux/" + "a" * 99]
)
def test_platforms_that_are_not_valid_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        request({"platform": text})


def test_attestations_are_part_of_the_request() -> None:
    made = request(
        {"attest:sbom": "", "attest:provenance": "mode=min", "build-arg:A": "b", "platform": "arm"}
    )
    assert made.sbom and made.provenance is not None and not made.provenance.detailed
    assert made.arguments == {"build-arg:A": "b"}


def test_the_attributes_of_an_output() -> None:
    made = build_export(
        0, "local", {"platform-split": "false", "attestation-prefix": "x-", "mode": " Copy"}
    )
    assert (made.split, made.attestation_prefix) == (False, "x-")
    assert not build_export(0, "oci", {"oci-artifact": "0"}).artifact
    assert build_export(0, "moby", {"push": "true"}) == BuildExport(kind="image", push=True)
    for attributes in ({"platform-split": "x"}, {"attestation-prefix": "../x"}):
        with pytest.raises(InvalidRequest):
            build_export(0, "local", attributes)


def test_the_annotations_of_an_output() -> None:
    made = build_export(
        0,
        "oci",
        {
            "annotation.a": "1",
            "annotation-manifest[linux/arm64/v8].b.c": "x=y",
            "annotation-manifest-descriptor[linux/x86_64].d": "",
            "annotation-index.e": "5",
            "annotation-index-descriptor.f": "6",
            "annotation[].g": "not an annotation",
            "annotation.": "nor this",
            "annotation.h i": "nor this",
            "annotation[linux$].j": "nor this",
        },
    )
    assert made.annotations == (
        Annotation("index", "e", "5"),
        Annotation("index-descriptor", "f", "6"),
        Annotation("manifest", "a", "1"),
        Annotation("manifest", "b.c", "x=y", "linux/arm64"),
        Annotation("manifest-descriptor", "d", "", "linux/amd64"),
    )
    assert build_export(0, "local", {"annotation-index.a": "b"}).annotations == ()


def test_the_compression_of_an_output() -> None:
    assert build_export(0, "image", {}).compression is None
    assert build_export(0, "image", {"force-compression": "false"}).compression is None
    made = build_export(0, "oci", {"compression-level": "-1", "force-compression": ""})
    assert made.compression == LayerCompression("gzip", -1, force=True)
    made = build_export(0, "oci", {"compression": "zstd", "compression-level": "999"})
    assert made.compression == LayerCompression("zstd", 999)
    made = build_export(0, "image", {"compression": "zstd:chunked", "force-compression": "1"})
    assert made.compression == LayerCompression("zstd:chunked", None, force=True)
    assert build_export(0, "oci", {"compression": "estargz"}).compression == LayerCompression(
        "estargz"
    )
    made = build_export(0, "docker", {"tar": "false", "oci-mediatypes": "0"})
    assert (made.tar, made.oci_types) == (False, False)
    assert build_export(0, "oci", {"tar": "", "unknown": "x"}) == BuildExport(kind="oci")
    assert build_export(0, "image", {"push": ""}).push


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("image", {"compression": ""}),
        ("image", {"compression": "GZIP"}),
        ("image", {"compression": "estargz", "compression-level": "10"}),
        ("image", {"compression": "estargz", "oci-mediatypes": "false"}),
        ("image", {"compression": "zstd:chunked", "oci-mediatypes": "false"}),
        ("image", {"compression-level": ""}),
        ("image", {"compression-level": "1.5"}),
        ("image", {"compression-level": "9" * 5000}),
        ("image", {"compression-level": "١"}),
        ("image", {"compression-level": "10"}),
        ("image", {"compression": "zstd", "oci-mediatypes": "false"}),
        ("image", {"oci-artifact": "true", "oci-mediatypes": "false"}),
        ("image", {"push": "yes"}),
        ("oci", {"tar": "no"}),
        ("oci", {"force-compression": "2"}),
        ("oci", {"annotation-.a": "b", "annotation-x.a": "b"}),
        ("oci", {"annotation[a/b/c/d].k": "v"}),
        ("oci", {"annotation.a": "x" * (1 << 20)}),
        ("local", {"mode": "delete"}),
        ("tar", {"mode": "Delete "}),
        ("local", {"mode": "move"}),
    ],
)
def test_attributes_without_effect_are_refused(kind: str, attributes: dict[str, str]) -> None:
    with pytest.raises((InvalidRequest, Unsupported)) as caught:
        build_export(0, kind, attributes)
    assert len(str(caught.value)) < 400
