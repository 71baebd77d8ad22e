"""The profiles of ``jaula audit``, by the value of ``--profile``."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.features.audit.benchmark import (
    containers,
    engine,
    engine_files,
    host,
    images,
    isolation,
    nsa,
    operations,
)
from jaula.features.audit.benchmark.control import Control, Profile

SECTIONS = {
    "1": "host",
    "2": "engine",
    "3": "engine files",
    "4": "images",
    "5": "containers",
    "6": "operations",
}


def _numbered(controls: Iterable[Control]) -> tuple[Control, ...]:
    """Return controls in the order of their numbers, each with its section."""
    ordered = sorted(controls, key=lambda control: [int(part) for part in control.id.split(".")])
    return tuple(
        msgspec.structs.replace(control, section=control.id.partition(".")[0])
        for control in ordered
    )


CIS = Profile(
    "cis",
    "CIS Docker Benchmark 1.6.0",
    SECTIONS,
    _numbered(
        (
            *host.CONTROLS,
            *engine.CONTROLS,
            *engine_files.CONTROLS,
            *images.CONTROLS,
            *containers.CONTROLS,
            *operations.CONTROLS,
        )
    ),
)
"""The 108 controls of sections 1 to 6.

Source of numbers, levels and subjects: CIS Docker Benchmark 1.6.0. Titles are this project's own.
Section 7 is about swarm mode, which the engine does not have.
"""

PROFILES = {profile.name: profile for profile in (CIS, isolation.PROFILE, nsa.PROFILE)}

IDS = frozenset(control.id for profile in PROFILES.values() for control in profile.controls)
"""The ids of all controls, for files of exceptions."""
