"""Arbitrary bytes from a registry, a key file or a policy are parsed or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import JaulaError
from jaula.features.trust import (
    cosign_manifest,
    key_file,
    signature_policy,
    signing_keys,
    simple_signing,
)
from jaula.features.trust.signature import Signature, UnsignedImage, find

KEY = signing_keys.generate()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["layers", "config", "critical", "optional", "manifests", "digest", "kdf",
                         "annotations", "mediaType", "size", "x"]), inner),
)  # fmt: skip
DATA = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize(
    "read",
    [
        simple_signing.read,
        lambda data: cosign_manifest.read(data, "it"),
        lambda data: cosign_manifest.referrers(data, "it"),
        lambda data: cosign_manifest.config_with(Signature(b"", b""), data),
        lambda data: cosign_manifest.manifest_with(Signature(b"", b""), b"{}", data),
        lambda data: cosign_manifest.referrers_with(b"{}", data),
        lambda data: key_file.read(data, b"", "k"),
        lambda data: key_file.read(key_file._pem_armor(data), b"", "k"),
        lambda data: signing_keys.public_key(data, "k"),
        lambda data: signature_policy.parse_rules(data, lambda name: data),
    ],
)
@given(data=DATA)
def test_any_bytes_are_read_or_refused(read: Callable[[bytes], Any], data: bytes) -> None:
    try:
        read(data)
    except JaulaError:
        return


@given(st.binary(), st.binary())
def test_no_bytes_are_a_signature_by_chance(text: bytes, value: bytes) -> None:
    with pytest.raises(UnsignedImage):
        find([Signature(text, value)], [KEY.public], "sha256:" + "ab" * 32, "r.io/x", "1")


@given(st.text(), st.text(), st.text() | st.none())
def test_any_name_is_compared(name: str, repository: str, tag: str | None) -> None:
    claim = simple_signing.SimpleSigning("sha256:" + "ab" * 32, name)
    assert simple_signing.covers(claim, repository, tag) in (True, False)
