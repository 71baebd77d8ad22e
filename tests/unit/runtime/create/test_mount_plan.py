"""From a spec to the ordered mounts of a container."""

from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.runtime.create import device_nodes, mount_options, mount_plan
from jaula.runtime.init import mount_steps
from jaula.spec import runtime_spec


def test_later_options_win_over_earlier_ones() -> None:
    options = mount_plan.parse_options(("ro", "nosuid", "rw"))
    assert options.set == MOUNT_ATTR.NOSUID
    assert options.clear == MOUNT_ATTR.RDONLY


def test_recursive_attributes_are_separate() -> None:
    options = mount_plan.parse_options(("rbind", "rro", "rnosuid", "rprivate"))
    assert options.bind
    assert options.recursive
    assert options.set == 0
    assert options.recursive_set == MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID
    assert options.propagation == ((MS.PRIVATE, True),)


def test_an_unknown_option_goes_to_the_file_system() -> None:
    options = mount_plan.parse_options(("size=64m", "mode=1777", "newinstance", "defaults"))
    assert options.data == (("size", "64m"), ("mode", "1777"), ("newinstance", None))


def test_binds_and_dev_are_prepared_outside() -> None:
    dev = runtime_spec.Mount("/dev/", "tmpfs", "tmpfs", ())
    bind = runtime_spec.Mount("/data", "/srv", None, ("rbind",))
    proc = runtime_spec.Mount("/proc", "proc", "proc", ())
    requested = [
        mount_plan.needs_preparation(m, mount_options.for_mount(m)) for m in (dev, bind, proc)
    ]
    assert requested == [True, True, False]


@pytest.mark.parametrize(
    ("fstype", "kind"), [("proc", "pid"), ("sysfs", "network"), ("mqueue", "ipc")]
)
def test_a_file_system_of_a_foreign_namespace_is_prepared_outside(fstype: str, kind: str) -> None:
    mount = runtime_spec.Mount("/place", fstype, fstype, ("ro",))
    spec = runtime_spec.Spec(
        root=runtime_spec.Root("rootfs"), mounts=(mount,), linux=runtime_spec.Linux()
    )
    for foreign, expected in ((("uts",), "mount"), ((kind,), "attach")):
        steps = mount_plan.plan(spec, v1_hierarchies=(), foreign=foreign)
        assert steps[1].describe().startswith(expected)


def test_the_whole_plan_in_order() -> None:
    spec = runtime_spec.Spec(
        process=runtime_spec.Process(cwd="/", terminal=True),
        root=runtime_spec.Root("rootfs", readonly=True),
        mounts=(
            runtime_spec.Mount("/proc", "proc", "proc", ("nosuid",)),
            runtime_spec.Mount("/dev", "tmpfs", "tmpfs", ("mode=755",)),
            runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro",)),
        ),
        linux=runtime_spec.Linux(
            sysctl={"net.core.somaxconn": "128"},
            masked_paths=("/proc/kcore",),
            readonly_paths=("/proc/sys",),
        ),
    )
    steps = [
        step.describe() for step in mount_plan.plan(spec, v1_hierarchies=(("memory", "memory"),))
    ]
    assert steps == [
        "set the root's propagation to PRIVATE",
        "mount proc at /proc ()",
        "attach prepared mount 1 at /dev",
        "mount tmpfs at /sys/fs/cgroup (mode=755)",
        "mount cgroup at /sys/fs/cgroup/memory (memory)",
        "make the mount at /sys/fs/cgroup read-only",
        "device /dev/null",
        "device /dev/zero",
        "device /dev/full",
        "device /dev/random",
        "device /dev/urandom",
        "device /dev/tty",
        "link /dev/fd to /proc/self/fd",
        "link /dev/stdin to /proc/self/fd/0",
        "link /dev/stdout to /proc/self/fd/1",
        "link /dev/stderr to /proc/self/fd/2",
        "link /dev/core to /proc/kcore",
        "link /dev/ptmx to pts/ptmx",
        "open a terminal and bind it at /dev/console",
        "create the working directory /",
        "set net.core.somaxconn to 128",
        "make /proc/sys read-only",
        "mask /proc/kcore",
        "make the root read-only",
    ]


