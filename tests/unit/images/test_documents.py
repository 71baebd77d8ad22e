"""Image documents, changes to a configuration, and the small decisions beside them."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, NotFound
from jaula.images.bootstrap.debian import host_release, release_time
from jaula.images.build.dockerfile.apply import apply
from jaula.images.platform import select
from jaula.images.store.store import check_document
from jaula.spec.image import (
    DOCUMENT_LIMIT,
    MANIFEST,
    Descriptor,
    ImageConfig,
    ImageDocument,
    Manifest,
    Platform,
    decode,
)

DIGEST = "sha256:" + "0f" * 32


def test_null_means_absent() -> None:
    text = b'{"os":"linux","config":{"Cmd":null,"Env":["A=b"],"Labels":null},"history":null}'
    document = decode(text, ImageDocument, "it")
    assert document.config == ImageConfig(env=("A=b",))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"config":[]}',
        b'{"rootfs":{"diff_ids":["sha256:../../etc/passwd"]}}',
        b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'\\n"]}}',
        b'{"config":{"Env":"A=b"}}',
        b"[" * 100_000,
        b'{"a":"\xff"}',
        b" " * (DOCUMENT_LIMIT + 1),
    ],
)
def test_a_malformed_document_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(text, ImageDocument, "it")


@pytest.mark.parametrize("size", [-1, 2**63])
def test_a_descriptor_of_an_impossible_size_is_refused(size: int) -> None:
    text = b'{"config":{"mediaType":"x","digest":"%s","size":%d},"layers":[]}'
    with pytest.raises(InvalidRequest):
        decode(text % (DIGEST.encode(), size), Manifest, "it")


def test_an_image_for_another_system_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="windows"):
        check_document(b'{"os":"windows"}', DIGEST)


def test_changes_are_applied_in_order() -> None:
    config = apply(
        ImageConfig(env=("PATH=/bin", "A=1")),
        [
            'CMD ["a","b c"]',
            "entrypoint echo hi",
            "ENV A=2 B='x y'",
            "ENV C one two",
            "EXPOSE 80 90-91/UDP",
            "LABEL k=v",
            "STOPSIGNAL SIGINT",
            "USER nobody",
            'VOLUME ["/data"]',
            "WORKDIR /srv",
            "WORKDIR sub",
        ],
    )
    assert config == ImageConfig(
        cmd=("a", "b c"),
        entrypoint=("/bin/sh", "-c", "echo hi"),
        env=("PATH=/bin", "A=2", "B=x y", "C=one two"),
        exposed_ports={"80/tcp": {}, "90/udp": {}, "91/udp": {}},
        labels={"k": "v"},
        stop_signal="SIGINT",
        user="nobody",
        volumes={"/data": {}},
        working_dir="/srv/sub",
    )


@pytest.mark.parametrize(
    "line",
    ["", "RUN x", "ENV", "ENV A", "ENV 'a", "LABEL a=b c", "EXPOSE 0", "EXPOSE 9-1", "USER a\nb"],
)
def test_an_invalid_change_is_refused(line: str) -> None:
    with pytest.raises(InvalidRequest):
        apply(ImageConfig(), [line])


def descriptor(architecture: str) -> Descriptor:
    return Descriptor(MANIFEST, DIGEST, 1, platform=Platform(architecture, "linux"))


def test_the_manifest_of_the_platform_is_chosen() -> None:
    there = [descriptor("s390x"), descriptor("arm64"), descriptor("amd64")]
    assert select(there, Platform("arm64", "linux")) is there[1]
    assert select([there[0], Descriptor(MANIFEST, DIGEST, 1)], Platform("arm64", "linux")).digest
    with pytest.raises(NotFound, match="linux/s390x"):
        select(there[:1], Platform("arm64", "linux"))


def test_the_host_is_read_from_its_release_file() -> None:
    text = '# c\nID=ubuntu\nVERSION_CODENAME="noble"\nNAME="x"\n'
    assert host_release(text) == ("ubuntu", "noble")
    assert host_release("") == ("", "")


def test_the_time_of_a_suite_is_its_release_files() -> None:
    assert release_time("Origin: x\nDate: Sat, 06 Sep 2025 10:00:00 UTC\n") == 1757152800
    assert release_time("Date: yesterday\n") is None
    assert release_time("") is None
