"""Attempts that a label of mandatory access control, or another owner, must stop. Pure."""

from __future__ import annotations

import errno

from jaula.audit.escape.attempts import CLOSED, O_WRONLY, REFUSED, Attempt, call, path_bytes
from jaula.audit.escape.neighbour import LABELLED, OWNED

GROUP = "labels"


def foreign_files(directory: str, relaxed_by: str | None) -> list[Attempt]:
    """Files of another container: by what ids they belong to, and where they are on the host."""
    found = [
        Attempt(group="others", name="a file of another container's root", refusals=CLOSED,
                steps=(call("open", path_bytes(OWNED), 0),), relaxed_by=relaxed_by)
    ]  # fmt: skip
    if directory:
        found.append(Attempt(group="others", name="another container's files", refusals=CLOSED,
                             steps=(call("open", path_bytes(directory), 0),)))  # fmt: skip
    return found


def selinux(label: str, relaxed_by: str | None) -> list[Attempt]:
    """Reading a file with another container's label, and taking that label."""
    taking = label.encode()
    return [
        Attempt(group=GROUP, name="a file with another container's label", refusals=CLOSED,
                steps=(call("open", path_bytes(LABELLED), 0),), relaxed_by=relaxed_by),
        Attempt(group=GROUP, name="another container's label", relaxed_by=relaxed_by,
                refusals=CLOSED | {errno.EINVAL},
                steps=(call("open", b"/proc/self/attr/current\0", O_WRONLY),
                       call("write", 3, taking, len(taking)))),
    ]  # fmt: skip


def apparmor(relaxed_by: str | None) -> list[Attempt]:
    """Leaving the profile."""
    leaving = b"changeprofile unconfined"
    return [
        Attempt(group=GROUP, name="leaving the profile", relaxed_by=relaxed_by,
                refusals=REFUSED | {errno.ENOENT},
                steps=(call("open", b"/proc/self/attr/apparmor/current\0", O_WRONLY),
                       call("write", 3, leaving, len(leaving))))
    ]  # fmt: skip
