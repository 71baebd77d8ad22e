"""Mount a container's secrets and configs: files on a file system in memory, for each start.

The tmpfs is mounted in the mount namespace of engine and shims, so the host does not see it. The
container gets read-only bind mounts of it. The files have the host ids of their owners, so the bind
mounts need no id map, which tmpfs supports from Linux 6.3 on only.

Secrets whose target is a name are in one directory, ``/run/secrets``. A target with a path of its
own is a bind mount of its own.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.oci_spec import security_opt
from jaula.engine.userns.id_ranges import SIZE
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest, NotFound, RuntimeFailure
from jaula.features.secrets.secret_store import SecretKind, secret_store
from jaula.kernel import mounts
from jaula.kernel.mounts import MS
from jaula.runtime.create import user_namespace_maps
from jaula.spec.api_documents import ContainerCreate, SecretReference
from jaula.state.container_records import MountRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.engine.model.services import Services
    from jaula.spec.runtime_spec import IDMapping
    from jaula.state.container_records import ContainerRecord, ResolvedRequest

DIRECTORY = "/run/secrets"
MAX_REFERENCES = mount_spec.MAX_MOUNTS
"""The most secrets and configs of one container, together."""
MAX_BYTES = 16 << 20
"""The most bytes of them, as they are stored: the memory of the files is not the container's."""
MOUNT_NAME = "secrets"
"""Name of the mount in the run directory of a container."""
_MODE = 0o444
_OVERHEAD = 1 << 16  # bytes for directories and for the unused rest of pages
_OPTIONS = ("bind", "rprivate", "nosuid", "nodev", "noexec")


def resolve_references(
    services: Services, body: ContainerCreate, resolved: ResolvedRequest
) -> ContainerCreate:
    """Return the body with the id and target of each secret and config, all checked.

    :raises InvalidRequest: when there is none of that name, when a target, owner or mode is not
        valid, when another mount has the target, or when they are too many or too large.
    """
    asked = body.host_config
    number = len(asked.secrets) + len(asked.configs)
    if number > MAX_REFERENCES:
        raise InvalidRequest(f"{number} secrets and configs; at most {MAX_REFERENCES} are allowed")
    destinations = {request.mount.destination for request in resolved.mounts}
    secrets, configs = (
        tuple(
            _resolve_reference(services, kind, reference, destinations) for reference in references
        )
        for kind, references in (
            (SecretKind.SECRET, asked.secrets),
            (SecretKind.CONFIG, asked.configs),
        )
    )
    size = sum(
        services.service(secret_store).sizes.size_of(each.id) for each in (*secrets, *configs)
    )
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"secrets and configs of {size} bytes; a container may have {MAX_BYTES}",
            hint="a volume has no such limit",
        )
    host = msgspec.structs.replace(asked, secrets=secrets, configs=configs)
    return msgspec.structs.replace(body, host_config=host)


def _resolve_reference(
    services: Services, kind: SecretKind, reference: SecretReference, destinations: set[str]
) -> SecretReference:
    try:
        record = services.service(secret_store).find(kind, reference.source)
    except NotFound as error:  # a 404 means a missing image to the docker command
        raise InvalidRequest(error.message) from None
    target = mount_spec.destination(target_path(kind, reference, record.name))
    if target in destinations:
        raise InvalidRequest(f"Duplicate mount point: {target}")
    destinations.add(target)
    for text in (reference.uid, reference.gid):
        if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < SIZE):
            raise InvalidRequest(
                f"{kind} {record.name}: {text!r} is not a valid id inside a container",
                hint=f"uid and gid must be numbers from 0 to {SIZE - 1}",
            )
    if reference.mode is not None and reference.mode & ~0o777:
        raise InvalidRequest(
            f"{kind} {record.name}: mode {reference.mode:o} has more than permission bits"
        )
    return msgspec.structs.replace(reference, id=record.id, source=record.name, target=target)


def target_path(kind: SecretKind, reference: SecretReference, name: str) -> str:
    """Return the path in the container: a secret's in :data:`DIRECTORY`, a config's in the root.

    :raises InvalidRequest: when the target of a secret is neither a name nor an absolute path.
    """
    target = reference.target or name
    if target.startswith("/"):
        return target
    if kind is SecretKind.CONFIG:
        return f"/{target}"
    if "/" in target or target in (".", ".."):
        raise InvalidRequest(f"secret target {target[:80]!r}: must be a name or an absolute path")
    return posixpath.join(DIRECTORY, target)


