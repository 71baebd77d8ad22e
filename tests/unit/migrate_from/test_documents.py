"""The request of a container is what its user has asked for, without the old engine's defaults."""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.docker_root import tar_split
from harness.images import archive, file, link
from jaula.errors import InvalidRequest
from jaula.features.migrate_from import docker_documents, owners, podman_documents
from jaula.features.migrate_from.docker_documents import ContainerDocument, Info, NetworkDocument
from jaula.features.migrate_from.inventory import SourceContainer, SourceImage
from jaula.features.migrate_from.layer_archive import LayerFiles, entries, write_archive
from jaula.features.migrate_from.podman_documents import Config, ContainerState
from jaula.features.migrate_from.read_only import ReadOnlyTree, pull
from jaula.spec.decode import decode

ID = "5" * 64
MASKED = ["/proc/acpi", "/proc/kcore"]


def docker(host: dict[str, Any] | None = None, **members: Any) -> SourceContainer:
    """Return the container of a document of docker 26 on cgroup v2."""
    document = {
        "Id": ID,
        "Created": "2026-11-29T16:59:10.411964818Z",
        "HostConfig": {"MaskedPaths": MASKED, "ReadonlyPaths": MASKED, **(host or {})},
        **members,
    }
    info = Info(cgroup_version="2", default_runtime="runc")
    return docker_documents.read_container(
        ID, "web", decode(json.dumps(document), ContainerDocument), info
    )


def test_defaults_of_docker_are_not_requests() -> None:
    host = docker(
        {
            "Runtime": "runc", "CgroupnsMode": "private", "IpcMode": "private",
            "NetworkMode": "default", "Memory": 100, "MemorySwap": 200,
        }
    ).request.host_config  # fmt: skip
    assert (host.runtime, host.cgroupns_mode, host.ipc_mode, host.memory_swap) == ("", "", "", 0)
    assert (host.masked_paths, host.readonly_paths) == (None, None)
    assert host.network_mode == "bridge"


def test_requests_that_differ_from_the_defaults_are_kept() -> None:
    host = docker(
        {
            "Runtime": "kata", "CgroupnsMode": "host", "IpcMode": "shareable", "Memory": 100,
            "MemorySwap": 150, "MaskedPaths": [], "ReadonlyPaths": [],
        }
    ).request.host_config  # fmt: skip
    assert (host.runtime, host.cgroupns_mode, host.ipc_mode) == ("kata", "host", "shareable")
    assert host.memory_swap == 150
    assert (host.masked_paths, host.readonly_paths) == ((), ())  # systempaths=unconfined


def test_a_privileged_container_has_no_list_of_paths() -> None:
    host = docker({"Privileged": True, "MaskedPaths": [], "ReadonlyPaths": []}).request.host_config
    assert (host.masked_paths, host.readonly_paths) == (None, None)


def test_an_entry_point_that_was_reset_stays_so() -> None:
    assert docker(Config={"Entrypoint": None, "Cmd": ["a"]}).request.entrypoint == ("",)
    assert docker(Config={"Entrypoint": ["x"]}).request.entrypoint == ("x",)


def test_links_and_endpoints_have_requested_members_only() -> None:
    endpoint = {
        "Aliases": ["www", ID[:12]], "MacAddress": "02:42:ac:12:00:02", "IPAMConfig": {},
        "IPAddress": "172.18.0.2", "Links": ["/db:/web/store"],
    }  # fmt: skip
    made = docker({"Links": ["/db:/web/store"]}, NetworkSettings={"Networks": {"n": endpoint}})
    assert made.request.host_config.links == ("db:store",)
    settings = made.endpoints["n"]
    assert (settings.aliases, settings.mac_address, settings.links) == (("www",), "", ("db:store",))
    assert settings.ipam_config is None


