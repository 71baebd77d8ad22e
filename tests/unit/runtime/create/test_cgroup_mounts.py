"""Finding the host's cgroup v1 hierarchies."""

from pathlib import Path

from jaula.runtime.create.cgroup_mounts import own_places, v1_hierarchies

MOUNTINFO = """\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


PLACES = ("/sys/fs/cgroup/cpu,cpuacct/jaula/c1", "/sys/fs/cgroup/systemd/jaula/c1")


def test_hierarchies_by_mount_point_with_what_selects_them(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    assert v1_hierarchies(PLACES, str(file)) == (
        ("cpu,cpuacct", "cpu,cpuacct"),
        ("systemd", "name=systemd"),
    )


def test_a_hierarchy_without_the_containers_own_cgroup_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    assert v1_hierarchies(PLACES[:1], str(file)) == (("cpu,cpuacct", "cpu,cpuacct"),)


def test_a_unified_host_has_none(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("33 30 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert v1_hierarchies(PLACES, str(file)) == ()


def test_a_process_without_a_cgroup_of_its_own_shows_that_of_its_caller(tmp_path: Path) -> None:
    mountinfo, cgroup = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text(MOUNTINFO)
    cgroup.write_text("3:cpu,cpuacct:/user/a\n1:name=systemd:/\n0::/\n")
    assert own_places(str(cgroup), str(mountinfo)) == (
        "/sys/fs/cgroup/cpu,cpuacct/user/a",
        "/sys/fs/cgroup/systemd/",
        "/sys/fs/cgroup/unified/",
    )


def test_what_is_mounted_of_a_hierarchy_may_be_a_part(tmp_path: Path) -> None:
    mountinfo, cgroup = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text("33 30 0:29 /user /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    cgroup.write_text("0::/user/a\n")
    assert own_places(str(cgroup), str(mountinfo)) == ("/sys/fs/cgroup/a",)
    cgroup.write_text("0::/users/a\n")
    assert own_places(str(cgroup), str(mountinfo)) == ()
