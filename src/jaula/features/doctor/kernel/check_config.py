"""``jaula check``: which features this kernel supports.

Each row has two sources, the kernel's configuration and a harmless probe. The probe decides if
there is one: an option may be built in and disabled, or absent from a configuration file of another
kernel.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence

import msgspec

from jaula.features.doctor.kernel import kconfig
from jaula.features.doctor.kernel.kernel_features import FEATURES, Feature
from jaula.features.verify.model.result import table


class SupportRow(msgspec.Struct, frozen=True):
    """A row; ``support`` is yes, no or unknown.

    ``fatal`` means that the feature is missing and no container can run without it.
    """

    group: str
    feature: str
    support: str
    config: str
    tried: str
    consequence: str  # of a missing feature
    fatal: bool = False


def check(features: Sequence[Feature] = FEATURES) -> list[SupportRow]:
    """Return a row for every feature. Creates short-lived children; needs root for all probes."""
    configuration = kconfig.read()
    options = configuration[0] if configuration else None
    return [support_row(feature, options, _try(feature)) for feature in features]


def _try(feature: Feature) -> str | None:
    """Return ``works``, the kernel's error, or None for a feature without a probe."""
    if feature.probe is None:
        return None
    try:
        failure = feature.probe()
    except OSError as error:
        failure = str(error)
    return failure or "works"


def support_row(
    feature: Feature, options: Mapping[str, str] | None, probe_result: str | None
) -> SupportRow:
    """Return the row of one feature."""
    values = {name: (options or {}).get(f"CONFIG_{name}", "n") for name in feature.options}
    config = " ".join(f"{name}={value}" for name, value in values.items())
    if options is None and values:
        config = "unknown"
    denied = probe_result is not None and "not permitted" in probe_result and os.geteuid() != 0
    if probe_result == "works":
        support = "yes"
    elif denied or (probe_result is None and options is None):
        support = "unknown"
    elif probe_result is not None:
        support = "no"
    else:
        support = "no" if "n" in values.values() else "yes"
    return SupportRow(
        feature.group,
        feature.name,
        support,
        config or "-",
        probe_result or "-",
        feature.consequence,
        fatal=feature.needed and support == "no",
    )


def render(rows: Sequence[SupportRow]) -> str:
    """Return a table, then the missing features and their consequences."""
    configuration = kconfig.read()
    source = configuration[1] if configuration else "not found"
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


def render_processor(features: Sequence[str]) -> str:
    """Return the features of the processors, which a migration compares, in lines."""
    machine = os.uname().machine
    if not features:
        return f"\nprocessor ({machine}): /proc/cpuinfo names no features"
    head = f"\nprocessor ({machine}), the {len(features)} features that migrations compare:"
    words = textwrap.wrap(" ".join(features), 100, break_long_words=False, break_on_hyphens=False)
    return "\n".join((head, *(f"  {line}" for line in words)))
