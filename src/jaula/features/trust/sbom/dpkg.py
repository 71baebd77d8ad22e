"""Packages of dpkg: ``/var/lib/dpkg/status``, and ``status.d`` of images without dpkg.

Source: deb-control(5), dpkg(1) "Package states".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaula.features.trust.sbom import deb822
from jaula.features.trust.sbom.package import Package, text
from jaula.features.trust.sbom.sbom_rootfs import RootfsReader

_STATUS = "var/lib/dpkg/status"
_STATUS_D = "var/lib/dpkg/status.d"
_LIMIT = 256 << 20  # bytes of the database
_ONE_LIMIT = 1 << 20  # bytes of the file of one package
_SOURCE = re.compile(r"(\S+)(?:\s+\(([^)]*)\))?")


def packages(rootfs: RootfsReader) -> Iterator[Package]:
    """Yield the installed packages, not those that are only configured or removed."""
    data = rootfs.read(_STATUS, _LIMIT)
    if data is not None:
        yield from _parse(data, _STATUS, all_installed=False)
    for name in rootfs.names(_STATUS_D):
        if not name.endswith(".md5sums"):
            data = rootfs.read(f"{_STATUS_D}/{name}", _ONE_LIMIT)
            yield from _parse(data or b"", f"{_STATUS_D}/{name}", all_installed=True)


def _parse(data: bytes, path: str, *, all_installed: bool) -> Iterator[Package]:
    for stanza in deb822.read(data):
        name, version = text(stanza.get("package")), text(stanza.get("version"))
        state = stanza.get("status", "").split()
        if not name or not version or not (all_installed or state[-1:] == ["installed"]):
            continue
        source = _SOURCE.match(stanza.get("source", ""))
        yield Package(
            kind="deb",
            name=name,
            version=version,
            architecture=text(stanza.get("architecture")),
            source=text(source[1]) if source else "",
            source_version=text(source[2]) if source else "",
            supplier=text(stanza.get("maintainer")),
            homepage=text(stanza.get("homepage")),
            path=path,
        )
