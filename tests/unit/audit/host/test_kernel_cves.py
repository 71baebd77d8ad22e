"""The table of kernel versions with known CVEs, and the identification of a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.features.verify.host import Host, kernel_version
from jaula.features.verify.host.kernel_cves import KERNEL_CVES, Version, affecting_cves, identify
from jaula.features.verify.model.result import Verdict


def number(text: str) -> Version:
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


@pytest.mark.parametrize(
    ("cve", "affected", "repaired"),
    [
        ("CVE-2016-5195",
         "2.6.22 2.6.32 3.2.82 3.4.112 3.10.103 3.12.65 3.14.79 3.16.37 3.18.43 4.4.25 4.8.2",
         "3.2.83 3.4.113 3.10.104 3.12.66 3.16.38 3.18.44 4.1.35 4.4.26 4.7.9 4.8.3 4.9.0"),
        ("CVE-2016-8655", "3.2.0 3.2.84 3.10.105 4.1.36 4.4.37 4.8.13",
         "3.1.10 3.2.85 3.10.106 4.1.37 4.4.38 4.8.14 4.9.0"),
        ("CVE-2017-5123", "4.13.0 4.13.6", "4.12.14 4.13.7 4.14.0"),
        ("CVE-2017-7308", "3.2.88 4.4.65 4.9.25 4.10.13", "2.6.26 3.2.89 4.4.66 4.10.14 4.11.0"),
        ("CVE-2017-1000112", "3.10.107 4.1.52 4.4.81 4.9.42 4.12.6",
         "2.6.14 3.10.108 4.4.82 4.9.43 4.12.7 4.13.0"),
        ("CVE-2018-18955", "4.15.0 4.18.18 4.19.1", "4.14.80 4.18.19 4.19.2 4.20.0"),
        ("CVE-2020-14386", "4.6.0 4.9.238 4.14.200 4.19.149 5.4.63 5.8.7",
         "4.4.239 4.9.239 4.14.201 4.19.150 5.4.64 5.8.8 5.9.0"),
        ("CVE-2021-22555", "2.6.19 4.4.266 4.9.266 5.11.14", "4.4.267 4.9.267 5.11.15 5.12.0"),
        ("CVE-2021-33909", "4.4.275 4.9.275 5.13.3", "3.15.10 4.4.276 4.9.276 5.13.4 5.14.0"),
        ("CVE-2022-0185", "5.1.0 5.4.172 5.16.1", "5.0.21 5.4.173 5.16.2"),
        ("CVE-2022-0492", "4.4.302 4.9.300 4.19.228 5.15.19 5.16.5",
         "4.9.301 4.19.229 5.15.20 5.17.0"),
        ("CVE-2022-0847", "5.8.0 5.10.101 5.15.24 5.16.10 5.14.21", "5.7.19 5.10.102 5.17.0"),
        ("CVE-2022-1015", "5.12.0 5.15.31 5.16.17 5.17.0", "5.10.200 5.15.32 5.17.1 5.18.0"),
        ("CVE-2022-34918", "5.8.0 5.10.129 5.15.53 5.18.10", "5.4.302 5.10.130 5.15.54 5.19.0"),
        ("CVE-2023-0179", "5.5.0 5.10.163 5.15.88 6.0.19 6.1.6", "5.4.302 5.10.164 6.1.7 6.2.0"),
        ("CVE-2023-0386", "5.11.0 5.15.90 6.1.8", "5.10.200 5.15.91 6.2.0"),
        ("CVE-2023-3269", "6.1.36 6.2.16 6.3.10 6.4.0", "6.0.19 6.1.37 6.3.11 6.4.1 6.5.0"),
        ("CVE-2024-1086", "4.14.336 4.19.306 5.4.268 5.10.209 5.15.148 6.1.75 6.6.14 6.5.13",
         "3.14.79 4.19.307 5.4.269 5.10.210 6.1.76 6.6.15 6.8.0"),
        ("CVE-2025-38236", "5.15.193 6.1.142 6.12.35 6.15.4", "5.14.21 5.15.194 6.12.36 6.16.0"),
        ("CVE-2025-38617", "4.19.325 5.4.296 5.10.240 6.12.41 6.15.9 6.16.0",
         "5.4.297 5.10.241 6.12.42 6.15.10 6.16.1 6.17.0"),
        ("CVE-2026-31431",
         "4.14.0 5.4.302 5.10.253 5.15.203 6.1.169 6.6.136 6.12.84 6.17.3 6.18.21 6.19.11",
         "4.13.16 5.10.254 5.15.204 6.1.170 6.6.137 6.12.85 6.18.22 6.19.12 7.0.0"),
    ],
)  # fmt: skip
def test_a_cve_affects_releases_by_branch(cve: str, affected: str, repaired: str) -> None:
    for text in affected.split():
        assert cve in [hole.cve for hole in affecting_cves(number(text))], text
    for text in repaired.split():
        assert cve not in [hole.cve for hole in affecting_cves(number(text))], text


def test_the_table_is_in_order_and_without_contradictions() -> None:
    assert len({hole.cve for hole in KERNEL_CVES}) == len(KERNEL_CVES)
    for hole in KERNEL_CVES:
        assert hole.since < hole.fixed, hole.cve
        assert list(hole.stable) == sorted(hole.stable), hole.cve
        assert all(hole.since <= release < hole.fixed for release in hole.stable), hole.cve
        assert not hole.affects(hole.fixed)
        assert all(not hole.affects(release) for release in hole.stable)
        assert hole.what


@pytest.mark.parametrize(
    ("release", "version", "signature", "found", "reliable"),
    [
        ("6.18.44", "#1 SMP", None, (6, 18, 44), True),
        ("6.12.94+deb13-amd64", "#1 SMP Debian 6.12.94-1 (2026-06-01)", None, (6, 12, 94), True),
        ("5.10.0-30-amd64", "#1 SMP Debian 5.10.218-1 (2024-06-01)", None, (5, 10, 218), True),
        ("5.15.0-91-generic", "#101-Ubuntu", "Ubuntu 5.15.0-91.101-generic 5.15.131",
         (5, 15, 131), True),
        ("5.15.0-91-generic", "#101-Ubuntu", None, (5, 15, 0), False),
        ("4.18.0-553.el8_10.x86_64", "#1 SMP", None, (4, 18, 0), False),
        ("6.1.0", "", None, (6, 1, 0), True),
        ("6.19-rc3", "", None, (6, 19, 0), True),
    ],
)  # fmt: skip
def test_a_kernel_is_identified(
    release: str, version: str, signature: str | None, found: Version, reliable: bool
) -> None:
    known = identify(release, version, signature)
    assert (known.version, known.reliable) == (found, reliable)


@pytest.mark.parametrize("release", ["", "linux", "x.y.z"])
def test_a_release_without_a_number_is_an_error(release: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        identify(release, "", None)


@pytest.mark.parametrize(
    ("release", "verdict", "named"),
    [
        ("6.18.44", Verdict.HOLDS, "none"),
        ("5.15.20", Verdict.FAILS, "CVE-2022-0847"),
        ("5.16.1", Verdict.FAILS, "CVE-2022-0185"),
        ("6.12.84", Verdict.FAILS, "CVE-2026-31431"),
        ("4.18.0-553.el8_10.x86_64", Verdict.UNKNOWN, "see its advisories"),
    ],
)
def test_the_row_fails_for_an_affected_kernel(
    tmp_path: Path, release: str, verdict: Verdict, named: str
) -> None:
    host = Host(root=tmp_path, run=tmp_path, socket=tmp_path / "s", release=release, version="",
                proc=tmp_path)  # fmt: skip
    (row,) = kernel_version.check(host)
    assert row.verdict is verdict
    assert named in row.effective
