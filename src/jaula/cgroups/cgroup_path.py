"""Path of a container's cgroup: grammar, and resolution of a spec's ``cgroupsPath``. Pure.

Source: OCI config-linux.md "Cgroups Path": an absolute path starts at the mount point. For a
relative or absent one the runtime chooses the parent:

* root: ``/jaula-runtime``;
* rootless: the parent of the caller's own cgroup. The own cgroup holds the caller, so it cannot
  enable controllers for children (cgroup-v2.rst "No Internal Process Constraint").

With systemd the path has the form ``slice:prefix:name``, as podman, containerd's CRI and CRI-O
write it. It means the unit ``prefix-name.scope`` in that slice; a name that ends in ``.slice`` is
itself a slice. The result is relative to the service manager's own cgroup, which is the root for
the system manager and ``user@UID.service`` for a user's.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest, Unsupported

BASE = "/jaula-runtime"
PREFIX = "jaula"
"""Name prefix of a container's scope if the spec sets none: ``jaula-ID.scope``."""

SCOPE = ".scope"
_SLICE = ".slice"
_ID_LENGTH = 64  # digits


def resolve(
    cgroups_path: str | None, container: str, *, systemd: bool, rootless: bool, own: str
) -> str:
    """Return the path of the container's cgroup below the mount point, for :class:`CgroupDriver`.

    ``own`` is the text of ``/proc/self/cgroup``.

    :raises InvalidRequest: when the path is not valid.
    """
    if systemd:
        return _unit_path(cgroups_path or "", container, rootless)
    if cgroups_path and cgroups_path.startswith("/"):
        return "/" + relative(cgroups_path)
    name = relative(cgroups_path or container)
    base = _parent_of_own(own) if rootless else BASE
    return f"{base}/{name}"


def parent_path(parent: str, *, systemd: bool) -> str:
    """Return the path of the parent of containers' cgroups; "" is the root.

    With systemd the parent is a slice. It is named alone, or with the slices above it as the
    kubelet does.

    :raises InvalidRequest: when the parent is not valid.
    """
    if not systemd:
        return "/" + relative(parent.strip("/"))
    above, _, name = parent.strip("/").rpartition("/")
    if not name.endswith(_SLICE):
        raise InvalidRequest(
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice",'
            f" not {parent[:200]!r}"
        )
    path = expand_slice(name)
    if above and path != f"/{above}/{name}":
        place = path.rpartition("/")[0] or "-.slice"
        raise InvalidRequest(f"slice {name} is in {place}, not in {above[:200]}")
    return path


def container_path(parent: str, container: str, *, systemd: bool) -> str:
    """Return the path of a container's cgroup below a parent: with systemd a scope in its slice.

    :raises InvalidRequest: when the parent is not valid.
    """
    name = f"{PREFIX}-{container}{SCOPE}" if systemd else container
    return f"{parent_path(parent, systemd=systemd)}/{name}"


def container_id(name: str) -> str:
    """Return the id of the container whose cgroup has a name, '' if it is not a container's."""
    id = name.removeprefix(f"{PREFIX}-").removesuffix(SCOPE) if name.endswith(SCOPE) else name
    return id if len(id) == _ID_LENGTH and not id.strip("0123456789abcdef") else ""


def expand_slice(slice_name: str) -> str:
    """Return the path of a slice: ``a-b.slice`` is ``/a.slice/a-b.slice``, ``-.slice`` is "".

    Source: systemd.slice(5).

    :raises InvalidRequest: when the name is not a slice name.
    """
    stem = slice_name.removesuffix(_SLICE)
    if stem == slice_name or "/" in slice_name:
        raise InvalidRequest(f"invalid slice name: {slice_name}", hint="for example user.slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        raise InvalidRequest(
            f"invalid slice name: {slice_name}", hint="a dash must separate two names"
        )
    path = "".join("/" + "-".join(parts[: n + 1]) + _SLICE for n in range(len(parts)))
    return "/" + relative(path)


def own_cgroup(text: str) -> str:
    """Return the path of the v2 cgroup in ``/proc/self/cgroup``, or of the first without v2."""
    paths = [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2]
    unified = [line[3:] for line in text.splitlines() if line.startswith("0::")]
    return next(iter(unified or paths), "/")


def _parent_of_own(own: str) -> str:
    own_path = own_cgroup(own)
    if ".." in own_path.split("/"):
        raise Unsupported(
            f"the caller's cgroup {own_path} is outside the cgroup namespace",
            hint="set an absolute cgroupsPath",
        )
    return own_path.rpartition("/")[0]


def _unit_path(cgroups_path: str, container: str, rootless: bool) -> str:
    if not cgroups_path:
        slice_name, prefix, name = "", PREFIX, container
    else:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise InvalidRequest(
                'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
                f'got "{cgroups_path}" instead'
            )
        slice_name, prefix, name = parts
    if not name:
        raise InvalidRequest(f'the unit in cgroupsPath "{cgroups_path}" has no name')
    if name.endswith(_SLICE):
        path = expand_slice(name)
        parent = path.rpartition("/")[0]
        if slice_name and parent != expand_slice(slice_name):
            raise InvalidRequest(f"slice {name} is in {parent or '-.slice'}, not in {slice_name}")
        return path
    parent = expand_slice(slice_name or ("user.slice" if rootless else "system.slice"))
    unit = f"{prefix}-{name}{SCOPE}" if prefix else f"{name}{SCOPE}"
    if "/" in unit:
        raise InvalidRequest(f'bad unit name "{unit}": it has a slash')
    return "/" + relative(f"{parent}/{unit}")


_NAME_MAX = 255  # bytes
_PATH_MAX = 2048  # characters: half of the kernel's PATH_MAX, for what is above and below


def relative(path: str) -> str:
    """Validate ``path`` and return it without the leading slash.

    :raises InvalidRequest: when a component is empty, a dot, not printable ASCII, too long, or
        reads as an interface file.
    """
    if len(path) > _PATH_MAX:
        raise InvalidRequest(f"bad cgroup path: it is longer than {_PATH_MAX} characters")
    parts = path.removeprefix("/").split("/")
    for part in parts:
        if not part or part in (".", ".."):
            raise InvalidRequest(f"bad cgroup path {path!r}: empty or dot part")
        if len(part.encode("utf-8", "replace")) > _NAME_MAX:
            raise InvalidRequest(f"bad cgroup path: a part is longer than {_NAME_MAX} bytes")
        if not part.isprintable() or not part.isascii():
            raise InvalidRequest(f"bad cgroup path {path!r}: only printable ASCII is allowed")
        if part.startswith(("cgroup.", "-")):
            raise InvalidRequest(f"bad cgroup path {path!r}: {part!r} reads as an interface file")
    return "/".join(parts)


def ancestors(path: str) -> list[str]:
    """Return the parents of a relative path, topmost first: ``a/b/c`` gives ``a``, ``a/b``."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
