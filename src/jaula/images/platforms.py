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
_ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}


def host() -> Platform:
    """This machine's platform."""
    machine = os.uname().machine
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(machine, "")
    return Platform(_ARCHITECTURES.get(machine, machine), "linux", variant)


def best(manifests: Sequence[Descriptor], wanted: Platform | None = None) -> Descriptor:
    """The manifest for ``wanted`` (this machine's platform); one that names none fits any.

    Raises :class:`NotFound`, naming what there is.
    """
    wanted = wanted or host()
    for architecture in (wanted.architecture, *_ALSO_RUNS.get(wanted.architecture, ())):
        for manifest in manifests:
            platform = manifest.platform
            if (
                platform is not None
                and platform.os == "linux"
                and platform.architecture == architecture
            ):
                return manifest
    for manifest in manifests:
        if manifest.platform is None:
            return manifest
    there = ", ".join(
        sorted({f"{m.platform.os}/{m.platform.architecture}" for m in manifests if m.platform})
    )
    raise NotFound(
        f"the image has nothing for {wanted.os}/{wanted.architecture}; "
        f"it has {there or 'nothing at all'}"
    )
