"""Lists of packages from hostile roots, read in a sandboxed process."""

from __future__ import annotations

import json
import os
import sqlite3
import tracemalloc
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from harness.rpm_bdb import header
from jaula.errors import InvalidRequest
from jaula.features.trust.sbom import sbom_worker
from jaula.features.trust.sbom.sbom_worker import SbomRequest
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Worker, WorkerCancelled

MIB = 1 << 20
STANZA = b"Package: a%d\nStatus: install ok installed\nVersion: 1\n"
HOSTILE = {
    "one value of many lines": (
        "var/lib/dpkg/status",
        b"Package: a\nX: y\n" + b" z\n" * (10 * MIB),
    ),
    "many fields": (
        "var/lib/dpkg/status",
        b"Package: a\n" + b"".join(b"F%d:\n" % n for n in range(1_000_000)),
    ),
    "many empty lines": ("var/lib/dpkg/status", b"\n" * (20 * MIB)),
    "one line": ("var/lib/dpkg/status", b"Package: " + b"a" * (20 * MIB)),
    "many stanzas of apk": ("lib/apk/db/installed", b"P:a\n\n" * (2 * MIB)),
    "one stanza of apk": ("lib/apk/db/installed", b"P:a\nV:1\n" + b"F:\n" * (6 * MIB)),
    "many packages": (
        "var/lib/dpkg/status",
        b"\n".join(STANZA % n for n in range(120_000)),
    ),
    "a list of lists": (
        "node_modules/a/package.json",
        b'{"name": "a", "version": "1", "license": [' + b"[]," * (1 * MIB) + b"[]]}",
    ),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def _put(root: Path, path: str, data: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def _document(root: Path, form: str = "spdx") -> dict[str, object]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        request = SbomRequest(form, "sha256:" + "0" * 64, "", "an image")
        document = sbom_worker.document(fd, request, lambda worker: nullcontext())
    finally:
        os.close(fd)
    result: dict[str, object] = json.loads(bytes(document))
    return result


def _names(root: Path) -> list[str]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [package.name for package in sbom_worker.inventory(fd).packages]
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_database_costs_the_caller_no_memory(root: Path, name: str) -> None:
    path, data = HOSTILE[name]
    _put(root, path, data)
    tracemalloc.start()
    try:
        with suppress(InvalidRequest):
            assert _document(root)["spdxVersion"] == "SPDX-2.3"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 130 * MIB  # at most the result, and what json makes of it here


def test_more_memory_than_the_limit_is_one_clear_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom_worker, "LIMITS", Limits(memory=64 * MIB))
    _put(root, "var/lib/dpkg/status", bytes(100 * MIB))
    with pytest.raises(
        InvalidRequest, match="reading the packages of the image takes more than 64 MiB of memory"
    ):
        _document(root)


def test_more_time_than_the_limit_is_one_clear_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom_worker, "LIMITS", Limits(memory=512 * MIB, processor=1))
    _put(root, "var/lib/dpkg/status", b"\n" * (80 * MIB))
    with pytest.raises(InvalidRequest, match="takes more than 1 seconds of processor time"):
        _document(root)


def test_the_process_ends_with_its_request(root: Path) -> None:
    _put(root, "var/lib/dpkg/status", b"\n" * (80 * MIB))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    started: list[Worker] = []

    def hold(process: Worker) -> nullcontext[None]:
        started.append(process)
        process.cancel()
        return nullcontext()

    try:
        with pytest.raises(WorkerCancelled):
            sbom_worker.document(fd, SbomRequest("spdx"), hold)
    finally:
        os.close(fd)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_files_that_only_root_may_read_are_listed_too(root: Path) -> None:
    path = _put(root, "root/private/x-1.dist-info/METADATA", b"Name: hidden\nVersion: 1\n")
    path.chmod(0o600)
    (root / "root").chmod(0o700)
    _put(root, "var/lib/dpkg/status", STANZA % 1).chmod(0)
    assert _names(root) == ["a1", "hidden"]


def test_a_link_does_not_lead_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(STANZA % 1)
    (root / "var/lib/dpkg").mkdir(parents=True)
    for target in ("/secret", "../../../../../../../secret", str(tmp_path / "secret")):
        link = root / "var/lib/dpkg/status"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert _names(root) == []


def test_a_database_of_rpm_with_a_write_ahead_log_is_read_without_a_file(root: Path) -> None:
    path = root / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    names = [f"p{number:04}" for number in range(500)]
    for name in names:
        writer.execute("INSERT INTO Packages (blob) VALUES (?)", (header(name=name, version="1"),))
        writer.commit()
    assert path.with_name("rpmdb.sqlite-wal").stat().st_size > 500 * 4096
    try:
        assert _names(root) == names
    finally:
        writer.close()


def test_both_forms_of_the_document_are_made(root: Path) -> None:
    _put(root, "var/lib/dpkg/status", STANZA % 1)
    assert _document(root)["spdxVersion"] == "SPDX-2.3"
    assert _document(root, "cyclonedx")["bomFormat"] == "CycloneDX"
