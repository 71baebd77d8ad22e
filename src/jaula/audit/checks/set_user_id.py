"""Set-user-ID files of the writable layer: programs that give a process another user.

Evidence: mode and security.capability of every file below the upper directory. Files of the image
are not looked at. A program that runs as root of the container may create such files, and with
no_new_privs they have no effect; a program of another user cannot.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

MAX_FILES = 200_000
CAPABILITY = "security.capability"

INFO = CheckInfo(
    id="set-user-id",
    layer="no_new_privs",
    title="Set-user-ID files",
    reason="A set-user-ID program that was added to a container makes its user root inside.",
    references=("I9", "CIS 4.8", "CIS 5.26", "inode(7)", "capabilities(7)"),
    evidence="lstat(2) and security.capability of the files in the upper directory",
    advice="start it with --security-opt no-new-privileges; find who created the file",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row; none for a storage driver without an upper directory."""
    data = (container.inspect.get("GraphDriver") or {}).get("Data") or {}
    upper = str(data.get("UpperDir") or "")
    if not upper:
        return
    found = list(privileged_files(upper))
    by = None
    if found and container.status("NoNewPrivs") == "1":
        by = "no-new-privileges"
    elif found and container.process.user.uid == 0:
        by = "a program of the container's root"
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    effective = ", ".join(found[:5]) + more if found else "none"
    requested = "none in the writable layer" + (f" ({by})" if by else "")
    yield Result(
        "set-user-id files", "no_new_privs", requested, effective, upper,
        verdict_of(not found or by is not None, by),
    )  # fmt: skip


def privileged_files(directory: str) -> Iterator[str]:
    """Yield the set-user-ID, set-group-ID and capable files below a directory.

    :raises ValueError: when there are more than 200,000 files.
    """
    count = 0
    for path, _, files, fd in os.fwalk(directory):
        for name in files:
            count += 1
            if count > MAX_FILES:
                raise ValueError(f"more than {MAX_FILES} files in the writable layer")
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
                continue
            set_id = status.st_mode & (stat.S_ISUID | stat.S_ISGID)
            if set_id or _has_capabilities(fd, name):
                yield f"{path.removeprefix(directory)}/{name}"


def _has_capabilities(directory: int, name: str) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{directory}/{name}", CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            return False
        raise
    return True
