"""Packages of apk: ``/lib/apk/db/installed``. Source: Alpine wiki, "Apk spec" (v2)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.trust.sbom.deb822 import MAX_VALUE, lines
from jaula.features.trust.sbom.package import Package, text
from jaula.features.trust.sbom.sbom_rootfs import RootfsReader

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
    """Yield the packages of a database, in linear time: the files of a package are many lines."""
    fields: dict[bytes, bytes] = {}
    for line in lines(data):
        if line[1:2] == b":":  # a field name is one letter, case-sensitive
            fields.setdefault(line[:1], line[2 : 2 + MAX_VALUE])
        elif not line:
            yield from _package(fields, path)
            fields = {}
    yield from _package(fields, path)


def _package(fields: dict[bytes, bytes], path: str) -> Iterator[Package]:
    def value(letter: bytes) -> str:
        return text(fields.get(letter, b"").decode("utf-8", "replace"))

    if value(b"P") and value(b"V"):
        yield Package(
            kind="apk",
            name=value(b"P"),
            version=value(b"V"),
            architecture=value(b"A"),
            source=value(b"o"),
            licence=value(b"L"),
            supplier=value(b"m"),
            homepage=value(b"U"),
            path=path,
        )
