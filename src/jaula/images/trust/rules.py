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

_PLACE = re.compile(r"[a-zA-Z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*", re.ASCII)
EVERYTHING = "*"


class Verdict(StrEnum):
    """What a rule says."""

    ACCEPT = "accept"
    REJECT = "reject"
    SIGNED_BY = "signed-by"


class RuleScope(msgspec.Struct, frozen=True):
    """What a rule is for; ``text`` is how the operator wrote it."""

    text: str
    domain: str = ""  # empty for everything
    path: str = ""
    tag: str = ""

    @property
    def weight(self) -> tuple[bool, int, bool]:
        """How much a rule says about a name: the greater one decides."""
        return bool(self.domain), len(self.path.split("/")) if self.path else 0, bool(self.tag)

    def covers(self, reference: Reference) -> bool:
        """Whether the rule is about images of this name."""
        if not self.domain:
            return True
        if reference.domain != self.domain:
            return False
        if self.tag:
            return reference.path == self.path and reference.tag == self.tag
        below = reference.path.startswith(self.path + "/")
        return not self.path or reference.path == self.path or below


class TrustRule(msgspec.Struct, frozen=True):
    """``keys`` are those of ``signed-by``, any of which will do.

    ``signed_as`` is the repository that signatures name, where it is another than the image's.
    """

    scope: RuleScope
    verdict: Verdict
    keys: tuple[PublicKey, ...] = ()
    signed_as: str = ""

    def __str__(self) -> str:
        """How refusals name it: its line in the file."""
        if self.verdict is Verdict.SIGNED_BY:
            return f'"{self.scope.text}" = signed by {", ".join(key.name for key in self.keys)}'
        return f'"{self.scope.text}" = "{self.verdict}"'

    def claimed(self, reference: Reference) -> str:
        """The repository that a signature of this image has to name."""
        return self.signed_as or f"{reference.domain}/{reference.path}"


class TrustRules(msgspec.Struct, frozen=True):
    """All rules, and where they were read. Without any, every image is accepted."""

    rules: tuple[TrustRule, ...] = ()
    source: str = ""

    @property
    def in_force(self) -> bool:
        """Whether there is a rule at all."""
        return bool(self.rules)

    def of(self, reference: Reference) -> TrustRule:
        """The rule that decides about a name."""
        fitting = [rule for rule in self.rules if rule.scope.covers(reference)]
        return max(fitting, key=lambda rule: rule.scope.weight, default=ACCEPTED)

    @property
    def general(self) -> TrustRule:
        """The rule for everything that no other one is about."""
        return next((rule for rule in self.rules if not rule.scope.domain), ACCEPTED)


ACCEPTED = TrustRule(RuleScope("(no rule)"), Verdict.ACCEPT)


def scope(text: str) -> RuleScope:
    """Read what a rule is for. Raises :class:`InvalidRequest`."""
    if text == EVERYTHING:
        return RuleScope(text)
    domain, slash, rest = text.partition("/")
    known = "." in domain or ":" in domain or domain == "localhost"
    if not known or not _PLACE.fullmatch(domain):
        raise InvalidRequest(
            f"{text[:200]!r} does not begin with a registry",
            hint=f'"*", or a registry and what is below it: {DEFAULT_DOMAIN}/library/busybox',
        )
    path, colon, tag = rest.partition(":")
    if slash and not _PATH.fullmatch(path):
        raise InvalidRequest(f"{text[:200]!r}: {path[:120]!r} is no repository's name")
    if colon and not is_tag(tag):
        raise InvalidRequest(f"{text[:200]!r}: {tag[:120]!r} is no tag")
    return RuleScope(text, "docker.io" if domain == "index.docker.io" else domain, path, tag)
