"""Giving a container its secrets and configs: files on a file system in memory, for each start.

It is mounted in the mount namespace that engine and shims have for themselves, so nothing shows on
the host, and the container gets read-only binds of it. Owners are set as the ids that the
container's are on the host, so the binds need no id map, which tmpfs has from Linux 6.3 on only.

Secrets whose target is a name are in one directory, ``/run/secrets``; whatever has a path of its
own is a bind by itself.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.oci_spec import security
from jaula.engine.secrets.store import SecretKind
from jaula.engine.userns.id_ranges import SIZE
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest, NotFound, RuntimeFailure
from jaula.kernel import mounts
from jaula.kernel.mounts import MS
from jaula.runtime.create import id_maps
from jaula.spec.api import ContainerCreate, SecretReference
from jaula.state.records import MountRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.engine.model.services import Services
    from jaula.spec.runtime import IDMapping
    from jaula.state.records import ContainerRecord, ResolvedRequest

DIRECTORY = "/run/secrets"
MOUNT_NAME = "secrets"
"""The mount's name in the directory of a running container."""
_MODE = 0o444
_ROOM = 1 << 16  # bytes for directories and for what is left of pages
_OPTIONS = ("bind", "rprivate", "nosuid", "nodev", "noexec")


def resolve_references(
    parts: Services, resolved: ResolvedRequest, body: ContainerCreate
) -> tuple[ResolvedRequest, ContainerCreate]:
    """Return both with the id and target of each secret and config, and everything checked.

    :raises InvalidRequest: there is none of that name, or a target, owner or mode that cannot
        be, or something else is to be at the target.
    """
    if not (resolved.secrets or resolved.configs):
        return resolved, body
    destinations = {request.mount.destination for request in resolved.mounts}
    secrets, configs = (
        tuple(_identified(parts, kind, reference, destinations) for reference in references)
        for kind, references in (
            (SecretKind.SECRET, resolved.secrets),
            (SecretKind.CONFIG, resolved.configs),
        )
    )
    host = msgspec.structs.replace(body.host_config, secrets=secrets, configs=configs)
    return (
        msgspec.structs.replace(resolved, secrets=secrets, configs=configs),
        msgspec.structs.replace(body, host_config=host),
    )


def _identified(
    parts: Services, kind: SecretKind, reference: SecretReference, destinations: set[str]
) -> SecretReference:
    try:
        record = parts.secrets.find(kind, reference.source)
    except NotFound as error:  # no 404: the docker command takes that for a missing image
        raise InvalidRequest(error.message) from None
    target = mount_spec.destination(target_path(kind, reference, record.name))
    if target in destinations:
        raise InvalidRequest(f"Duplicate mount point: {target}")
    destinations.add(target)
    for text in (reference.uid, reference.gid):
        if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < SIZE):
            raise InvalidRequest(
                f"{kind} {record.name}: {text!r} is no id inside a container",
                hint=f"uid and gid are numbers from 0 to {SIZE - 1}",
            )
    if reference.mode is not None and reference.mode & ~0o777:
        raise InvalidRequest(f"{kind} {record.name}: mode {reference.mode:o} is more than rights")
    return msgspec.structs.replace(reference, id=record.id, source=record.name, target=target)


def target_path(kind: SecretKind, reference: SecretReference, name: str) -> str:
    """Where it is to be: a secret's name in :data:`DIRECTORY`, a config's in the root."""
    target = reference.target or name
    if target.startswith("/"):
        return target
    if kind is SecretKind.CONFIG:
        return f"/{target}"
    if "/" in target or target in (".", ".."):
        raise InvalidRequest(f"secret target {target[:80]!r}: a name or an absolute path is wanted")
    return posixpath.join(DIRECTORY, target)


def mount_secrets(
    parts: Services,
    record: ContainerRecord,
    uids: tuple[IDMapping, ...],
    gids: tuple[IDMapping, ...],
) -> tuple[MountRecord, ...]:
    """Write what the container is to be given, and the mounts by which it gets there.

    :raises NotFound: one is gone.
    :raises RuntimeFailure: the file system cannot be made.
    """
    wanted = list(_wanted(parts, record))
    if not wanted:
        return ()
    place = str(parts.config.paths.container_run(record.id) / MOUNT_NAME)
    label = security.selinux_labels(record.resolved, parts.host, record.level).mount
    try:
        _mount(place, sum(len(data) for _, data in wanted), label)
        return _write(place, wanted, record, uids, gids or uids)
    except OSError as error:
        unmount(place)
        raise RuntimeFailure(f"secrets of container {record.name}: {error}") from None
    except BaseException:
        unmount(place)
        raise


def targets(record: ContainerRecord) -> tuple[str, ...]:
    """Where a container has what was delivered."""
    resolved = record.resolved
    return tuple(reference.target for reference in (*resolved.secrets, *resolved.configs))


def _wanted(parts: Services, record: ContainerRecord) -> Iterator[tuple[SecretReference, bytes]]:
    resolved = record.resolved
    for kind, references in (
        (SecretKind.SECRET, resolved.secrets),
        (SecretKind.CONFIG, resolved.configs),
    ):
        for reference in references:
            yield reference, parts.secrets.data(parts.secrets.find(kind, reference.id))


def _mount(place: str, size: int, label: str) -> None:
    os.makedirs(place, mode=0o700, exist_ok=True)
    unmount(place)
    flags = MS.NOSUID | MS.NODEV | MS.NOEXEC
    options = f"mode=0700,size={size + size // 2 + _ROOM * 16}"
    options += f',context="{label}"' if label else ""
    try:
        mounts.mount("secrets", place, "tmpfs", flags, f"{options},noswap")
    except OSError:  # noswap: since Linux 6.4, and not in a user namespace
        mounts.mount("secrets", place, "tmpfs", flags, options)


def _write(
    place: str,
    wanted: list[tuple[SecretReference, bytes]],
    record: ContainerRecord,
    uids: tuple[IDMapping, ...],
    gids: tuple[IDMapping, ...],
) -> tuple[MountRecord, ...]:
    root = id_maps.host_id(uids, 0), id_maps.host_id(gids, 0)
    together = not any(f"{m.destination}/".startswith(DIRECTORY + "/") for m in record.mounts)
    found: list[MountRecord] = []
    directory = f"{place}/together"
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    os.chown(directory, *root)
    for number, (reference, data) in enumerate(wanted):
        folder, name = posixpath.split(reference.target)
        if together and folder == DIRECTORY:
            path = f"{directory}/{name}"
            if not any(mount.destination == DIRECTORY for mount in found):
                found.append(_bind(directory, DIRECTORY))
        else:
            path = f"{place}/{number}"
            found.append(_bind(path, reference.target))
        mode = _MODE if reference.mode is None else reference.mode
        owner = (
            id_maps.host_id(uids, int(reference.uid)),
            id_maps.host_id(gids, int(reference.gid)),
        )
        _write_file(path, data, mode, owner)
    return tuple(found)


def _bind(source: str, destination: str) -> MountRecord:
    return MountRecord(
        "bind", destination, source=source, read_only=True, options=_OPTIONS, mapped=True
    )


def _write_file(path: str, data: bytes, mode: int, owner: tuple[int, int]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:
        f.write(data)
        os.fchown(f.fileno(), *owner)
        os.fchmod(f.fileno(), mode)


def unmount(place: str) -> None:
    """Unmount what was delivered; containers that still run keep it."""
    if os.path.ismount(place):
        mounts.umount2(place, mounts.MNT.DETACH)
