"""Execution domains: config-linux.md "Personality"; personality(2)."""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.kernel.process import PER_LINUX, PER_LINUX32
from jaula.spec.runtime import Personality

DOMAINS = {"LINUX": PER_LINUX, "LINUX32": PER_LINUX32}


def personality_value(wanted: Personality) -> int:
    """The argument of personality(2); raises ``InvalidRequest``."""
    if wanted.domain not in DOMAINS:
        raise InvalidRequest(
            f"linux.personality.domain: {wanted.domain[:128]!r} is none of {', '.join(DOMAINS)}"
        )
    if wanted.flags:
        raise InvalidRequest("linux.personality.flags: the specification defines no flag")
    return DOMAINS[wanted.domain]
