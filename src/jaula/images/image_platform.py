"""Platforms: parse them, and select the image for one from the manifests of an index.

Source: opencontainers/image-spec 1.1 ``image-index.md``. Architectures have Go's names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.kernel.binfmt_misc import Handler
from jaula.spec.image_documents import Descriptor, Platform

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
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_PART = re.compile(r"[a-z0-9_-]{1,40}", re.ASCII)
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


def prefer(manifests: Sequence[Descriptor]) -> Descriptor:
    """Return the best of some manifests for this machine: the first one, if none can run here."""
    try:
        return select(manifests)
    except NotFound:
        return manifests[0]


def runs_here(platform: Platform) -> bool:
    """Return whether this machine runs images for a platform without emulation."""
    try:
        select([Descriptor("", "", 0, platform=platform)])
    except NotFound:
        return False
    return True


def parse_platform(text: str | None) -> Platform | None:
    """Parse ``os/architecture[/variant]`` or an architecture alone.

    :raises InvalidRequest: if ``text`` is not a valid platform.
    """
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3:
        raise InvalidRequest(f'"{text[:80]}" is an invalid platform', hint="use os/arch[/variant]")
    for part in parts:
        if not _PART.fullmatch(part):
            raise InvalidRequest(
                f'"{part[:80]}" is an invalid component of "{text[:80]}"',
                hint="use os/arch[/variant]",
            )
    os_name = parts[0] if len(parts) > 1 or parts[0] == "linux" else "linux"
    architecture = parts[1] if len(parts) > 1 else ("" if parts[0] == "linux" else parts[0])
    if not architecture:
        return None
    variant = parts[2] if len(parts) > 2 else ""
    return Platform(_ALIASES.get(architecture, architecture), os_name, variant)


def normalize(platform: Platform) -> Platform:
    """Return a platform without a variant that is its architecture's default; ``arm`` gets one.

    Source: containerd/platforms ``normalizeArch``.
    """
    if platform.architecture == "arm":
        variant = platform.variant or "v7"
        variant = variant if variant.startswith("v") else f"v{variant}"
    else:
        default = {"arm64": ("8", "v8"), "amd64": ("v1",)}.get(platform.architecture, ())
        variant = "" if platform.variant in default else platform.variant
    return msgspec.structs.replace(platform, variant=variant)


def decode_platform(text: str) -> Platform | None:
    """Decode a platform in JSON, as the parameters of Docker's API have it; None if it is empty.

    :raises InvalidRequest: if ``text`` is not valid.
    """
    if not text:
        return None
    try:
        platform = msgspec.json.decode(text, type=Platform)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidRequest(f"failed to parse platform: {error}") from None
    parts = (platform.os or "linux", platform.architecture, platform.variant)
    return parse_platform("/".join(part for part in parts if part))


def check_platform(requested: Platform | None, actual: Platform, reference: str) -> None:
    """Check that an image has the requested platform.

    :raises NotFound: in Docker's words, if it does not.
    """
    if requested is None or not actual.architecture:
        return
    same = (requested.os, requested.architecture) == (actual.os, actual.architecture)
    if same and requested.variant in ("", actual.variant or requested.variant):
        return
    raise NotFound(
        f"image with reference {reference} was found but does not match the specified platform: "
        f"wanted {format_platform(requested)}, actual: {format_platform(actual)}"
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
