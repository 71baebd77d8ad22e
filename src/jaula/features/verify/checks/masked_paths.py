"""Masked and read-only paths of /proc and /sys (statement I6).

Evidence: the mount table of the init process, and the paths, opened through /proc/<pid>/root with
openat2. A masked path has a mount over it and no content: an empty read-only directory, or a device
that reads empty. A read-only path is on a read-only mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.openat2 import open_in_root
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS

NULL = os.makedev(1, 3)


INFO = CheckInfo(
    id="masks",
    layer="masks",
    title="Masked and read-only paths",
    reason=(
        "Parts of /proc and /sys are not namespaced: a container that can access them accesses "
        "the host's kernel."
    ),
    references=("I6", "CVE-2025-31133", "CVE-2020-8694"),
    evidence="/proc/<pid>/mountinfo, the paths through /proc/<pid>/root",
    advice="start it without systempaths=unconfined; restart it if a mask was unmounted",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for each of the two lists."""
    yield _row(container, "masked paths", "MaskedPaths", MASKED_PATHS, container.linux.masked_paths)
    yield _row(
        container,
        "read-only paths",
        "ReadonlyPaths",
        READONLY_PATHS,
        container.linux.readonly_paths,
    )


def _row(
    container: AuditedContainer, name: str, key: str, default: Sequence[str], in_spec: Sequence[str]
) -> Result:
    by = None
    if container.privileged:
        by = container.flag("--privileged")
    elif "unconfined" in container.security_option("systempaths"):
        by = "systempaths=unconfined"
    listed = container.host_config.get(key)
    if container.starter is not None:  # inspect has the lists of the present engine
        listed = default = tuple(in_spec)
    requested_paths = tuple(default if listed is None else listed)
    missing = [path for path in default if path not in requested_paths]
    if missing and by is None:
        by = f"{key} of the request" if requested_paths else "systempaths=unconfined"
    is_effective = is_masked if key == "MaskedPaths" else is_readonly
    exposed = [
        path for path in requested_paths if path not in in_spec or not is_effective(container, path)
    ]
    count = len(requested_paths) - len(exposed)
    effective = f"{count} of {len(requested_paths)} in effect"
    if exposed:
        effective += f"; exposed: {', '.join(exposed)}"
    requested = quantity(len(requested_paths), "path") + (f" ({by})" if by else "")
    evidence = f"{container.path('mountinfo')}, {container.path('root')}"
    return Result(name, "masks", requested, effective, evidence, verdict_of(not exposed, by))


def is_masked(container: AuditedContainer, path: str) -> bool:
    """Return whether nothing can be read at ``path``; a path that does not exist counts."""
    try:
        fd = open_in_root(container.root, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        status = os.fstat(fd)
        mount = container.mount_at(path)
        if mount is None:
            return False
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == NULL
        if stat.S_ISDIR(status.st_mode):
            readonly_mount = bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
            return readonly_mount and mount.fstype == "tmpfs" and not _entries(fd)
        return stat.S_ISREG(status.st_mode) and status.st_size == 0 and mount.fstype == "tmpfs"
    finally:
        os.close(fd)


def is_readonly(container: AuditedContainer, path: str) -> bool:
    """Return whether ``path`` is on a read-only mount; a path that does not exist counts."""
    try:
        fd = open_in_root(container.root, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    finally:
        os.close(fd)


def _entries(fd: int) -> list[str]:
    return os.listdir(f"/proc/self/fd/{fd}")
