"""Arbitrary bytes: a reader returns packages or raises one of our errors."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.rpm_bdb import made
from jaula.errors import JaulaError
from jaula.features.trust.sbom import deb822, rpm, rpm_bdb, rpm_ndb, scan
from jaula.features.trust.sbom.package import System
from jaula.features.trust.sbom.sbom_rootfs import RootFiles

PLACES = (
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "a/x.dist-info/METADATA",
    "node_modules/x/package.json",
    "etc/os-release",
)
TEXTS = st.text().map(str.encode) | st.binary() | st.lists(
    st.sampled_from([b"Package: a\n", b"Version: 1\n", b"\n", b" x\n", b"P:a\n", b"V:1\n", b":\n",
                     b"Status: install ok installed\n", b"Name: b\n", b"ID=\"\n", b"\0", b"\xff"])
).map(b"".join)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@given(data=TEXTS)
@settings(max_examples=60)
def test_a_database_of_any_bytes(place: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / place
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            result = scan.scan(RootFiles(root))
        except JaulaError:
            return
        finally:
            os.close(root)
        for package in result.packages:
            assert package.purl(result.system).isascii()


@given(st.binary(max_size=400))
def test_a_header_of_any_bytes(data: bytes) -> None:
    try:
        rpm.read_header(data)
    except (IndexError, struct.error):
        return


@given(st.binary(max_size=64).map(lambda tail: b"RpmP\0\0\0\0" + tail + bytes(8192)))
def test_a_database_of_slots_of_any_bytes(data: bytes) -> None:
    try:
        list(rpm_ndb.blobs(data, "it"))
    except JaulaError:
        return


HASH_FILE = bytes(made([(struct.pack("<I", n), b"header" * n * n) for n in range(12)]))
CHANGES = st.tuples(
    st.integers(0, len(HASH_FILE) // 512 - 1),  # page
    st.integers(8, 40) | st.integers(0, 511),  # place in it
    st.binary(min_size=1, max_size=4)
    | st.integers(0, len(HASH_FILE) // 512).map(lambda n: struct.pack("<I", n)),
)


@given(st.lists(CHANGES, min_size=1, max_size=6), st.none() | st.integers(0, len(HASH_FILE)))
@settings(max_examples=400)
def test_a_hash_file_with_any_changes(
    changes: list[tuple[int, int, bytes]], cut: int | None
) -> None:
    data = bytearray(HASH_FILE)
    for page, place, change in changes:
        data[page * 512 + place : page * 512 + place + len(change)] = change
    try:
        result = list(rpm_bdb.blobs(bytes(data[:cut]), "it"))
    except JaulaError:
        return
    assert sum(map(len, result)) <= len(data)


@given(TEXTS)
def test_stanzas_of_any_bytes(data: bytes) -> None:
    for stanza in deb822.read(data):
        assert all(name == name.lower() for name in stanza)


@given(st.text(), st.text(), st.text())
def test_a_package_of_any_text_has_a_purl(name: str, version: str, id: str) -> None:
    from jaula.features.trust.sbom.package import Package, text

    for kind in ("deb", "npm", "pypi"):
        package = Package(kind=kind, name=text(name), version=text(version))
        assert package.purl(System(text(id))).startswith(f"pkg:{kind}/")
