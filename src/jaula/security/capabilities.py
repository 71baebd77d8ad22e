"""Which capabilities a container has.

Follows capabilities(7) for the names and Docker for the default set and for the meaning of
``--cap-add`` and ``--cap-drop``: names without regard to case, with or without ``CAP_``; ``ALL``
stands for every one. The sets are installed by the runtime (:mod:`jaula.kernel.capabilities`).

Inheritable and ambient stay empty: a file with inheritable capabilities, or a program run as
another user, would otherwise get more than ``inspect`` shows (CVE-2022-24769, CVE-2022-29162).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaula.errors import InvalidRequest
from jaula.kernel.capabilities import NAMES
from jaula.spec.runtime import Capabilities

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
"""Docker's fourteen: mask 00000000a80425fb."""

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """The kernel's bit mask of names in any accepted spelling; raises ``InvalidRequest``."""
    value = 0
    for name in names:
        value |= 1 << _NUMBERS[canonical(name)]
    return value


def decode(value: int) -> tuple[str, ...]:
    """The names in a mask by number; a bit that has no name here is shown as the number."""
    if value < 0 or value >> 64:
        raise InvalidRequest(f"capability mask {value:#x} is not a 64-bit number")
    return tuple(
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(value.bit_length())
        if value >> number & 1
    )


def parse_mask(text: str) -> int:
    """A mask as /proc/<pid>/status prints it: hexadecimal, ``0x`` accepted; ``InvalidRequest``."""
    digits = text.strip().lower().removeprefix("0x")
    if not digits or len(digits) > 16 or digits.strip("0123456789abcdef"):
        raise InvalidRequest(
            f"capability mask {text!r} is not a hexadecimal number of up to 16 digits",
            hint="as in the Cap lines of /proc/PID/status, such as 00000000a80425fb",
        )
    return int(digits, 16)


def canonical(name: str) -> str:
    """``net_raw`` -> ``CAP_NET_RAW``; raises ``InvalidRequest`` naming near ones."""
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
    """The sets of a container's first process.

    ``known`` is the mask that can be given at all: what this kernel has and the engine's own
    bounding set allows. Docker's rules: ``privileged`` ignores both lists; ``ALL`` in ``drop``
    starts from nothing; ``ALL`` in ``add`` starts from everything, less ``drop``; otherwise the
    default set less ``drop``, and ``add`` wins over ``drop`` only where ``drop`` is ``ALL``.
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
            hint="the kernel does not know it or the engine itself runs without it",
        )
    names = decode(value)
    return Capabilities(bounding=names, effective=names, permitted=names)


def _names(names: Sequence[str]) -> tuple[list[str], bool]:
    """Canonical names without ``ALL``, and whether ``ALL`` was among them."""
    everything = [name for name in names if name.upper() in ("ALL", "CAP_ALL")]
    return [canonical(name) for name in names if name not in everything], bool(everything)


def _near(full: str) -> list[str]:
    """Up to three names that are close to a misspelt one, without the prefix, for a hint."""
    wanted = full.removeprefix("CAP_").replace("-", "_")
    short = [name.removeprefix("CAP_") for name in NAMES]
    scored = sorted((_distance(wanted, name), name) for name in short)
    limit = max(2, len(wanted) // 3)
    near = [name for distance, name in scored if distance <= limit]
    return near[:3] or [name for name in short if len(wanted) > 2 and wanted in name][:3]


def _distance(a: str, b: str) -> int:
    """Edit distance of two short words; ``difflib`` would cost the callers its import of ``re``."""
    a = a[:64]
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]
