"""What of /proc and /sys a container does not see, sees read-only, and how /proc is mounted. Pure.

Source: podman's ``--security-opt mask=``, ``unmask=`` and ``proc-opts=``; Docker's
``systempaths=unconfined`` and the API's ``MaskedPaths`` and ``ReadonlyPaths``; proc(5) for the
options.

``unmask`` takes paths of our lists away, ``mask`` adds any path and wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from jaula.errors import InvalidRequest
from jaula.security import masked_paths

UNMASK_ALL = "ALL"
_HIDEPID = ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable")
_MOST = 256  # paths of one request


def split_paths(option: str, value: str) -> tuple[str, ...]:
    """Paths separated by colons, each absolute and plain. Raises ``InvalidRequest``."""
    paths = tuple(value.split(":"))
    if option == "unmask" and value.upper() == UNMASK_ALL:
        return (UNMASK_ALL,)
    for path in paths:
        parts = path.split("/")
        if not path.startswith("/") or {"", ".", ".."} & set(parts[1:]) or "\0" in path:
            raise InvalidRequest(
                f"--security-opt {option}: {path[:80]!r} is no plain absolute path",
                hint=f"{option}=/proc/one:/proc/two" + (" or ALL" if option == "unmask" else ""),
            )
    if len(paths) > _MOST:
        raise InvalidRequest(f"--security-opt {option}: more than {_MOST} paths")
    return paths


def decide_paths(
    masked: Sequence[str] | None,
    readonly: Sequence[str] | None,
    *,
    lifted: bool,
    mask: Sequence[str] = (),
    unmask: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked paths, read-only paths).

    ``masked`` and ``readonly`` are the request's own lists, None where it has none; ``lifted``:
    ours do not count then. Raises ``InvalidRequest`` for a path to be unmasked that is in neither.
    """
    covered = tuple(masked if masked is not None else () if lifted else masked_paths.MASKED_PATHS)
    guarded = tuple(
        readonly if readonly is not None else () if lifted else masked_paths.READONLY_PATHS
    )
    for pattern in unmask:
        if not lifted and not any(_matches(path, pattern) for path in (*covered, *guarded)):
            raise InvalidRequest(
                f"--security-opt unmask: {pattern!r} is neither masked nor read-only",
                hint="jaula inspect shows MaskedPaths and ReadonlyPaths",
            )
    kept = [path for path in covered if not any(_matches(path, p) for p in unmask)]
    guarded = tuple(path for path in guarded if not any(_matches(path, p) for p in unmask))
    return tuple(dict.fromkeys((*kept, *mask))), guarded


def _matches(path: str, pattern: str) -> bool:
    return pattern == UNMASK_ALL or fnmatchcase(path, pattern)


def proc_options(value: str) -> tuple[str, ...]:
    """``hidepid=2,subset=pid`` as mount options of /proc. Raises ``InvalidRequest``."""
    found: dict[str, str] = {}
    for option in value.split(","):
        key, _, setting = option.partition("=")
        known = (
            (key == "hidepid" and setting in _HIDEPID)
            or option == "subset=pid"
            or (key == "gid" and setting.isascii() and setting.isdigit() and len(setting) < 10)
        )
        if not known or key in found:
            raise InvalidRequest(
                f"--security-opt proc-opts: {option[:80]!r} is not possible",
                hint=f"hidepid={'|'.join(_HIDEPID)}, gid=NUMBER and subset=pid are, once each",
            )
        found[key] = option
    return tuple(found.values())
