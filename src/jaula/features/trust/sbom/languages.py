"""Packages that language package managers installed, in any directory.

Sources: packaging.python.org, "Recording installed projects" and "Core metadata"; docs.npmjs.com,
"package.json". Only installed packages count: ``NAME.dist-info``, ``NAME.egg-info``, and the direct
subdirectories of a ``node_modules``.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from jaula.features.trust.sbom import deb822
from jaula.features.trust.sbom.package import Package, text
from jaula.features.trust.sbom.sbom_rootfs import RootfsReader

_LIMIT = 4 << 20  # bytes of the file of one package
_SKIPPED = ("proc", "sys", "dev")  # mount points of kernel file systems


class _Node(msgspec.Struct, frozen=True):
    """The members of ``package.json``. ``license`` was once an object, and may be anything."""

    name: object = ""
    version: object = ""
    license: object = ""
    homepage: object = ""


def packages(rootfs: RootfsReader) -> Iterator[Package]:
    """Yield the packages of Python and Node.js."""
    for path, entries in rootfs.directories():
        if path in _SKIPPED:
            entries.clear()
        names = {name for name, _ in entries}
        last = path.rpartition("/")[2]
        if last.endswith(".dist-info") and "METADATA" in names:
            yield from _python(rootfs, f"{path}/METADATA")
        elif last.endswith(".egg-info") and "PKG-INFO" in names:
            yield from _python(rootfs, f"{path}/PKG-INFO")
        for name, is_directory in entries:
            if name.endswith(".egg-info") and not is_directory:
                yield from _python(rootfs, f"{path}/{name}".lstrip("/"))
        if "package.json" in names and _is_module(path):
            yield from _node(rootfs, f"{path}/package.json")


def _is_module(path: str) -> bool:
    parts = path.split("/")
    scoped = len(parts) > 2 and parts[-2].startswith("@") and parts[-3] == "node_modules"
    return scoped or (len(parts) > 1 and parts[-2] == "node_modules")


def _python(rootfs: RootfsReader, path: str) -> Iterator[Package]:
    data = rootfs.read(path, _LIMIT)
    head = next(deb822.read(data or b""), {})
    name, version = text(head.get("name")), text(head.get("version"))
    if name and version:
        yield Package(
            kind="pypi",
            name=name,
            version=version,
            licence=text(head.get("license-expression") or head.get("license")),
            supplier=text(head.get("author-email") or head.get("author")),
            homepage=text(head.get("home-page")),
            path=path,
        )


def _node(rootfs: RootfsReader, path: str) -> Iterator[Package]:
    data = rootfs.read(path, _LIMIT)
    try:
        document = msgspec.json.decode(data or b"", type=_Node)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return  # packages contain test files of that name that are not JSON
    name, version = text(document.name), text(document.version)
    licence = document.license
    if isinstance(licence, dict):
        licence = licence.get("type")
    if name and version:
        yield Package(
            kind="npm",
            name=name,
            version=version,
            licence=text(licence),
            homepage=text(document.homepage),
            path=path,
        )
