"""The mounts of a container: the standard ones, the effect of sharing, the requested ones. Pure.

Source: runtime-spec ``config-linux.md``, "Default Filesystems"; Docker's ``DefaultLinuxSpec``.

Facts about sharing the host's namespaces from a user namespace of one's own: sysfs can only be
mounted by an owner of the network namespace, proc by an owner of the pid namespace, mqueue by an
owner of the ipc namespace, cgroup by an owner of the cgroup namespace. If one of them is the
host's, its tree is bound instead, sysfs and cgroup read-only throughout.
"""

from __future__ import annotations

from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.security.landlock_ruleset import QUEUES
from jaula.spec.runtime_spec import IDMapping, Mount
from jaula.state.container_records import MountRecord, Namespaces

SHM_SIZE = 64 * 1024 * 1024  # bytes
INIT_PATH = "/sbin/docker-init"

_RESTRICTED = ("nosuid", "noexec", "nodev")


def decide(
    modes: Namespaces,
    inputs: SpecInputs,
    *,
    shm_size: int = 0,
    privileged: bool = False,
    read_only: bool = False,
    proc: tuple[str, ...] = (),
) -> tuple[Mount, ...]:
    """Return every mount in the order in which it is made: parents before children.

    ``proc`` are further options of /proc if that is the container's own. ``read_only`` is that of
    the root: the engine's files are a part of it.
    """
    requested = {record.destination: record for record in inputs.mounts}
    host_dev = requested.get("/dev")
    if host_dev is not None and host_dev.source != "/dev":
        host_dev = None
    # The host's /dev comes first: the container's own /dev/pts and others are mounted on it.
    mounts = [_requested(host_dev, inputs)] if host_dev is not None else []
    mounts += [
        m
        for m in _standard(modes, inputs, shm_size, privileged, proc)
        if m.destination not in requested
        and not (host_dev is not None and m.destination == QUEUES and not inputs.host.mqueue)
    ]
    more = [_requested(record, inputs) for record in inputs.mounts if record is not host_dev]
    more += [
        _file(destination, source, inputs, read_only=read_only)
        for destination, source in inputs.files.items()
        if destination not in requested
    ]
    # Sorted by depth, so that /a exists before /a/b is mounted into it; equals keep their order.
    # A volume at /etc has the engine's files mounted on it.
    mounts += sorted(more, key=lambda m: m.destination.rstrip("/").count("/"))
    return tuple(mounts)


def requested(inputs: SpecInputs) -> tuple[Mount, ...]:
    """Return the requested mounts alone, parents before children."""
    listed = [_requested(record, inputs) for record in inputs.mounts]
    return tuple(sorted(listed, key=lambda m: m.destination.rstrip("/").count("/")))


def _standard(
    modes: Namespaces,
    inputs: SpecInputs,
    shm_size: int,
    privileged: bool,
    proc_options: tuple[str, ...],
) -> tuple[Mount, ...]:
    own_userns = not modes.user.host
    writable = () if privileged else ("ro",)
    if modes.pid.host and own_userns:
        proc = Mount("/proc", "/proc", "bind", ("rbind", "rprivate", *_RESTRICTED))
    else:
        proc = Mount("/proc", "proc", "proc", (*_RESTRICTED, *proc_options))
    if own_userns and modes.net.host:
        # runc would take the cgroup mounts of a recursive bind for those of the host.
        depth = ("bind", "ro") if inputs.external else ("rbind", "rro")
        sys = Mount("/sys", "/sys", "bind", (depth[0], "rprivate", *_RESTRICTED, depth[1]))
    else:
        sys = Mount("/sys", "sysfs", "sysfs", (*_RESTRICTED, *writable))
    dev = Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k"))
    pts = Mount(
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    )
    if modes.cgroup.host and own_userns:
        cgroup = Mount(
            "/sys/fs/cgroup", "/sys/fs/cgroup", "bind", ("rbind", "rprivate", *_RESTRICTED, "rro")
        )
    else:
        cgroup = Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_RESTRICTED, "relatime", *writable))
    return (proc, dev, pts, sys, cgroup, *_ipc(modes, inputs, shm_size))


def _ipc(modes: Namespaces, inputs: SpecInputs, shm_size: int) -> tuple[Mount, ...]:
    mounts = []
    if modes.ipc.host and not modes.user.host:
        if inputs.host.mqueue:
            mounts.append(Mount("/dev/mqueue", "/dev/mqueue", "bind", ("bind", *_RESTRICTED)))
    else:
        mounts.append(Mount("/dev/mqueue", "mqueue", "mqueue", _RESTRICTED))
    if modes.ipc.host:
        mounts.append(Mount("/dev/shm", "/dev/shm", "bind", ("rbind", *_RESTRICTED)))
    elif inputs.shared_shm is not None:
        options = ("bind", *_RESTRICTED, *(("idmap",) if inputs.id_mapped else ()))
        mounts.append(Mount("/dev/shm", inputs.shared_shm, "bind", options))
    elif not modes.no_shm:
        size = shm_size or SHM_SIZE
        options = (*_RESTRICTED, "mode=1777", f"size={size}")
        mounts.append(Mount("/dev/shm", "shm", "tmpfs", options))
    return tuple(mounts)


def _file(destination: str, source: str, inputs: SpecInputs, *, read_only: bool) -> Mount:
    options = ("bind", "rprivate", "nosuid", "nodev", *(("idmap",) if inputs.id_mapped else ()))
    if read_only or destination == INIT_PATH:  # the latter is a program of the host
        options = (*options, "ro")
    return Mount(destination, source, "bind", options)


def _requested(record: MountRecord, inputs: SpecInputs) -> Mount:
    if record.type == "tmpfs":
        return Mount(record.destination, "tmpfs", "tmpfs", record.options)
    mapped = inputs.id_mapped and not record.mapped
    options = (
        *record.options,
        *(("ro",) if record.read_only else ()),  # else the source's flags decide (statement I26)
        *(_id_map(record) if mapped else ()),
    )
    uids, gids = _as_owner(inputs) if record.type == "bind" and mapped else ((), ())
    return Mount(
        record.destination,
        record.source,
        "bind",
        options,
        uid_mappings=uids,
        gid_mappings=gids,
    )


def _as_owner(inputs: SpecInputs) -> tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]:
    """Return the id maps of a mount that gives the client no rights but its own.

    On disk there is the client's id and no other. Root inside stands for it, or the same id with
    keep-id. Files of other users belong to the overflow uid, and none can be created: with the
    usual map, root inside could leave a set-user-ID file of the host's root in the client's
    directory.
    """
    if inputs.owner is None:
        return (), ()
    uid, gid = inputs.owner
    return _one(inputs.mappings, uid), _one(inputs.gid_mappings or inputs.mappings, gid)


def _one(mappings: tuple[IDMapping, ...], own: int) -> tuple[IDMapping, ...]:
    keeps_id = any(row.container_id == row.host_id == own for row in mappings)
    host = own if keeps_id else mappings[0].host_id
    return (IDMapping(container_id=own, host_id=host, size=1),)


def _id_map(record: MountRecord) -> tuple[str]:
    return ("ridmap",) if "rbind" in record.options else ("idmap",)