def test_a_unified_host_gets_one_cgroup_mount() -> None:
    spec = runtime_spec.Spec(
        mounts=(runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid")),)
    )
    first = mount_plan.plan(spec, v1_hierarchies=())[1]
    assert first == mount_steps.MountFilesystem(
        "cgroup2", "/sys/fs/cgroup", (), MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID
    )


def test_without_a_cgroup_namespace_its_own_directories_are_bound() -> None:
    spec = runtime_spec.Spec(
        mounts=(runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro",)),),
        linux=runtime_spec.Linux(),
    )
    own = (("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"), ("pids", "/sys/fs/cgroup/pids/c"))
    steps = [s.describe() for s in mount_plan.plan(spec, v1_hierarchies=(), cgroups=own)][1:7]
    assert steps == [
        "mount tmpfs at /sys/fs/cgroup (mode=755)",
        "bind /sys/fs/cgroup/cpu,cpuacct/c at /sys/fs/cgroup/cpu,cpuacct",
        "bind /sys/fs/cgroup/pids/c at /sys/fs/cgroup/pids",
        "link /sys/fs/cgroup/cpu to cpu,cpuacct",
        "link /sys/fs/cgroup/cpuacct to cpu,cpuacct",
        "make the mount at /sys/fs/cgroup read-only",
    ]
    unified = mount_plan.plan(spec, v1_hierarchies=(), cgroups=(("", "/sys/fs/cgroup/c"),))
    assert unified[1].describe() == "bind /sys/fs/cgroup/c at /sys/fs/cgroup"


NEW = runtime_spec.Namespace("cgroup")
JOINED = runtime_spec.Namespace("cgroup", "/proc/7/ns/cgroup")


@pytest.mark.parametrize(
    ("namespace", "option", "step"),
    [
        (NEW, "ro", "bind /sys/fs/cgroup/pids/c at /sys/fs/cgroup/pids"),
        (NEW, "rw", "mount cgroup at /sys/fs/cgroup/pids (pids)"),
        (JOINED, "ro", "mount cgroup at /sys/fs/cgroup/pids (pids)"),
    ],
)
def test_a_read_only_view_of_a_new_cgroup_namespace_is_bound(
    namespace: runtime_spec.Namespace, option: str, step: str
) -> None:
    spec = runtime_spec.Spec(
        mounts=(runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", (option,)),),
        linux=runtime_spec.Linux(namespaces=(namespace,)),
    )
    own = (("pids", "/sys/fs/cgroup/pids/c"), ("unified", "/sys/fs/cgroup/unified/c"))
    steps = mount_plan.plan(spec, v1_hierarchies=(("pids", "pids"),), cgroups=own)
    described = [each.describe() for each in steps]
    assert described[2] == step
    assert not any("unified" in text for text in described)


def test_a_read_only_cgroup_tree_is_frozen_after_the_mounts_on_it() -> None:
    tree = runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro",))
    on_it = runtime_spec.Mount(
        "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd", "bind", ("rbind",)
    )
    over_it = runtime_spec.Mount("/sys", "/other", "bind", ("rbind",))
    close = "make the mount at /sys/fs/cgroup read-only"

    def order(*mounts: runtime_spec.Mount) -> list[str]:
        plan = mount_plan.plan(runtime_spec.Spec(mounts=mounts), v1_hierarchies=(("pids", "pids"),))
        steps = [step.describe() for step in plan]
        return [step for step in steps if step == close or step.startswith("attach")]

    assert order(tree, on_it)[1:] == [close]
    assert order(tree, over_it)[:1] == [close]


def test_a_bind_mounted_dev_keeps_its_content() -> None:
    spec = runtime_spec.Spec(
        mounts=(runtime_spec.Mount("/dev", "/dev", "bind", ("rbind",)),),
        linux=runtime_spec.Linux(devices=(runtime_spec.Device("/opt/null", "c", 1, 3),)),
    )
    steps = [step.describe() for step in mount_plan.plan(spec, v1_hierarchies=())]
    assert steps[1:] == ["attach prepared mount 0 at /dev", "device /opt/null"]


def test_a_mount_label_is_a_context_of_some_file_systems_where_selinux_is_on() -> None:
    spec = runtime_spec.Spec(
        mounts=(
            runtime_spec.Mount("/t", "tmpfs", "tmpfs"),
            runtime_spec.Mount("/proc", "proc", "proc"),
        ),
        linux=runtime_spec.Linux(mount_label="a:b:c:s0:c1,c2"),
    )
    labelled = [s.describe() for s in mount_plan.plan(spec, v1_hierarchies=(), selinux=True)]
    plain = [s.describe() for s in mount_plan.plan(spec, v1_hierarchies=())]
    assert labelled[1:3] == ["mount tmpfs at /t (context=a:b:c:s0:c1,c2)", "mount proc at /proc ()"]
    assert plain[1] == "mount tmpfs at /t ()"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, MS.REC | MS.PRIVATE),
        ("rprivate", MS.REC | MS.PRIVATE),
        ("rslave", MS.REC | MS.SLAVE),
        ("shared", MS.REC | MS.SLAVE),
    ],
)
def test_no_mount_inside_propagates_out(asked: str | None, expected: int) -> None:
    assert mount_plan.host_propagation(runtime_spec.Linux(rootfs_propagation=asked)) == expected


