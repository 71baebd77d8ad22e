"""The part of a spec that changes when mounts of a running container change. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.engine.oci_spec import container_mounts, start_spec
from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.spec.annotations import (
    BIND_ROOT_ANNOTATION,
    HOST_BINDS_ANNOTATION,
    IDMAP_OPTIONAL_ANNOTATION,
    decode_bind_roots,
    decode_destinations,
    encode_bind_roots,
    encode_destinations,
)
from jaula.spec.runtime_spec import Linux, Spec

if TYPE_CHECKING:
    from collections.abc import Collection

    from jaula.engine.oci_spec.inputs import HostFacts
    from jaula.state.container_records import ContainerRecord


def partial_spec(
    record: ContainerRecord, former: Spec, host: HostFacts, private_volumes: frozenset[str]
) -> Spec:
    """Return a spec with the mounts of ``record`` and what they need.

    ``former`` is the spec of the running container, which has the id maps of its user namespace.
    ``private_volumes`` are names of volumes with driver options.
    """
    linux = former.linux or Linux()
    own = not record.resolved.namespaces.user.host
    inputs = SpecInputs(
        container_id=record.id,
        cgroup_path="",
        hostname=record.hostname,
        host=host,
        mappings=linux.uid_mappings,
        gid_mappings=linux.gid_mappings,
        id_mapped=own and bool(linux.uid_mappings) and not host.rootless,
        mounts=record.mounts,
        beneath=record.beneath,
        owner=(int(record.owner), record.owner_gid) if record.beneath else None,
        level=record.level,
        private_volumes=private_volumes,
    )
    return Spec(
        mounts=container_mounts.requested(inputs),
        annotations=start_spec.mount_annotations(inputs),
        linux=Linux(
            uid_mappings=linux.uid_mappings,
            gid_mappings=linux.gid_mappings,
            mount_label=linux.mount_label,
        ),
    )


def needs_host(made: Spec) -> bool:
    """Return whether a mount is opened in the host's mount namespace."""
    return HOST_BINDS_ANNOTATION in made.annotations


def changed_spec(former: Spec, made: Spec, removed: Collection[str]) -> Spec:
    """Return a container's spec after a change of its mounts.

    A mount that is there already is replaced, so the same change may be made twice.
    """
    gone = {*removed, *(mount.destination for mount in made.mounts)}
    kept = tuple(mount for mount in former.mounts if mount.destination not in gone)
    annotations = dict(former.annotations)
    roots = decode_bind_roots(annotations.get(BIND_ROOT_ANNOTATION, ""))
    roots |= decode_bind_roots(made.annotations.get(BIND_ROOT_ANNOTATION, ""))
    if roots:
        annotations[BIND_ROOT_ANNOTATION] = encode_bind_roots(roots)
    for name in (IDMAP_OPTIONAL_ANNOTATION, HOST_BINDS_ANNOTATION):
        present = [d for d in decode_destinations(annotations.get(name, "")) if d not in gone]
        present += decode_destinations(made.annotations.get(name, ""))
        annotations.pop(name, None)
        if present:
            annotations[name] = encode_destinations(tuple(present))
    return msgspec.structs.replace(former, mounts=(*kept, *made.mounts), annotations=annotations)
