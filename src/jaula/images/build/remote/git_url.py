"""Addresses of git repositories as ``ADD`` and ``docker build`` take them. Pure.

Source: docker docs, "Build context", 'URL fragments' and 'URL queries':
``https://host/user/repo.git#REF:DIRECTORY``, or ``?ref=...&subdir=...&commit=...``.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import parse_qsl, urlsplit

import msgspec

from jaula.errors import InvalidRequest

_HTTP = re.compile(r"https?://[^/?#]+/[^?#]*\.git/?(?:[?#].*)?", re.ASCII | re.DOTALL)
_SHELL = re.compile(r"git@[A-Za-z0-9._-]+:(?!/*-)[!-~]+", re.ASCII)
_OTHER = re.compile(r"(?:ssh|git)://[!-~]+", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+@)?[A-Za-z0-9.\[\]:_][A-Za-z0-9.\[\]:_-]*", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9_.@/+][A-Za-z0-9_.@/+-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
_QUERY = {"ref": "ref", "tag": "ref", "branch": "ref", "subdir": "subdir"}
_QUERY |= {"commit": "commit", "checksum": "commit"}


class GitUrl(msgspec.Struct, frozen=True):
    """``ref`` is a branch, a tag or a commit, '' for the default branch; ``commit`` must be it."""

    url: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""


def is_git(text: str) -> bool:
    """Whether an address is a repository's."""
    return bool(_HTTP.fullmatch(text) or _SHELL.match(text) or _OTHER.match(text))


def parse(text: str) -> GitUrl:
    """Read an address. Raises :class:`InvalidRequest`."""
    place, _, fragment = text.partition("#")
    place, _, query = place.partition("?")
    found = {"ref": "", "subdir": "", "commit": ""}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise InvalidRequest(
                f"{name!r} in {text!r} is not known", hint="ref, tag, branch, subdir, commit"
            )
        found[_QUERY[name]] = value
    if fragment:
        ref, _, subdir = fragment.partition(":")
        found["ref"], found["subdir"] = ref or found["ref"], subdir or found["subdir"]
    _check(place, text)
    if found["ref"] and (not _REF.fullmatch(found["ref"]) or ".." in found["ref"]):
        raise InvalidRequest(f"{found['ref']!r} in {text!r} is no branch, tag or commit")
    if found["commit"] and not _COMMIT.fullmatch(found["commit"]):
        raise InvalidRequest(f"{found['commit']!r} in {text!r} is no commit")
    subdir = posixpath.normpath("/" + found["subdir"]).lstrip("/")
    return GitUrl(place, found["ref"], subdir, found["commit"])


def _check(place: str, text: str) -> None:
    """That neither git nor ssh can take a part of it for an option or another protocol."""
    if _SHELL.fullmatch(place):
        return
    scheme, separator, _ = place.partition("://")
    try:
        host = urlsplit(place).netloc
    except ValueError:
        host = ""
    known = separator and scheme in ("http", "https", "ssh", "git")
    if not known or not _HOST.fullmatch(host) or not place.isascii() or not place.isprintable():
        raise InvalidRequest(
            f"{text!r} is no repository that can be fetched",
            hint="https://HOST/PATH.git, ssh://, git:// or git@HOST:PATH, then #REF:DIRECTORY",
        )
