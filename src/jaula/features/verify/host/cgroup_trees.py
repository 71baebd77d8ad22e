"""The host's cgroup hierarchies: their version, and write access by root only."""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, verdict_of

INFO = CheckInfo(
    id="host-cgroups",
    layer="host",
    title="Cgroup trees",
    reason="Version 1 has files that start programs as root (release_agent) and no safe "
    "delegation. A hierarchy that other users can write to enforces no limits.",
    references=("I19", "CIS 5.25", "CVE-2022-0492"),
    evidence="/proc/1/mountinfo, stat(2) of each tree",
    advice="boot with systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all",
)


def check(host: Host) -> Iterator[Result]:
    """Yield a row for the version and one for write access."""
    trees = [mount for mount in host.mounts if mount.fstype in ("cgroup", "cgroup2")]
    legacy = [mount for mount in trees if mount.fstype == "cgroup"]
    weak = f"{len(legacy)} trees of version 1" if legacy else None
    yield Result("cgroup version", "host", "2" + (f" ({weak})" if weak else ""),
              "hybrid" if legacy and len(trees) > len(legacy) else "1" if legacy else "2",
              f"{host.proc}/1/mountinfo", verdict_of(bool(trees), weak))  # fmt: skip
    writable = []
    for mount in trees:
        status = os.stat(mount.target)
        if status.st_uid != 0 or status.st_mode & 0o022:
            writable.append(f"{mount.target} {status.st_mode & 0o777:o} of {status.st_uid}")
    yield Result("cgroup trees", "host", "writable by root only",
              "; ".join(writable) or f"{len(trees)} trees of root", "stat(2)",
              verdict_of(not writable, None))  # fmt: skip
