"""The mounts of a container: what every container has, what sharing changes, what was asked for.

Source: runtime-spec ``config-linux.md``, "Default Filesystems"; Docker's ``DefaultLinuxSpec``.

Facts about sharing the host's namespaces from a user namespace of one's own: sysfs can only be
mounted by an owner of the network namespace, proc by an owner of the pid namespace, mqueue by an
owner of the ipc namespace, cgroup by an owner of the cgroup namespace. Where one of them is the
host's, its tree is bound instead, sysfs and cgroup read-only throughout.
"""

from __future__ import annotations

from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.spec.runtime import IDMapping, Mount
from jaula.state.records import MountRecord, Namespaces

SHM_SIZE = 64 * 1024 * 1024
INIT_PATH = "/sbin/docker-init"

_GUARDED = ("nosuid", "noexec", "nodev")


def decide(
    modes: Namespaces,
    facts: SpecInputs,
    *,
    shm_size: int = 0,
    privileged: bool = False,
    proc: tuple[str, ...] = (),
) -> tuple[Mount, ...]:
    """Every mount in the order in which it is made: parents before what lies below them.

    ``proc`` are further options of /proc where that is the container's own.
    """
    asked = {record.destination: record for record in facts.mounts}
    mounts = [
        m for m in _standard(modes, facts, shm_size, privileged, proc) if m.destination not in asked
    ]
    mounts += [
        _file(destination, source, facts)
        for destination, source in facts.files.items()
        if destination not in asked
    ]
    # Sorted by depth, so that /a is there before /a/b is mounted into it; equals keep order.
    mounts += [
        _asked(record, facts)
        for record in sorted(facts.mounts, key=lambda r: r.destination.rstrip("/").count("/"))
    ]
    return tuple(mounts)


def _standard(
    modes: Namespaces,
    facts: SpecInputs,
    shm_size: int,
    privileged: bool,
    proc_options: tuple[str, ...],
) -> tuple[Mount, ...]:
    mine = not modes.user.host
    writable = () if privileged else ("ro",)
    if modes.pid.host and mine:
        proc = Mount("/proc", "/proc", "bind", ("rbind", "rprivate", *_GUARDED))
    else:
        proc = Mount("/proc", "proc", "proc", (*_GUARDED, *proc_options))
    if mine and (modes.net.host or facts.foreign_network):
        sys = Mount("/sys", "/sys", "bind", ("rbind", "rprivate", *_GUARDED, "rro"))
    else:
        sys = Mount("/sys", "sysfs", "sysfs", (*_GUARDED, *writable))
    dev = Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k"))
    pts = Mount(
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    )
    if modes.cgroup.host and mine:
        cgroup = Mount(
            "/sys/fs/cgroup", "/sys/fs/cgroup", "bind", ("rbind", "rprivate", *_GUARDED, "rro")
        )
    else:
        cgroup = Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_GUARDED, "relatime", *writable))
    return (proc, dev, pts, sys, cgroup, *_ipc(modes, facts, shm_size))


def _ipc(modes: Namespaces, facts: SpecInputs, shm_size: int) -> tuple[Mount, ...]:
    mounts = []
    if modes.ipc.host and not modes.user.host:
        if facts.host.mqueue:
            mounts.append(Mount("/dev/mqueue", "/dev/mqueue", "bind", ("bind", *_GUARDED)))
    else:
        mounts.append(Mount("/dev/mqueue", "mqueue", "mqueue", _GUARDED))
    if modes.ipc.host:
        mounts.append(Mount("/dev/shm", "/dev/shm", "bind", ("rbind", *_GUARDED)))
    elif facts.shared_shm is not None:
        options = ("bind", *_GUARDED, *(("idmap",) if facts.id_mapped else ()))
        mounts.append(Mount("/dev/shm", facts.shared_shm, "bind", options))
    elif not modes.no_shm:
        size = shm_size or SHM_SIZE
        options = (*_GUARDED, "mode=1777", f"size={size}")
        mounts.append(Mount("/dev/shm", "shm", "tmpfs", options))
    return tuple(mounts)


def _file(destination: str, source: str, facts: SpecInputs) -> Mount:
    options = ("bind", "rprivate", "nosuid", "nodev", *(("idmap",) if facts.id_mapped else ()))
    if destination == INIT_PATH:
        options = (*options, "ro")  # the host's own program
    return Mount(destination, source, "bind", options)


def _asked(record: MountRecord, facts: SpecInputs) -> Mount:
    if record.type == "tmpfs":
        return Mount(record.destination, "tmpfs", "tmpfs", record.options)
    mapped = facts.id_mapped and not record.mapped
    options = (
        *record.options,
        "ro" if record.read_only else "rw",
        *(_id_map(record) if mapped else ()),
    )
    uids, gids = _as_owner(facts) if record.type == "bind" and mapped else ((), ())
    return Mount(
        record.destination,
        record.source,
        "bind",
        options,
        uid_mappings=uids,
        gid_mappings=gids,
    )


def _as_owner(facts: SpecInputs) -> tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]:
    """The maps of a mount through which a person gets no other rights than the own ones.

    On disk there is the person's id and no other: root inside stands for it, or the same id where
    that is kept. Files of others are nobody's, and none can be made: with the usual map, root
    inside could leave a set-user-ID file of the host's root in the person's directory.
    """
    if facts.owner is None:
        return (), ()
    uid, gid = facts.owner
    return _one(facts.mappings, uid), _one(facts.gid_mappings or facts.mappings, gid)


def _one(mappings: tuple[IDMapping, ...], own: int) -> tuple[IDMapping, ...]:
    kept = any(row.container_id == row.host_id == own for row in mappings)
    host = own if kept else mappings[0].host_id
    return (IDMapping(container_id=own, host_id=host, size=1),)


def _id_map(record: MountRecord) -> tuple[str]:
    return ("ridmap",) if "rbind" in record.options else ("idmap",)
