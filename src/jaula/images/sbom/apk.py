"""Packages of apk: ``/lib/apk/db/installed``. Source: Alpine wiki, "Apk spec" (v2)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.images.sbom.package import Package, text
from jaula.images.sbom.rootfs import RootfsReader

_PLACES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_LIMIT = 256 << 20  # bytes


def packages(tree: RootfsReader) -> Iterator[Package]:
    """Everything in the database; the second place may be a link to the first."""
    for place in _PLACES:
        data = tree.read(place, _LIMIT)
        if data is not None:
            yield from _of(data, place)
            return


def _of(data: bytes, found: str) -> Iterator[Package]:
    for stanza in data.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            if line[1:2] == ":":  # letters are names, in either case
                fields.setdefault(line[0], line[2:])
        name, version = text(fields.get("P")), text(fields.get("V"))
        if name and version:
            yield Package(
                kind="apk",
                name=name,
                version=version,
                architecture=text(fields.get("A")),
                source=text(fields.get("o")),
                licence=text(fields.get("L")),
                supplier=text(fields.get("m")),
                homepage=text(fields.get("U")),
                found=found,
            )
