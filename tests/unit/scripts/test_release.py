"""The release script's documents: lock, SBOM, provenance, and what `--verify` finds."""

from __future__ import annotations

import hashlib
import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.engine import PROJECT

COMMIT = "0123456789" * 4
VERSION = "0.3.0"


@pytest.fixture(scope="module")
def release() -> ModuleType:
    loader = SourceFileLoader("jaula_release", str(PROJECT / "scripts/release"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def wheels(release: ModuleType) -> list[dict[str, Any]]:
    """The packages of the lock, as wheels with the first of their hashes."""
    lock = release.locked((PROJECT / "requirements/web.txt").read_text())
    return [
        {"name": name, "version": version, "licence": "MIT", "is_expression": True, "file": name,
         "sha256": hashes[0], "requires": ["hpack"] if name == "h2" else []}
        for name, (version, hashes) in lock.items()
    ]  # fmt: skip


@pytest.fixture
def directory(release: ModuleType, wheels: list[dict[str, Any]], tmp_path: Path) -> Path:
    """A release of one file."""
    (tmp_path / "jaula.whl").write_bytes(b"wheel")
    integrity = "sha512-" + "A" * 86 + "=="
    assets = [{"package": "@xterm/xterm", "version": "5.5.0", "licence": "MIT",
               "integrity": integrity}]  # fmt: skip
    document = release.sbom(VERSION, wheels, assets, "2026-01-01T00:00:00Z")
    release.write(tmp_path / "jaula.cdx.json", document)
    files = {path.name: release.digest(path) for path in tmp_path.iterdir()}
    statement = release.provenance(files, COMMIT, VERSION, {"x": "0" * 64}, "urn:builder")
    release.write(tmp_path / "jaula.intoto.json", statement)
    write_sums(tmp_path)
    return tmp_path


def write_sums(directory: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(directory.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (directory / "SHA256SUMS").write_text("".join(lines))


def test_the_lock_has_a_version_and_hashes_for_each_package(release: ModuleType) -> None:
    lock = release.locked((PROJECT / "requirements/web.txt").read_text())
    assert {"msgspec", "backports-zstd", "google-re2", "pyyaml"} <= lock.keys()
    assert all(version and hashes for version, hashes in lock.values())


def test_the_sbom_is_valid_cyclonedx(release: ModuleType, directory: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (directory / "jaula.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    purls = {component["purl"] for component in document["components"]}
    assert "pkg:npm/%40xterm/xterm@5.5.0" in purls
    references = {component["bom-ref"] for component in document["components"]}
    depended = {ref for entry in document["dependencies"] for ref in entry["dependsOn"]}
    assert depended <= references


def test_the_provenance_names_files_commit_inputs_and_builder(directory: Path) -> None:
    statement = json.loads((directory / "jaula.intoto.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {s["name"] for s in statement["subject"]} == {"jaula.whl", "jaula.cdx.json"}
    definition = statement["predicate"]["buildDefinition"]
    assert {"name": "source", "digest": {"gitCommit": COMMIT}} in definition["resolvedDependencies"]
    assert statement["predicate"]["runDetails"]["builder"]["id"] == "urn:builder"


def test_an_unchanged_release_has_no_problem(release: ModuleType, directory: Path) -> None:
    assert release.verify(directory) == []


def test_a_changed_file_is_found_by_sum_and_provenance(
    release: ModuleType, directory: Path
) -> None:
    (directory / "jaula.whl").write_bytes(b"other")
    assert release.verify(directory) == [
        "jaula.whl: the sum differs from SHA256SUMS",
        "jaula.intoto.json: the digest of jaula.whl differs",
    ]
    write_sums(directory)
    assert release.verify(directory) == ["jaula.intoto.json: the digest of jaula.whl differs"]


def test_missing_and_additional_files_are_found(release: ModuleType, directory: Path) -> None:
    (directory / "jaula.whl").rename(directory / "other.whl")
    problems = release.verify(directory)
    assert "other.whl: not in SHA256SUMS" in problems
    assert "jaula.whl: missing" in problems
    assert any("differ from the files" in problem for problem in problems)


def test_a_component_that_is_not_that_of_the_lock_is_found(
    release: ModuleType, directory: Path
) -> None:
    path = directory / "jaula.cdx.json"
    document = json.loads(path.read_text())
    component = next(c for c in document["components"] if c["name"] == "msgspec")
    component["hashes"][0]["content"] = "0" * 64
    release.write(path, document)
    assert "jaula.cdx.json: msgspec is not that of the lock" in release.verify(directory)
