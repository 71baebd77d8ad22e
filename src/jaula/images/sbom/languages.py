"""Packages that languages' own installers put there, wherever they lie.

Sources: packaging.python.org, "Recording installed projects" and "Core metadata"; docs.npmjs.com,
"package.json". Only what is installed counts: ``NAME.dist-info``, ``NAME.egg-info``, and the
directories directly in a ``node_modules``.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from jaula.images.sbom import deb822
from jaula.images.sbom.package import Package, text
from jaula.images.sbom.rootfs import RootfsReader

_LIMIT = 4 << 20  # bytes of one package's file
_KERNELS = ("proc", "sys", "dev")


class _Node(msgspec.Struct, frozen=True):
    """``license`` was an object once, and may be anything."""

    name: object = ""
    version: object = ""
    license: object = ""
    homepage: object = ""


def packages(tree: RootfsReader) -> Iterator[Package]:
    """Everything of both kinds."""
    for path, entries in tree.directories():
        if path in _KERNELS:
            entries.clear()
        names = {name for name, _ in entries}
        last = path.rpartition("/")[2]
        if last.endswith(".dist-info") and "METADATA" in names:
            yield from _python(tree, f"{path}/METADATA")
        elif last.endswith(".egg-info") and "PKG-INFO" in names:
            yield from _python(tree, f"{path}/PKG-INFO")
        for name, is_directory in entries:
            if name.endswith(".egg-info") and not is_directory:
                yield from _python(tree, f"{path}/{name}".lstrip("/"))
        if "package.json" in names and _is_module(path):
            yield from _node(tree, f"{path}/package.json")


def _is_module(path: str) -> bool:
    parts = path.split("/")
    scoped = len(parts) > 2 and parts[-2].startswith("@") and parts[-3] == "node_modules"
    return scoped or (len(parts) > 1 and parts[-2] == "node_modules")


def _python(tree: RootfsReader, path: str) -> Iterator[Package]:
    data = tree.read(path, _LIMIT)
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
            found=path,
        )


def _node(tree: RootfsReader, path: str) -> Iterator[Package]:
    data = tree.read(path, _LIMIT)
    try:
        found = msgspec.json.decode(data or b"", type=_Node)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return  # modules have test files of that name that are no JSON
    name, version = text(found.name), text(found.version)
    licence = found.license
    if isinstance(licence, dict):
        licence = licence.get("type")
    if name and version:
        yield Package(
            kind="npm",
            name=name,
            version=version,
            licence=text(licence),
            homepage=text(found.homepage),
            found=path,
        )
