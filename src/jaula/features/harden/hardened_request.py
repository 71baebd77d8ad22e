"""The create request of an existing container, from ``inspect``, under another profile. Pure.

Facts about ``inspect``: it shows decisions, not what was asked. The engine's own lists of masked
paths, its default limit of processes and twice the memory as limit of swap look like options. A
request with these would outrank the profile, so they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaula.errors import Conflict
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS
from jaula.spec.confinement_profile import Profile, is_document, load

_MODES_OF_OTHERS = ("host", "container:")


def check(inspect: Mapping[str, Any]) -> None:
    """Check that a container can be created again.

    :raises Conflict: when its removal would be part of its stop, or another program manages it.
    """
    name = name_of(inspect)
    if inspect.get("Pod"):
        raise Conflict(
            f"container {name} belongs to a pod", hint="the kubelet creates the containers of pods"
        )
    if inspect["HostConfig"].get("AutoRemove"):
        raise Conflict(
            f"container {name} was started with --rm, so it is removed when it stops",
            hint="start it again with --profile",
        )


def name_of(inspect: Mapping[str, Any]) -> str:
    """Return the name of a container without the slash."""
    return str(inspect["Name"]).lstrip("/")


def of_container(
    inspect: Mapping[str, Any], image: Mapping[str, Any], text: str, profile: Profile
) -> dict[str, Any]:
    """Return the create request of a container under a profile.

    ``image`` is the document of its image. ``text`` is the profile as it is sent. The options of
    the former profile are left out, and of two limits the lower one counts.
    """
    config, host = dict(inspect["Config"]), dict(inspect["HostConfig"])
    config["Image"] = inspect["Image"]
    if config.get("Hostname") == str(inspect["Id"])[:12]:
        del config["Hostname"]
    if _shares(host):
        for member in ("Hostname", "Domainname"):
            config.pop(member, None)
    if (config.get("User") or "") == (image.get("Config", {}).get("User") or ""):
        config.pop("User", None)  # the profile's, if it has one
    _without_former_profile(host, config)
    for member in ("ProfileName", "ProfileDigest"):
        host.pop(member, None)
    for member, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
        if _is_default(host.get(member) or (), default, inspect["HostConfig"]):
            host.pop(member, None)
    host["Binds"] = [*(host.get("Binds") or ()), *_anonymous_volumes(inspect)]
    host["Mounts"] = _mounts(inspect)
    host["Links"] = [_link(text) for text in host.get("Links") or ()]
    _lower_limits(host, profile)
    host["Profile"] = text
    networks = _networks(inspect)
    if profile.network.mode == "none" and _unused_default(host):
        host["NetworkMode"], networks = "", {}
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}}


def _shares(host: Mapping[str, Any]) -> bool:
    """Return whether the host name is that of the host or of another container."""
    modes = [str(host.get(key) or "") for key in ("UTSMode", "NetworkMode")]
    return modes[0] == "host" or modes[1].startswith("container:")


def _is_default(paths: Sequence[str], default: Sequence[str], host: Mapping[str, Any]) -> bool:
    """Return whether a list is the engine's own, as far as masks and unmasks explain it.

    An empty list was requested, or all of it was lifted.
    """
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    masked = {
        path
        for option in options
        if option.startswith(("mask=", "mask:"))
        for path in option[5:].split(":")
    }
    unmasks = any(option.startswith("unmask") for option in options)
    lacks = set(default) - set(paths)
    return bool(paths) and set(paths) <= {*default, *masked} and (unmasks or not lacks)


def former_document(host: Mapping[str, Any]) -> Profile | None:
    """Return the document that a container was created with, None for a preset."""
    text = str(host.get("Profile") or "")
    return load(text.encode(), "of the container") if is_document(text) else None


def _options_of(document: Profile | None) -> tuple[str, ...]:
    """Return the security options that a document or the preset ``strict`` puts into a request."""
    if document is None:
        return ("no-new-privileges", "landlock")
    seccomp = document.seccomp
    options = (
        ("no-new-privileges", document.process.no_new_privileges),
        ("seccomp-allow", any(seccomp.syscalls.values())),
        ("seccomp-enosys", any(seccomp.unavailable.values())),
        ("landlock", True),
    )
    return tuple(option for option, given in options if given)


def _without_former_profile(host: dict[str, Any], config: dict[str, Any]) -> None:
    """Remove what a document or the preset ``strict`` put into a request."""
    document = former_document(host)
    if document is None and host.get("Profile") != "strict":
        return
    masks = {f"mask={path}" for path in document.files.masked} if document else ()
    host["SecurityOpt"] = [
        option
        for option in host.get("SecurityOpt") or ()
        if option.partition("=")[0] not in _options_of(document) and option not in masks
    ]
    host["CapDrop"] = [name for name in host.get("CapDrop") or () if name != "ALL"]
    if document is None or document.files.read_only_root:
        host["ReadonlyRootfs"] = False
    if document is None:
        return
    host["CapAdd"] = [n for n in host.get("CapAdd") or () if n not in document.capabilities]
    for member, items in (
        ("Egress", document.network.egress), ("Listen", document.network.listen),
    ):  # fmt: skip
        if host.get(member) == list(items or ()):
            host.pop(member, None)
    tmpfs = host.get("Tmpfs") or {}
    host["Tmpfs"] = {p: o for p, o in tmpfs.items() if document.files.tmpfs.get(p) != o}
    if document.process.user and config.get("User") == document.process.user:
        config.pop("User")


def _volumes(inspect: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the volumes by destination."""
    return {
        str(mount["Destination"]): str(mount["Name"])
        for mount in inspect.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Name")
    }


