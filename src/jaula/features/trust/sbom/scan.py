"""Scan a root for the packages of all supported databases."""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.features.trust.sbom import apk, dpkg, languages, rpm
from jaula.features.trust.sbom.package import Inventory, Package, System, text
from jaula.features.trust.sbom.sbom_rootfs import Files, RootfsReader

MAX_PACKAGES = 100_000  # packages
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_RELEASE_LIMIT = 64 << 10  # bytes
_READERS = (dpkg.packages, apk.packages, rpm.packages, languages.packages)


def scan(files: Files) -> Inventory:
    """Return the packages installed in the root of an image.

    :raises InvalidRequest: if a file is damaged or too large.
    """
    rootfs = RootfsReader(files)
    packages: dict[Package, None] = {}
    for read_packages in _READERS:
        for package in read_packages(rootfs):
            packages[package] = None
            if len(packages) > MAX_PACKAGES:
                raise InvalidRequest(f"the image has more than {MAX_PACKAGES} packages")
    order = sorted(packages, key=lambda p: (p.kind, p.name, p.version, p.architecture, p.path))
    return Inventory(_system(rootfs), tuple(order))


def _system(rootfs: RootfsReader) -> System:
    for path in _RELEASES:
        data = rootfs.read(path, _RELEASE_LIMIT)
        if data is None:
            continue
        values: dict[str, str] = {}
        for line in data.decode("utf-8", "replace").split("\n"):
            name, equals, value = line.partition("=")
            if equals:
                values.setdefault(name.strip(), text(value.strip().strip("\"'")))
        return System(
            values.get("ID", ""), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", "")
        )
    return System()
