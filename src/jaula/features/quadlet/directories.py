"""The directories that hold quadlet's files, and the drop-ins of a file.

Source: podman-systemd.unit(5), systemd.unit(5). Subdirectories and the targets of symbolic links
are read as well.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VARIABLE = "QUADLET_UNIT_DIRS"
_ETC, _USERS = "/etc/containers/systemd", "/etc/containers/systemd/users"
_OWN_ETC, _OWN_USERS = "/etc/jaula/systemd", "/etc/jaula/systemd/users"
_GENERATORS = ("/run/systemd", "/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_MAX_DEPTH = 16


def podman_generates(*, user: bool) -> bool:
    """Return whether podman's generator makes the services of ``/etc/containers/systemd``.

    Two generators write to one directory. So the files there are podman's as long as its generator
    is installed and not masked.
    """
    kind = "user" if user else "system"
    for directory in _GENERATORS:
        path = f"{directory}/{kind}-generators/podman-{kind}-generator"
        if os.path.lexists(path):
            return os.path.realpath(path) != os.devnull and os.access(path, os.X_OK)
    return False


def search(environment: Mapping[str, str], *, user: bool, podman: bool) -> list[str]:
    """Return the directories in the order in which they are searched.

    ``podman`` leaves out the directories that podman has, too. Directories that are absent are
    returned as well, for messages.
    """
    if text := environment.get(VARIABLE):
        return _trees((path, frozenset()) for path in text.split(":") if path.startswith("/"))
    if not user:
        roots = [("/run/jaula/systemd", ()), (_OWN_ETC, (_OWN_USERS,)),
                 ("/usr/share/jaula/systemd", ())]  # fmt: skip
        if not podman:
            roots += [("/run/containers/systemd", ()), (_ETC, (_USERS,)),
                      ("/usr/share/containers/systemd", ())]  # fmt: skip
        return _trees((path, frozenset(without)) for path, without in roots)
    uid = str(os.getuid())
    config = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    parts = ["jaula"] if podman else ["jaula", "containers"]
    roots = []
    for part in parts:
        if runtime := environment.get("XDG_RUNTIME_DIR"):
            roots.append((f"{runtime}/{part}/systemd", ()))
        roots.append((f"{config}/{part}/systemd", ()))
    for part in parts:
        users = f"/etc/{part}/systemd/users"
        others = [f"{users}/{name}" for name in _entries(users) if name.isdigit()]
        roots += [(users, tuple(others)), (f"{users}/{uid}", ())]
    return _trees((path, frozenset(without)) for path, without in roots)


def _trees(roots: Iterable[tuple[str, frozenset[str]]]) -> list[str]:
    """Return each root and the directories below it, each once; not those in ``without``."""
    found: dict[str, None] = {}
    for root, without in roots:
        hidden = {os.path.realpath(path) for path in without}
        _add(os.path.realpath(root), hidden, found, _MAX_DEPTH)
    return list(found)


def _add(path: str, hidden: set[str], found: dict[str, None], depth: int) -> None:
    if path in found or path in hidden or path.endswith(".d") or not depth:
        return
    found[path] = None
    for name in _entries(path):
        below = os.path.realpath(f"{path}/{name}")
        if os.path.isdir(below):
            _add(below, hidden, found, depth - 1)


def _entries(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:  # absent, or not a directory of this user
        return []


def drop_in_names(name: str) -> list[str]:
    """Return the names of the drop-in directories of a file, the most specific one first.

    ``web-api@1.container`` has ``web-api@1.container.d``, ``web-api@.container.d``,
    ``web-.container.d`` and ``container.d``.
    """
    stem, _, suffix = name.rpartition(".")
    base, at, instance = stem.partition("@")
    parts = base.split("-")
    prefixes = ["-".join(parts[:number]) + "-" for number in range(1, len(parts))]
    names = [f"{suffix}.d"]
    for prefix in prefixes:
        names.append(f"{prefix}.{suffix}.d")
        if at:
            names.append(f"{prefix}@.{suffix}.d")
    if instance:
        names.append(f"{base}@.{suffix}.d")
    return [f"{name}.d", *reversed(names)]


def drop_ins(name: str, searched: list[str]) -> list[str]:
    """Return the paths of the drop-ins of a file, in the order in which they apply.

    Of drop-ins with the same name, only the first that is found applies.
    """
    found: dict[str, str] = {}
    for directory in searched:
        for drop_in in drop_in_names(name):
            path = f"{directory}/{drop_in}"
            for entry in _entries(path):
                if entry.endswith(".conf"):
                    found.setdefault(entry, f"{path}/{entry}")
    return [found[entry] for entry in sorted(found)]
