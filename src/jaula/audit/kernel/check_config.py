"""``jaula check``: what this kernel supports, feature by feature.

Two sources for each line, the kernel's configuration and a harmless attempt. The attempt decides
where there is one: an option may be built in and still be switched off, or be absent from a
configuration file that is not this kernel's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from jaula.audit.kernel import kconfig
from jaula.audit.kernel.features import FEATURES, Feature
from jaula.audit.model.result import table


class SupportRow(msgspec.Struct, frozen=True):
    """``support`` is yes, no or unknown; ``fatal``: missing, and nothing runs without it."""

    group: str
    feature: str
    support: str
    config: str
    tried: str
    consequence: str  # what is lost without the feature
    fatal: bool = False


def check(features: Sequence[Feature] = FEATURES) -> list[SupportRow]:
    """Every feature. Makes short-lived child processes; needs root to try all."""
    found = kconfig.read()
    options = found[0] if found else None
    return [support_row(feature, options, _try(feature)) for feature in features]


def _try(feature: Feature) -> str | None:
    """``works``, what the kernel answered, or None where there is nothing to try."""
    if feature.probe is None:
        return None
    try:
        said = feature.probe()
    except OSError as error:
        said = str(error)
    return said or "works"


def support_row(
    feature: Feature, options: Mapping[str, str] | None, tried: str | None
) -> SupportRow:
    """The line of one feature."""
    set_ = {name: (options or {}).get(f"CONFIG_{name}", "n") for name in feature.options}
    config = " ".join(f"{name}={value}" for name, value in set_.items())
    if options is None and set_:
        config = "not told"
    denied = tried is not None and "not permitted" in tried and os.geteuid() != 0
    if tried == "works":
        support = "yes"
    elif denied or (tried is None and options is None):
        support = "unknown"
    elif tried is not None:
        support = "no"
    else:
        support = "no" if "n" in set_.values() else "yes"
    return SupportRow(
        feature.group,
        feature.name,
        support,
        config or "-",
        tried or "-",
        feature.consequence,
        fatal=feature.needed and support == "no",
    )


def render(rows: Sequence[SupportRow]) -> str:
    """A table, then what is missing and what that costs."""
    found = kconfig.read()
    source = found[1] if found else "no configuration of this kernel was found"
    text = table(
        ("GROUP", "FEATURE", "SUPPORT", "CONFIG", "TRIED", "LOST WITHOUT IT"),
        [(r.group, r.feature, r.support, r.config, r.tried, r.consequence) for r in rows],
        widest=44,
    )
    missing = [
        f"{'NEEDED ' if row.fatal else ''}{row.feature}: {row.support}; lost: {row.consequence}"
        for row in rows
        if row.support != "yes"
    ]
    uname = os.uname()
    head = f"{uname.sysname} {uname.release} {uname.machine}, configuration: {source}"
    summary = f"{sum(row.support == 'yes' for row in rows)} of {len(rows)} features"
    return "\n".join((head, "", text, "", summary, *missing))
