"""Attempts that a label, or another owner of a file, must stop. Pure."""

from __future__ import annotations

import errno

from jaula.features.verify.escape.attempts import (
    CLOSED,
    O_WRONLY,
    REFUSED,
    Attempt,
    call,
    path_bytes,
)
from jaula.features.verify.escape.neighbour import LABELLED, OWNED

GROUP = "labels"


def foreign_files(directory: str, relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to open another container's files, by owner and by path on the host."""
    attempts = [
        Attempt(group="others", name="a file of another container's root", refusals=CLOSED,
                steps=(call("open", path_bytes(OWNED), 0),), relaxed_by=relaxed_by)
    ]  # fmt: skip
    if directory:
        attempts.append(Attempt(group="others", name="another container's files", refusals=CLOSED,
                             steps=(call("open", path_bytes(directory), 0),)))  # fmt: skip
    return attempts


def selinux(label: str, relaxed_by: str | None) -> list[Attempt]:
    """Return attempts to read a file with another container's label, and to take that label."""
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
    """Return an attempt to leave the profile."""
    leaving = b"changeprofile unconfined"
    return [
        Attempt(group=GROUP, name="leaving the profile", relaxed_by=relaxed_by,
                refusals=REFUSED | {errno.ENOENT},
                steps=(call("open", b"/proc/self/attr/apparmor/current\0", O_WRONLY),
                       call("write", 3, leaving, len(leaving))))
    ]  # fmt: skip
