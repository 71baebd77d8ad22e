"""Known vulnerabilities: a file that the user has, compared with packages. No network is used.

Sources: the OSV schema 1.7 (ossf.github.io/osv-schema), as one JSON object, a list, JSON lines or a
zip of JSON files; the JSON of the Debian security tracker (security-tracker.debian.org/tracker/
data/json).

A file is read within bounds, and an advisory whose versions cannot be compared is counted, not
guessed.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.audit.image import versions
from jaula.features.trust.sbom.package import Inventory, Package, System

MAX_FILE = 2 << 30  # bytes of the file
MAX_DOCUMENT = 512 << 20  # bytes of a JSON document; the tracker's has 80 MB
MAX_MEMBER = 16 << 20  # bytes of a member of a zip
MAX_UNPACKED = 8 << 30  # bytes of all members
MAX_MEMBERS = 1_000_000
CODENAMES = {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
ECOSYSTEMS = {"debian": "Debian", "ubuntu": "Ubuntu", "alpine": "Alpine", "rocky": "Rocky Linux",
              "almalinux": "AlmaLinux", "rhel": "Red Hat", "opensuse-leap": "openSUSE",
              "sles": "SUSE", "chainguard": "Chainguard", "wolfi": "Wolfi",
              "alpaquita": "Alpaquita"}  # fmt: skip
"""Ecosystems of OSV by the ``ID`` of os-release."""
_CODENAME = re.compile(r"\(([a-z]+)\)|\b([a-z]+)/sid\Z")
_ESCAPED = re.compile(r"[-_.]+")


class Range(msgspec.Struct, frozen=True):
    """Versions from ``introduced`` until before ``fixed``, or up to ``last``; '' is open."""

    introduced: str = ""
    fixed: str = ""
    last: str = ""


class Advisory(msgspec.Struct, frozen=True):
    """A vulnerability of one package. ``release`` is '' for every release of the system."""

    id: str
    ecosystem: str
    release: str
    package: str
    ranges: tuple[Range, ...] = ()
    versions: frozenset[str] = frozenset()
    severity: str = ""


class Vulnerability(msgspec.Struct, frozen=True, order=True):
    """An advisory that a package of an image has; ``fixed`` is '' without a fixed version."""

    package: str
    version: str
    id: str
    fixed: str = ""
    severity: str = ""

    def __str__(self) -> str:
        fixed = f"fixed in {self.fixed}" if self.fixed else "not fixed"
        severity = f", {self.severity}" if self.severity else ""
        return f"{self.package} {self.version}: {self.id} ({fixed}{severity})"


class Matches(msgspec.Struct, frozen=True):
    """The vulnerabilities of an image; ``incomparable`` advisories have no usable versions."""

    vulnerabilities: tuple[Vulnerability, ...]
    incomparable: int = 0


Names = frozenset[tuple[str, str]]
"""(ecosystem, package) of all packages that are compared."""


# -- packages ---------------------------------------------------------------------------------


def key(package: Package, system: System) -> tuple[str, str, str]:
    """Return ecosystem, name and version of a package as advisories have them. Pure.

    Those of Debian and Alpine are about source packages.
    """
    if package.kind == "pypi":
        return "PyPI", _ESCAPED.sub("-", package.name).lower(), package.version
    if package.kind == "npm":
        return "npm", package.name, package.version
    version = f"{package.epoch}:{package.version}" if package.epoch else package.version
    ecosystem = ECOSYSTEMS.get(system.id, system.id)
    if package.kind in ("deb", "apk"):
        name = package.source or package.name
        return ecosystem, name, package.source_version or version
    return ecosystem, package.name, version


def names(inventories: Iterable[Inventory]) -> Names:
    """Return the packages of images, for :func:`load`. Pure."""
    return frozenset(
        key(package, inventory.system)[:2]
        for inventory in inventories
        for package in inventory.packages
    )


def in_release(release: str, system: System) -> bool:
    """Return whether an advisory of a release is about a system. Pure."""
    if not release:
        return True
    codename = _CODENAME.search(system.name)
    own = {
        system.version, f"v{system.version}", system.version.partition(".")[0],
        f"v{'.'.join(system.version.split('.')[:2])}", CODENAMES.get(system.version, ""),
        (codename[1] or codename[2]) if codename else "",
    }  # fmt: skip
    return release.partition(":")[0] in own - {"", "v"}


# -- loading ----------------------------------------------------------------------------------


class _Package(msgspec.Struct, frozen=True):
    name: str = ""
    ecosystem: str = ""


class _Range(msgspec.Struct, frozen=True):
    type: str = ""
    events: list[dict[str, str]] = []


class _Affected(msgspec.Struct, frozen=True):
    package: _Package = _Package()
    ranges: list[_Range] = []
    versions: list[str] = []
    ecosystem_specific: Any = None


class _Osv(msgspec.Struct, frozen=True):
    id: str
    affected: list[_Affected] = []
    withdrawn: str = ""
    database_specific: Any = None


class _OsvList(msgspec.Struct, frozen=True):
    vulns: list[_Osv]


class _Release(msgspec.Struct, frozen=True):
    status: str = ""
    fixed_version: str = ""
    urgency: str = ""


class _Tracked(msgspec.Struct, frozen=True):
    releases: dict[str, _Release] = {}


_osv = msgspec.json.Decoder(_Osv)
_tracker = msgspec.json.Decoder(dict[str, dict[str, _Tracked]])


def load(path: str, packages: Names) -> tuple[Advisory, ...]:
    """Return the advisories of a file on the packages ``packages``.

    :raises InvalidRequest: when the file is too large, damaged, or of another format.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return tuple(_of_zip(file, path, packages))
            file.seek(0)
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise InvalidRequest(f"advisories {path}: {error.strerror or error}") from None
    if len(data) > MAX_DOCUMENT:
        raise InvalidRequest(f"advisories {path} have more than {MAX_DOCUMENT} bytes")
    return tuple(parse(data, path, packages))


