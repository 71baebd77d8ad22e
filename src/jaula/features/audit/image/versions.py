"""Comparison of package versions. Pure.

Sources: Debian Policy 5.6.12 and deb-version(7); apk-tools ``version.c``; rpm ``rpmvercmp``;
PEP 440; Semantic Versioning 2.0.0, section 11. A version that its scheme does not have raises
``ValueError``; no number of it is longer than 512 digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

MAX_LENGTH = 512  # characters

_DEB = re.compile(r"(?:(\d+):)?([0-9A-Za-z][0-9A-Za-z.+~:-]*?)(?:-([0-9A-Za-z.+~]+))?")
_DEB_PARTS = re.compile(r"(\D*)(\d*)", re.ASCII)
_APK = re.compile(r"(\d+(?:\.\d+)*)([a-z]?)((?:_[a-z]+\d*)*)(?:~[0-9a-f]+)?(?:-r(\d+))?", re.ASCII)
_APK_SUFFIXES = {"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3,
                 "hg": 4, "p": 5}  # fmt: skip
_RPM = re.compile(r"(?:(\d+):)?([A-Za-z0-9.+~^_]+)(?:-([A-Za-z0-9.+~^_]+))?", re.ASCII)
_RPM_PARTS = re.compile(r"\d+|[A-Za-z]+|~|\^", re.ASCII)
_PEP440 = re.compile(
    r"v?(?:(\d+)!)?(\d+(?:\.\d+)*)"
    r"(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?(\d*))?"
    r"(?:(?:-(\d+))|(?:[-_.]?(post|rev|r)[-_.]?(\d*)))?"
    r"(?:[-_.]?(dev)[-_.]?(\d*))?"
    r"(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE | re.ASCII,
)
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_SEMVER = re.compile(
    r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


def _matched(pattern: re.Pattern[str], version: str) -> re.Match[str]:
    match = pattern.fullmatch(version) if 0 < len(version) <= MAX_LENGTH else None
    if match is None:
        raise ValueError(f"{version[:80]!r} is not a version")
    return match


def _sign(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


# -- Debian -----------------------------------------------------------------------------------


def deb(a: str, b: str) -> int:
    """Compare versions of dpkg: below, equal to or above zero."""
    first, second = (_matched(_DEB, version) for version in (a, b))
    return (
        _sign(int(first[1] or 0), int(second[1] or 0))
        or _deb_part(first[2], second[2])
        or _deb_part(first[3] or "0", second[3] or "0")
    )


def _deb_part(a: str, b: str) -> int:
    """Compare upstream versions or revisions: texts and numbers in turn."""
    pairs = zip_longest(_DEB_PARTS.findall(a), _DEB_PARTS.findall(b), fillvalue=("", ""))
    for (text_a, number_a), (text_b, number_b) in pairs:
        order = _sign([*map(_deb_weight, text_a), 0], [*map(_deb_weight, text_b), 0])
        order = order or _sign(int(number_a or 0), int(number_b or 0))
        if order:
            return order
    return 0


def _deb_weight(character: str) -> int:
    """Return the order of a character: the tilde before the end, letters before the rest."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


# -- Alpine -----------------------------------------------------------------------------------


def apk(a: str, b: str) -> int:
    """Compare versions of apk: below, equal to or above zero."""
    return _sign(_apk_key(a), _apk_key(b))


def _apk_key(version: str) -> tuple[object, ...]:
    match = _matched(_APK, version)
    first, *others = match[1].split(".")
    # Leading zeros are compared before the digits after them, and before other numbers.
    numbers = tuple(
        (0, -zeros, len(part) > zeros and int(part[zeros:]) + 1)
        if (zeros := len(part) - len(part.lstrip("0")))
        else (1, int(part), 0)
        for part in others
    )
    suffixes = []
    for name, number in re.findall(r"_([a-z]+)(\d*)", match[3], re.ASCII):
        if name not in _APK_SUFFIXES:
            raise ValueError(f"{version[:80]!r} has the unknown suffix {name[:20]}")
        suffixes.append((_APK_SUFFIXES[name], int(number or 0)))
    return int(first), numbers, match[2], (*suffixes, (0, 0)), int(match[4] or 0)


# -- rpm --------------------------------------------------------------------------------------


def rpm(a: str, b: str) -> int:
    """Compare ``[EPOCH:]VERSION[-RELEASE]``: below, equal to or above zero.

    Releases are compared if both have one.
    """
    (epoch_a, version_a, release_a), (epoch_b, version_b, release_b) = _rpm_parts(a), _rpm_parts(b)
    order = _sign(epoch_a, epoch_b) or _rpm_compare(version_a, version_b)
    return order or (_rpm_compare(release_a, release_b) if release_a and release_b else 0)


def _rpm_parts(version: str) -> tuple[int, str, str]:
    match = _matched(_RPM, version)
    return int(match[1] or 0), match[2], match[3] or ""


def _rpm_compare(a: str, b: str) -> int:
    for x, y in zip_longest(_RPM_PARTS.findall(a), _RPM_PARTS.findall(b), fillvalue=""):
        if x == y:
            continue
        if "~" in (x, y):  # before everything, also the end
            return -1 if x == "~" else 1
        if "^" in (x, y):  # after the end, before everything else
            first = x == "^"
            other = y if first else x
            return (1 if first else -1) if not other else (-1 if first else 1)
        if not x or not y:
            return 1 if x else -1
        if x.isdigit() != y.isdigit():
            return 1 if x.isdigit() else -1
        order = _sign(int(x), int(y)) if x.isdigit() else _sign(x, y)
        if order:
            return order
    return 0


# -- Python -----------------------------------------------------------------------------------


def pypi(a: str, b: str) -> int:
    """Compare versions of PEP 440: below, equal to or above zero."""
    return _sign(_pypi_key(a), _pypi_key(b))


def _pypi_key(version: str) -> tuple[object, ...]:
    match = _matched(_PEP440, version)
    epoch, release, pre, pre_number, post_short, post, post_number, dev, dev_number, local = (
        match.groups()
    )
    numbers = [int(part) for part in release.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    has_post = post is not None or post_short is not None
    if pre:
        word = pre.lower()
        pre_key: tuple[int, str, int] = (0, _PRE.get(word, word), int(pre_number or 0))
    elif dev and not has_post:
        pre_key = (-1, "", 0)  # a development release is before every other
    else:
        pre_key = (1, "", 0)
    post_key = int(post_short or post_number or 0) if has_post else -1
    dev_key = (0, int(dev_number or 0)) if dev else (1, 0)
    parts = re.split(r"[-_.]", local.lower()) if local else []
    local_key = tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
    return int(epoch or 0), tuple(numbers), pre_key, post_key, dev_key, (bool(local), local_key)


# -- semver -----------------------------------------------------------------------------------


def semver(a: str, b: str) -> int:
    """Compare versions of npm: below, equal to or above zero."""
    return _sign(_semver_key(a), _semver_key(b))


def _semver_key(version: str) -> tuple[object, ...]:
    match = _matched(_SEMVER, version)
    numbers = tuple(int(part or 0) for part in match.groups()[:3])
    pre = match[4]
    if not pre:
        return numbers, 1, ()
    return numbers, 0, tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")
    )  # fmt: skip


COMPARE: Mapping[str, Callable[[str, str], int]] = {
    "deb": deb,
    "apk": apk,
    "rpm": rpm,
    "pypi": pypi,
    "npm": semver,
}
"""Comparison by the type of a package URL."""
