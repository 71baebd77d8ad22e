"""The ``config.json`` that ``spec`` writes: a shell with a root of its own and few privileges.

Follows runtime-spec config.md. The defaults are strict: a read-only root, three capabilities, no
new privileges, the engine's own seccomp profile. A user who needs more edits the file.
"""

from __future__ import annotations

from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec import runtime_spec

CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_RESTRICTED = ("nosuid", "noexec", "nodev")


def template(*, rootless: bool, uid: int, gid: int) -> runtime_spec.Spec:
    """Return the default spec; ``rootless`` maps only root, to ``uid`` and ``gid``."""
    namespaces = tuple(runtime_spec.Namespace(kind) for kind in _NAMESPACES)
    uids: tuple[runtime_spec.IDMapping, ...] = ()
    gids: tuple[runtime_spec.IDMapping, ...] = ()
    resources: runtime_spec.Resources | None = runtime_spec.Resources(
        devices=(runtime_spec.DeviceCgroup(allow=False, access="rwm"),)
    )
    if rootless:
        namespaces = (*namespaces, runtime_spec.Namespace("user"))
        uids = (runtime_spec.IDMapping(container_id=0, host_id=uid, size=1),)
        gids = (runtime_spec.IDMapping(container_id=0, host_id=gid, size=1),)
        resources = None
    return runtime_spec.Spec(
        process=runtime_spec.Process(
            cwd="/",
            args=("sh",),
            env=(f"PATH={_PATH}", "TERM=xterm"),
            terminal=True,
            capabilities=runtime_spec.Capabilities(
                bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES
            ),
            rlimits=(runtime_spec.Rlimit("RLIMIT_NOFILE", hard=1024, soft=1024),),
            no_new_privileges=True,
        ),
        root=runtime_spec.Root("rootfs", readonly=True),
        hostname="jaula",
        mounts=_mounts(rootless=rootless),
        linux=runtime_spec.Linux(
            namespaces=namespaces,
            uid_mappings=uids,
            gid_mappings=gids,
            resources=resources,
            seccomp=default_profile(CAPABILITIES),
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
        ),
    )


def _mounts(*, rootless: bool) -> tuple[runtime_spec.Mount, ...]:
    pts: tuple[str, ...] = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
    if not rootless:
        pts = (*pts, "gid=5")  # tty; a single mapping has no such group
    return (
        runtime_spec.Mount("/proc", "proc", "proc", _RESTRICTED),
        runtime_spec.Mount(
            "/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")
        ),
        runtime_spec.Mount("/dev/pts", "devpts", "devpts", pts),
        runtime_spec.Mount("/dev/shm", "shm", "tmpfs", (*_RESTRICTED, "mode=1777", "size=65536k")),
        runtime_spec.Mount("/dev/mqueue", "mqueue", "mqueue", _RESTRICTED),
        runtime_spec.Mount("/sys", "sysfs", "sysfs", (*_RESTRICTED, "ro")),
        runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_RESTRICTED, "relatime", "ro")),
    )
