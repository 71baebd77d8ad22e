"""The root file system: the container's own, read-only where that was asked for, private.

Evidence: /proc/<pid>/mountinfo and the links cwd and exe of the first process. A shared mount would
let mounts travel between host and container (mount_namespaces(7)); a working directory outside the
mount table is CVE-2024-21626, a program outside it CVE-2019-5736.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of
from jaula.kernel.mountinfo import top

SLAVES = ("slave", "rslave")
SHARED = ("shared", "rshared")


INFO = CheckInfo(
    id="rootfs",
    layer="mounts",
    title="Root file system",
    reason=(
        "A root shared with another or with the host, or a working directory outside it, is "
        "a way out."
    ),
    references=("I1", "I9", "CIS 5.13", "CIS 5.20", "CVE-2024-21626", "CVE-2019-5736"),
    evidence="/proc/<pid>/mountinfo, cwd, exe, root",
    advice="start it with --read-only; restart it where the table was changed",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Root, propagation, and where the program stands."""
    evidence = container.path("mountinfo")
    root = top(container.mounts, "/")
    if root is None:
        raise ValueError("no mount at / in the container's mount table")
    host_root = top(container.host_mounts, "/")
    strange = host_root is not None and (root.device, root.root) == (
        host_root.device,
        host_root.root,
    )
    yield Result(
        "root file system", "mounts", "its own",
        f"{root.fstype} {root.device}" + (", the host's" if strange else ""), evidence,
        verdict_of(not strange, None),
    )  # fmt: skip
    wanted = bool(container.host_config.get("ReadonlyRootfs"))
    readonly = "ro" in root.options or "ro" in root.super_options
    in_spec = bool(container.spec.root and container.spec.root.readonly)
    yield Result(
        "root read-only", "mounts", "read-only" if wanted else "writable",
        "read-only" if readonly else "writable", evidence,
        verdict_of(not wanted or (readonly and in_spec), None),
    )  # fmt: skip
    yield _propagation(container, evidence)
    yield _places(container)


def _propagation(container: AuditedContainer, evidence: str) -> Result:
    asked = {
        str(mount.get("Destination")): str(mount.get("Propagation") or "")
        for mount in container.inspect.get("Mounts") or ()
    }
    shared, slaves = [], []
    for mount in container.mounts:
        mode = next((asked[p] for p in sorted(asked, reverse=True) if _below(mount.target, p)), "")
        if any(tag.startswith("shared:") for tag in mount.propagation) and mode not in SHARED:
            shared.append(mount.target)
        if any(tag.startswith("master:") for tag in mount.propagation) and mode not in (
            *SHARED,
            *SLAVES,
        ):
            slaves.append(mount.target)
    relaxed = sorted(path for path, mode in asked.items() if mode in (*SHARED, *SLAVES))
    effective = f"{len(container.mounts)} mounts"
    if shared:
        effective += f"; shared: {', '.join(shared)}"
    if slaves:
        effective += f"; receive the host's mounts: {', '.join(slaves)}"
    if not shared and not slaves:
        effective += " private" if not relaxed else " as asked for"
    by = ", ".join(f"{path}:{asked[path]}" for path in relaxed) or None
    return Result(
        "propagation", "mounts", f"private ({by})" if by else "private", effective, evidence,
        verdict_of(not shared and not slaves, by),
    )  # fmt: skip


def _places(container: AuditedContainer) -> Result:
    """Working directory, root and program lie on mounts of the container's table."""
    known = {mount.mount_id for mount in container.mounts}
    outside = [
        name for name in ("cwd", "exe", "root") if mount_id(container.path(name)) not in known
    ]
    return Result(
        "places", "mounts", "cwd, exe and root inside", "inside" if not outside else
        f"outside: {', '.join(f'{n} at {container.link(n)}' for n in outside)}",
        f"{container.path('{cwd,exe,root}')}", verdict_of(not outside, None),
    )  # fmt: skip


def mount_id(path: str) -> int:
    """The mount that a magic link leads to."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            for line in info:
                if line.startswith("mnt_id:"):
                    return int(line.split()[1])
    finally:
        os.close(fd)
    raise ValueError(f"no mount id of {path}")


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent.rstrip("/") + "/")
