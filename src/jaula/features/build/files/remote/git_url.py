"""URLs of git repositories, as ``ADD`` and ``docker build`` accept them. Pure.

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
_SCP = re.compile(r"git@[A-Za-z0-9._-]+:(?!/*-)[!-~]+", re.ASCII)
_OTHER = re.compile(r"(?:ssh|git)://[!-~]+", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+@)?[A-Za-z0-9.\[\]:_][A-Za-z0-9.\[\]:_-]*", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9_.@/+][A-Za-z0-9_.@/+-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
_QUERY = {"ref": "ref", "tag": "ref", "branch": "ref", "subdir": "subdir"}
_QUERY |= {"commit": "commit", "checksum": "commit"}


class GitUrl(msgspec.Struct, frozen=True):
    """A repository URL.

    ``ref`` is a branch, a tag or a commit, '' for the default branch. ``commit`` is a prefix of the
    commit that it must resolve to.
    """

    url: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""


def is_git(text: str) -> bool:
    """Return whether an address is a repository's."""
    return bool(_HTTP.fullmatch(text) or _SCP.match(text) or _OTHER.match(text))


def parse(text: str) -> GitUrl:
    """Parse a URL.

    :raises InvalidRequest: if it is not valid.
    """
    base, _, fragment = text.partition("#")
    base, _, query = base.partition("?")
    fields = {"ref": "", "subdir": "", "commit": ""}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise InvalidRequest(
                f"unknown query {name!r} in {text!r}",
                hint="use ref, tag, branch, subdir or commit",
            )
        fields[_QUERY[name]] = value
    if fragment:
        ref, _, subdir = fragment.partition(":")
        fields["ref"], fields["subdir"] = ref or fields["ref"], subdir or fields["subdir"]
    _check(base, text)
    if fields["ref"] and (not _REF.fullmatch(fields["ref"]) or ".." in fields["ref"]):
        raise InvalidRequest(f"{fields['ref']!r} in {text!r} is not a valid branch, tag or commit")
    if fields["commit"] and not _COMMIT.fullmatch(fields["commit"]):
        raise InvalidRequest(f"{fields['commit']!r} in {text!r} is not a valid commit")
    subdir = posixpath.normpath("/" + fields["subdir"]).lstrip("/")
    return GitUrl(base, fields["ref"], subdir, fields["commit"])


def _check(base: str, text: str) -> None:
    """Check that git and ssh cannot read a part of the URL as an option or another protocol.

    :raises InvalidRequest: if they could.
    """
    if _SCP.fullmatch(base):
        return
    scheme, separator, _ = base.partition("://")
    try:
        host = urlsplit(base).netloc
    except ValueError:
        host = ""
    supported = separator and scheme in ("http", "https", "ssh", "git")
    if not supported or not _HOST.fullmatch(host) or not base.isascii() or not base.isprintable():
        raise InvalidRequest(
            f"{text!r} is not a valid repository URL",
            hint="use https://HOST/PATH.git, ssh://, git:// or git@HOST:PATH, then #REF:DIRECTORY",
        )
