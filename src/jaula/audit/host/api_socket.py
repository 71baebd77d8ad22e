"""The engine's control socket: who may speak to it is root (statement I16)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jaula.audit.host.host import Host
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict, verdict_of

INFO = CheckInfo(
    id="host-socket",
    layer="host",
    title="Control socket",
    reason="Whoever may write to the socket can start a container with the host's root directory.",
    references=("I16", "CIS 3.15", "CIS 3.16", "CVE-2020-15257", "CVE-2014-3499"),
    evidence="stat(2)",
    advice="chmod 0660 on the socket, of group root or of a group whose members are all root",
)


def check(host: Host) -> Iterator[Result]:
    """One row."""
    path = host.socket
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        yield Result("control socket", "host", "a socket of mode 0660 or stricter", "no engine runs",
                  f"stat(2) {path}", Verdict.HOLDS)  # fmt: skip
        return
    mode = stat.S_IMODE(facts.st_mode)
    holds = stat.S_ISSOCK(facts.st_mode) and mode & 0o007 == 0 and facts.st_uid == os.geteuid()
    by = f"--socket-group: gid {facts.st_gid} is root too" if facts.st_gid != os.getegid() else None
    yield Result("control socket", "host", "0660 or stricter" + (f" ({by})" if by else ""),
              f"{mode:04o} of {facts.st_uid}:{facts.st_gid}", f"stat(2) {path}",
              verdict_of(holds, by))  # fmt: skip