def mount_secrets(
    services: Services,
    record: ContainerRecord,
    uids: tuple[IDMapping, ...],
    gids: tuple[IDMapping, ...],
) -> tuple[MountRecord, ...]:
    """Write a container's secrets and configs and return their mounts.

    :raises NotFound: when one was removed.
    :raises RuntimeFailure: when the file system cannot be created.
    """
    files = list(_files(services, record))
    if not files:
        return ()
    mount_point = str(services.config.paths.container_run(record.id) / MOUNT_NAME)
    label = security_opt.selinux_labels(record.resolved, services.host, record.level).mount
    try:
        _mount(mount_point, sum(len(data) for _, data in files), label)
        return _write(mount_point, files, record, uids, gids or uids)
    except OSError as error:
        unmount(mount_point)
        raise RuntimeFailure(f"secrets of container {record.name}: {error}") from None
    except BaseException:
        unmount(mount_point)
        raise


def _files(services: Services, record: ContainerRecord) -> Iterator[tuple[SecretReference, bytes]]:
    host, store = record.host_config, services.service(secret_store)
    for kind, references in (
        (SecretKind.SECRET, host.secrets),
        (SecretKind.CONFIG, host.configs),
    ):
        for reference in references:
            yield reference, store.data(store.find(kind, reference.id))


def _mount(mount_point: str, size: int, label: str) -> None:
    os.makedirs(mount_point, mode=0o700, exist_ok=True)
    unmount(mount_point)
    flags = MS.NOSUID | MS.NODEV | MS.NOEXEC
    options = f"mode=0700,size={size + size // 2 + _OVERHEAD * 16}"
    options += f',context="{label}"' if label else ""
    try:
        mounts.mount("secrets", mount_point, "tmpfs", flags, f"{options},noswap")
    except OSError:  # noswap needs Linux 6.4 and the initial user namespace
        mounts.mount("secrets", mount_point, "tmpfs", flags, options)


def _write(
    mount_point: str,
    files: list[tuple[SecretReference, bytes]],
    record: ContainerRecord,
    uids: tuple[IDMapping, ...],
    gids: tuple[IDMapping, ...],
) -> tuple[MountRecord, ...]:
    root = user_namespace_maps.host_id(uids, 0), user_namespace_maps.host_id(gids, 0)
    shared_directory = not any(
        f"{m.destination}/".startswith(DIRECTORY + "/") for m in record.mounts
    )
    binds: list[MountRecord] = []
    directory = f"{mount_point}/together"
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    os.chown(directory, *root)
    for number, (reference, data) in enumerate(files):
        parent, name = posixpath.split(reference.target)
        if shared_directory and parent == DIRECTORY:
            path = f"{directory}/{name}"
            if not any(mount.destination == DIRECTORY for mount in binds):
                binds.append(_bind(directory, DIRECTORY))
        else:
            path = f"{mount_point}/{number}"
            binds.append(_bind(path, reference.target))
        mode = _MODE if reference.mode is None else reference.mode
        owner = (
            user_namespace_maps.host_id(uids, int(reference.uid)),
            user_namespace_maps.host_id(gids, int(reference.gid)),
        )
        _write_file(path, data, mode, owner)
    return tuple(binds)


def _bind(source: str, destination: str) -> MountRecord:
    return MountRecord(
        "bind", destination, source=source, read_only=True, options=_OPTIONS, mapped=True
    )


def _write_file(path: str, data: bytes, mode: int, owner: tuple[int, int]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:
        f.write(data)
        os.fchown(f.fileno(), *owner)
        os.fchmod(f.fileno(), mode)


def remove(services: Services, record: ContainerRecord) -> None:
    """Unmount the secrets of a container whose run directory is removed."""
    unmount(str(services.config.paths.container_run(record.id) / MOUNT_NAME))


def unmount(mount_point: str) -> None:
    """Unmount the file system; containers that still run keep their bind mounts."""
    if os.path.ismount(mount_point):
        mounts.umount2(mount_point, mounts.MNT.DETACH)
