"""Set-user-ID files of the writable layer and of volumes: programs that change a process's user.

Evidence: mode and security.capability of every file below the upper directory, and below the
source of each volume. Files of the image are not looked at. Nothing tells who has added a file: the
container's root, or another program. With no_new_privs the files have no effect inside. A volume is
mounted nosuid, but on the host, and in a container that has it as a bind mount, it is not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of

MAX_FILES = 200_000
CAPABILITY = "security.capability"

INFO = CheckInfo(
    id="set-user-id",
    layer="no_new_privs",
    title="Set-user-ID files",
    reason="A set-user-ID program that was added to a container makes its user root inside.",
    references=("I9", "CIS 4.8", "CIS 5.26", "inode(7)", "capabilities(7)"),
    evidence="lstat(2) and security.capability of the files in the upper directory and volumes",
    advice="remove the bits, or build an image with the file; start it with "
    "--security-opt no-new-privileges; find who created the file",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the writable layer, if there is an upper directory, and one for volumes."""
    data = (container.inspect.get("GraphDriver") or {}).get("Data") or {}
    upper = str(data.get("UpperDir") or "")
    if upper:
        found = list(privileged_files(upper))
        by = None
        if found and container.status("NoNewPrivs") == "1":
            by = "no-new-privileges"
        elif found and container.privileged:
            by = container.flag("--privileged")
        yield _row("set-user-id files", "the writable layer", upper, found, by)
    volumes = [
        (str(mount.get("Source") or ""), str(mount.get("Destination")))
        for mount in container.inspect.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Source")
    ]
    if volumes:
        yield _volumes(container, volumes)


def _volumes(container: AuditedContainer, volumes: Sequence[tuple[str, str]]) -> Result:
    found, too_large = [], []
    for source, destination in volumes:
        try:
            found += [f"{destination}{path}" for path in privileged_files(source)]
        except TooManyFiles:
            too_large.append(f"-v {destination}: more than {MAX_FILES} files, not looked through")
        except FileNotFoundError:
            continue  # a volume with options, which is mounted for the container only
    by = container.flag("--privileged") if found and container.privileged else None
    if too_large and (by or not found):
        by = ", ".join(filter(None, (by, *too_large)))
    sources = ", ".join(source for source, _ in volumes)
    return _row("set-user-id volumes", "volumes", sources, found, by)


def _row(name: str, place: str, evidence: str, found: Sequence[str], by: str | None) -> Result:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    effective = ", ".join(found[:5]) + more if found else "none"
    requested = f"none in {place}" + (f" ({by})" if by else "")
    holds = not found or by is not None
    return Result(name, "no_new_privs", requested, effective, evidence, verdict_of(holds, by))


class TooManyFiles(ValueError):
    """A directory has more files than are looked through."""


def privileged_files(directory: str) -> Iterator[str]:
    """Yield the set-user-ID, set-group-ID and capable files below a directory.

    :raises TooManyFiles: when there are more than 200,000 files.
    """
    count = 0
    for path, _, files, fd in os.fwalk(directory):
        for name in files:
            count += 1
            if count > MAX_FILES:
                raise TooManyFiles(f"more than {MAX_FILES} files in {directory}")
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # it was removed meanwhile
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
