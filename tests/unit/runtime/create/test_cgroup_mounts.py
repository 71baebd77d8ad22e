"""The host's cgroup v1 hierarchies and a container's directories in them."""

from pathlib import Path

from jaula.kernel.mountinfo import parse
from jaula.runtime.create.cgroup_mounts import container_directories, own_places, v1_hierarchies

MOUNTS = parse("""\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
""")
UNIFIED = parse("33 30 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
PLACES = ("/sys/fs/cgroup/cpu,cpuacct/jaula/c1", "/sys/fs/cgroup/systemd/jaula/c1")


def test_hierarchies_by_mount_point_with_what_selects_them() -> None:
    assert v1_hierarchies(PLACES, MOUNTS) == (
        ("cpu,cpuacct", "cpu,cpuacct"),
        ("systemd", "name=systemd"),
    )


def test_a_hierarchy_without_the_containers_own_cgroup_is_left_out() -> None:
    assert v1_hierarchies(PLACES[:1], MOUNTS) == (("cpu,cpuacct", "cpu,cpuacct"),)


def test_a_release_agent_selects_no_hierarchy() -> None:
    mounts = parse("31 30 0:27 / /cg/a rw - cgroup cgroup rw,release_agent=/x,name=a\n")
    assert v1_hierarchies(("/cg/a/b",), mounts) == (("a", "name=a"),)


def test_a_unified_host_has_none() -> None:
    assert v1_hierarchies(PLACES, UNIFIED) == ()


def test_directories_are_named_by_hierarchy_on_v1_and_unnamed_on_v2() -> None:
    assert container_directories(PLACES, MOUNTS) == (
        ("cpu,cpuacct", PLACES[0]),
        ("systemd", PLACES[1]),
    )
    place = "/sys/fs/cgroup/jaula/c1"
    assert container_directories((place,), UNIFIED) == (("", place),)


def test_a_process_without_a_cgroup_of_its_own_shows_that_of_its_caller(tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("3:cpu,cpuacct:/user/a\n1:name=systemd:/\n0::/\n")
    assert own_places(MOUNTS, str(cgroup)) == (
        "/sys/fs/cgroup/cpu,cpuacct/user/a",
        "/sys/fs/cgroup/systemd/",
        "/sys/fs/cgroup/unified/",
    )


def test_what_is_mounted_of_a_hierarchy_may_be_a_part(tmp_path: Path) -> None:
    cgroup = tmp_path / "cgroup"
    mounts = parse("33 30 0:29 /user /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    cgroup.write_text("0::/user/a\n")
    assert own_places(mounts, str(cgroup)) == ("/sys/fs/cgroup/a",)
    cgroup.write_text("0::/users/a\n")
    assert own_places(mounts, str(cgroup)) == ()
