"""SBOM documents: SPDX 2.3 and CycloneDX 1.6, both as JSON. Pure.

Sources: spdx.github.io/spdx-spec/v2.3, cyclonedx.org/docs/1.6/json. The documents do not depend on
time or machine, so equal images have equal documents.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from jaula import __version__
from jaula.features.trust.sbom.package import Inventory, Package
from jaula.features.trust.sbom.spdx_license import is_expression

Document = dict[str, Any]

_SPDX = "https://spdx.org/spdxdocs"
_UNKNOWN = "NOASSERTION"
_EPOCH = "1970-01-01T00:00:00Z"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z")
_ADDRESS = str.maketrans("<>", "()")  # SPDX writes an e-mail address in parentheses
_URL = re.compile(r"https?://[!-~]{1,400}", re.ASCII)


class DescribedImage(Protocol):
    """The image that a document is about; ``created`` is RFC 3339."""

    @property
    def id(self) -> str: ...
    @property
    def created(self) -> str: ...


class BuiltImage(msgspec.Struct, frozen=True):
    """An image that is not in the store."""

    id: str
    created: str


def spdx(image: DescribedImage, name: str, inventory: Inventory) -> Document:
    """Return an SPDX document: the image, called ``name``, contains the packages."""
    quoted: dict[str, str] = {}
    system = inventory.system
    described = {
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "versionInfo": image.id,
        "primaryPackagePurpose": "CONTAINER",
        "supplier": _UNKNOWN,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }
    packages = [described]
    for number, package in enumerate(inventory.packages, 1):
        packages.append(
            {
                "SPDXID": f"SPDXRef-Package-{number}",
                "name": package.name,
                "versionInfo": package.version,
                "supplier": _supplier(package),
                "downloadLocation": _UNKNOWN,
                "filesAnalyzed": False,
                "licenseConcluded": _UNKNOWN,
                "licenseDeclared": _declared(package.licence, quoted),
                "copyrightText": _UNKNOWN,
                "sourceInfo": f"inventory in /{package.path}",
                **({"homepage": package.homepage} if _URL.fullmatch(package.homepage) else {}),
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": package.purl(system),
                    }
                ],
            }
        )
    contains = [
        {
            "spdxElementId": "SPDXRef-Image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": package["SPDXID"],
        }
        for package in packages[1:]
    ]
    describes = {
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-Image",
    }
    document: Document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"{_SPDX}/{_slug(name)}-{_identity(image, name, inventory)}",
        "creationInfo": {
            "created": _creation_time(image.created),
            "creators": [f"Tool: jaula-{__version__}"],
        },
        "packages": packages,
        "relationships": [describes, *contains],
    }
    if quoted:
        document["hasExtractedLicensingInfos"] = [
            {"licenseId": reference, "extractedText": text, "name": text}
            for text, reference in quoted.items()
        ]
    return document


def cyclonedx(image: DescribedImage, name: str, inventory: Inventory) -> Document:
    """Return a CycloneDX document: the packages are components of the image, called ``name``."""
    counts: dict[str, int] = {}
    components = []
    for package in inventory.packages:
        purl = package.purl(inventory.system)
        counts[purl] = counts.get(purl, 0) + 1
        component: Document = {
            "type": "library",
            "bom-ref": purl if counts[purl] == 1 else f"{purl}#{counts[purl]}",
            "name": package.name,
            "version": package.version,
            "purl": purl,
            "properties": [{"name": "jaula:inventory", "value": f"/{package.path}"}],
        }
        if package.supplier:
            component["publisher"] = package.supplier
        if package.licence:
            component["licenses"] = [_licence(package.licence)]
        components.append(component)
    if inventory.system.id:
        system: Document = {
            "type": "operating-system",
            "bom-ref": "os",
            "name": inventory.system.id,
            "description": inventory.system.name,
        }
        if inventory.system.version:
            system["version"] = inventory.system.version
        components.append(system)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_identity(image, name, inventory)}",
        "version": 1,
        "metadata": {
            "timestamp": _creation_time(image.created),
            "tools": {
                "components": [{"type": "application", "name": "jaula", "version": __version__}]
            },
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": name,
                "version": image.id,
            },
        },
        "components": components,
    }


FORMATS: dict[str, Callable[[DescribedImage, str, Inventory], Document]] = {
    "spdx": spdx,
    "cyclonedx": cyclonedx,
}


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def _identity(image: DescribedImage, name: str, inventory: Inventory) -> uuid.UUID:
    """Return a UUID that depends on the content only."""
    parts = [image.id, name, __version__, *(p.purl(inventory.system) for p in inventory.packages)]
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _creation_time(created: str) -> str:
    match = _TIME.fullmatch(created)
    return f"{match[1]}Z" if match else _EPOCH


def _supplier(package: Package) -> str:
    supplier = package.supplier.translate(_ADDRESS)
    return f"Organization: {supplier}" if supplier else _UNKNOWN


def _declared(text: str, quoted: dict[str, str]) -> str:
    if not text:
        return _UNKNOWN
    if is_expression(text):
        return text
    return quoted.setdefault(text, f"LicenseRef-{len(quoted) + 1}")


def _licence(text: str) -> Document:
    if not is_expression(text):
        return {"license": {"name": text}}
    return {"license": {"id": text}} if " " not in text else {"expression": text}
