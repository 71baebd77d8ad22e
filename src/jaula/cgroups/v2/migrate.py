"""Whether a user may move a process from its own cgroup to another of the v2 tree.

Source: kernel ``admin-guide/cgroup-v2.rst`` "Delegation Containment": to be moved, a process must
be the user's, and ``cgroup.procs`` of both the target and of the closest cgroup above both must be
writable. So somebody who logged in outside of the delegated tree makes cgroups in it, but cannot
enter them.
"""

from __future__ import annotations

import os

from jaula.cgroups.cgroup_path import own_cgroup
from jaula.errors import NotAuthorized


def common(own: str, target: str) -> str:
    """The closest cgroup that holds both, "" for the root. Pure."""
    shared: list[str] = []
    for left, right in zip(own.split("/")[1:], target.split("/")[1:], strict=False):
        if left != right or not left:
            break
        shared.append(left)
    return "".join(f"/{part}" for part in shared)


def check(mount: str, target: str) -> None:
    """Raise ``NotAuthorized`` where the caller could not enter ``target``."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as text:
        own = own_cgroup(text.read())
    above = common(own, target)
    if os.access(f"{mount}{above}/cgroup.procs", os.W_OK, effective_ids=True):
        return
    raise NotAuthorized(
        f"cannot move a process from cgroup {own} to {target}: permission denied, "
        f"cgroup.procs of {above or '/'}, which holds both, is not writable",
        hint="start the caller in the delegated tree: systemd-run --user --scope COMMAND",
    )
