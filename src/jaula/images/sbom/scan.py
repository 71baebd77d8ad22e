"""Taking an inventory: every database that is known, in one root."""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.images.sbom import apk, dpkg, languages, rpm
from jaula.images.sbom.package import Inventory, Package, System, text
from jaula.images.sbom.rootfs import RootfsReader

MOST = 200_000  # packages
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_RELEASE_LIMIT = 64 << 10  # bytes
_READERS = (dpkg.packages, apk.packages, rpm.packages, languages.packages)


def take(root: int) -> Inventory:
    """What is installed below a descriptor of an image's root.

    Raises :class:`InvalidRequest` for files that are damaged or too large.
    """
    tree = RootfsReader(root)
    found: dict[Package, None] = {}
    for packages in _READERS:
        for package in packages(tree):
            found[package] = None
            if len(found) > MOST:
                raise InvalidRequest(f"the image has more than {MOST} packages")
    order = sorted(found, key=lambda p: (p.kind, p.name, p.version, p.architecture, p.found))
    return Inventory(_system(tree), tuple(order))


def _system(tree: RootfsReader) -> System:
    for place in _RELEASES:
        data = tree.read(place, _RELEASE_LIMIT)
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
