"""Reading what is to be mounted."""

from __future__ import annotations

import contextlib

import pytest

from jaula.engine.volumes.mount_spec import check_propagation, mount_requests, with_pod_mounts
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import (
    BindOptions,
    ContainerCreate,
    HostConfig,
    Mount,
    TmpfsOptions,
    VolumeOptions,
)
from jaula.spec.decode import Empty
from jaula.spec.pod import PodIds, PodMount
from jaula.state.container_records import MountRequest


def read(**host: object) -> tuple[MountRequest, ...]:
    return mount_requests(ContainerCreate(host_config=HostConfig(**host)))  # type: ignore[arg-type]


def test_a_bind_is_private_and_its_source_is_created() -> None:
    (wish,) = read(binds=("/src/../a:/dst/:ro",))
    assert wish.make_source
    mount = wish.mount
    assert (mount.type, mount.source, mount.destination) == ("bind", "/a", "/dst")
    assert mount.read_only
    assert mount.options == ("rbind", "rprivate", "rro")
    (wish,) = read(binds=("/a:/dst",))
    assert wish.mount.options == ("rbind", "rprivate")


def test_a_named_volume_is_nosuid_and_nodev() -> None:
    (wish,) = read(binds=("data:/data",))
    assert wish.mount.name == "data"
    assert {"nosuid", "nodev"} <= set(wish.mount.options)
    assert not wish.mount.anonymous


def test_a_path_alone_is_an_anonymous_volume() -> None:
    (wish,) = read(binds=("/data",))
    assert wish.mount.anonymous


def test_requested_mounts_replace_volumes_of_the_image() -> None:
    body = ContainerCreate(
        volumes={"/a": Empty(), "/b": Empty()}, host_config=HostConfig(binds=("x:/a",))
    )
    found = {wish.mount.destination: wish.mount for wish in mount_requests(body)}
    assert found["/a"].name == "x"
    assert found["/b"].anonymous


def test_a_mount_of_a_pod_has_options_a_label_and_a_required_id_map() -> None:
    requests = read(mounts=(Mount(type="bind", source="/s", target="/t"),), binds=("x:/v",))
    ids = PodIds(70000, 9)
    pod = PodMount(target="/t/", options=("noexec",), relabel=True, ids=ids)
    volume, bind = with_pod_mounts(requests, (pod, PodMount(target="/absent")))
    assert volume == requests[0]
    assert bind.mount.options == ("rbind", "rprivate", "noexec")
    assert (bind.mount.mode, bind.mount.map_required) == ("Z", True)
    (plain,) = with_pod_mounts(requests[1:], (PodMount(target="/t"),))
    assert plain == requests[1]
    with pytest.raises(InvalidRequest, match="no mount options"):
        with_pod_mounts(requests, (PodMount(target="/v", options=("noexec",)),))


def test_a_missing_source_of_a_mount_is_not_created() -> None:
    (wish,) = read(mounts=(Mount(type="bind", source="/s", target="/t", read_only=True),))
    assert not wish.make_source
    assert "rro" in wish.mount.options


def test_a_tmpfs_is_guarded_unless_the_guard_is_lifted_by_name() -> None:
    (wish,) = read(tmpfs={"/t": "exec,size=1m,mode=700"})
    assert wish.mount.options == ("nosuid", "nodev", "exec", "size=1m", "mode=700")
    (wish,) = read(
        mounts=(
            Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=9, mode=0o700)),
        )
    )
    assert wish.mount.options == ("nosuid", "nodev", "noexec", "size=9", "mode=700")


@pytest.mark.parametrize("mode", ["", "rslave", "rprivate", "shared", "rshared"])
@pytest.mark.parametrize("own_userns", [True, False])
@pytest.mark.parametrize("external", [True, False])
def test_a_shared_bind_is_refused_where_it_cannot_reach_the_host(
    mode: str, own_userns: bool, external: bool
) -> None:
    (request,) = read(binds=(f"/a:/b:{mode}" if mode else "/a:/b",))
    refused = "shared" in mode and (own_userns or external)
    hint = "external runtime" if external else "use --userns=host, or"
    with pytest.raises(InvalidRequest, match=hint) if refused else contextlib.nullcontext():
        check_propagation(request.mount, own_userns=own_userns, external=external)


@pytest.mark.parametrize(
    "bind",
    [
        "",
        ":",
        "a:b",
        "/a:b",
        "/a:/",
        "/a:/b:sideways",
        "/a:/b:ro:rw",
        "../a:/b",
        "a/b:/c",
        "vol:/b:rshared",
        "/a\0:/b",
        "/a:/b\0",
    ],
)
def test_a_malformed_bind_is_refused(bind: str) -> None:
    with pytest.raises(InvalidRequest):
        read(binds=(bind,))