def test_anonymous_volumes_are_mounted_by_their_names() -> None:
    mounts = [
        {"Type": "volume", "Name": "data", "Destination": "/data"},
        {"Type": "volume", "Name": "a" * 64, "Destination": "/vol", "RW": False},
        {"Type": "volume", "Name": "b" * 64, "Destination": "/m"},
        {"Type": "bind", "Source": "/etc", "Destination": "/etc"},
    ]
    host = {"Binds": ["data:/data:z"], "Mounts": [{"Type": "volume", "Target": "/m"}]}
    made = docker(host, Mounts=mounts)
    assert made.request.host_config.binds == ("data:/data:z", f"{'a' * 64}:/vol:ro")
    assert made.request.host_config.mounts[0].source == "b" * 64
    assert [volume.name for volume in made.volumes] == ["data", "a" * 64, "b" * 64]


def test_the_host_name_is_kept_where_it_is_the_containers_own() -> None:
    assert docker(Config={"Hostname": "h"}).request.hostname == "h"
    for mode in ({"NetworkMode": "host"}, {"NetworkMode": "container:x"}, {"UTSMode": "host"}):
        assert docker(mode, Config={"Hostname": "h"}).request.hostname == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-29T16:59:10.411964818Z", "1795971550.411964818"),
        ("2026-11-29T18:59:10+02:00", "1795971550"),
        ("0001-01-01T00:00:00Z", ""),
        ("2026-13-40T99:99:99Z", ""),
        ("yesterday", ""),
    ],
)
def test_a_time_is_seconds_with_all_decimals(text: str, seconds: str) -> None:
    assert docker_documents.seconds(text) == seconds


def test_a_network_has_the_name_of_its_bridge() -> None:
    document = decode(
        json.dumps(
            {
                "Id": ID, "Name": "n", "Driver": "bridge", "ConfigFrom": {"Network": ""},
                "IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1/64"}, {}]},
            }
        ),
        NetworkDocument,
    )  # fmt: skip
    network = docker_documents.read_network(document)
    assert network.bridge == f"br-{'5' * 12}"
    assert network.request.config_from is None
    assert network.request.ipam is not None
    assert [pool.gateway for pool in network.request.ipam.config] == ["fd00::1"]


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "g" * 64, "../" + "a" * 64])
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        docker_documents.check_digest(text)
    with pytest.raises(InvalidRequest):
        docker_documents.check_id(text)


def test_owners_of_a_remapped_docker_are_shifted_back() -> None:
    owner = owners.remapped_owner("/var/lib/docker/100000.200000")
    assert owner(100000, 200000) == (0, 0)
    assert owner(101234, 200005) == (1234, 5)
    assert owner(7, 8) == (7, 8)
    assert owners.remapped_owner("/var/lib/docker")(100000, 5) == (100000, 5)


def test_owners_of_a_users_podman_are_mapped_by_its_ranges() -> None:
    ranges = [(100000, 1000), (300000, 65536)]
    inside = [owners._inside(number, 1000, ranges) for number in (1000, 100000, 100999, 300000, 5)]
    assert inside == [0, 1, 1000, 1001, 5]


# -- podman ---------------------------------------------------------------------------------------


def from_podman(**members: Any) -> SourceContainer:
    document = {
        "id": ID, "name": "web", "rootfsImageID": "1" * 64,
        "rootfsImageName": "docker.io/library/busybox:latest",
        "spec": {"linux": {"namespaces": [{"type": kind} for kind in
                                          ("pid", "network", "ipc", "uts", "mount")]}},
        **members,
    }  # fmt: skip
    config = msgspec.json.decode(msgspec.json.encode(document), type=Config)
    return podman_documents.read_container(config, "exited", {"p" * 64: "mypod"})


def test_a_container_of_a_pod_joins_its_infra_container() -> None:
    other = "7" * 64
    made = from_podman(pod="p" * 64, netNsCtr=other, ipcNsCtr=other, utsNsCtr=other)
    host = made.request.host_config
    joined = f"container:{other}"
    assert (host.network_mode, host.ipc_mode, host.uts_mode, host.userns_mode) == (joined,) * 4
    assert made.notes == ("of pod mypod; jaula has pods for Kubernetes only",)


