"""Where a container's cgroup is, from what its spec says. Pure: text in, path out.

Source: OCI config-linux.md "Cgroups Path": an absolute path is taken from the mount point; for a
relative one, or none, the place is the runtime's to choose. Chosen here:

* root: below ``/jaula-runtime``;
* rootless: beside the caller's own cgroup, for that holds the caller and so cannot give
  controllers to cgroups below it (cgroup-v2.rst "No Internal Process Constraint").

With systemd the path reads ``slice:prefix:name``, as podman, containerd's CRI and CRI-O write it,
and means the unit ``prefix-name.scope`` in that slice; a name that ends in ``.slice`` is a slice of
its own. The path that is given back is below the service manager's own cgroup, which is the root of
the tree for the system's manager and ``user@UID.service`` for a user's.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest, Unsupported

BASE = "/jaula-runtime"
PREFIX = "jaula"
"""What the scope of a container is called after where the spec names none: ``jaula-ID.scope``."""

_SLICE = ".slice"


def resolve(
    cgroups_path: str | None, container: str, *, systemd: bool, rootless: bool, own: str
) -> str:
    """The path of the container's cgroup below the mount point, for :class:`CgroupDriver`.

    ``own`` is the text of ``/proc/self/cgroup``. Raises ``InvalidRequest`` for a path that is none.
    """
    if systemd:
        return _of_unit(cgroups_path or "", container, rootless)
    if cgroups_path and cgroups_path.startswith("/"):
        return "/" + relative(cgroups_path)
    name = relative(cgroups_path or container)
    base = _beside(own) if rootless else BASE
    return f"{base}/{name}"


def expand_slice(slice_name: str) -> str:
    """The path of a slice: ``a-b.slice`` is ``/a.slice/a-b.slice``, ``-.slice`` is the root, "".

    Source: systemd.slice(5). Raises ``InvalidRequest``.
    """
    stem = slice_name.removesuffix(_SLICE)
    if stem == slice_name or "/" in slice_name:
        raise InvalidRequest(f"invalid slice name: {slice_name}", hint="for example user.slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        raise InvalidRequest(
            f"invalid slice name: {slice_name}", hint="a dash stands between two names"
        )
    path = "".join("/" + "-".join(parts[: n + 1]) + _SLICE for n in range(len(parts)))
    return "/" + relative(path)


def own_cgroup(text: str) -> str:
    """The path of the v2 cgroup in ``/proc/self/cgroup``, or of the first where there is no v2."""
    found = [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2]
    unified = [line[3:] for line in text.splitlines() if line.startswith("0::")]
    return next(iter(unified or found), "/")


def _beside(own: str) -> str:
    path = own_cgroup(own)
    if ".." in path.split("/"):
        raise Unsupported(
            f"the own cgroup {path} lies outside of the cgroup namespace",
            hint="give an absolute cgroupsPath",
        )
    return path.rpartition("/")[0]


def _of_unit(cgroups_path: str, container: str, rootless: bool) -> str:
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
        above = path.rpartition("/")[0]
        if slice_name and above != expand_slice(slice_name):
            raise InvalidRequest(f"slice {name} lies in {above or '-.slice'}, not in {slice_name}")
        return path
    above = expand_slice(slice_name or ("user.slice" if rootless else "system.slice"))
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if "/" in unit:
        raise InvalidRequest(f'bad unit name "{unit}": a slash')
    return "/" + relative(f"{above}/{unit}")


_LONGEST = 255  # NAME_MAX


def relative(path: str) -> str:
    """``path`` without its leading slash, checked: no ``..``, no empty, odd or overlong part.

    Raises ``InvalidRequest``.
    """
    parts = path.removeprefix("/").split("/")
    for part in parts:
        if not part or part in (".", ".."):
            raise InvalidRequest(f"bad cgroup path {path!r}: empty or dot part")
        if len(part.encode("utf-8", "replace")) > _LONGEST:
            raise InvalidRequest(f"bad cgroup path: a part is longer than {_LONGEST} bytes")
        if not part.isprintable() or not part.isascii():
            raise InvalidRequest(f"bad cgroup path {path!r}: only printable ASCII is allowed")
        if part.startswith(("cgroup.", "-")):
            raise InvalidRequest(f"bad cgroup path {path!r}: {part!r} reads as an interface file")
    return "/".join(parts)


def ancestors(path: str) -> list[str]:
    """The paths above a relative path, topmost first: ``a/b/c`` gives ``a``, ``a/b``."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