def _of_zip(file: io.BufferedReader, path: str, packages: Names) -> Iterator[Advisory]:
    """Yield the advisories of the JSON files in a zip. Sizes in its directory are not believed."""
    left = MAX_UNPACKED
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise InvalidRequest(f"advisories {path} have more than {MAX_MEMBERS} files")
            for member in members:
                if member.is_dir() or not member.filename.endswith(".json"):
                    continue
                with archive.open(member) as stream:
                    data = stream.read(min(MAX_MEMBER, left) + 1)
                left -= len(data)
                if len(data) > MAX_MEMBER or left < 0:
                    raise InvalidRequest(
                        f"advisories {path}: {member.filename[:100]!r} is larger than "
                        f"{MAX_MEMBER} bytes, or all are larger than {MAX_UNPACKED}"
                    )
                yield from parse(data, f"{path} {member.filename[:100]!r}", packages)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError,
            OSError) as error:  # fmt: skip
        raise InvalidRequest(f"advisories {path}: {str(error)[:200]}") from None
    except Exception as error:
        if type(error).__module__ not in ("zlib", "lzma", "_lzma", "bz2"):
            raise
        raise InvalidRequest(f"advisories {path}: {str(error)[:200]}") from None


def parse(data: bytes, name: str, packages: Names) -> Iterator[Advisory]:
    """Yield the advisories of a JSON document on the packages ``packages``. Pure.

    :raises InvalidRequest: when it is of none of the formats.
    """
    for document in _documents(data, name):
        if isinstance(document, _Osv):
            yield from _of_osv(document, packages)
        else:
            yield from _of_tracker(document, packages)


def _documents(data: bytes, name: str) -> Iterator[_Osv | dict[str, dict[str, _Tracked]]]:
    text = data.strip()
    if not text:
        raise InvalidRequest(f"advisories {name} are empty")
    try:
        if text.startswith(b"["):
            yield from msgspec.json.decode(text, type=list[_Osv])
            return
        if b"\n" in text and text.partition(b"\n")[0].rstrip().endswith(b"}"):
            for line in text.split(b"\n"):
                if line.strip():
                    yield _osv.decode(line)
            return
        for decode in (_osv.decode, msgspec.json.Decoder(_OsvList).decode, _tracker.decode):
            try:
                document = decode(text)
            except msgspec.ValidationError:
                continue
            if isinstance(document, _OsvList):
                yield from document.vulns
            else:
                yield document
            return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"advisories {name}: {str(error)[:200]}") from None
    raise InvalidRequest(
        f"advisories {name} are of another format",
        hint="must be JSON or a zip of OSV, or the JSON of the Debian security tracker",
    )


