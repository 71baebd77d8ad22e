"""Kernel versions with known holes that were used to leave containers (statement I25). Pure.

Each entry: the release that brought the hole in, the mainline release that closed it, and the
stable releases that did. A branch that is not listed and is older than the mainline repair never
got one.
Sources: the CVE records of the kernel's own numbering authority (CVE-2026-31431 as it stood on
2026-08-05) and the stable changelogs. What a distribution repairs under a number of its own is in
neither: :func:`identify` says where a number tells nothing.
"""

from __future__ import annotations

import re

import msgspec

Version = tuple[int, int, int]


class Hole(msgspec.Struct, frozen=True):
    """``stable`` are the first releases without the hole, one for each branch that got a fix."""

    cve: str
    what: str
    since: Version
    fixed: Version
    stable: tuple[Version, ...]

    def affects(self, version: Version) -> bool:
        """Whether a release as kernel.org made it has the hole."""
        if version < self.since or version >= self.fixed:
            return False
        for release in self.stable:
            if release[:2] == version[:2]:
                return version < release
        return True


def _hole(cve: str, what: str, since: str, fixed: str, stable: str) -> Hole:
    releases = tuple(_number(word) for word in stable.split())
    return Hole(cve, what, _number(since), _number(fixed), releases)


def _number(text: str) -> Version:
    parts = [int(part) for part in text.split(".")]
    return parts[0], parts[1], parts[2] if len(parts) > 2 else 0


HOLES: tuple[Hole, ...] = (
    _hole("CVE-2016-5195", "copy-on-write race: writes to read-only files (Dirty COW)",
          "2.6.22", "4.9", "4.4.26 4.7.9 4.8.3"),
    _hole("CVE-2020-14386", "packet sockets: writes beyond a buffer, with CAP_NET_RAW",
          "4.6", "5.9", "4.14.197 4.19.143 5.4.63 5.8.7"),
    _hole("CVE-2021-22555", "netfilter: heap writes from a user namespace",
          "2.6.19", "5.12", "4.14.231 4.19.188 5.4.113 5.10.31 5.11.15"),
    _hole("CVE-2021-33909", "seq_file: length taken as negative, from a mount in a user namespace",
          "3.16", "5.14", "4.14.240 4.19.198 5.4.134 5.10.52 5.12.19 5.13.4"),
    _hole("CVE-2022-0185", "fsconfig: heap overflow from a user namespace",
          "5.1", "5.17", "5.4.173 5.10.93 5.15.16 5.16.2"),
    _hole("CVE-2022-0492", "release_agent of cgroup v1 without a check of capabilities",
          "2.6.24", "5.17", "4.9.301 4.14.266 4.19.229 5.4.177 5.10.97 5.15.20 5.16.6"),
    _hole("CVE-2022-0847", "pipe buffers: writes to the page cache of read-only files (Dirty Pipe)",
          "5.8", "5.17", "5.10.102 5.15.25 5.16.11"),
    _hole("CVE-2022-25636", "nf_dup: heap write from a user namespace",
          "5.4", "5.17", "5.4.182 5.10.103 5.15.26 5.16.12"),
    _hole("CVE-2022-2588", "cls_route: use after free from a user namespace",
          "2.6.12", "6.0", "4.9.326 4.14.291 4.19.256 5.4.211 5.10.137 5.15.61 5.18.18 5.19.2"),
    _hole("CVE-2023-0386", "overlayfs: set-user-id files copied up from a nosuid mount",
          "5.11", "6.2", "5.15.91 6.1.9"),
    _hole("CVE-2023-32233", "nf_tables: use after free of anonymous sets from a user namespace",
          "3.13", "6.4", "4.14.315 4.19.283 5.4.243 5.10.180 5.15.111 6.1.28 6.2.15 6.3.2"),
    _hole("CVE-2023-3269", "memory maps: use after free while a stack grows (StackRot)",
          "6.1", "6.5", "6.1.37 6.3.11 6.4.1"),
    _hole("CVE-2024-1086", "nf_tables: double free by a verdict, from a user namespace",
          "3.15", "6.8", "5.4.269 5.10.210 5.15.149 6.1.76 6.6.15 6.7.3"),
    _hole("CVE-2026-31431", "AF_ALG: writes to the page cache of read-only files (Copy Fail)",
          "4.14", "7.0",
          "5.10.254 5.15.204 6.1.170 6.6.137 6.12.85 6.18.22 6.19.12"),
)  # fmt: skip


class Known(msgspec.Struct, frozen=True):
    """What a kernel says it is: a release of kernel.org, or a distribution's with own repairs."""

    version: Version
    source: str  # what was read
    told: bool  # whether the number says which repairs are in


_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_DEBIAN = re.compile(r"Debian (\d+\.\d+\.\d+)-")
_OWN_REPAIRS = re.compile(r"\.(el\d|amzn|fc\d|azl|cm2|lts)|-(generic|azure|aws|gcp|kvm|default)\b")


def identify(release: str, version: str, signature: str | None = None) -> Known:
    """Read uname's release and version, and Ubuntu's ``/proc/version_signature``.

    Debian names the stable release in the version, Ubuntu in the signature. Others backport repairs
    under an unchanging number, which therefore tells nothing. Raises ``ValueError``.
    """
    if signature and (match := _RELEASE.search(signature.split()[-1])):
        return Known(_triple(match), f"/proc/version_signature: {signature.strip()}", True)
    if match := _DEBIAN.search(version):
        return Known(_number(match[1]), f"uname: {version}", True)
    if not (match := _RELEASE.match(release)):
        raise ValueError(f"kernel release {release!r} is not a number")
    return Known(_triple(match), f"uname: {release}", not _OWN_REPAIRS.search(release))


def _triple(match: re.Match[str]) -> Version:
    return int(match[1]), int(match[2]), int(match[3] or 0)


def affecting(version: Version) -> tuple[Hole, ...]:
    """The holes of a release as kernel.org made it."""
    return tuple(hole for hole in HOLES if hole.affects(version))
