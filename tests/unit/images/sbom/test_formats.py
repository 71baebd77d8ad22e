"""SBOM documents, checked against the formats' schemas and validators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from jaula.features.trust.sbom import formats, spdx_license
from jaula.features.trust.sbom.package import Inventory, Package, System
from jaula.images.store.image_store import Image
from jaula.spec.image_documents import ImageDocument

IMAGE = Image(
    id="sha256:" + "ab" * 32,
    names=("web:1",),
    manifest="sha256:" + "cd" * 32,
    target="sha256:" + "cd" * 32,
    layers=(),
    size=1,
    document=ImageDocument(created="2026-01-02T03:04:05.678901234Z"),
)
FOUND = Inventory(
    System("debian", "13", "Debian GNU/Linux 13"),
    (
        Package(kind="deb", name="libc6", version="2.41+x", architecture="amd64", path="a",
                supplier="Team <t@example.com>", homepage="https://example.com/"),
        Package(kind="deb", name="libc6", version="2.41+x", architecture="amd64", path="b",
                homepage="not a url"),
        Package(kind="npm", name="@s/b", version="1", licence="MIT", path="c"),
        Package(kind="pypi", name="a", version="1", licence="BSD License", path="d"),
        Package(kind="apk", name="m", version="1", licence="MIT AND (ISC OR Zlib)", path="e"),
        Package(kind="rpm", name="r", version="1-1", licence="GPLv2+", epoch="2", path="f"),
        Package(kind="rpm", name="é<>&\N{REPLACEMENT CHARACTER}", version="1", path="g"),
    ),
)  # fmt: skip
EMPTY = Inventory(System(), ())


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft7Validator:
    """Return the schema of CycloneDX 1.6 from the format's own Python package."""
    import cyclonedx.schema._res as resources

    directory = Path(resources.__path__[0])
    documents = {path.name: json.loads(path.read_text()) for path in directory.glob("*.json")}
    known = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name}", Resource.from_contents(document))
        for name, document in documents.items()
    )
    return jsonschema.Draft7Validator(documents["bom-1.6.SNAPSHOT.schema.json"], registry=known)


@pytest.mark.parametrize("found", [FOUND, EMPTY])
def test_cyclonedx_follows_its_schema(schema: jsonschema.Draft7Validator, found: Inventory) -> None:
    document = formats.cyclonedx(IMAGE, "web:1", found)
    schema.validate(document)
    broken = json.loads(json.dumps(document)) | {"version": "one"}
    assert not schema.is_valid(broken)


@pytest.mark.parametrize("found", [FOUND, EMPTY])
def test_spdx_passes_its_validator(tmp_path: Path, found: Inventory) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path = tmp_path / "a.spdx.json"
    path.write_text(json.dumps(formats.spdx(IMAGE, "web:1", found)))
    messages = validate_full_spdx_document(parse_file(str(path)))
    assert [message.validation_message for message in messages] == []


@pytest.mark.parametrize("form", sorted(formats.FORMATS))
def test_equal_images_have_equal_documents(form: str) -> None:
    made = formats.FORMATS[form]
    assert made(IMAGE, "web:1", FOUND) == made(IMAGE, "web:1", FOUND)
    other = Inventory(FOUND.system, FOUND.packages[:-1])
    assert _identity(made(IMAGE, "web:1", FOUND)) != _identity(made(IMAGE, "web:1", other))


def _identity(document: dict[str, Any]) -> str:
    return str(document.get("serialNumber") or document["documentNamespace"])


def test_the_image_contains_its_packages() -> None:
    document = formats.spdx(IMAGE, "web:1", FOUND)
    contained = [r for r in document["relationships"] if r["relationshipType"] == "CONTAINS"]
    assert len(contained) == len(FOUND.packages)
    assert document["creationInfo"]["created"] == "2026-01-02T03:04:05Z"
    assert document["packages"][1]["supplier"] == "Organization: Team (t@example.com)"
    assert "homepage" not in document["packages"][2]


def test_a_licence_that_is_not_an_expression_is_quoted() -> None:
    document = formats.spdx(IMAGE, "web:1", FOUND)
    declared = [package["licenseDeclared"] for package in document["packages"][3:7]]
    assert declared == ["MIT", "LicenseRef-1", "MIT AND (ISC OR Zlib)", "LicenseRef-2"]
    texts = [info["extractedText"] for info in document["hasExtractedLicensingInfos"]]
    assert texts == ["BSD License", "GPLv2+"]


def test_a_reference_is_used_once() -> None:
    document = formats.cyclonedx(IMAGE, "web:1", FOUND)
    references = [component["bom-ref"] for component in document["components"]]
    assert len(set(references)) == len(references)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("MIT", True),
        ("MIT AND ISC", True),
        ("(MIT)", True),
        ("(MIT OR ISC) AND Zlib", True),
        ("", False),
        ("MIT ISC", False),
        ("MIT AND", False),
        ("AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("()", False),
        ("mit", False),
        ("GPLv2", False),
        ("MIT and ISC", False),
    ],
)
def test_spdx_expressions_are_recognised(text: str, known: bool) -> None:
    assert spdx_license.is_expression(text) is known
