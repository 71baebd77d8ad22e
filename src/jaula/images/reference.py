"""Image references: Docker's grammar, defaults and familiar names.

Source: distribution/reference ``reference.go`` and ``normalize.go``::

    reference := name [ ":" tag ] [ "@" digest ]
    name      := [domain "/"] path-component ["/" path-component]*

``busybox`` means ``docker.io/library/busybox:latest``. The first component is a domain only if it
contains a dot or a colon, is ``localhost``, or has a capital letter.
"""

from __future__ import annotations

import re

import msgspec

from jaula.errors import InvalidRequest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


class Reference(msgspec.Struct, frozen=True, order=True):
    """A parsed reference. ``tag`` is None if the reference has a digest and no tag."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def full_repository(self) -> str:
        """Return the name without tag, with its domain: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def repository(self) -> str:
        """Return the familiar name without tag: ``busybox``, ``user/app``, ``quay.io/user/app``."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        official = self.path.removeprefix(_OFFICIAL)
        return official if "/" not in official else self.path

    @property
    def canonical(self) -> str:
        """Return the full name, domain included."""
        return f"{self.domain}/{self.path}{self._suffix()}"

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag


def parse(text: str) -> Reference:
    """Parse a reference. Without tag and digest the tag is ``latest``.

    :raises InvalidRequest: if ``text`` is not a valid reference.
    """
    if not text:
        raise _invalid(text, "it is empty")
    if re.fullmatch(r"[0-9a-f]{64}", text):
        raise _invalid(text, "64 hexadecimal digits are an id, not a name")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "the digest is not sha256: and 64 hexadecimal digits")
    slash = rest.rfind("/")
    name, colon, tag = rest, "", ""
    if ":" in rest[slash + 1 :]:
        name, colon, tag = rest.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise _invalid(text, f"the tag {tag[:130]!r} is not valid")
    domain, path = _split(name)
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain[:80]!r} is not a valid registry address")
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise _invalid(text, "repository name must be lowercase")
        raise _invalid(text, f"{name[:80]!r} is not a valid repository name")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise _invalid(text, f"the name is longer than {_NAME_LIMIT} characters")
    return Reference(
        domain, path, tag if colon else (None if at else DEFAULT_TAG), digest if at else None
    )


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    ):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def is_tag(text: str) -> bool:
    """Return whether ``text`` is a valid tag."""
    return _TAG.fullmatch(text) is not None


def could_be_id(text: str) -> bool:
    """Return whether ``text`` may be an image id or the prefix of one."""
    return _ID.fullmatch(text) is not None


def join_name(repository: str, tag: str) -> str:
    """Return the name of the two parameters of a request; a tag alone is none."""
    return f"{repository}:{tag}" if repository and tag else repository


def _invalid(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"invalid reference format: {text[:300]!r}: {why}")


def familiar(ref: str) -> str | None:
    """Return the familiar name of ``ref``, or None if it is not a valid reference."""
    try:
        return str(parse(ref))
    except InvalidRequest:
        return None


def index_name(ref: str) -> str | None:
    """Return the name in the index that ``ref`` means, or None if it is not a valid reference.

    A tag is ignored if there is a digest.
    """
    try:
        reference = parse(ref)
    except InvalidRequest:
        return None
    if reference.digest is None:
        return str(reference)
    return f"{reference.repository}@{reference.digest}"
