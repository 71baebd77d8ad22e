"""Packages of apk: ``/lib/apk/db/installed``. Source: Alpine wiki, "Apk spec" (v2)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.images.sbom.package import Package, text
from jaula.images.sbom.rootfs import RootfsReader

_PATHS = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_LIMIT = 256 << 20  # bytes


def packages(rootfs: RootfsReader) -> Iterator[Package]:
    """Yield the packages in the database. The second path may be a link to the first."""
    for path in _PATHS:
        data = rootfs.read(path, _LIMIT)
        if data is not None:
            yield from _parse(data, path)
            return


def _parse(data: bytes, path: str) -> Iterator[Package]:
    for stanza in data.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            if line[1:2] == ":":  # a field name is one letter, case-sensitive
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
                path=path,
            )
