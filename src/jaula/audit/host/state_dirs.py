"""The engine's directories: nobody else reads, writes or lists what is in them (statement I17)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jaula.audit.host.host import Host
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, verdict_of

INFO = CheckInfo(
    id="host-directories",
    layer="host",
    title="Directories of the engine",
    reason="Layers hold set-user-id programs and volumes hold secrets: a user of the host who "
    "reaches them needs no container to be root or to read.",
    references=("I17", "CIS 2.9", "CIS 3.5", "CVE-2021-41091", "CVE-2021-41103", "CVE-2025-64507"),
    evidence="lstat(2)",
    advice="chmod go-rwx on the path; the engine makes its directories 0711 or stricter",
)


def check(host: Host) -> Iterator[Result]:
    """A row for each of the two directories, with what is directly in them."""
    for name, top in (("state directory", host.root), ("run directory", host.run)):
        if not top.exists():
            continue
        wrong = [text for path in (top, *sorted(top.iterdir())) if (text := mode_error(path))]
        yield Result(name, "host", "0711 or stricter, of the engine's user",
                  "; ".join(wrong) or f"{top} and {len(list(top.iterdir()))} in it",
                  f"lstat(2) {top}", verdict_of(not wrong, None))  # fmt: skip


def mode_error(path: Path) -> str | None:
    """What is wrong with an entry's mode or owner. Sockets are the business of another check."""
    facts = path.lstat()
    mode = stat.S_IMODE(facts.st_mode)
    if stat.S_ISLNK(facts.st_mode) or stat.S_ISSOCK(facts.st_mode):
        return None
    allowed = 0o711 if stat.S_ISDIR(facts.st_mode) else 0o600
    if mode & 0o077 & ~allowed:
        return f"{path} is {mode:04o}"
    if facts.st_uid != os.geteuid():
        return f"{path} belongs to {facts.st_uid}"
    return None