def test_listed_devices_override_the_default_ones() -> None:
    nodes = device_nodes.device_nodes((runtime_spec.Device("/dev/null", "c", 1, 3, 0o600, 5, 6),))
    assert nodes[0].path == "/dev/null"
    assert (nodes[0].mode, nodes[0].uid, nodes[0].gid) == (0o600, 5, 6)
    assert len(nodes) == 6


@pytest.mark.parametrize("path", ["/dev/../etc/x", "dev/x", "/", ""])
def test_a_device_path_outside_of_the_root_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="must be absolute"):
        device_nodes.device_nodes((runtime_spec.Device(path, "c", 1, 3),))


MOUNTINFO = """\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


PLACES = ("/sys/fs/cgroup/cpu,cpuacct/jaula/c1", "/sys/fs/cgroup/systemd/jaula/c1")


def test_hierarchies_have_their_selecting_options(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    assert mount_plan.mounted_v1_hierarchies(PLACES, mount_plan.cgroup_mounts(str(file))) == (
        ("cpu,cpuacct", "cpu,cpuacct"),
        ("systemd", "name=systemd"),
    )


def test_a_hierarchy_without_the_containers_own_cgroup_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    assert mount_plan.mounted_v1_hierarchies(PLACES[:1], mount_plan.cgroup_mounts(str(file))) == (
        ("cpu,cpuacct", "cpu,cpuacct"),
    )


def test_a_unified_host_has_none(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("33 30 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert mount_plan.mounted_v1_hierarchies(PLACES, mount_plan.cgroup_mounts(str(file))) == ()


def test_without_a_cgroup_the_callers_cgroup_is_bound(tmp_path: Path) -> None:
    mountinfo, cgroup = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text(MOUNTINFO)
    cgroup.write_text("3:cpu,cpuacct:/user/a\n1:name=systemd:/\n0::/\n")
    assert mount_plan.own_cgroup_directories(
        mount_plan.cgroup_mounts(str(mountinfo)), str(cgroup)
    ) == (
        "/sys/fs/cgroup/cpu,cpuacct/user/a",
        "/sys/fs/cgroup/systemd/",
        "/sys/fs/cgroup/unified/",
    )


def test_a_hierarchy_may_be_mounted_in_part(tmp_path: Path) -> None:
    mountinfo, cgroup = tmp_path / "mountinfo", tmp_path / "cgroup"
    mountinfo.write_text("33 30 0:29 /user /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    cgroup.write_text("0::/user/a\n")
    assert mount_plan.own_cgroup_directories(
        mount_plan.cgroup_mounts(str(mountinfo)), str(cgroup)
    ) == ("/sys/fs/cgroup/a",)
    cgroup.write_text("0::/users/a\n")
    assert (
        mount_plan.own_cgroup_directories(mount_plan.cgroup_mounts(str(mountinfo)), str(cgroup))
        == ()
    )


def test_a_source_on_an_earlier_mount_is_bound_inside(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    (root / "tmp").mkdir(parents=True)
    (tmp_path / "link").symlink_to("rootfs/tmp")
    tmpfs = runtime_spec.Mount("/tmp", "tmpfs", "tmpfs")
    spec = runtime_spec.Spec(
        mounts=(
            runtime_spec.Mount("/early", str(root / "tmp"), "bind"),
            tmpfs,
            runtime_spec.Mount("/late", str(root / "tmp/x"), "bind"),
            runtime_spec.Mount("/linked", "link", None, ("rbind",)),
            runtime_spec.Mount("/other", str(root / "etc"), "bind"),
            runtime_spec.Mount("/elsewhere", "/tmp", "bind"),
        )
    )
    inside = mount_plan.inside_sources(spec, str(root), str(tmp_path))
    assert inside == {2: "tmp/x", 3: "tmp"}
    steps = mount_plan.plan(spec, v1_hierarchies=(), inside=inside)
    assert [step.describe() for step in steps[1:7]] == [
        "attach prepared mount 0 at /early",
        "mount tmpfs at /tmp ()",
        "bind tmp/x of the root at /late",
        "bind tmp of the root at /linked",
        "attach prepared mount 4 at /other",
        "attach prepared mount 5 at /elsewhere",
    ]
