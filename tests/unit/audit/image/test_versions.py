"""Versions are ordered as the package managers order them."""

from __future__ import annotations

import itertools
import random
import subprocess

import pytest
from packaging.version import Version

from jaula.features.audit.image import versions

DEB = ("0", "0~", "1", "1.0", "1.0~rc1", "1.0~rc1-1", "1.0-1", "1.0-1~bpo12+1", "1.0-1+deb13u1",
       "1.0-1+b1", "1.0a", "1.0+dfsg-2", "1:0.1", "1.10", "1.9", "2.41-12+deb13u1", "1.0.",
       "09", "9", "1.0-1-1", "2:1:1-1")  # fmt: skip
APK = ("1.0_alpha", "1.0_alpha2", "1.0_beta", "1.0_pre1", "1.0_rc1", "1.0", "1.0-r1", "1.0-r10",
       "1.0_git20240101", "1.0_p1", "1.0a", "1.0.1", "1.02", "1.1", "1.9", "1.10")  # fmt: skip
RPM = ("1.0~rc1-1", "1.0-1", "1.0-1.el9", "1.0-1.el9_4.2", "1.0^git1-1", "1.0a-1", "1.0.1-1",
       "1.9-1", "1.10-1", "1:0.1-1")  # fmt: skip
SEMVER = ("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
          "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0")  # fmt: skip
PYPI = (
    "1.0.dev1",
    "1.0a1",
    "1.0b2",
    "1.0rc1",
    "1.0",
    "1.0.0",
    "1.0+local.1",
    "1.0.post1",
    "1.1",
    "1!0.1",
    "1.0a1.dev2",
    "1.0.post1.dev3",
    "v1.0-1",
    "1.0_pre.3",
    "2.10",
    "2.9",
    "1.0+1",
    "1.0+a",
)


def dpkg(a: str, b: str) -> int | None:
    """Return the order; None if it refuses a version."""
    for word, order in (("lt", -1), ("eq", 0), ("gt", 1)):
        words = ("dpkg", "--compare-versions", a, word, b)
        if subprocess.run(words, check=False, capture_output=True).returncode == 0:
            return order
    return None


@pytest.mark.needs("dpkg")
def test_versions_of_debian_are_ordered_as_by_dpkg() -> None:
    for a, b in itertools.combinations(DEB, 2):
        order = versions.deb(a, b)
        assert (order > 0) - (order < 0) == dpkg(a, b), (a, b)
        assert versions.deb(b, a) == -order


@pytest.mark.needs("dpkg")
def test_random_versions_of_debian_are_ordered_as_by_dpkg() -> None:
    chance, compared = random.Random(7), 0
    for _ in range(150):
        a, b = (
            str(chance.randrange(3)) + "".join(chance.choices("019a~.+-Z", k=chance.randrange(6)))
            for _ in range(2)
        )
        expected = dpkg(a, b)
        if expected is not None:
            compared += 1
            order = versions.deb(a, b)
            assert (order > 0) - (order < 0) == expected, (a, b)
    assert compared > 50


def test_versions_of_python_are_ordered_as_by_packaging() -> None:
    for a, b in itertools.product(PYPI, repeat=2):
        first, second = Version(a), Version(b)
        assert versions.pypi(a, b) == (first > second) - (first < second), (a, b)


@pytest.mark.parametrize(
    ("compare", "ordered"),
    [(versions.apk, APK), (versions.rpm, RPM), (versions.semver, SEMVER)],
)
def test_versions_are_ordered_as_their_sources_say(compare, ordered) -> None:  # type: ignore[no-untyped-def]
    for (i, a), (j, b) in itertools.product(enumerate(ordered), repeat=2):
        assert compare(a, b) == (i > j) - (i < j), (a, b)


def test_a_missing_release_of_rpm_is_equal() -> None:
    assert versions.rpm("1.0", "1.0-5") == 0
    assert versions.rpm("2", "1:1") < 0


@pytest.mark.parametrize("kind", versions.COMPARE)
@pytest.mark.parametrize(
    "version",
    ["", " ", "\n1", "1 2", "\u0661.0", "1" * 600, "a/b", "1:2:3/4", "x" * 99, "\udc80", "-"],
)
def test_a_malformed_version_is_refused(kind: str, version: str) -> None:
    if kind in ("deb", "rpm") and version == "x" * 99:
        return  # it is a version there
    with pytest.raises(ValueError, match="version"):
        versions.COMPARE[kind](version, "1.0")


def test_long_versions_cost_little() -> None:
    for kind, compare in versions.COMPARE.items():
        for text in ("1" * 512, "1." * 255 + "1", "~" * 512, "a" * 512, "1-" * 255 + "1"):
            try:
                compare(text, text)
            except ValueError:
                continue
            assert compare(text, text) == 0, kind
