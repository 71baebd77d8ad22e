"""Kernel versions with known CVEs that were used for container escapes (statement I25). Pure.

Each entry has the release that introduced the flaw, the mainline release that fixed it, and the
stable releases that did. A branch that is not listed and is older than the mainline fix never got
one. Fixes that a distribution makes under its own version numbers are not included:
:func:`identify` says when a number is not reliable.

Sources of the numbers, for every branch of a row unless stated otherwise:

* CVE records of the kernel's CVE numbering authority: 2025-38236, 2025-38617, 2026-31431.
* linux_kernel_cves by Nicholas Luedtke, which finds the introducing and fixing commits in mainline
  and each stable branch, and ends in March 2023: 2020-14386, 2021-22555, 2021-33909, 2022-0185,
  2022-0492, 2022-0847, 2022-1015, 2022-2588, 2022-25636, 2022-34918 and 2023-0179. It has 4.1 as
  first release of 2022-34918; cip-kernel-sec (Civil Infrastructure Platform) and Debian have 5.8,
  which is in the table.
* NVD's ranges and linux_kernel_cves: 2016-5195, 2016-8655, 2017-5123, 2017-7308, 2017-1000112.
  Branches 3.2, 3.4 and 3.10 of the first, and 3.10 of the others, are in NVD only. For 2017-7308
  linux_kernel_cves has earlier releases of 3.18, 4.4, 4.9 and 4.10, with one of the three commits
  of the fix; those of NVD are in the table.
* NVD's ranges; cip-kernel-sec names the same branches: 2023-0386.
* The changelogs that NVD names, not verified: 2018-18955.
* The commits that cip-kernel-sec names, located before the release's tag in published lists of the
  commits of a branch: 2023-3269, 2023-32233 (in 4.14 by the commit's title), and branches 4.19, 5.4
  and 5.10 of 2024-1086, whose other branches are in NVD.

Not confirmed: the mainline release of the rows before 2020 and of 2023-3269, which is the one after
the last branch with a fix; and whether a cause was backported to branches older than the first
release. 2.6.12 is where git's history begins: the flaw may be older.

Left out: flaws in ``bpf``, ``io_uring`` and ``AF_VSOCK``, which containers do not get by default,
and CVEs without known version numbers (2023-35001, 2024-0193, 2024-26581).
"""

from __future__ import annotations

import re

import msgspec

Version = tuple[int, int, int]


class KernelCve(msgspec.Struct, frozen=True):
    """A CVE; ``stable`` are the first fixed releases, one for each branch that got a fix."""

    cve: str
    what: str
    since: Version
    fixed: Version
    stable: tuple[Version, ...]

    def affects(self, version: Version) -> bool:
        """Return whether an unmodified kernel.org release has the flaw."""
        if version < self.since or version >= self.fixed:
            return False
        for release in self.stable:
            if release[:2] == version[:2]:
                return version < release
        return True


def _cve(cve: str, what: str, since: str, fixed: str, stable: str) -> KernelCve:
    releases = tuple(_number(word) for word in stable.split())
    return KernelCve(cve, what, _number(since), _number(fixed), releases)


def _number(text: str) -> Version:
    parts = [int(part) for part in text.split(".")]
    return parts[0], parts[1], parts[2] if len(parts) > 2 else 0