@pytest.mark.parametrize(
    "mount",
    [
        Mount(type="bind", source="rel", target="/t"),
        Mount(type="bind", source="", target="/t"),
        Mount(type="bind", source="/s", target="t"),
        Mount(type="bind", source="/s", target="/t", tmpfs_options=TmpfsOptions()),
        Mount(type="bind", source="/s", target="/t", bind_options=BindOptions(propagation="x")),
        Mount(type="volume", source="/abs", target="/t"),
        Mount(type="tmpfs", source="x", target="/t"),
        Mount(type="npipe", source="x", target="/t"),
        Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=-1)),
    ],
)
def test_a_malformed_mount_is_refused(mount: Mount) -> None:
    with pytest.raises(InvalidRequest):
        read(mounts=(mount,))


@pytest.mark.parametrize("options", ["bind", "remount", "size", "lowerdir=/x", "ro,,rw", "a=b"])
def test_an_invalid_tmpfs_option_is_refused(options: str) -> None:
    with pytest.raises(InvalidRequest, match="tmpfs option"):
        read(tmpfs={"/t": options})


def test_one_place_is_mounted_once() -> None:
    with pytest.raises(InvalidRequest, match="Duplicate mount point: /a"):
        read(binds=("/x:/a", "y:/a/"))


@pytest.mark.parametrize(
    "place", ["/proc", "/proc/", "//proc", "/x/../proc/sys", "/proc/self/attr"]
)
def test_no_mount_hides_a_kernel_interface_in_proc(place: str) -> None:
    for host in ({"binds": (f"v:{place}",)}, {"tmpfs": {place: ""}}):
        with pytest.raises(InvalidRequest, match="is in /proc"):
            read(**host)
    with pytest.raises(InvalidRequest, match="is in /proc"):
        mount_requests(ContainerCreate(volumes={place: Empty()}))


def test_figures_in_proc_can_be_replaced() -> None:
    (wish,) = read(binds=("/var/lib/figures/meminfo:/proc/meminfo:ro",))
    assert wish.mount.destination == "/proc/meminfo"


@pytest.mark.parametrize(
    ("given", "found"), [("a", "a"), ("./a//b/", "a/b"), (".", ""), ("a/..", ""), ("a/../b", "b")]
)
def test_a_subpath_is_a_path_within_the_volume(given: str, found: str) -> None:
    mount = Mount(
        type="volume", source="v", target="/m", volume_options=VolumeOptions(subpath=given)
    )
    (wish,) = read(mounts=(mount,))
    assert wish.mount.subpath == found
    assert not wish.mount.no_copy


@pytest.mark.parametrize("given", ["/a", "..", "../a", "a/../../b", "a\0b"])
def test_a_path_out_of_a_volume_is_refused(given: str) -> None:
    mount = Mount(
        type="volume", source="v", target="/m", volume_options=VolumeOptions(subpath=given)
    )
    with pytest.raises(InvalidRequest, match="must be a relative path within the volume"):
        read(mounts=(mount,))


def test_an_engine_socket_has_the_usual_path_as_its_default() -> None:
    (default, other) = read(
        mounts=(
            Mount(type="engine-socket"),
            Mount(type="engine-socket", target="/run/x.sock", read_only=True),
        )
    )
    assert (default.mount.type, default.mount.destination) == (
        "engine-socket",
        "/var/run/docker.sock",
    )
    assert (other.mount.destination, other.mount.read_only) == ("/run/x.sock", True)
    assert {"nosuid", "nodev", "noexec"} <= set(default.mount.options)


def test_a_bind_of_the_engines_socket_is_an_engine_socket() -> None:
    host = HostConfig(
        binds=("/run/own.sock:/a:ro", "/run/other.sock:/b"),
        mounts=(Mount(type="bind", source="/run/own.sock", target="/c"),),
    )
    requests = mount_requests(
        ContainerCreate(host_config=host), lambda path: path == "/run/own.sock"
    )
    found = {wish.mount.destination: wish.mount for wish in requests}
    assert {path: mount.type for path, mount in found.items()} == {
        "/a": "engine-socket",
        "/b": "bind",
        "/c": "engine-socket",
    }
    assert found["/a"].read_only
    assert not found["/a"].source
    assert not any(wish.make_source for wish in requests if wish.mount.type != "bind")


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(type="engine-socket", source="/run/x"), "field Source must be empty"),
        (Mount(type="engine-socket", tmpfs_options=TmpfsOptions()), "options of another type"),
        (Mount(type="engine-socket", target="x"), "must be absolute"),
        (Mount(type="engine-socket", target="/proc/x"), "is in /proc"),
    ],
)
def test_an_engine_socket_has_no_source_and_no_options(mount: Mount, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(mounts=(mount,))
