"""From a spec to the ordered mounts of a container."""

from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.runtime import mountplan, operations
from jaula.spec import runtime as oci


def test_later_options_win_over_earlier_ones() -> None:
    options = mountplan.parse_options(("ro", "nosuid", "rw"))
    assert options.set == MOUNT_ATTR.NOSUID
    assert options.clear == MOUNT_ATTR.RDONLY


def test_recursive_attributes_are_kept_apart() -> None:
    options = mountplan.parse_options(("rbind", "rro", "rnosuid", "rprivate"))
    assert options.bind
    assert options.recursive
    assert options.set == 0
    assert options.recursive_set == MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID
    assert options.propagation == MS.PRIVATE
    assert options.propagation_recursive


def test_relatime_is_no_recursive_option() -> None:
    assert mountplan.parse_options(("relatime",)).recursive_set == 0


def test_what_is_no_flag_goes_to_the_file_system() -> None:
    options = mountplan.parse_options(("size=64m", "mode=1777", "newinstance", "defaults"))
    assert options.data == (("size", "64m"), ("mode", "1777"), ("newinstance", None))


def test_binds_and_dev_are_prepared_outside() -> None:
    dev = oci.Mount("/dev/", "tmpfs", "tmpfs", ())
    bind = oci.Mount("/data", "/srv", None, ("rbind",))
    proc = oci.Mount("/proc", "proc", "proc", ())
    wanted = [
        mountplan.needs_preparation(m, mountplan.parse_options(m.options))
        for m in (dev, bind, proc)
    ]
    assert wanted == [True, True, False]


def test_the_whole_plan_in_order() -> None:
    spec = oci.Spec(
        process=oci.Process(cwd="/", terminal=True),
        root=oci.Root("rootfs", readonly=True),
        mounts=(
            oci.Mount("/proc", "proc", "proc", ("nosuid",)),
            oci.Mount("/dev", "tmpfs", "tmpfs", ("mode=755",)),
            oci.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro",)),
        ),
        linux=oci.Linux(
            sysctl={"net.core.somaxconn": "128"},
            masked_paths=("/proc/kcore",),
            readonly_paths=("/proc/sys",),
        ),
    )
    steps = [
        step.describe() for step in mountplan.plan(spec, v1_hierarchies=(("memory", "memory"),))
    ]
    assert steps == [
        "mount proc at /proc ()",
        "attach prepared mount 1 at /dev",
        "mount tmpfs at /sys/fs/cgroup (mode=755)",
        "mount cgroup at /sys/fs/cgroup/memory (memory)",
        "make the mount at /sys/fs/cgroup read-only",
        "link /dev/fd to /proc/self/fd",
        "link /dev/stdin to /proc/self/fd/0",
        "link /dev/stdout to /proc/self/fd/1",
        "link /dev/stderr to /proc/self/fd/2",
        "link /dev/ptmx to pts/ptmx",
        "open a terminal and bind it at /dev/console",
        "set net.core.somaxconn to 128",
        "make /proc/sys read-only",
        "mask /proc/kcore",
        "set the root's propagation to PRIVATE",
        "make the root read-only",
    ]


def test_a_unified_host_gets_one_cgroup_mount() -> None:
    spec = oci.Spec(mounts=(oci.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid")),))
    first = mountplan.plan(spec, v1_hierarchies=())[0]
    assert first == operations.MountFilesystem(
        "cgroup2", "/sys/fs/cgroup", (), MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID, False
    )
