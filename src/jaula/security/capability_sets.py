"""Resolve the capabilities of a container.

Follows capabilities(7) for the names. Follows Docker for the default set, ``--cap-add`` and
``--cap-drop``: names are case-insensitive, ``CAP_`` is optional, ``ALL`` means every capability.
The runtime sets them (:mod:`jaula.kernel.capabilities`).

The inheritable and ambient sets stay empty. Otherwise a file with inheritable capabilities, or a
program of another user, would get more than ``inspect`` shows (CVE-2022-24769, CVE-2022-29162).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.kernel.capabilities import NAMES
from jaula.spec.runtime_spec import Capabilities

DEFAULT: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)
"""Docker's 14 default capabilities: mask 00000000a80425fb."""

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """Return the kernel's bit mask of names in any accepted spelling.

    :raises InvalidRequest: when a name is unknown.
    """
    value = 0
    for name in names:
        value |= 1 << _NUMBERS[canonical(name)]
    return value


def decode(value: int) -> tuple[str, ...]:
    """Return the names of a mask by number. A bit without a known name is its number.

    :raises InvalidRequest: when ``value`` has more than 64 bits.
    """
    if value < 0 or value >> 64:
        raise InvalidRequest(f"capability mask {value:#x} is not a 64-bit number")
    return tuple(
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(value.bit_length())
        if value >> number & 1
    )


def parse_mask(text: str) -> int:
    """Parse a mask in the format of /proc/<pid>/status: hexadecimal, ``0x`` is optional.

    :raises InvalidRequest: when ``text`` is not a mask.
    """
    digits = text.strip().lower().removeprefix("0x")
    if not digits or len(digits) > 16 or digits.strip("0123456789abcdef"):
        raise InvalidRequest(
            f"capability mask {text!r} is not a hexadecimal number of up to 16 digits",
            hint="as in the Cap lines of /proc/PID/status, such as 00000000a80425fb",
        )
    return int(digits, 16)


def canonical(name: str) -> str:
    """Return the canonical name: ``net_raw`` gives ``CAP_NET_RAW``.

    :raises InvalidRequest: when the name is unknown, with similar names as the hint.
    """
    upper = name.upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full in _NUMBERS:
        return full
    near = _near(full)
    raise InvalidRequest(
        f"unknown capability {name!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "see capabilities(7)",
    )


def resolve(
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    *,
    privileged: bool = False,
    known: int = (1 << len(NAMES)) - 1,
) -> Capabilities:
    """Return the capability sets of a container's init.

    ``known`` is the mask of available capabilities: those of this kernel in the engine's own
    bounding set. The rules are Docker's. ``privileged`` ignores both lists. ``ALL`` in ``drop``
    starts from the empty set. ``ALL`` in ``add`` starts from all capabilities without ``drop``.
    Otherwise the result is the default set without ``drop``, and ``add`` overrides ``drop`` only if
    ``drop`` is ``ALL``.

    :raises InvalidRequest: when a name is unknown or a capability is not available.
    """
    added, add_all = _names(add)
    dropped, drop_all = _names(drop)
    if privileged:
        value = known
    elif add_all:
        value = known & ~(0 if drop_all else mask(dropped)) | mask(added)
    elif drop_all:
        value = mask(added)
    else:
        value = (mask(DEFAULT) & known & ~mask(dropped)) | (mask(added) & ~mask(dropped))
    if missing := value & ~known:
        raise InvalidRequest(
            f"capability {', '.join(decode(missing))} is not available on this host",
            hint="the kernel does not have it, or the engine itself runs without it",
        )
    names = decode(value)
    return Capabilities(bounding=names, effective=names, permitted=names)


def _names(names: Sequence[str]) -> tuple[list[str], bool]:
    """Return the canonical names without ``ALL``, and whether ``ALL`` was among them."""
    all_names = [name for name in names if name.upper() in ("ALL", "CAP_ALL")]
    return [canonical(name) for name in names if name not in all_names], bool(all_names)


def _near(full: str) -> list[str]:
    """Return up to three names, without the prefix, that are similar to a misspelt one."""
    misspelt = full.removeprefix("CAP_").replace("-", "_")
    short_names = [name.removeprefix("CAP_") for name in NAMES]
    scored = sorted((_distance(misspelt, name), name) for name in short_names)
    limit = max(2, len(misspelt) // 3)
    near = [name for distance, name in scored if distance <= limit]
    return near[:3] or [name for name in short_names if len(misspelt) > 2 and misspelt in name][:3]


def _distance(a: str, b: str) -> int:
    """Return the edit distance of two short words. ``difflib`` would import ``re``."""
    a = a[:64]
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]


def of_user(sets: Capabilities, uid: int) -> Capabilities:
    """Return the sets of a process of the user ``uid`` inside, from those of the container.

    Only root has effective capabilities: execve(2) would clear those of another user, and until
    then they would count for the permission to execute the program itself (moby does the same).
    """
    names = sets.bounding if uid == 0 else ()
    return msgspec.structs.replace(sets, effective=names, permitted=names)