def test_namespaces_that_are_absent_are_the_hosts() -> None:
    host = from_podman(spec={"linux": {"namespaces": [{"type": "mount"}]}}).request.host_config
    assert (host.network_mode, host.pid_mode, host.ipc_mode, host.uts_mode) == ("host",) * 4


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"rootfs": "/srv/root"}, "not an image's"),
        ({"spec": {"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}}, "path"),
    ],
)
def test_containers_without_a_counterpart_are_refused(members: dict[str, Any], text: str) -> None:
    assert text in from_podman(**members).refusal


def test_the_default_network_of_podman_is_jaulas() -> None:
    made = from_podman(
        newNetworks={"podman": {"aliases": [ID[:12]], "static_mac": "02:00:00:00:00:01"}}
    )
    assert made.request.host_config.network_mode == "bridge"
    assert made.endpoints["bridge"].aliases == ()
    assert made.endpoints["bridge"].mac_address == "02:00:00:00:00:01"
    assert made.request.image == "busybox:latest"


def test_a_stale_state_is_not_running() -> None:
    assert podman_documents.status(ContainerState(3, 5), is_alive=True) == "running"
    assert podman_documents.status(ContainerState(3, 5), is_alive=False) == "exited"
    assert podman_documents.status(ContainerState(2), is_alive=False) == "created"


# -- contents -------------------------------------------------------------------------------------


def test_a_layer_is_assembled_byte_for_byte(tmp_path: Path) -> None:
    layer = archive([file("a", b"x" * 700), link("l", "a"), file("dir/b", b"")])
    (tmp_path / "a").write_bytes(b"x" * 700)
    split = tmp_path / "split"
    split.write_bytes(gzip.compress(tar_split(layer), mtime=0))
    image = SourceImage("sha256:" + "1" * 64, "", ("n:1",), (), ("sha256:" + "2" * 64,))
    files = LayerFiles(lambda: split.open("rb"), lambda: ReadOnlyTree(str(tmp_path)).directory("."))
    whole = b"".join(
        pull(lambda sink: write_archive([image], lambda _: b"{}", lambda *_: files, sink))
    )
    assert layer in whole
    (tmp_path / "a").write_bytes(b"short")
    with pytest.raises(InvalidRequest, match="too short"):
        list(pull(lambda sink: write_archive([image], lambda _: b"{}", lambda *_: files, sink)))
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        list(pull(lambda sink: write_archive([image], lambda _: b"{}", lambda *_: files, sink)))


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"{", mtime=0), gzip.compress(b'{"type": "x"}\n', mtime=0),
     gzip.compress(b'{"type": 2, "payload": 5}\n', mtime=0)],
)  # fmt: skip
def test_damaged_tar_split_data_is_an_error_or_empty(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "split"
    path.write_bytes(data)
    image = SourceImage("sha256:" + "1" * 64, "", (), (), ("sha256:" + "2" * 64,))
    files = LayerFiles(lambda: path.open("rb"), lambda: ReadOnlyTree(str(tmp_path)).directory("."))
    try:
        whole = b"".join(
            pull(lambda sink: write_archive([image], lambda _: b"{}", lambda *_: files, sink))
        )
    except InvalidRequest:
        return
    assert not data and b"2" * 64 in whole


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    raw = base64.b64encode(b"\xff").decode()
    path = tmp_path / "split"
    path.write_bytes(
        gzip.compress(json.dumps({"type": 1, "name_raw": raw, "size": 1}).encode(), mtime=0)
    )
    with path.open("rb") as split:
        assert [entry.name_raw for entry in entries(split)] == [raw]


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")
def test_the_source_is_mounted_read_only(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "link").symlink_to("f")
    tree = ReadOnlyTree(str(tmp_path))
    try:
        assert tree.is_mount
        with tree.directory(".") as directory:
            for name, flags in (("f", os.O_WRONLY), ("new", os.O_CREAT | os.O_WRONLY)):
                with pytest.raises(OSError, match="Read-only"):
                    os.open(name, flags, dir_fd=directory)
            with pytest.raises(OSError, match="symbolic links"):
                os.open("link", os.O_RDONLY, dir_fd=directory)
        for path in ("link", "../" + tmp_path.name, "/etc/passwd"):
            with pytest.raises(OSError):
                os.close(tree.open(path))
        assert tree.read("f", 10) == b"x"
    finally:
        tree.close()
