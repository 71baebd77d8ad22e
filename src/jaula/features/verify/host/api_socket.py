"""The engine's API socket: a process that can write to it is root (statement I16)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict, verdict_of

INFO = CheckInfo(
    id="host-socket",
    layer="host",
    title="Control socket",
    reason="A user who may write to the socket can start a container with the host's root "
    "directory.",
    references=("I16", "CIS 3.15", "CIS 3.16", "CVE-2020-15257", "CVE-2014-3499"),
    evidence="stat(2)",
    advice="chmod 0660 the socket; its group is root, or a group whose members may be root",
)


def check(host: Host) -> Iterator[Result]:
    """Yield one row."""
    path = host.socket
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield Result("control socket", "host", "a socket of mode 0660 or stricter",
                  "no engine runs", f"stat(2) {path}", Verdict.HOLDS)  # fmt: skip
        return
    mode = stat.S_IMODE(status.st_mode)
    holds = stat.S_ISSOCK(status.st_mode) and mode & 0o007 == 0 and status.st_uid == os.geteuid()
    by = (
        f"--socket-group: gid {status.st_gid} is root too"
        if status.st_gid != os.getegid()
        else None
    )
    yield Result("control socket", "host", "0660 or stricter" + (f" ({by})" if by else ""),
              f"{mode:04o} of {status.st_uid}:{status.st_gid}", f"stat(2) {path}",
              verdict_of(holds, by))  # fmt: skip
