"""Options of the local volume driver: what they are a mount of, and what cannot be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine import relaxations
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.engine.volumes.mount_sources import (
    VolumeMounter,
    VolumeSource,
    mount_data,
    parse_driver_options,
    server_name,
)
from jaula.engine.volumes.volume_references import VolumeReferences
from jaula.errors import Conflict, InvalidRequest
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.decode import decode
from jaula.state.container_records import MountRecord
from jaula.storage.volume_directories import CreatedVolume, Volume


def parse(**options: str) -> VolumeSource:
    found = parse_driver_options(options)
    assert found is not None
    return found


def test_without_options_it_is_a_directory() -> None:
    assert parse_driver_options({}) is None


def test_a_file_system_in_memory() -> None:
    found = parse(type="tmpfs", device="tmpfs", o="size=10m,uid=1000,noexec")
    assert found.in_memory
    assert found.writable
    assert mount_data(found) == (("size", "10m"), ("uid", "1000"))


def test_a_directory_of_the_host() -> None:
    found = parse(type="none", device="/srv/x", o="bind,ro")
    assert found.options.bind
    assert not found.writable
    assert not found.in_memory
    assert not parse(type="tmpfs", device="/srv", o="bind").in_memory


@pytest.mark.parametrize(
    ("options", "server"),
    [
        ({"type": "nfs", "device": ":/x", "o": "addr=files.example,rw"}, "files.example"),
        ({"type": "nfs4", "device": "files.example:/x", "o": "rw"}, "files.example"),
        ({"type": "nfs", "device": "[fd00::1]:/x"}, "fd00::1"),
        ({"type": "ext4", "device": "/dev/sda:/x"}, ""),
    ],
)
def test_the_server_that_is_looked_up(options: dict[str, str], server: str) -> None:
    found = parse(**options)
    assert server_name(found) == server
    if server:
        assert mount_data(found, "10.0.0.9")[-1] == ("addr", "10.0.0.9")
        assert [key for key, _ in mount_data(found, "10.0.0.9")].count("addr") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": "bar"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"o": "bind"}, "missing required option"),
        ({"size": "1g"}, "no quota support"),
        ({"type": "none", "device": "/x", "o": ""}, "type none is for bind mounts"),
        ({"type": "none", "device": "x", "o": "bind"}, "must be an absolute path"),
        ({"type": "none", "device": "/x", "o": "bind,size=1"}, "a bind mount has no option 'size'"),
        ({"type": "tmpfs", "device": "x", "o": "remount"}, "mounted once"),
        ({"type": "tmpfs", "device": "x", "o": "rshared"}, "mounted once"),
        ({"type": "tmpfs", "device": "x\0y"}, "NUL"),
    ],
)
def test_invalid_driver_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_driver_options(options)


def test_a_volume_that_mounts_the_host_is_a_relaxation() -> None:
    bind = {"type": "none", "device": "/etc", "o": "bind"}
    assert relaxations.of_volume({}) == ()
    assert relaxations.of_volume({"type": "tmpfs", "device": "tmpfs"}) == ()
    assert relaxations.of_volume(bind) == (Privilege(Relaxation.DEVICE, "/etc"),)
    assert relaxations.of_volume({"type": "tmpfs", "device": "/etc", "o": "bind"}) != ()
    document = b"""{"Image": "i", "HostConfig": {"Mounts": [{"Type": "volume", "Source": "v",
        "Target": "/m", "VolumeOptions": {"DriverConfig": {"Options":
        {"type": "none", "device": "/etc", "o": "bind"}}}}]}}"""
    body = decode(document, ContainerCreate)
    found = relaxations.of_request(body, resolve(body))
    assert Privilege(Relaxation.DEVICE, "/etc") in found


def test_a_volume_that_another_client_creates_at_the_same_time_is_not_mounted() -> None:
    """The request was authorized while no volume had the name."""
    others = Volume("data", "/volumes/data/_data", "", owner="6")
    store = SimpleNamespace(
        exists=lambda name: False, create=lambda *_: CreatedVolume(others, False)
    )
    references: Any = VolumeReferences(store, ())  # type: ignore[arg-type]
    services: Any = SimpleNamespace(volumes=store, volume_references=references)
    body = decode(b'{"Image":"i","HostConfig":{"Binds":["data:/v"]}}', ContainerCreate)
    record: Any = SimpleNamespace(id="c", owner="5", resolved=resolve(body))
    lease: Any = None  # of images, which are not mounted here
    with pytest.raises(Conflict, match="by another client"):
        asyncio.run(VolumeMounter(services).create_sources(record, lease))


def test_a_volume_that_is_removed_with_its_container_is_not_inherited() -> None:
    mounts = (MountRecord("volume", "/v", name="data"),)
    source: Any = SimpleNamespace(id="a", record=SimpleNamespace(mounts=mounts))
    containers: Any = SimpleNamespace(find=lambda ref: source)
    store: Any = SimpleNamespace(exists=lambda name: False)
    references = VolumeReferences(store, ())  # type: ignore[arg-type]
    services: Any = SimpleNamespace(
        volumes=store, volume_references=references, container_store=containers
    )
    body = decode(b'{"Image":"i","HostConfig":{"VolumesFrom":["other"]}}', ContainerCreate)
    record: Any = SimpleNamespace(id="c", owner="", resolved=resolve(body))
    lease: Any = None  # of images, which are not mounted here
    mounter = VolumeMounter(services)
    with pytest.raises(Conflict, match="volume data of container other does not exist any more"):
        asyncio.run(mounter.create_sources(record, lease))
    assert references.users() == {"data": ["c"]}
    mounter.close()
    assert references.users() == {}