def _of_osv(document: _Osv, packages: Names) -> Iterator[Advisory]:
    if document.withdrawn:
        return
    for affected in document.affected:
        ecosystem, _, release = affected.package.ecosystem.partition(":")
        name = affected.package.name
        if ecosystem == "PyPI":
            name = _ESCAPED.sub("-", name).lower()
        if (ecosystem, name) not in packages:
            continue
        ranges = [
            each
            for item in affected.ranges
            if item.type in ("ECOSYSTEM", "SEMVER")
            for each in _ranges(item.events)
        ]
        severity = next(
            (
                str(value["severity"] if "severity" in value else value["urgency"])[:20].lower()
                for value in (document.database_specific, affected.ecosystem_specific)
                if isinstance(value, Mapping) and {"severity", "urgency"} & set(value)
            ),
            "",
        )
        yield Advisory(document.id[:100], ecosystem, release, name, tuple(ranges),
                       frozenset(affected.versions), severity)  # fmt: skip


def _ranges(events: Iterable[Mapping[str, str]]) -> Iterator[Range]:
    """Yield the ranges of a list of events, which is in the order of versions. Pure."""
    introduced: str | None = None
    for event in events:
        if "introduced" in event:
            if introduced is not None:
                yield Range(introduced)
            introduced = event["introduced"]
        elif introduced is not None and ("fixed" in event or "last_affected" in event):
            yield Range(introduced, event.get("fixed", ""), event.get("last_affected", ""))
            introduced = None
    if introduced is not None:
        yield Range(introduced)


def _of_tracker(
    document: Mapping[str, Mapping[str, _Tracked]], packages: Names
) -> Iterator[Advisory]:
    for package, entries in document.items():
        if ("Debian", package) not in packages:
            continue
        for id, tracked in entries.items():
            for release, status in tracked.releases.items():
                # A fixed version 0 says that the release never had it.
                if status.status == "undetermined" or status.fixed_version == "0":
                    continue
                fixed = status.fixed_version if status.status == "resolved" else ""
                severity = "" if status.urgency == "not yet assigned" else status.urgency
                yield Advisory(id[:100], "Debian", release, package, (Range("0", fixed),),
                               severity=severity[:20])  # fmt: skip


# -- comparison -------------------------------------------------------------------------------


class Index:
    """Advisories by package."""

    def __init__(self, advisories: Iterable[Advisory]) -> None:
        self._by_name: dict[tuple[str, str], list[Advisory]] = {}
        for advisory in advisories:
            self._by_name.setdefault((advisory.ecosystem, advisory.package), []).append(advisory)

    def match(self, inventory: Inventory) -> Matches:
        """Return the vulnerabilities of the packages of an image. Pure."""
        found: set[Vulnerability] = set()
        incomparable = 0
        for package in inventory.packages:
            ecosystem, name, version = key(package, inventory.system)
            for advisory in self._by_name.get((ecosystem, name), ()):
                if not in_release(advisory.release, inventory.system):
                    continue
                try:
                    hit = affects(advisory, package.kind, version)
                except ValueError:
                    incomparable += 1
                    continue
                if hit is not None:
                    found.add(Vulnerability(package.name, package.version, advisory.id,
                                            hit.fixed, advisory.severity))  # fmt: skip
        return Matches(tuple(sorted(found)), incomparable)


def affects(advisory: Advisory, kind: str, version: str) -> Range | None:
    """Return the range of an advisory that a version is in, or None. Pure.

    :raises ValueError: when versions cannot be compared.
    """
    compare = versions.COMPARE[kind]
    for each in advisory.ranges:
        if each.introduced not in ("", "0") and compare(version, each.introduced) < 0:
            continue
        if each.fixed and compare(version, each.fixed) >= 0:
            continue
        if each.last and compare(version, each.last) > 0:
            continue
        return each
    return Range() if version in advisory.versions else None
