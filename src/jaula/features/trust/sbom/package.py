"""An installed package, and the operating system of the image."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec

_LIMIT = 512  # characters of a value


class System(msgspec.Struct, frozen=True):
    """The content of ``os-release``, empty if the image has none. Source: os-release(5)."""

    id: str = ""
    version: str = ""
    name: str = ""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package.

    ``kind`` is its package URL type; ``path`` is the file that lists it.
    """

    kind: str  # deb, apk, rpm, pypi, npm
    name: str
    version: str
    architecture: str = ""
    epoch: str = ""
    source: str = ""  # the source package, if its name differs
    source_version: str = ""  # of the source package, if it differs
    licence: str = ""  # as stated by the package, often not an SPDX expression
    supplier: str = ""
    homepage: str = ""
    path: str = ""

    def purl(self, system: System) -> str:
        """Return the package URL. Source: package-url/purl-spec, ``PURL-TYPES``."""
        name, namespace = self.name, ""
        if self.kind in ("deb", "apk", "rpm"):
            namespace = system.id or self.kind
        elif self.kind == "npm" and self.name.startswith("@") and "/" in self.name:
            namespace, _, name = self.name.partition("/")
        elif self.kind == "pypi":
            name = re.sub(r"[-_.]+", "-", name).lower()
        qualifiers = {"arch": self.architecture, "epoch": self.epoch}
        if self.kind in ("deb", "apk", "rpm") and system.id:
            qualifiers["distro"] = f"{system.id}-{system.version}".rstrip("-")
        query = "&".join(f"{k}={quote(v, '')}" for k, v in sorted(qualifiers.items()) if v)
        path = "/".join(quote(part, "") for part in (namespace, name) if part)
        return f"pkg:{self.kind}/{path}@{quote(self.version, '')}" + (f"?{query}" if query else "")


class Inventory(msgspec.Struct, frozen=True):
    """All packages of an image, in a fixed order."""

    system: System
    packages: tuple[Package, ...]


def text(value: object) -> str:
    """Return a value as one short line of text, empty if it is not a string."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value[: _LIMIT * 4].split())[:_LIMIT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
