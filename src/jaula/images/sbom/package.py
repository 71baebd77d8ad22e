"""One installed package, and the system it belongs to."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec

_LIMIT = 512  # characters of a value


class System(msgspec.Struct, frozen=True):
    """What ``os-release`` says; empty where an image has none. Source: os-release(5)."""

    id: str = ""
    version: str = ""
    name: str = ""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` is the type of a package URL; ``found`` the file that tells of it."""

    kind: str  # deb, apk, rpm, pypi, npm
    name: str
    version: str
    architecture: str = ""
    epoch: str = ""
    source: str = ""  # the source package, where it is called otherwise
    licence: str = ""  # as the package has it, often no SPDX expression
    supplier: str = ""
    homepage: str = ""
    found: str = ""

    def purl(self, system: System) -> str:
        """Its package URL. Source: package-url/purl-spec, ``PURL-TYPES``."""
        name, space = self.name, ""
        if self.kind in ("deb", "apk", "rpm"):
            space = system.id or self.kind
        elif self.kind == "npm" and self.name.startswith("@") and "/" in self.name:
            space, _, name = self.name.partition("/")
        elif self.kind == "pypi":
            name = re.sub(r"[-_.]+", "-", name).lower()
        qualifiers = {"arch": self.architecture, "epoch": self.epoch}
        if self.kind in ("deb", "apk", "rpm") and system.id:
            qualifiers["distro"] = f"{system.id}-{system.version}".rstrip("-")
        told = "&".join(f"{k}={quote(v, '')}" for k, v in sorted(qualifiers.items()) if v)
        path = "/".join(quote(part, "") for part in (space, name) if part)
        return f"pkg:{self.kind}/{path}@{quote(self.version, '')}" + (f"?{told}" if told else "")


class Inventory(msgspec.Struct, frozen=True):
    """Everything that was found, in a fixed order."""

    system: System
    packages: tuple[Package, ...]


def text(value: object) -> str:
    """A value as one short line of text; empty where it is none."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value[: _LIMIT * 4].split())[:_LIMIT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
