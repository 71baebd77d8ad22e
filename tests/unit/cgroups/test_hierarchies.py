"""Cgroup hierarchies in mountinfo, and the grammar of paths."""

from __future__ import annotations

import pytest

from jaula import cgroups
from jaula.cgroups import cgroup_path, hierarchies
from jaula.errors import InvalidRequest, Unsupported
from jaula.kernel import mountinfo

SEPARATE = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:4 - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 / /other\\040place rw,relatime - cgroup cgroup rw,memory
"""
TOGETHER = "32 31 0:29 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
SPACED = "41 31 0:38 / /a\\040b\\134c rw,relatime - cgroup2 cgroup2 rw\n"


def mounted(text: str) -> hierarchies.Hierarchies:
    return hierarchies.find(mountinfo.parse(text))


def test_separate_hierarchies_beside_a_unified_tree() -> None:
    result = mounted(SEPARATE)
    assert result.legacy == {"cpu": "/sys/fs/cgroup/cpu", "memory": "/sys/fs/cgroup/memory"}
    assert result.unified == "/sys/fs/cgroup/unified"


def test_controllers_mounted_together_share_a_hierarchy() -> None:
    assert mounted(TOGETHER).legacy == dict.fromkeys(("cpu", "cpuacct"), "/cg/cpu,cpuacct")


def test_odd_characters_of_a_mount_point_are_read() -> None:
    assert mounted(SPACED).unified == "/a b\\c"


def test_a_host_without_cgroups_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="no cgroup hierarchy is mounted"):
        cgroups.driver(mounted(""))


@pytest.mark.parametrize(
    "path",
    ["", "/", "a/../b", "/..", "a//b", "/a/", "a\0b", "a\nb", "é", "a" * 256, "cgroup.procs"],
)
def test_a_bad_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        cgroup_path.relative(path)


def test_a_good_path_loses_its_slash_only() -> None:
    assert cgroup_path.relative("/jaula/0123abc") == "jaula/0123abc"
    assert cgroup_path.relative("system.slice/x") == "system.slice/x"
    assert cgroup_path.ancestors("a/b/c") == ["a", "a/b"]