KERNEL_CVES: tuple[KernelCve, ...] = (
    _cve("CVE-2016-5195", "copy-on-write race: writes to read-only files (Dirty COW)",
          "2.6.22", "4.9",
          "3.2.83 3.4.113 3.10.104 3.12.66 3.16.38 3.18.44 4.1.35 4.4.26 4.7.9 4.8.3"),
    _cve("CVE-2016-8655", "packet sockets: use after free of a ring's timer, with CAP_NET_RAW",
          "3.2", "4.9", "3.2.85 3.10.106 3.12.69 3.16.40 3.18.46 4.1.37 4.4.38 4.8.14"),
    _cve("CVE-2017-5123", "waitid: writes to any kernel address",
          "4.13", "4.14", "4.13.7"),
    _cve("CVE-2017-7308", "packet sockets: writes beyond a ring's block, with CAP_NET_RAW",
          "2.6.27", "4.11",
          "3.2.89 3.10.107 3.12.74 3.16.44 3.18.52 4.1.41 4.4.66 4.9.26 4.10.14"),
    _cve("CVE-2017-1000112", "UDP fragmentation offload: heap writes from a user namespace",
          "2.6.15", "4.13", "3.10.108 3.16.47 3.18.65 4.4.82 4.9.43 4.12.7"),
    _cve("CVE-2018-18955", "user namespaces: more than five ranges map to ids of the host",
          "4.15", "4.20", "4.18.19 4.19.2"),
    _cve("CVE-2020-14386", "packet sockets: writes beyond a buffer, with CAP_NET_RAW",
          "4.6", "5.9", "4.9.239 4.14.201 4.19.150 5.4.64 5.8.8"),
    _cve("CVE-2021-22555", "netfilter: heap writes from a user namespace",
          "2.6.19", "5.12", "4.4.267 4.9.267 4.14.231 4.19.188 5.4.113 5.10.31 5.11.15"),
    _cve("CVE-2021-33909", "seq_file: length taken as negative, from a mount in a user namespace",
          "3.16", "5.14", "4.4.276 4.9.276 4.14.240 4.19.198 5.4.134 5.10.52 5.12.19 5.13.4"),
    _cve("CVE-2022-0185", "fsconfig: heap overflow from a user namespace",
          "5.1", "5.17", "5.4.173 5.10.93 5.15.16 5.16.2"),
    _cve("CVE-2022-0492", "release_agent of cgroup v1 without a check of capabilities",
          "2.6.24", "5.17", "4.9.301 4.14.266 4.19.229 5.4.177 5.10.97 5.15.20 5.16.6"),
    _cve("CVE-2022-0847", "pipe buffers: writes to the page cache of read-only files (Dirty Pipe)",
          "5.8", "5.17", "5.10.102 5.15.25 5.16.11"),
    _cve("CVE-2022-1015", "nf_tables: stack writes by a register's number, from a user namespace",
          "5.12", "5.18", "5.15.32 5.16.18 5.17.1"),
    _cve("CVE-2022-2588", "cls_route: use after free from a user namespace",
          "2.6.12", "6.0", "4.9.326 4.14.291 4.19.256 5.4.211 5.10.137 5.15.61 5.18.18 5.19.2"),
    _cve("CVE-2022-25636", "nf_dup: heap write from a user namespace",
          "5.4", "5.17", "5.4.182 5.10.103 5.15.26 5.16.12"),
    _cve("CVE-2022-34918", "nf_tables: heap writes by a set's element, from a user namespace",
          "5.8", "5.19", "5.10.130 5.15.54 5.18.11"),
    _cve("CVE-2023-0179", "nf_tables: stack writes by a VLAN header, from a user namespace",
          "5.5", "6.2", "5.10.164 5.15.89 6.1.7"),
    _cve("CVE-2023-0386", "overlayfs: set-user-id files copied up from a nosuid mount",
          "5.11", "6.2", "5.15.91 6.1.9"),
    _cve("CVE-2023-3269", "memory maps: use after free while a stack grows (StackRot)",
          "6.1", "6.5", "6.1.37 6.3.11 6.4.1"),
    _cve("CVE-2023-32233", "nf_tables: use after free of anonymous sets from a user namespace",
          "3.13", "6.4", "4.14.315 4.19.283 5.4.243 5.10.180 5.15.111 6.1.28 6.2.15 6.3.2"),
    _cve("CVE-2024-1086", "nf_tables: double free by a verdict, from a user namespace",
          "3.15", "6.8", "4.19.307 5.4.269 5.10.210 5.15.149 6.1.76 6.6.15 6.7.3"),
    _cve("CVE-2025-38236", "unix sockets: use after free of out-of-band data",
          "5.15", "6.16", "5.15.194 6.1.143 6.6.96 6.12.36 6.15.5"),
    _cve("CVE-2025-38617", "packet sockets: use after free of a ring, with CAP_NET_RAW",
          "2.6.12", "6.17",
          "5.4.297 5.10.241 5.15.190 6.1.148 6.6.102 6.12.42 6.15.10 6.16.1"),
    _cve("CVE-2026-31431", "AF_ALG: writes to the page cache of read-only files (Copy Fail)",
          "4.14", "7.0",
          "5.10.254 5.15.204 6.1.170 6.6.137 6.12.85 6.18.22 6.19.12"),
)  # fmt: skip


class KernelVersion(msgspec.Struct, frozen=True):
    """A kernel's version: a kernel.org release, or one of a distribution with own fixes."""

    version: Version
    source: str  # evidence
    reliable: bool  # whether the number determines the fixes


_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_DEBIAN = re.compile(r"Debian (\d+\.\d+\.\d+)-")
_BACKPORTS = re.compile(r"\.(el\d|amzn|fc\d|azl|cm2|lts)|-(generic|azure|aws|gcp|kvm|default)\b")


def identify(release: str, version: str, signature: str | None = None) -> KernelVersion:
    """Parse uname's release and version, and Ubuntu's ``/proc/version_signature``.

    Debian names the stable release in the version, Ubuntu in the signature. Other distributions
    backport fixes under an unchanged number, which is therefore not reliable.

    :raises ValueError: when ``release`` is not a version number.
    """
    if signature and (match := _RELEASE.search(signature.split()[-1])):
        return KernelVersion(_triple(match), f"/proc/version_signature: {signature.strip()}", True)
    if match := _DEBIAN.search(version):
        return KernelVersion(_number(match[1]), f"uname: {version}", True)
    if not (match := _RELEASE.match(release)):
        raise ValueError(f"kernel release {release!r} is not a number")
    return KernelVersion(_triple(match), f"uname: {release}", not _BACKPORTS.search(release))


def _triple(match: re.Match[str]) -> Version:
    return int(match[1]), int(match[2]), int(match[3] or 0)


def affecting_cves(version: Version) -> tuple[KernelCve, ...]:
    """Return the CVEs of an unmodified kernel.org release."""
    return tuple(hole for hole in KERNEL_CVES if hole.affects(version))