def _anonymous_volumes(inspect: Mapping[str, Any]) -> list[str]:
    """Return the volumes of ``Config.Volumes`` as binds by their name.

    One whose path has a colon is a mount: the rest of the path would be options.
    """
    return [f"{name}:{path}" for path, name in _unnamed(inspect).items() if ":" not in path]


def _unnamed(inspect: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the volumes of ``Config.Volumes`` by their path."""
    host = inspect["HostConfig"]
    requested = {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    requested |= {mount.get("Target") for mount in host.get("Mounts") or ()}
    paths = set(inspect["Config"].get("Volumes") or ()) - requested
    return {path: name for path, name in _volumes(inspect).items() if path in paths}


def _mounts(inspect: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the mounts of the request; a volume without a name has the one that it got."""
    names = _volumes(inspect)
    unnamed = [
        {"Type": "volume", "Source": name, "Target": path}
        for path, name in _unnamed(inspect).items()
        if ":" in path
    ]
    return unnamed + [
        {**mount, "Source": names[mount["Target"]]}
        if mount.get("Type") == "volume" and not mount.get("Source") and mount["Target"] in names
        else dict(mount)
        for mount in inspect["HostConfig"].get("Mounts") or ()
    ]


def _link(text: str) -> str:
    """Return ``/source:/container/alias`` as ``--link`` has it."""
    source, _, rest = text.partition(":")
    return f"{source.lstrip('/')}:{rest.rpartition('/')[2]}"


def _lower_limits(host: dict[str, Any], profile: Profile) -> None:
    """Leave out the limits that the profile lowers."""
    limits = profile.limits
    pids = host.get("PidsLimit") or 0
    if limits.pids and not 0 < pids < limits.pids:
        host.pop("PidsLimit", None)
    memory = host.get("Memory") or 0
    if limits.memory and not 0 < memory < limits.memory:
        host.pop("Memory", None)
        host.pop("MemorySwap", None)
    elif memory and host.get("MemorySwap") == 2 * memory:
        host.pop("MemorySwap", None)
    if limits.cpus and not 0 < (host.get("NanoCpus") or 0) < limits.cpus * 10**9:
        host.pop("NanoCpus", None)


def _networks(inspect: Mapping[str, Any]) -> dict[str, Any]:
    """Return the endpoints as requested: without the addresses that the engine chose."""
    short = str(inspect["Id"])[:12]
    mode = str(inspect["HostConfig"].get("NetworkMode") or "")
    if mode == "none" or mode.startswith(_MODES_OF_OTHERS):
        return {}
    endpoints = {}
    for name, settings in (inspect["NetworkSettings"].get("Networks") or {}).items():
        kept = {
            key: settings[key]
            for key in ("IPAMConfig", "Links", "DriverOpts", "GwPriority")
            if settings.get(key)
        }
        aliases = [alias for alias in settings.get("Aliases") or () if alias != short]
        endpoints[name] = {**kept, **({"Aliases": aliases} if aliases else {})}
    return endpoints


def _unused_default(host: Mapping[str, Any]) -> bool:
    """Return whether the network is the default one and no port is published."""
    published = host.get("PortBindings") or host.get("PublishAllPorts")
    return not published and host.get("NetworkMode") in ("", None, "default", "bridge")
