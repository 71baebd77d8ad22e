"""The operator's rules about images: which of them decides about a name, and what it says. Pure.

A rule is for a registry (``registry.example.com``), a path below one with everything beneath it
(``registry.example.com/team``), or a tag (``registry.example.com/team/app:1.0``). The longest that
matches decides alone. Names are compared in their full form, ``docker.io/library/busybox:latest``.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.reference import DEFAULT_DOMAIN, Reference, is_tag

if TYPE_CHECKING:
    from jaula.images.trust.keys import PublicKey

_REGISTRY = re.compile(r"[a-zA-Z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*", re.ASCII)
EVERYTHING = "*"


class Verdict(StrEnum):
    """The verdict of a rule."""

    ACCEPT = "accept"
    REJECT = "reject"
    SIGNED_BY = "signed-by"


class RuleScope(msgspec.Struct, frozen=True):
    """The images that a rule applies to. ``text`` is as written by the operator."""

    text: str
    domain: str = ""  # empty for all images
    path: str = ""
    tag: str = ""

    @property
    def weight(self) -> tuple[bool, int, bool]:
        """Return how specific the scope is: the rule with the greatest weight decides."""
        return bool(self.domain), len(self.path.split("/")) if self.path else 0, bool(self.tag)

    def covers(self, reference: Reference) -> bool:
        """Return whether the rule applies to images of this name."""
        if not self.domain:
            return True
        if reference.domain != self.domain:
            return False
        if self.tag:
            return reference.path == self.path and reference.tag == self.tag
        below = reference.path.startswith(self.path + "/")
        return not self.path or reference.path == self.path or below


class TrustRule(msgspec.Struct, frozen=True):
    """A rule of the image policy. Any of the ``keys`` of ``signed-by`` is sufficient.

    ``signed_as`` is the repository that signatures name, if it differs from the image's.
    """

    scope: RuleScope
    verdict: Verdict
    keys: tuple[PublicKey, ...] = ()
    signed_as: str = ""

    def __str__(self) -> str:
        """Return the rule as the line in the file, for error messages."""
        if self.verdict is Verdict.SIGNED_BY:
            return f'"{self.scope.text}" = signed by {", ".join(key.name for key in self.keys)}'
        return f'"{self.scope.text}" = "{self.verdict}"'

    def claimed(self, reference: Reference) -> str:
        """Return the repository that a signature of this image must name."""
        return self.signed_as or f"{reference.domain}/{reference.path}"


class TrustRules(msgspec.Struct, frozen=True):
    """All rules, and the file they come from. Without rules every image is accepted."""

    rules: tuple[TrustRule, ...] = ()
    source: str = ""

    @property
    def in_force(self) -> bool:
        """Return whether there is at least one rule."""
        return bool(self.rules)

    def of(self, reference: Reference) -> TrustRule:
        """Return the rule that applies to a name."""
        matching = [rule for rule in self.rules if rule.scope.covers(reference)]
        return max(matching, key=lambda rule: rule.scope.weight, default=ACCEPTED)

    @property
    def general(self) -> TrustRule:
        """Return the rule for images that no other rule covers."""
        return next((rule for rule in self.rules if not rule.scope.domain), ACCEPTED)


ACCEPTED = TrustRule(RuleScope("(no rule)"), Verdict.ACCEPT)


def scope(text: str) -> RuleScope:
    """Parse the scope of a rule.

    :raises InvalidRequest: if it is not valid.
    """
    if text == EVERYTHING:
        return RuleScope(text)
    domain, slash, rest = text.partition("/")
    known = "." in domain or ":" in domain or domain == "localhost"
    if not known or not _REGISTRY.fullmatch(domain):
        raise InvalidRequest(
            f"{text[:200]!r} does not start with a registry",
            hint=f'use "*", or a registry and a path: {DEFAULT_DOMAIN}/library/busybox',
        )
    path, colon, tag = rest.partition(":")
    if slash and not _PATH.fullmatch(path):
        raise InvalidRequest(f"{text[:200]!r}: {path[:120]!r} is not a valid repository name")
    if colon and not is_tag(tag):
        raise InvalidRequest(f"{text[:200]!r}: {tag[:120]!r} is not a valid tag")
    return RuleScope(text, "docker.io" if domain == "index.docker.io" else domain, path, tag)
