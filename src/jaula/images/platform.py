"""The choice of an image for this machine among those of an index.

Source: opencontainers/image-spec 1.1 ``image-index.md``; architectures have Go's names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jaula.errors import NotFound
from jaula.spec.image import Descriptor, Platform

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
_USUAL = {"arm64": 8, "arm": 7}
_ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}


def host() -> Platform:
    """This machine's platform."""
    machine = os.uname().machine
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(machine, "")
    return Platform(_ARCHITECTURES.get(machine, machine), "linux", variant)


def best(manifests: Sequence[Descriptor], wanted: Platform | None = None) -> Descriptor:
    """The manifest for ``wanted`` (this machine's platform); one that names none fits any.

    Where a platform is asked for, it is that architecture; else one that this machine runs as well
    will do. Of several variants the highest that is not above the wanted one is taken.
    Raises :class:`NotFound`, naming what there is.
    """
    here = wanted or host()
    others = () if wanted else _ALSO_RUNS.get(here.architecture, ())
    for architecture in (here.architecture, *others):
        limit = _level(architecture, here.variant if architecture == here.architecture else "")
        fitting = [
            (_level(architecture, manifest.platform.variant), manifest)
            for manifest in manifests
            if manifest.platform is not None
            and manifest.platform.os == here.os
            and manifest.platform.architecture == architecture
        ]
        fitting = [pair for pair in fitting if pair[0] <= limit]
        if fitting:
            return max(fitting, key=lambda pair: pair[0])[1]
    for manifest in manifests:
        if manifest.platform is None:
            return manifest
    there = ", ".join(sorted({shown(m.platform) for m in manifests if m.platform}))
    raise NotFound(
        f"no matching manifest for {shown(here)} in the manifest list entries",
        hint=f"it has {there or 'nothing at all'}"[:600],
    )


def shown(platform: Platform) -> str:
    """``linux/arm/v7``."""
    parts = (platform.os, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part)


def _level(architecture: str, variant: str) -> int:
    """A variant as a number: v7 above v6; without one it is the architecture's usual."""
    number = variant.removeprefix("v")
    return int(number) if number.isdecimal() and len(number) < 4 else _USUAL.get(architecture, 1)
