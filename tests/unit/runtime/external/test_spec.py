"""The spec for an external runtime."""

from __future__ import annotations

from msgspec import structs

from jaula.runtime.external import external_spec, staging_mount
from jaula.spec.runtime_spec import (
    Box,
    Device,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Spec,
)

MAP = (IDMapping(container_id=0, host_id=100000, size=65536),)
SPEC = Spec(
    process=Process(cwd="/", args=("sh",), terminal=True),
    root=Root("rootfs", readonly=True),
    mounts=(
        Mount("/proc", "proc", "proc", ("nosuid",)),
        Mount("/v", "/host/v", "bind", ("rbind", "rprivate", "ro", "idmap")),
        Mount("/w", "/host/w", None, ("bind", "ridmap")),
    ),
    linux=Linux(
        namespaces=(Namespace("user"), Namespace("network"), Namespace("ipc", "/proc/9/ns/ipc")),
        uid_mappings=MAP,
        gid_mappings=MAP,
        devices=(
            Device("/dev/null", "c", 1, 3),
            Device("/dev/fuse", "c", 10, 229),
        ),
        rootfs_propagation="private",
    ),
)


def translated(spec: Spec = SPEC, **changed: object) -> Spec:
    terms: dict[str, object] = {
        "root": "/mnt/root",
        "namespaces": {"user": "/mnt/user"},
        "binds": {1: "/mnt/1", 2: "/mnt/2"},
        "locked": {1: ("nosuid", "nodev"), 2: ()},
        "devices": {"/dev/fuse": "/mnt/device0"},
        "console": (0, 0),
        "oci_version": "1.2.0",
    }
    return external_spec.translate(spec, **(terms | changed))  # type: ignore[arg-type]


def test_prepared_objects_are_named_by_path() -> None:
    result = translated()
    assert result.root == Root("/mnt/root", readonly=True)
    assert result.linux is not None
    assert result.linux.namespaces == (
        Namespace("user", "/mnt/user"),
        Namespace("network"),
        Namespace("ipc", "/proc/9/ns/ipc"),
    )
    assert result.linux.uid_mappings == MAP  # beside the path
    assert result.mounts == (
        Mount("/proc", "proc", "proc", ("nosuid",)),
        Mount("/v", "/mnt/1", "bind", ("rbind", "rprivate", "ro", "nosuid", "nodev")),
        Mount("/w", "/mnt/2", "bind", ("bind",)),
        Mount("/dev/fuse", "/mnt/device0", "bind", ("bind", "rprivate", "nosuid", "noexec")),
    )
    assert [device.path for device in result.linux.devices] == ["/dev/null"]


def test_without_a_user_namespace_the_runtime_makes_the_nodes() -> None:
    result = translated(devices=None)
    assert result.linux is not None
    assert result.linux.devices == SPEC.linux.devices  # type: ignore[union-attr]
    assert len(result.mounts) == 3


def test_a_bind_with_propagation_gets_a_slave_root() -> None:
    slave = Mount("/s", "/host/s", "bind", ("rbind", "rslave"))
    result = translated(structs.replace(SPEC, mounts=(slave,)), binds={0: "/mnt/0"}, locked={0: ()})
    assert result.linux is not None
    assert result.linux.rootfs_propagation == "rslave"
    assert "rslave" in result.mounts[0].options


def test_the_version_is_one_that_the_runtime_reads() -> None:
    assert translated(oci_version="1.0.2-dev").oci_version == "1.0.2-dev"
    assert translated(oci_version="9.0.0").oci_version == "1.2.0"
    assert translated(oci_version="garbage\n").oci_version == "garbage\n"  # its own value


def test_the_consoles_size_is_in_the_process() -> None:
    process = translated(console=(30, 90)).process
    assert process is not None
    assert process.console_size == Box(height=30, width=90)


def test_only_a_directory_without_required_paths_is_covered() -> None:
    choose = staging_mount.choose_directory
    assert choose(("/usr/bin/runc", "--flag"), ("/nosuch", "/usr", "/etc")) == "/etc"
    assert choose((), ("/", "/etc")) == "/etc"


def test_mqueue_is_left_out_if_it_cannot_be_labelled() -> None:
    queues = Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid",))
    with_queues = structs.replace(SPEC, mounts=(*SPEC.mounts, queues))
    assert queues in translated(with_queues).mounts
    assert SPEC.linux is not None
    linux = structs.replace(SPEC.linux, mount_label="a_u:object_r:b_t:s0")
    labelled = structs.replace(with_queues, linux=linux)
    assert queues not in translated(labelled).mounts
    assert queues in translated(labelled, namespaces={}).mounts


def test_a_scope_of_systemd_is_named_as_runtimes_read_it() -> None:
    assert SPEC.linux is not None
    for path, expected in (
        ("/a.slice/a-b.slice/jaula-0123.scope", "a-b.slice:jaula:0123"),
        ("/jaula-0123.scope", "-.slice:jaula:0123"),
        ("/jaula/0123", "/jaula/0123"),
        ("/a.slice/0123.scope", "/a.slice/0123.scope"),
    ):
        linux = structs.replace(SPEC.linux, cgroups_path=path)
        result = translated(structs.replace(SPEC, linux=linux)).linux
        assert result is not None
        assert result.cgroups_path == expected
