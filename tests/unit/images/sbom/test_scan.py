"""Read the databases of package managers, intact and hostile ones."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rpm_bdb import header, made, written
from jaula.errors import InvalidRequest
from jaula.features.trust.sbom import rpm, sbom_rootfs, scan
from jaula.features.trust.sbom.package import Inventory, Package, System

DPKG = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.41-12)
Version: 2.41-12+deb13u1
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Homepage: https://www.gnu.org/software/libc/libc.html
Description: GNU C Library
 with a second line
 Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok unpacked
Version: 1

Package: no-version
Status: install ok installed
"""
APK = b"""C:Q1abc=
P:musl
V:1.2.5-r9
A:x86_64
L:MIT
o:musl
U:https://musl.libc.org/
m:Somebody <a@b.c>
F:lib
R:ld-musl-x86_64.so.1

P:busybox
V:1.37.0-r12
A:x86_64
L:GPL-2.0-only

V:1
"""
DIST_INFO = b"""Metadata-Version: 2.4
Name: Flask.Thing
Version: 3.1
License-Expression: BSD-3-Clause
Author-email: A <a@b.c>

Name: not-this
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def put(root: Path, path: str, data: bytes = b"") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def take(root: Path) -> Inventory:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return scan.scan(sbom_rootfs.RootFiles(fd))
    finally:
        os.close(fd)


def names(root: Path) -> list[str]:
    return [f"{p.kind}:{p.name}={p.version}" for p in take(root).packages]


def test_an_image_without_packages_has_none(root: Path) -> None:
    root.mkdir()
    assert take(root) == Inventory(System(), ())


def test_installed_packages_of_dpkg_are_found(root: Path) -> None:
    put(root, "var/lib/dpkg/status", DPKG)
    put(root, "usr/lib/os-release", b'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian 13"\n')
    (root / "etc").mkdir()
    (root / "etc/os-release").symlink_to("/usr/lib/os-release")
    result = take(root)
    assert result.system == System("debian", "13", "Debian 13")
    [libc] = result.packages
    assert libc == Package(
        kind="deb",
        name="libc6",
        version="2.41-12+deb13u1",
        architecture="amd64",
        source="glibc",
        source_version="2.41-12",
        supplier="GNU Libc Maintainers <debian-glibc@lists.debian.org>",
        homepage="https://www.gnu.org/software/libc/libc.html",
        path="var/lib/dpkg/status",
    )
    assert libc.purl(result.system) == (
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=debian-13"
    )


def test_packages_of_images_without_dpkg_itself_are_found(root: Path) -> None:
    put(root, "var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 13\n")
    put(root, "var/lib/dpkg/status.d/base.md5sums", b"Package: x\nVersion: 1\n")
    assert names(root) == ["deb:base-files=13"]


def test_packages_of_apk_are_found_once(root: Path) -> None:
    put(root, "lib/apk/db/installed", APK)
    (root / "usr").mkdir()
    (root / "usr/lib").symlink_to("../lib")
    assert names(root) == ["apk:busybox=1.37.0-r12", "apk:musl=1.2.5-r9"]
    assert take(root).packages[1].licence == "MIT"


def test_packages_of_languages_are_found_in_any_directory(root: Path) -> None:
    put(root, "opt/v/lib/python3.13/site-packages/flask_thing-3.1.dist-info/METADATA", DIST_INFO)
    put(root, "usr/lib/python3/dist-packages/old-1.egg-info", b"Name: old\nVersion: 1\n")
    put(root, "usr/lib/python3/dist-packages/e-2.egg-info/PKG-INFO", b"Name: e\nVersion: 2\n")
    put(root, "app/node_modules/a/package.json", b'{"name": "a", "version": "1", "license": "MIT"}')
    put(
        root,
        "app/node_modules/a/node_modules/@s/b/package.json",
        b'{"name": "@s/b", "version": "2", "license": {"type": "ISC"}}',
    )
    put(root, "app/package.json", b'{"name": "the-app", "version": "9"}')
    put(root, "app/node_modules/a/test/package.json", b'{"name": "t", "version": "1"}')
    put(root, "app/node_modules/broken/package.json", b"{" * 100_000)
    put(root, "app/node_modules/strange/package.json", b'{"name": 1, "version": []}')
    assert names(root) == [
        "npm:@s/b=2",
        "npm:a=1",
        "pypi:Flask.Thing=3.1",
        "pypi:e=2",
        "pypi:old=1",
    ]
    by_name = {p.name: p for p in take(root).packages}
    assert by_name["Flask.Thing"].purl(System()) == "pkg:pypi/flask-thing@3.1"
    assert by_name["@s/b"].purl(System()) == "pkg:npm/%40s/b@2"
    assert by_name["@s/b"].licence == "ISC"


# -- rpm ---------------------------------------------------------------------------------------


HELLO = header(name="hello", version="1.2", release="3", epoch=2, licence="MIT", arch="noarch")
PUBKEY = header(name="gpg-pubkey", version="abc", release="1")


def rpmdb(root: Path, *blobs: bytes, statement: str = "", journal: str = "DELETE") -> Path:
    path = root / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode={journal}")
    database.execute(
        statement or "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)"
    )
    for blob in blobs:
        database.execute("INSERT INTO Packages (blob) VALUES (?)", (blob,))
    database.commit()
    database.close()
    return path


def test_packages_of_rpm_are_found_and_its_keys_are_skipped(root: Path) -> None:
    rpmdb(root, HELLO, PUBKEY)
    [result] = take(root).packages
    assert (result.name, result.version, result.licence) == ("hello", "1.2-3", "MIT")
    fedora = System("fedora", "42")
    assert result.purl(fedora) == (
        "pkg:rpm/fedora/hello@1.2-3?arch=noarch&distro=fedora-42&epoch=2"
    )


def test_changes_in_the_write_ahead_log_are_read(root: Path) -> None:
    path = rpmdb(root, HELLO, journal="WAL")
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("INSERT INTO Packages (blob) VALUES (?)", (header(name="new", version="1"),))
    writer.commit()
    assert path.with_name("rpmdb.sqlite-wal").stat().st_size
    before = path.read_bytes()
    assert names(root) == ["rpm:hello=1.2-3", "rpm:new=1"]
    assert path.read_bytes() == before
    writer.close()


def ndb(*blobs: bytes, **damage: bytes) -> bytes:
    """Return a database of the kind ndb with one page of slots."""
    slots = [struct.pack("<4sIII", b"Slot", 0, 0, 0)] * 254
    data, offset = b"", 256
    for number, blob in enumerate(blobs, 1):
        whole = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob + b"\0" * 12
        whole += b"\0" * (-len(whole) % 16)
        slots[number * 2] = struct.pack("<4sIII", b"Slot", number, offset, len(whole) // 16)
        data, offset = data + whole, offset + len(whole) // 16
    head = damage.get("head", struct.pack("<4sIIIIIII", b"RpmP", 0, 2, 1, 2, 0, 0, 0))
    return head + b"".join(slots) + data


def test_packages_of_the_database_of_suse_are_found(root: Path) -> None:
    put(root, "usr/lib/sysimage/rpm/Packages.db", ndb(HELLO, PUBKEY, header(name="b", version="1")))
    assert names(root) == ["rpm:b=1", "rpm:hello=1.2-3"]


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        ndb(head=struct.pack("<4sIIIIIII", b"RpmX", 0, 2, 1, 2, 0, 0, 0)),
        ndb(head=struct.pack("<4sIIIIIII", b"RpmP", 0, 2, 1 << 30, 2, 0, 0, 0)),
        ndb(HELLO)[:4200],
        ndb(HELLO).replace(b"BlbS", b"BlbX"),
        ndb(HELLO).replace(b"Slot", b"slot", 1),
        ndb(HELLO).replace(struct.pack("<II", 1, 256), struct.pack("<II", 1, 1 << 31)),
    ],
)
def test_a_damaged_database_of_suse_is_refused(root: Path, data: bytes) -> None:
    put(root, "usr/lib/sysimage/rpm/Packages.db", data)
    with pytest.raises(InvalidRequest):
        take(root)


def test_packages_of_the_oldest_database_are_found(root: Path) -> None:
    written(root / "var/lib/rpm/Packages", [(0, b"\2\0\0\0"), (1, HELLO), (2, PUBKEY)])
    [result] = take(root).packages
    assert (result.name, result.version, result.epoch) == ("hello", "1.2-3", "2")
    assert result.path == "var/lib/rpm/Packages"


def test_a_damaged_oldest_database_is_refused(root: Path) -> None:
    put(root, "var/lib/rpm/Packages", b"x")
    with pytest.raises(InvalidRequest, match=r"^var/lib/rpm/Packages is damaged: "):
        take(root)


def test_the_newest_kind_of_several_rpm_databases_is_read(root: Path) -> None:
    old = header(name="old", version="1")
    put(root, "usr/lib/sysimage/rpm/Packages", made([(b"\1\0\0\0", old)]))
    assert names(root) == ["rpm:old=1"]
    put(root, "var/lib/rpm/Packages.db", ndb(header(name="newer", version="1")))
    assert names(root) == ["rpm:newer=1"]
    rpmdb(root, HELLO)
    assert names(root) == ["rpm:hello=1.2-3"]


ENDLESS = (
    "CREATE VIEW Packages AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n FROM c) "
    "SELECT n AS hnum, n AS blob FROM c"
)


@pytest.mark.parametrize("statement", [ENDLESS, "CREATE TABLE Other (x)"])
def test_a_database_without_a_packages_table_is_refused(root: Path, statement: str) -> None:
    rpmdb(root, statement=statement)
    with pytest.raises(InvalidRequest, match="no table Packages"):
        take(root)


@pytest.mark.parametrize(
    "data",
    [b"SQLite format 3\0" + bytes(84), b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 8000],
)
def test_a_damaged_database_is_refused(root: Path, data: bytes) -> None:
    put(root, "var/lib/rpm/rpmdb.sqlite", data)
    with pytest.raises(InvalidRequest):
        take(root)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\0" * 7,
        struct.pack(">II", 5000, 0),
        struct.pack(">II", 1, 1 << 30),
        HELLO[:-40],
    ],
)
def test_a_damaged_header_is_refused(root: Path, blob: bytes) -> None:
    rpmdb(root, blob)
    with pytest.raises(InvalidRequest, match="is damaged"):
        take(root)


def test_a_tag_with_an_invalid_offset_is_skipped() -> None:
    entry = struct.pack(">IIiI", 1000, 6, 9999, 1) + struct.pack(">IIiI", 1001, 6, -5, 1)
    assert rpm.read_header(struct.pack(">II", 2, 4) + entry + b"abc\0") == {}


# -- hostile trees -----------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    secret = tmp_path / "secret"
    secret.write_bytes(DPKG)
    yield secret
    assert secret.read_bytes() == DPKG


@pytest.mark.parametrize("target", ["/secret", "../../../../../secret", "../../../../../../../"])
def test_a_link_does_not_lead_outside(root: Path, outside: Path, target: str) -> None:
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to(target)
    assert names(root) == []


def test_a_link_to_a_directory_is_not_walked(root: Path, tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/x-1.dist-info/METADATA", DIST_INFO)
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(".")
    assert names(root) == []


def test_a_special_file_does_not_block(root: Path) -> None:
    for path in ("var/lib/dpkg", "lib/apk/db", "etc"):
        (root / path).mkdir(parents=True)
    os.mkfifo(root / "var/lib/dpkg/status")
    os.mkfifo(root / "lib/apk/db/installed")
    (root / "etc/os-release").mkdir()
    assert names(root) == []


def test_a_file_beyond_its_limit_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaula.features.trust.sbom.dpkg._LIMIT", 10)
    put(root, "var/lib/dpkg/status", DPKG)
    with pytest.raises(InvalidRequest, match="/status is larger than 10 bytes"):
        take(root)


def test_more_files_than_the_budget_are_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom_rootfs, "MAX_ENTRIES", 50)
    for number in range(60):
        put(root, f"f{number}")
    with pytest.raises(InvalidRequest, match="more than 50 files"):
        take(root)


def test_a_deep_tree_ends(root: Path) -> None:
    path = root
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)
    assert names(root) == []


def test_texts_are_lines_that_a_terminal_can_show(root: Path) -> None:
    put(root, "var/lib/dpkg/status.d/x", b"Package: a\x1b[2Jb\xff\nVersion: 1" + b"2" * 9999)
    [result] = take(root).packages
    assert "\x1b" not in result.name
    assert len(result.version) <= 512
