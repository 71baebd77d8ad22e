"""Root file system: the container's own, private, and read-only if requested.

Evidence: /proc/<pid>/mountinfo and the links cwd and exe of the init process. A shared mount would
propagate mounts between host and container (mount_namespaces(7)). A working directory outside the
mount table is CVE-2024-21626, an executable outside it CVE-2019-5736.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.mountinfo import top
from jaula.kernel.mounts import mount_id
from jaula.kernel.openat2 import is_within

SLAVES = ("slave", "rslave")
SHARED = ("shared", "rshared")


INFO = CheckInfo(
    id="rootfs",
    layer="mounts",
    title="Root file system",
    reason=(
        "A root shared with another container or the host, or a working directory outside it, "
        "allows an escape."
    ),
    references=("I1", "I9", "CIS 5.13", "CIS 5.20", "CVE-2024-21626", "CVE-2019-5736"),
    evidence="/proc/<pid>/mountinfo, cwd, exe, root",
    advice="start it with --read-only; restart it if the mount table was changed",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield rows for the root, propagation, and the paths of the init process."""
    evidence = container.path("mountinfo")
    root = container.mount_at("/")
    if root is None:
        raise ValueError("no mount at / in the container's mount table")
    host_root = top(container.host_mounts, "/")
    is_host_root = host_root is not None and (root.device, root.root) == (
        host_root.device,
        host_root.root,
    )
    yield Result(
        "root file system", "mounts", "its own",
        f"{root.fstype} {root.device}" + (", the host's" if is_host_root else ""), evidence,
        verdict_of(not is_host_root, None),
    )  # fmt: skip
    readonly_requested = bool(container.host_config.get("ReadonlyRootfs"))
    readonly = "ro" in root.options or "ro" in root.super_options
    in_spec = bool(container.spec.root and container.spec.root.readonly)
    yield Result(
        "root read-only", "mounts", "read-only" if readonly_requested else "writable",
        "read-only" if readonly else "writable", evidence,
        verdict_of(not readonly_requested or (readonly and in_spec), None),
    )  # fmt: skip
    yield _propagation(container, evidence)
    yield _places(container)


def _propagation(container: AuditedContainer, evidence: str) -> Result:
    requested = {
        str(mount.get("Destination")): str(mount.get("Propagation") or "")
        for mount in container.inspect.get("Mounts") or ()
    }
    shared, slaves = [], []
    for mount in container.mounts:
        mode = next(
            (requested[p] for p in sorted(requested, reverse=True) if is_within(mount.target, p)),
            "",
        )
        if any(tag.startswith("shared:") for tag in mount.propagation) and mode not in SHARED:
            shared.append(mount.target)
        if any(tag.startswith("master:") for tag in mount.propagation) and mode not in (
            *SHARED,
            *SLAVES,
        ):
            slaves.append(mount.target)
    relaxed = sorted(path for path, mode in requested.items() if mode in (*SHARED, *SLAVES))
    effective = quantity(len(container.mounts), "mount")
    if shared:
        effective += f"; shared: {', '.join(shared)}"
    if slaves:
        effective += f"; receive the host's mounts: {', '.join(slaves)}"
    if not shared and not slaves:
        effective += " private" if not relaxed else " as requested"
    by = ", ".join(f"{path}:{requested[path]}" for path in relaxed) or None
    return Result(
        "propagation", "mounts", f"private ({by})" if by else "private", effective, evidence,
        verdict_of(not shared and not slaves, by),
    )  # fmt: skip


def _places(container: AuditedContainer) -> Result:
    """Check that working directory, root and executable are on mounts of the container."""
    mount_ids = {mount.mount_id for mount in container.mounts}
    outside = [
        name for name in ("cwd", "exe", "root") if _mount_id(container.path(name)) not in mount_ids
    ]
    return Result(
        "places", "mounts", "cwd, exe and root inside", "inside" if not outside else
        f"outside: {', '.join(f'{n} at {container.link(n)}' for n in outside)}",
        f"{container.path('{cwd,exe,root}')}", verdict_of(not outside, None),
    )  # fmt: skip


def _mount_id(path: str) -> int:
    """Return the id of the mount of a magic link's target."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id(fd)
    finally:
        os.close(fd)
