"""What a profile would give a container that the container does not have. Pure.

A record is made by what runs in a container, so a profile of it may only narrow. Both sides are
sets: what the container has (:class:`Access`, from ``inspect``) and what each field of the profile
names. :data:`FIELDS` has a comparison for every field of a profile.

``had`` may be several: the container as it is, and the container without the document of its former
profile, which a person replaces by another file. An item is given if none of them has it. After the
new container was created, :func:`beyond` compares what the engine made of the request.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaula.errors import Conflict
from jaula.features.harden import hardened_request
from jaula.security import capability_sets
from jaula.security.allowed_devices import DEFAULT_DEVICES
from jaula.spec import egress, listen
from jaula.spec.confinement_profile import Profile, is_device

_ROOT = ("", "0", "root")
_KINDS = ("read", "write", "execute")
_NAMESPACES = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode")
_NARROWING = ("seccomp-allow", "seccomp-enosys", "landlock", "no-new-privileges", "mask")
_MOUNT_GRANTS = frozenset({"dev", "suid"})  # options of a tmpfs that the default refuses
_MAX_SHOWN = 8


class Given(NamedTuple):
    """An item that a profile gives and that a container does not have."""

    section: str
    item: str

    def __str__(self) -> str:
        return f"{self.section} {self.item[:120]!r}"


class Access(NamedTuple):
    """What a container has, of all that a profile can give. None: no restriction."""

    user: str
    new_privileges: bool
    capabilities: frozenset[str]  # with CAP_
    devices: frozenset[tuple[str, str, str]] | None  # host's path, own path, one letter of rwm
    system_calls: Mapping[str, frozenset[str]] | None  # by architecture, of a list
    rules: Mapping[str, tuple[str, ...]]  # Landlock's, by kind; an absent kind is unrestricted
    writable_root: bool
    mounts: Mapping[str, bool]  # path, whether it is writable
    hidden: frozenset[str]  # masked and read-only paths
    namespaces: Mapping[str, str]
    options: frozenset[str]  # security options that do not narrow
    egress: tuple[egress.Destination, ...] | None
    listen: tuple[listen.Port, ...] | None
    pids: int | None
    memory: int | None  # bytes
    swap: int | None  # bytes, with the memory
    cpus: float | None

    def may_write(self, path: str) -> bool:
        """Return whether a new file system at a path adds no place to write to."""
        above = [each for each in self.mounts if _is_below(path, each)]
        return self.mounts[max(above, key=len)] if above else self.writable_root


def access(inspect: Mapping[str, Any]) -> Access:
    """Return what a container has."""
    host, config = inspect["HostConfig"], inspect["Config"]
    options = [str(each) for each in host.get("SecurityOpt") or ()]
    privileged = bool(host.get("Privileged"))
    sets = capability_sets.resolve(
        host.get("CapAdd") or (), host.get("CapDrop") or (), privileged=privileged
    )
    mounts = {str(each["Destination"]): bool(each.get("RW")) for each in inspect["Mounts"] or ()}
    for path, text in (host.get("Tmpfs") or {}).items():
        mounts[path] = "ro" not in text.split(",")
    own = host.get("Egress"), host.get("Listen")
    memory = host.get("Memory") or None
    swap = host.get("MemorySwap") or None
    return Access(
        user=str(config.get("User") or ""),
        new_privileges="no-new-privileges" not in options,
        capabilities=frozenset(sets.bounding),
        devices=None if privileged else frozenset(_devices(host)),
        system_calls=_system_calls(options),
        rules=_rules(options),
        writable_root=not host.get("ReadonlyRootfs"),
        mounts=mounts,
        hidden=frozenset((*(host.get("MaskedPaths") or ()), *(host.get("ReadonlyPaths") or ()))),
        namespaces={name: str(host.get(name) or "") for name in _NAMESPACES},
        options=frozenset(
            each
            for each in (*options, *(("privileged",) if privileged else ()))
            if each.replace("=", ":").partition(":")[0] not in _NARROWING
        ),
        egress=None if own[0] is None else egress.parse(own[0]),
        listen=None if own[1] is None else listen.parse(own[1]),
        pids=_positive(host.get("PidsLimit")),
        memory=memory,
        swap=None if memory is None or (swap or 0) < 0 else swap or 2 * memory,
        cpus=_cpus(host),
    )


def accesses(
    inspect: Mapping[str, Any], image: Mapping[str, Any], *, without_former: bool
) -> tuple[Access, ...]:
    """Return what a container has, and what it would have without the document of its profile.

    ``without_former``: a person replaces the document by another one. A profile that a record made
    is compared with the container as it was recorded.
    """
    present = access(inspect)
    former = hardened_request.former_document(inspect["HostConfig"])
    if former is None or not without_former:
        return (present,)
    body = hardened_request.of_container(inspect, image, "default", Profile(name="default"))
    plain = access({"Config": body, "HostConfig": body["HostConfig"], "Mounts": inspect["Mounts"]})
    return (
        present,
        plain._replace(
            user=str(body.get("User") or image.get("Config", {}).get("User") or ""),
            hidden=present.hidden - set(former.files.masked),
            pids=present.pids,
            memory=present.memory,
            swap=present.swap,
            cpus=present.cpus,
        ),
    )


def _positive(value: Any) -> int | None:
    return value if value and value > 0 else None


def _cpus(host: Mapping[str, Any]) -> float | None:
    if nano := host.get("NanoCpus"):
        return float(nano) / 1e9
    if (quota := host.get("CpuQuota") or 0) > 0:
        return float(quota) / (host.get("CpuPeriod") or 100_000)
    return None


def _devices(host: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for device in DEFAULT_DEVICES:
        yield from ((device.path, device.path, each) for each in "rwm")
    for mapping in host.get("Devices") or ():
        path = str(mapping["PathOnHost"])
        inside = str(mapping.get("PathInContainer") or path)
        access = str(mapping.get("CgroupPermissions") or "rwm")
        yield from ((path, inside, each) for each in access)


def _system_calls(options: Sequence[str]) -> dict[str, frozenset[str]] | None:
    lists = [text for text in options if text.startswith("seccomp-allow=")]
    if not lists:
        return None
    result: dict[str, frozenset[str]] = {}
    for text in lists:
        architecture, _, names = text.partition("=")[2].partition(":")
        result[architecture] = result.get(architecture, frozenset()) | set(names.split(","))
    return result


def _rules(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    rules: dict[str, tuple[str, ...]] = {}
    for text in options:
        option, _, rule = text.replace(":", "=", 1).partition("=")
        kind, equals, path = rule.partition("=")
        if option == "landlock" and equals and kind in _KINDS:
            rules[kind] = (*rules.get(kind, ()), path)
    return rules


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


# -- the fields of a profile -----------------------------------------------------------------------


def _nothing(profile: Profile, had: Access) -> Iterator[str]:
    """Yield nothing: the field is text, or only takes something away."""
    yield from ()


def _user(profile: Profile, had: Access) -> Iterator[str]:
    user = profile.process.user
    if user and user != had.user and had.user.partition(":")[0] not in _ROOT:
        yield user


def _new_privileges(profile: Profile, had: Access) -> Iterator[str]:
    if not profile.process.no_new_privileges and not had.new_privileges:
        yield "false"


def _capabilities(profile: Profile, had: Access) -> Iterator[str]:
    for name in profile.capabilities:
        if name.upper() in ("ALL", "CAP_ALL") or capability_sets.canonical(name) not in (
            had.capabilities
        ):
            yield name


def _given_devices(profile: Profile, had: Access) -> Iterator[str]:
    for text in profile.devices:
        path, _, rest = text.partition(":")
        inside, _, letters = rest.partition(":")
        wanted = {(path, inside or path, each) for each in letters or "rwm"}
        if not is_device(text):
            yield text
        elif had.devices is None:
            if path != (inside or path):
                yield text
        elif not all(_has_device(had.devices, each) for each in wanted):
            yield text


def _has_device(devices: frozenset[tuple[str, str, str]], wanted: tuple[str, str, str]) -> bool:
    """Return whether a device was given: itself, or a directory of devices with it."""
    path, inside, letter = wanted
    return wanted in devices or any(
        letter == access
        and path.startswith(f"{directory.rstrip('/')}/")
        and inside == own.rstrip("/") + path.removeprefix(directory.rstrip("/"))
        for directory, own, access in devices
    )


def _calls(profile: Profile, had: Access) -> Iterator[str]:
    if had.system_calls is None:
        return  # a list narrows the filter that the container has
    for architecture, names in profile.seccomp.syscalls.items():
        known = had.system_calls.get(architecture, frozenset())
        yield from (f"{architecture}:{name}" for name in names if name not in known)


def _root(profile: Profile, had: Access) -> Iterator[str]:
    if not profile.files.read_only_root and not had.writable_root:
        yield "false"


def _tmpfs(profile: Profile, had: Access) -> Iterator[str]:
    for path, options in profile.files.tmpfs.items():
        if path in had.mounts:
            continue  # the container's own mount stays
        if not had.may_write(path) or set(options.split(",")) & _MOUNT_GRANTS:
            yield f"{path}:{options}" if options else path


def _volumes(profile: Profile, had: Access) -> Iterator[str]:
    for path in profile.files.volumes:
        if path not in had.mounts and not had.may_write(path):
            yield path


def _files(kind: str) -> Callable[[Profile, Access], Iterator[str]]:
    def paths(profile: Profile, had: Access) -> Iterator[str]:
        rules = had.rules.get(kind)
        if rules is None:
            return
        items: tuple[str, ...] = getattr(profile.files, kind)
        for path in items:
            resolved = posixpath.normpath(path)
            if not any(_is_below(resolved, posixpath.normpath(each)) for each in rules):
                yield path

    return paths


def _egress(profile: Profile, had: Access) -> Iterator[str]:
    for item in profile.network.egress or ():
        wanted = egress.parse_item(item)
        if had.egress is not None and not any(egress.includes(e, wanted) for e in had.egress):
            yield item


def _listen(profile: Profile, had: Access) -> Iterator[str]:
    for port in listen.parse(profile.network.listen or ()):
        if had.listen is None or port in had.listen:
            continue
        if not port.number or not listen.covers(had.listen, port.protocol, port.number):
            yield str(port)


FIELDS: dict[str, Callable[[Profile, Access], Iterator[str]]] = {
    "version": _nothing,
    "name": _nothing,
    "image": _nothing,  # the container's own image is used
    "guessed": _nothing,
    "sources": _nothing,
    "process.user": _user,
    "process.no-new-privileges": _new_privileges,
    "capabilities": _capabilities,
    "seccomp.syscalls": _calls,
    "seccomp.unavailable": _nothing,  # refuses with another error
    "files.read-only-root": _root,
    "files.tmpfs": _tmpfs,
    "files.volumes": _volumes,
    "files.read": _files("read"),
    "files.write": _files("write"),
    "files.execute": _files("execute"),
    "files.masked": _nothing,  # hides more
    "network.mode": _nothing,  # none, or as the container has it
    "network.listen": _listen,
    "network.egress": _egress,
    "limits.pids": _nothing,  # of two limits the lower one counts; see beyond()
    "limits.memory": _nothing,
    "limits.cpus": _nothing,
    "devices": _given_devices,
    "notes": _nothing,
    "incomplete": _nothing,
    "evidence": _nothing,
}
"""The comparison of each field, by its name in the document."""


def given(profile: Profile, had: Sequence[Access]) -> list[Given]:
    """Return what a profile gives that none of ``had`` has.

    :raises InvalidRequest: when the profile has an unknown capability.
    """
    return _in_all(
        [
            Given(section, item)
            for section, compare in FIELDS.items()
            for item in compare(profile, each)
        ]
        for each in had
    )


# -- the new container -----------------------------------------------------------------------------


def beyond(new: Access, had: Sequence[Access]) -> list[Given]:
    """Return what a container has that none of ``had`` has."""
    return _in_all(list(_more(new, each)) for each in had)


def _in_all(lists: Iterable[list[Given]]) -> list[Given]:
    first, *others = lists
    return [each for each in dict.fromkeys(first) if all(each in other for other in others)]


def _more(new: Access, had: Access) -> Iterator[Given]:
    if new.user != had.user and had.user.partition(":")[0] not in _ROOT:
        yield Given("process.user", new.user or "(of the image)")
    if new.new_privileges and not had.new_privileges:
        yield Given("process.no-new-privileges", "false")
    yield from (Given("capabilities", name) for name in sorted(new.capabilities - had.capabilities))
    if had.devices is not None:
        more = {("(any)",)} if new.devices is None else new.devices - had.devices
        yield from (Given("devices", ":".join(each)) for each in sorted(more))
    if new.writable_root and not had.writable_root:
        yield Given("files.read-only-root", "false")
    for path, writable in new.mounts.items():
        if writable and not had.mounts.get(path, had.may_write(path)):
            yield Given("files.volumes", path)
    for path in sorted(had.hidden - new.hidden):
        yield Given("files.masked", path)
    for name, mode in new.namespaces.items():
        if mode != had.namespaces[name] and mode != "none":
            yield Given(name, mode)
    yield from (Given("SecurityOpt", each) for each in sorted(new.options - had.options))
    if had.egress is not None:
        for item in (None,) if new.egress is None else new.egress:
            if item is None or not any(egress.includes(each, item) for each in had.egress):
                yield Given("network.egress", str(item or "(any)"))
    if had.listen is not None:
        for port in (None,) if new.listen is None else new.listen:
            if port is None or port not in had.listen:
                yield Given("network.listen", str(port or "(any)"))
    for name, value, limit in (
        ("pids", new.pids, had.pids), ("memory", new.memory, had.memory),
        ("swap", new.swap, had.swap), ("cpus", new.cpus, had.cpus),
    ):  # fmt: skip
        if limit is not None and (value is None or value > limit):
            yield Given(f"limits.{name}", str(value or "(none)"))


def refuse(name: str, profile: Profile, items: Sequence[Given]) -> None:
    """Refuse a profile that gives something.

    :raises Conflict: when there are items.
    """
    if not items:
        return
    shown = ", ".join(map(str, items[:_MAX_SHOWN]))
    more = f" and {len(items) - _MAX_SHOWN} more" if len(items) > _MAX_SHOWN else ""
    raise Conflict(
        f"the profile {profile.name} gives {name} what it does not have: {shown}{more}",
        hint="remove these items from the profile, or create the container with these options",
    )
