"""The engine's directories: no other user may read, write or list them (statement I17)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, verdict_of

INFO = CheckInfo(
    id="host-directories",
    layer="host",
    title="Directories of the engine",
    reason="Layers contain set-user-id programs and volumes contain secrets: a user of the host "
    "with access to them can become root or read secrets without a container.",
    references=("I17", "CIS 2.9", "CIS 3.5", "CVE-2021-41091", "CVE-2021-41103", "CVE-2025-64507"),
    evidence="lstat(2)",
    advice="chmod go-rwx the path; the engine creates its directories with 0711 or stricter",
)


def check(host: Host) -> Iterator[Result]:
    """Yield a row for each of the two directories, with its direct entries."""
    for name, top in (("state directory", host.root), ("run directory", host.run)):
        if not top.exists():
            continue
        wrong = [text for path in (top, *sorted(top.iterdir())) if (text := mode_error(path))]
        yield Result(name, "host", "0711 or stricter, of the engine's user",
                  "; ".join(wrong) or f"{top} and {len(list(top.iterdir()))} in it",
                  f"lstat(2) {top}", verdict_of(not wrong, None))  # fmt: skip


def mode_error(path: Path) -> str | None:
    """Return a wrong mode or owner of an entry, or None; another check covers sockets."""
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return None
    allowed = 0o711 if stat.S_ISDIR(status.st_mode) else 0o600
    if mode & 0o077 & ~allowed:
        return f"{path} is {mode:04o}"
    if status.st_uid != os.geteuid():
        return f"{path} belongs to {status.st_uid}"
    return None
