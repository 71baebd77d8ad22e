"""Execution domains: config-linux.md "Personality"; personality(2)."""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.kernel.process_calls import PER_LINUX, PER_LINUX32
from jaula.spec.runtime_spec import Personality

DOMAINS = {"LINUX": PER_LINUX, "LINUX32": PER_LINUX32}


def personality_value(personality: Personality) -> int:
    """Return the argument of personality(2).

    :raises InvalidRequest: when the domain or a flag is unknown.
    """
    if personality.domain not in DOMAINS:
        raise InvalidRequest(
            f"linux.personality.domain: {personality.domain[:128]!r} "
            f"must be one of {', '.join(DOMAINS)}"
        )
    if personality.flags:
        raise InvalidRequest("linux.personality.flags: the specification defines no flag")
    return DOMAINS[personality.domain]
