"""Packages of dpkg: ``/var/lib/dpkg/status``, and ``status.d`` of images without dpkg itself.

Source: deb-control(5), dpkg(1) "Package states".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaula.images.sbom import deb822
from jaula.images.sbom.package import Package, text
from jaula.images.sbom.rootfs import RootfsReader

_STATUS = "var/lib/dpkg/status"
_STATUS_D = "var/lib/dpkg/status.d"
_LIMIT = 256 << 20  # bytes of the database
_ONE_LIMIT = 1 << 20  # bytes of one package's file
_SOURCE = re.compile(r"(\S+)(?:\s+\(([^)]*)\))?")


def packages(tree: RootfsReader) -> Iterator[Package]:
    """Those that are installed, not only configured or removed."""
    data = tree.read(_STATUS, _LIMIT)
    if data is not None:
        yield from _of(data, _STATUS, whole=False)
    for name in tree.names(_STATUS_D):
        if not name.endswith(".md5sums"):
            data = tree.read(f"{_STATUS_D}/{name}", _ONE_LIMIT)
            yield from _of(data or b"", f"{_STATUS_D}/{name}", whole=True)


def _of(data: bytes, found: str, *, whole: bool) -> Iterator[Package]:
    for stanza in deb822.read(data):
        name, version = text(stanza.get("package")), text(stanza.get("version"))
        state = stanza.get("status", "").split()
        if not name or not version or not (whole or state[-1:] == ["installed"]):
            continue
        source = _SOURCE.match(stanza.get("source", ""))
        yield Package(
            kind="deb",
            name=name,
            version=version,
            architecture=text(stanza.get("architecture")),
            source=text(source[1]) if source else "",
            supplier=text(stanza.get("maintainer")),
            homepage=text(stanza.get("homepage")),
            found=found,
        )
