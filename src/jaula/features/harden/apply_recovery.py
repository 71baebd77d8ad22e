"""Recovery of an interrupted ``jaula harden apply``: undo it, or finish it.

The names of the containers say how far it came, so a client or an engine may be killed at any step:

* ``NAME`` and ``NAME.with-profile-ID``: the new container exists. The old one may be stopped.
* ``NAME.before-profile-ID`` and ``NAME.with-profile-ID``: the old one is renamed.
* ``NAME.before-profile-ID`` and ``NAME``: the new one has its name.

ID is the start of the old container's id. ``stopped-`` before it says that the old container did
not run. A container that is kept after success is ``NAME.without-profile-ID``.

Another client may create a container ``NAME`` while the name is free. So the new container has the
id of the old one in the annotation :data:`REPLACES`, and one without it is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from jaula.errors import Conflict, JaulaError

Query = Sequence[tuple[str, object]]
REPLACES = (
    "jaula.features.harden.replaces"  # io.jaula. is for annotations from the engine to the runtime
)
_NAME = re.compile(r"(.+)\.(before|with)-profile-(stopped-)?([0-9a-f]{12})")


class Api(Protocol):
    """A connection to the engine, in the client's form."""

    def request(self, method: str, path: str, query: Query = (), body: object = None) -> bytes:
        """Send a request and return the body.

        :raises JaulaError: when the engine refuses or does not answer.
        """
        ...

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """Send a request and return the JSON document."""
        ...


class Replacement(NamedTuple):
    """A replacement of a container. ``running``: the old one ran before."""

    name: str
    old: str  # id, or its first 12 digits
    running: bool

    def _named(self, kind: str) -> str:
        return f"{self.name}.{kind}-profile-{'' if self.running else 'stopped-'}{self.old[:12]}"

    @property
    def old_name(self) -> str:
        """The temporary name of the old container."""
        return self._named("before")

    @property
    def new_name(self) -> str:
        """The temporary name of the new container."""
        return self._named("with")

    @property
    def kept_name(self) -> str:
        """The name of an old container with changed files, after success."""
        return f"{self.name}.without-profile-{self.old[:12]}"

    @property
    def failed_name(self) -> str:
        """The name of a new container with changed files that is not used."""
        return f"{self.name}.failed-profile-{self.old[:12]}"


def undo(api: Api, replacement: Replacement, new: str, *, keep_files: bool = False) -> list[str]:
    """Give the old container its name and state back, and remove the new one, '' if there is none.

    Every step is tried, and the new container is removed last, so the names say what is left to do.
    ``keep_files``: a new container with changed files is stopped and renamed. Return the errors.
    """
    errors: list[str] = []

    def attempt(method: str, path: str, query: Query = ()) -> None:
        try:
            api.request(method, path, query)
        except JaulaError as error:  # the next step may still work
            errors.append(error.message)

    names = _names(api)
    if new in names:
        attempt("POST", f"/containers/{new}/stop", (("t", "0"),))
        if names[new] == replacement.name:
            attempt("POST", f"/containers/{new}/rename", (("name", replacement.new_name),))
    old = next((i for i in names if i.startswith(replacement.old)), "")
    if not old:
        return [*errors, f"the old container {replacement.old[:12]} does not exist"]
    if names[old] != replacement.name:
        attempt("POST", f"/containers/{old}/rename", (("name", replacement.name),))
    if replacement.running:
        attempt("POST", f"/containers/{old}/start")
    if errors or new not in names:
        return errors
    if keep_files and has_files(api, api.document("GET", f"/containers/{new}/json")):
        attempt("POST", f"/containers/{new}/rename", (("name", replacement.failed_name),))
    else:
        attempt("DELETE", f"/containers/{new}", (("force", "1"),))
    return errors


