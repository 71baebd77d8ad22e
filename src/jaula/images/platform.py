"""Select the image for a platform from the manifests of an index.

Source: opencontainers/image-spec 1.1 ``image-index.md``. Architectures have Go's names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from jaula.errors import NotFound
from jaula.kernel.binfmt_misc import Handler
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
_ELF = {  # class, byte order and machine of a program: elf(5)
    "amd64": (2, 1, 62),
    "386": (1, 1, 3),
    "arm64": (2, 1, 183),
    "arm": (1, 1, 40),
    "riscv64": (2, 1, 243),
    "ppc64le": (2, 1, 21),
    "s390x": (2, 2, 22),
    "mips64le": (2, 1, 8),
    "loong64": (2, 1, 258),
}
_DEFAULT_LEVELS = {"arm64": 8, "arm": 7}
_COMPATIBLE = {"amd64": ("386",), "arm64": ("arm",)}


def host() -> Platform:
    """Return the platform of this machine."""
    machine = os.uname().machine
    variant = {"armv7l": "v7", "armv6l": "v6"}.get(machine, "")
    return Platform(_ARCHITECTURES.get(machine, machine), "linux", variant)


def runnable(handlers: Sequence[Handler], machine: Platform | None = None) -> tuple[Platform, ...]:
    """Return the platforms whose programs run on ``machine``, this one if None; it comes first.

    ``handlers`` are those of binfmt_misc that find their interpreter from any root directory.
    """
    machine = machine or host()
    names = dict.fromkeys((machine.architecture, *_COMPATIBLE.get(machine.architecture, ())))
    for name, header in _ELF.items():
        if any(handler.fixed and handler.matches(_elf_header(*header)) for handler in handlers):
            names[name] = None
    more = [Platform(name, machine.os) for name in names if name != machine.architecture]
    return (machine, *more)


def _elf_header(kind: int, order: int, machine: int) -> bytes:
    """Return the first 20 bytes of an executable of a machine."""
    endian: Literal["little", "big"] = "little" if order == 1 else "big"
    executable = (2).to_bytes(2, endian) + machine.to_bytes(2, endian)
    return b"\x7fELF" + bytes((kind, order, 1)) + b"\0" * 9 + executable


def select(manifests: Sequence[Descriptor], requested: Platform | None = None) -> Descriptor:
    """Return the manifest for the platform ``requested``, this machine's if None.

    A requested architecture must match exactly. Without a request, an architecture that this
    machine also runs is accepted. Of several variants the highest that does not exceed the target's
    is selected. A manifest that names no platform matches any.

    :raises NotFound: if no manifest matches; the hint lists the available platforms.
    """
    target = requested or host()
    compatible = () if requested else _COMPATIBLE.get(target.architecture, ())
    for architecture in (target.architecture, *compatible):
        limit = _level(architecture, target.variant if architecture == target.architecture else "")
        candidates = [
            (_level(architecture, manifest.platform.variant), manifest)
            for manifest in manifests
            if manifest.platform is not None
            and manifest.platform.os == target.os
            and manifest.platform.architecture == architecture
        ]
        candidates = [pair for pair in candidates if pair[0] <= limit]
        if candidates:
            return max(candidates, key=lambda pair: pair[0])[1]
    for manifest in manifests:
        if manifest.platform is None:
            return manifest
    available = ", ".join(sorted({format_platform(m.platform) for m in manifests if m.platform}))
    raise NotFound(
        f"no matching manifest for {format_platform(target)} in the manifest list entries",
        hint=f"available platforms: {available or 'none'}"[:600],
    )


def format_platform(platform: Platform) -> str:
    """Return a platform in Docker's notation, for example ``linux/arm/v7``."""
    parts = (platform.os, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part)


def _level(architecture: str, variant: str) -> int:
    """Return a variant as a number: v7 is above v6. An empty variant means the default one."""
    number = variant.removeprefix("v")
    if number.isdecimal() and len(number) < 4:
        return int(number)
    return _DEFAULT_LEVELS.get(architecture, 1)
