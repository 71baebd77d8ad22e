"""Advisories of both formats are compared with packages; damaged files are refused."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.audit.image import advisories
from jaula.features.audit.image.advisories import Advisory, Index, Matches, Range
from jaula.features.trust.sbom.package import Inventory, Package, System

TRIXIE = System("debian", "13", "Debian GNU/Linux 13 (trixie)")
ALPINE = System("alpine", "3.20.3", "Alpine Linux v3.20")
SSL = Package(kind="deb", name="libssl3t64", version="3.5.1-1", source="openssl")
PIP = Package(kind="pypi", name="Foo_Bar", version="1.2")
TRACKER = {
    "openssl": {
        "CVE-2026-0001": {"releases": {"trixie": {"status": "resolved",
                          "fixed_version": "3.5.1-1+deb13u1", "urgency": "high"}}},
        "CVE-2026-0002": {"releases": {"trixie": {"status": "resolved", "fixed_version": "3.5.0-1",
                                                  "urgency": "low"}}},
        "CVE-2026-0003": {"releases": {"trixie": {"status": "open",
                                                  "urgency": "not yet assigned"}}},
        "CVE-2026-0004": {"releases": {"bookworm": {"status": "open", "urgency": "low"}}},
        "CVE-2026-0005": {"releases": {"trixie": {"status": "resolved", "fixed_version": "0",
                                                  "urgency": "low"}}},
        "CVE-2026-0006": {"releases": {"trixie": {"status": "undetermined", "urgency": "low"}}},
        "CVE-2026-0007": {"releases": {"trixie": {"status": "resolved",
                          "fixed_version": "not a version", "urgency": "low"}}},
    },
    "other": {"CVE-2026-0008": {"releases": {"trixie": {"status": "open", "urgency": "low"}}}},
}  # fmt: skip


def osv(name: str, ecosystem: str, *events: dict[str, str], **extra: Any) -> dict[str, Any]:
    affected = {"package": {"name": name, "ecosystem": ecosystem},
                "ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}  # fmt: skip
    return {"id": "GHSA-1", "affected": [affected], **extra}


def match(document: Any, system: System, *packages: Package) -> Matches:
    inventory = Inventory(system, packages)
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Index(advisories.parse(data, "f", advisories.names([inventory]))).match(inventory)


def test_the_tracker_is_compared_by_release_and_source_version() -> None:
    matches = match(TRACKER, TRIXIE, SSL)
    assert [(v.id, v.fixed, v.severity) for v in matches.vulnerabilities] == [
        ("CVE-2026-0001", "3.5.1-1+deb13u1", "high"),
        ("CVE-2026-0003", "", ""),
    ]
    assert matches.incomparable == 1
    assert "fixed in 3.5.1-1+deb13u1, high" in str(matches.vulnerabilities[0])


def test_a_source_package_has_its_own_version() -> None:
    rebuilt = Package(kind="deb", name="libssl3t64", version="9+b1", source="openssl",
                      source_version="3.5.1-1")  # fmt: skip
    assert len(match(TRACKER, TRIXIE, rebuilt).vulnerabilities) == 2
    assert advisories.key(rebuilt, TRIXIE) == ("Debian", "openssl", "3.5.1-1")


@pytest.mark.parametrize(
    ("events", "hit"),
    [
        (({"introduced": "0"}, {"fixed": "1.3"}), True),
        (({"introduced": "0"}, {"fixed": "1.2"}), False),
        (({"introduced": "0"}, {"last_affected": "1.2"}), True),
        (({"introduced": "0"}, {"last_affected": "1.1"}), False),
        (({"introduced": "1.3"},), False),
        (({"introduced": "0"},), True),
        (({"introduced": "0"}, {"fixed": "1.1"}, {"introduced": "1.2rc1"}, {"fixed": "2"}), True),
        ((), False),
    ],
)
def test_ranges_of_osv(events: tuple[dict[str, str], ...], hit: bool) -> None:
    matches = match(osv("foo.bar", "PyPI", *events), System(), PIP)
    assert bool(matches.vulnerabilities) is hit


def test_listed_versions_withdrawn_advisories_and_ranges_of_git() -> None:
    document = osv("foo-bar", "PyPI")
    document["affected"][0]["versions"] = ["1.1", "1.2"]
    assert match(document, System(), PIP).vulnerabilities
    assert not match(
        {**document, "withdrawn": "2026-01-01T00:00:00Z"}, System(), PIP
    ).vulnerabilities
    document = osv("foo-bar", "PyPI", {"introduced": "0"})
    document["affected"][0]["ranges"][0]["type"] = "GIT"
    assert not match(document, System(), PIP).vulnerabilities


@pytest.mark.parametrize(
    ("ecosystem", "system", "hit"),
    [
        ("Alpine:v3.20", ALPINE, True),
        ("Alpine:v3.19", ALPINE, False),
        ("Alpine", ALPINE, True),
        ("Ubuntu:22.04:LTS", System("ubuntu", "22.04", "Ubuntu 22.04"), True),
        ("AlmaLinux:9", System("almalinux", "9.4", "AlmaLinux 9.4"), True),
        ("AlmaLinux:8", System("almalinux", "9.4", "AlmaLinux 9.4"), False),
        ("Debian:13", TRIXIE, True),
        ("Debian:1", TRIXIE, False),
    ],
)
def test_releases_of_systems(ecosystem: str, system: System, hit: bool) -> None:
    kind = {"alpine": "apk", "almalinux": "rpm"}.get(system.id, "deb")
    package = Package(kind=kind, name="openssl", version="1.0-r0" if kind == "apk" else "1.0-1")
    matches = match(osv("openssl", ecosystem, {"introduced": "0"}), system, package)
    assert bool(matches.vulnerabilities) is hit


def test_every_form_of_a_file_is_read(tmp_path: Path) -> None:
    one = osv("foo-bar", "PyPI", {"introduced": "0"}, database_specific={"severity": "HIGH"})
    text = json.dumps(one)
    forms = {"one.json": text, "list.json": f"[{text}]", "lines.json": f"{text}\n{text}\n",
             "vulns.json": json.dumps({"vulns": [one]}),
             "indented.json": json.dumps(one, indent=2)}  # fmt: skip
    names = frozenset({("PyPI", "foo-bar")})
    expected = Advisory("GHSA-1", "PyPI", "", "foo-bar", (Range("0"),), severity="high")
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        loaded = advisories.load(str(tmp_path / name), names)
        assert set(loaded) == {expected}, name
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a/GHSA-1.json", text)
        archive.writestr("README", "no JSON")
    assert len(advisories.load(str(tmp_path / "all.zip"), names)) == 1
    assert advisories.load(str(tmp_path / "all.zip"), frozenset()) == ()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"1", b"[1]", b"[" * 200_000, b'{"id": 5}', b'{"a": {"b": 1}}',
     b'{"id": "x", "affected": 5}', b'{"id": "x"}\n{', b'{"a":' * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_one_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match="advisories"):
        advisories.load(str(path), frozenset())


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b" " * (advisories.MAX_MEMBER + 5))
    with pytest.raises(InvalidRequest, match="is larger than"):
        advisories.load(str(path), frozenset())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"{number}.json", '{"id": "x"}' + " " * 1000)
    monkeypatch.setattr(advisories, "MAX_UNPACKED", 5000)
    with pytest.raises(InvalidRequest, match="is larger than"):
        advisories.load(str(path), frozenset())
    monkeypatch.setattr(advisories, "MAX_MEMBERS", 5)
    with pytest.raises(InvalidRequest, match="more than 5 files"):
        advisories.load(str(path), frozenset())


def test_a_damaged_zip_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(TRACKER) * 100)
    whole = path.read_bytes()
    for at in range(30, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(InvalidRequest):  # and no other error
            advisories.load(str(path), frozenset())


def test_an_absent_file_is_one_error() -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        advisories.load("/nonexistent/f", frozenset())