def finish(api: Api, replacement: Replacement, old: Mapping[str, Any]) -> str:
    """Remove the old container without its volumes. Return its name if it has changed files.

    An engine that was restarted meanwhile starts it again if its restart policy is ``always``.
    """
    api.request("POST", f"/containers/{old['Id']}/stop")
    if not has_files(api, old):
        api.request("DELETE", f"/containers/{old['Id']}")
        return ""
    query = (("name", replacement.kept_name),)
    api.request("POST", f"/containers/{old['Id']}/rename", query)
    return replacement.kept_name


def recover(api: Api, ref: str, report: Callable[[str], None]) -> bool:
    """Finish or undo interrupted replacements of a container. Return whether there were any.

    One whose new container runs is finished, all others are undone.

    :raises Conflict: when the old container cannot be restored.
    """
    names = _names(api)
    identity = next((i for i, n in names.items() if n == ref or i == ref), "") or next(
        (i for i in names if len(ref) >= 4 and i.startswith(ref)), ""
    )
    name = names.get(identity, ref)
    if match := _NAME.fullmatch(name):
        name = match[1]
    found: dict[Replacement, dict[str, str]] = {}
    for own, each in names.items():
        match = _NAME.fullmatch(each)
        if match and match[1] == name:
            replacement = Replacement(name, match[4], not match[3])
            is_new = match[2] == "with"
            if is_new or own.startswith(replacement.old):
                found.setdefault(replacement, {})["new" if is_new else "old"] = own
    for replacement, ids in found.items():
        _recover(api, replacement, ids, names, report)
    return bool(found)


def _recover(
    api: Api,
    replacement: Replacement,
    ids: Mapping[str, str],
    names: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    name, new, old = replacement.name, ids.get("new", ""), ids.get("old", "")
    if old and not new:
        new = next((i for i, n in names.items() if n == name), "")
        document = api.document("GET", f"/containers/{new}/json") if new else {}
        if new and not _replaces(document, replacement):
            new = ""
        if new and _works(document):
            kept = finish(api, replacement, api.document("GET", f"/containers/{old}/json"))
            report(
                f"finished an interrupted apply: {name} is {new[:12]}, under its profile"
                + (f"; the old container is kept as {kept}" if kept else "")
            )
            return
    if errors := undo(api, replacement, new, keep_files=True):
        raise Conflict(
            f"an interrupted apply to {name} cannot be undone: {'; '.join(errors)}",
            hint=f"the old container is {replacement.old}; jaula ps -a --filter name={name} lists"
            " what is left",
        )
    report(f"undid an interrupted apply: {name} is {replacement.old[:12]}, as before")


def _replaces(inspect: Mapping[str, Any], replacement: Replacement) -> bool:
    """Return whether a container was created in place of the old one."""
    former = (inspect["HostConfig"].get("Annotations") or {}).get(REPLACES) or ""
    return str(former).startswith(replacement.old)


def _works(inspect: Mapping[str, Any]) -> bool:
    """Return whether a container runs, was not restarted by its policy, and is not unhealthy."""
    state = inspect["State"]
    health = (state.get("Health") or {}).get("Status")
    failed = inspect.get("RestartCount") or state.get("Restarting") or health == "unhealthy"
    return bool(state["Running"]) and not failed


def _names(api: Api) -> dict[str, str]:
    """Return the names of all containers by id."""
    rows = api.document("GET", "/containers/json", (("all", "1"),))
    return {
        str(row["Id"]): next((n[1:] for n in row.get("Names") or () if n.count("/") == 1), "")
        for row in rows
    }


def has_files(api: Api, inspect: Mapping[str, Any]) -> bool:
    """Return whether the writable layer of a container has changed files."""
    mounts = [f"{mount['Destination']}/" for mount in inspect.get("Mounts") or ()]
    changes = api.document("GET", f"/containers/{inspect['Id']}/changes") or ()
    return any(_is_content(change, mounts) for change in changes)


def _is_content(change: Mapping[str, Any], mounts: Sequence[str]) -> bool:
    """Return whether a change is more than a changed directory (kind 0) or a mount point."""
    path = str(change.get("Path") or "")
    is_mount_point = any(mount.startswith(f"{path}/") for mount in mounts)
    return bool(change.get("Kind")) and not is_mount_point
