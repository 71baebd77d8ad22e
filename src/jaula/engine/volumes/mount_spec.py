"""Parse the mounts of a request: ``Binds``, ``Mounts``, ``Tmpfs`` and ``Volumes``. Pure.

Source: Docker Engine API 1.45, ``HostConfig.Binds`` and ``Mount``; moby ``volume/mounts`` for the
notation ``source:destination:options`` and for what is refused.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, Mount
from jaula.state.container_records import ENGINE_SOCKET, IMAGE_MOUNT, MountRecord, MountRequest

if TYPE_CHECKING:
    from jaula.spec.pod import PodMount

ENGINE_SOCKET_TARGET = "/var/run/docker.sock"
"""The path of an engine socket whose mount has no target."""

MAX_MOUNTS = 1024  # of one container, those of its image included
_PATH_LIMIT = 4095  # bytes: PATH_MAX without the final zero
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_BIND_OPTIONS = {
    "access": ("ro", "rw"),
    "propagation": _PROPAGATIONS,
    "label": ("z", "Z"),
    "copy": ("nocopy",),
    "consistency": ("consistent", "cached", "delegated", "default"),
}
_VOLUME_OPTIONS = ("bind", "rprivate", "nosuid", "nodev")  # statement I17
_SOCKET_OPTIONS = ("bind", "rprivate", "nosuid", "nodev", "noexec")
_IMAGE_OPTIONS = ("bind", "rprivate", "nosuid", "nodev")
# Statement I5: writes below /proc must reach the kernel. Files with figures may be replaced.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
    )
)


def mount_requests(
    body: ContainerCreate, is_engine_socket: Callable[[str], bool] = lambda path: False
) -> tuple[MountRequest, ...]:
    """Return every mount of the request, each destination once.

    A bind mount of a path that ``is_engine_socket`` becomes a mount of the container's own socket.

    :raises InvalidRequest: when notation or options are not valid, two mounts have one destination,
        or there are more than :data:`MAX_MOUNTS`.
    """
    host = body.host_config
    count = len(host.binds) + len(host.mounts) + len(host.tmpfs) + len(body.volumes)
    if count > MAX_MOUNTS:
        raise InvalidRequest(
            f"{count} mounts; at most {MAX_MOUNTS} are allowed", hint="mount their parent directory"
        )
    requests: dict[str, MountRequest] = {}
    listed = [_bind(text, host.volume_driver) for text in host.binds]
    listed += [_mount(mount) for mount in host.mounts]
    listed += [_tmpfs(path, options) for path, options in host.tmpfs.items()]
    listed = [
        _engine_socket(each.mount.destination, read_only=each.mount.read_only)
        if each.mount.type == "bind" and is_engine_socket(each.mount.source)
        else each
        for each in listed
    ]
    for request in listed:
        target = request.mount.destination
        if target in requests:
            raise InvalidRequest(f"Duplicate mount point: {target}")
        requests[target] = request
    for path in body.volumes:
        target = destination(path if path.startswith("/") else f"/{path}")
        if target not in requests:
            requests[target] = MountRequest(
                MountRecord(
                    "volume", target, anonymous=True, driver="local", options=_VOLUME_OPTIONS
                )
            )
    return tuple(requests.values())


def with_pod_mounts(
    requests: tuple[MountRequest, ...], mounts: Iterable[PodMount]
) -> tuple[MountRequest, ...]:
    """Return the mounts of a pod's container with what the API's mounts cannot have.

    :raises InvalidRequest: when an option is requested for a mount that cannot have it.
    """
    more = {destination(mount.target): mount for mount in mounts}
    return tuple(
        _with_pod_mount(request, more[request.mount.destination])
        if request.mount.destination in more
        else request
        for request in requests
    )


def _with_pod_mount(request: MountRequest, pod: PodMount) -> MountRequest:
    mount = request.mount
    if mount.type == IMAGE_MOUNT:  # always labelled and mapped
        options = tuple(option for option in pod.options if option not in mount.options)
        return structs.replace(
            request, mount=structs.replace(mount, options=(*mount.options, *options))
        )
    if mount.type != "bind":
        if pod.options:
            raise InvalidRequest(f"the mount at {mount.destination} has no mount options")
        return request
    return structs.replace(
        request,
        mount=structs.replace(
            mount,
            options=(*mount.options, *pod.options),
            mode="Z" if pod.relabel else mount.mode,
            map_required=pod.ids is not None,
        ),
    )


def check_propagation(mount: MountRecord, *, own_userns: bool, external: bool) -> None:
    """Check that what a container mounts in a shared bind mount can reach the host.

    A mount namespace that another user namespace owns passes no mounts on to the host
    (mount_namespaces(7)). An ``external`` runtime makes the mounts itself, in the engine's
    namespace.

    :raises InvalidRequest: when it cannot.
    """
    if not mount.shared:
        return
    receive = f"{mount.propagation.replace('shared', 'slave')} to receive the host's mounts only"
    what = f"invalid propagation {mount.propagation} of the mount at {mount.destination}"
    if external:
        raise InvalidRequest(
            f"{what}: not possible with an external runtime",
            hint=f"use the engine's own runtime, or {receive}",
        )
    if own_userns:
        raise InvalidRequest(
            f"{what}: mounts of a container with its own user namespace cannot reach the host",
            hint=f"use --userns=host, or {receive}",
        )


def destination(path: str) -> str:
    """Return a normalised absolute path inside the container.

    :raises InvalidRequest: when it is relative, the root itself, or a path in /proc.
    """
    if "\0" in path or not path.startswith("/"):
        raise InvalidRequest(f"invalid mount path: '{path}' mount path must be absolute")
    plain = "/" + posixpath.normpath(path).lstrip("/")
    if len(plain.encode("utf-8", "surrogatepass")) > _PATH_LIMIT:
        raise InvalidRequest(
            f"invalid mount path: '{plain[:80]}...' has more than {_PATH_LIMIT} bytes"
        )
    if plain == "/":
        raise InvalidRequest("invalid specification: destination can't be '/'")
    if (plain == "/proc" or plain.startswith("/proc/")) and plain not in _PROC_FILES:
        raise InvalidRequest(
            f"invalid mount path: '{path}' is in /proc",
            hint=f"only these can be replaced: {', '.join(sorted(_PROC_FILES))}",
        )
    return plain


def split_bind(text: str) -> tuple[str, str, str]:
    """Split ``source:destination:options`` into its three parts.

    :raises InvalidRequest: when there are too few or too many parts.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or any(not part for part in parts[:2]):
        raise InvalidRequest(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2 and parts[0].startswith("/") and not parts[1].startswith("/"):
        return "", parts[0], parts[1]  # "/dir:ro" is an anonymous volume with options
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _bind(text: str, driver: str) -> MountRequest:
    source, target, mode = split_bind(text)
    read_only, propagation, no_copy = _bind_options(mode)
    kind = "bind" if source.startswith("/") else "volume"
    try:
        target = destination(target)
    except InvalidRequest as error:
        what = f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\""
        raise InvalidRequest(f"{what}: {error.message}", hint=error.hint) from None
    if source.startswith("/"):
        if "\0" in source:
            raise InvalidRequest("the source of a mount contains a NUL byte")
        if no_copy:
            raise InvalidRequest(
                f"invalid volume specification: '{text}': invalid mount config for type \"bind\":"
                " field VolumeOptions must not be specified"
            )
        path = posixpath.normpath("/" + source.lstrip("/"))
        options = ("rbind", propagation or "rprivate", *(("rro",) if read_only else ()))
        return MountRequest(
            MountRecord(
                "bind",
                target,
                source=path,
                mode=mode,
                read_only=read_only,
                propagation=propagation or "rprivate",
                options=options,
            ),
            make_source=True,
        )
    if propagation:
        raise InvalidRequest(
            f"invalid volume specification: '{text}': invalid mount config for type \"volume\":"
            " field BindOptions must not be specified"
        )
    _check_driver(driver)
    if source.startswith(".") or "/" in source:
        raise InvalidRequest(
            f'create {source}: "{source}" includes invalid characters for a local volume name,'
            ' only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host'
            " directory, use absolute path"
        )
    return MountRequest(
        MountRecord(
            "volume",
            target,
            name=source,
            driver="local",
            mode=mode or "z",
            read_only=read_only,
            options=_VOLUME_OPTIONS,
            anonymous=not source,
            no_copy=no_copy,
        )
    )


def _bind_options(mode: str) -> tuple[bool, str, bool]:
    """Return whether the mount is read-only, its propagation, and whether nothing is copied.

    As in Docker, each kind of option may be given once.
    """
    read_only, propagation, no_copy = False, "", False
    kinds = []
    for option in mode.split(",") if mode else ():
        kind = next((kind for kind, words in _BIND_OPTIONS.items() if option in words), "")
        if not kind or kind in kinds:
            raise InvalidRequest(
                f"invalid mode: {mode}",
                hint="must be one of ro, rw, nocopy, z, Z and the propagation modes",
            )
        kinds.append(kind)
        read_only = read_only or option == "ro"
        no_copy = no_copy or option == "nocopy"
        if kind == "propagation":
            propagation = option
    return read_only, propagation, no_copy


def _check_driver(driver: str) -> None:
    if driver not in ("", "local"):
        raise InvalidRequest(f"volume driver {driver!r} not found; the only driver is local")


def _mount(mount: Mount) -> MountRequest:
    options = {
        "bind": mount.bind_options,
        "volume": mount.volume_options,
        "tmpfs": mount.tmpfs_options,
        "image": mount.image_options,
    }
    if any(value is not None for kind, value in options.items() if kind != mount.type):
        raise InvalidRequest(
            f'invalid mount config for type "{mount.type}": options of another type'
        )
    if mount.type == ENGINE_SOCKET:
        return _mount_engine_socket(mount)
    target = _field(mount, "Target", mount.target)
    target = destination(target)
    match mount.type:
        case "bind":
            return _mount_bind(mount, target)
        case "volume":
            return _mount_volume(mount, target)
        case "tmpfs":
            return _mount_tmpfs(mount, target)
        case "image":
            return _mount_image(mount, target)
    raise InvalidRequest(
        f'mount type unknown: "{mount.type}"',
        hint="must be one of bind, volume, tmpfs, image and engine-socket",
    )


def _field(mount: Mount, name: str, value: str) -> str:
    if not value or "\0" in value:
        raise InvalidRequest(
            f'invalid mount config for type "{mount.type}": field {name} must not be empty'
        )
    return value


def _mount_engine_socket(mount: Mount) -> MountRequest:
    prefix = f'invalid mount config for type "{ENGINE_SOCKET}"'
    if mount.source:
        raise InvalidRequest(f"{prefix}: field Source must be empty")
    return _engine_socket(
        destination(mount.target or ENGINE_SOCKET_TARGET), read_only=mount.read_only
    )


def _engine_socket(target: str, *, read_only: bool) -> MountRequest:
    return MountRequest(
        MountRecord(ENGINE_SOCKET, target, read_only=read_only, options=_SOCKET_OPTIONS)
    )


def _mount_bind(mount: Mount, target: str) -> MountRequest:
    source = _field(mount, "Source", mount.source)
    if not source.startswith("/"):
        raise InvalidRequest(
            f"invalid mount config for type \"bind\": invalid mount path: '{source}'"
            " mount path must be absolute"
        )
    bind_options = mount.bind_options
    propagation = (bind_options.propagation if bind_options else "") or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise InvalidRequest(f"invalid propagation mode: {propagation}")
    recursive = not (bind_options and bind_options.non_recursive)
    options = ["rbind" if recursive else "bind", propagation]
    if (
        mount.read_only
        and recursive
        and not (bind_options and bind_options.read_only_non_recursive)
    ):
        options.append("rro")
    return MountRequest(
        MountRecord(
            "bind",
            target,
            source=posixpath.normpath(source),
            read_only=mount.read_only,
            propagation=propagation,
            options=tuple(options),
        ),
        make_source=bool(bind_options and bind_options.create_mountpoint),
    )


def _mount_volume(mount: Mount, target: str) -> MountRequest:
    volume_options = mount.volume_options
    if mount.source.startswith("/"):
        raise InvalidRequest(
            f'invalid mount config for type "volume": "{mount.source}" is not a valid volume name',
            hint="for a host directory use type=bind",
        )
    subpath = ""
    if volume_options and volume_options.subpath:
        subpath = _subpath("volume", volume_options.subpath)
    driver = volume_options.driver_config if volume_options else None
    _check_driver(driver.name if driver else "")
    return MountRequest(
        MountRecord(
            "volume",
            target,
            name=mount.source,
            driver="local",
            mode="z",
            read_only=mount.read_only,
            options=_VOLUME_OPTIONS,
            anonymous=not mount.source,
            no_copy=bool(volume_options and volume_options.no_copy),
            subpath=subpath,
        ),
        labels=volume_options.labels if volume_options else {},
        driver_opts=driver.options if driver else {},
    )


def _subpath(kind: str, text: str) -> str:
    """Return a normalised path within a volume or an image."""
    plain = posixpath.normpath(text)
    if text.startswith("/") or plain.split("/")[0] == ".." or "\0" in text:
        raise InvalidRequest(
            f'invalid mount config for type "{kind}": subpath must be a relative path within'
            f" the {kind}"
        )
    return "" if plain == "." else plain


def _mount_image(mount: Mount, target: str) -> MountRequest:
    source = _field(mount, "Source", mount.source)
    subpath = mount.image_options.subpath if mount.image_options else ""
    return MountRequest(
        MountRecord(
            IMAGE_MOUNT,
            target,
            source=source,
            read_only=True,
            options=_IMAGE_OPTIONS,
            subpath=_subpath("image", subpath) if subpath else "",
        )
    )


def _mount_tmpfs(mount: Mount, target: str) -> MountRequest:
    if mount.source:
        raise InvalidRequest('invalid mount config for type "tmpfs": field Source must be empty')
    tmpfs_options = mount.tmpfs_options
    options = ["nosuid", "nodev", "noexec"]
    if tmpfs_options and tmpfs_options.size_bytes:
        if tmpfs_options.size_bytes < 0:
            raise InvalidRequest(f"invalid tmpfs size: {tmpfs_options.size_bytes}")
        options.append(f"size={tmpfs_options.size_bytes}")
    options.append(
        f"mode={tmpfs_options.mode:o}" if tmpfs_options and tmpfs_options.mode else "mode=1777"
    )
    if mount.read_only:
        options.append("ro")
    for words in tmpfs_options.options if tmpfs_options else ():
        if len(words) not in (1, 2):
            raise InvalidRequest(
                'invalid mount config for type "tmpfs": invalid option array length, must be 1 or 2'
            )
        options = _with_tmpfs_option(options, "=".join(words))
    return MountRequest(
        MountRecord("tmpfs", target, read_only="ro" in options, options=tuple(options))
    )


_TMPFS_FLAG_WORDS = """
ro rw suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime norelatime
strictatime nostrictatime sync async private rprivate shared rshared slave rslave unbindable
runbindable bind rbind remount mand nomand defaults
"""
_TMPFS_FLAGS = frozenset(_TMPFS_FLAG_WORDS.split())
_TMPFS_KEYS = frozenset(["mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"])


def _with_tmpfs_option(options: list[str], option: str) -> list[str]:
    """Return mount options with one more, in place of its opposite or of the key's other value."""
    key, equals, _ = option.partition("=")
    known = option in _TMPFS_FLAGS or (equals and key in _TMPFS_KEYS)
    if not known or "," in option:
        raise InvalidRequest(f'invalid tmpfs option ["{option}"]')
    if option in ("bind", "rbind", "remount"):
        raise InvalidRequest(f'invalid tmpfs option ["{option}"]')
    opposite = option.removeprefix("no") if option.startswith("no") else f"no{option}"
    kept = [o for o in options if o != opposite and not (equals and o.startswith(f"{key}="))]
    return kept if option in kept else [*kept, option]


def _tmpfs(path: str, text: str) -> MountRequest:
    options = ["nosuid", "nodev", "noexec"]
    for option in text.split(",") if text else ():
        options = _with_tmpfs_option(options, option)
    if not any(o.startswith("mode=") for o in options):
        options.append("mode=1777")
    return MountRequest(
        MountRecord(
            "tmpfs", destination(path), mode=text, read_only="ro" in options, options=tuple(options)
        )
    )
