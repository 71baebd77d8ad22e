"""The checks before a migration: each refusal has the way out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.errors import InvalidRequest
from jaula.features.migration import migration_checks
from jaula.spec.api_documents import AddressMode, ContainerCreate, HostConfig, VolumeMode
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings, NetworkingConfig
from jaula.spec.migration import VERSION, HostAnswer, HostDescription, Offer, OfferedNetwork
from jaula.state.container_records import ContainerRecord, MountRecord

HOST = HostDescription(
    kernel="6.12.1",
    architecture="x86_64",
    page_size=4096,
    criu="4.2",
    cpu_features=("avx", "fpu"),
    landlock=6,
    apparmor=True,
)
LAN = OfferedNetwork("lan", "10.0.0.5", "", "02:42:0a:00:00:05")


def failed(**changes: Any) -> list[str]:
    """Return the rows that a changed target does not pass."""
    rows = migration_checks.check_hosts(HOST, msgspec.structs.replace(HOST, **changes))
    for row in rows:
        assert row.passed == (not row.hint), row
    return [row.check for row in rows if not row.passed]


def test_an_equal_host_passes() -> None:
    assert failed() == []


def test_a_host_without_apparmor_may_send_to_one_that_has_it() -> None:
    rows = migration_checks.check_hosts(msgspec.structs.replace(HOST, apparmor=False), HOST)
    assert all(row.passed for row in rows)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"architecture": "aarch64"}, "architecture"),
        ({"page_size": 65536}, "architecture"),
        ({"cpu_features": ("fpu",)}, "processor"),
        ({"kernel": "6.6.100"}, "kernel"),
        ({"kernel": "5.99"}, "kernel"),
        ({"criu": ""}, "CRIU"),
        ({"criu": "4.1.1"}, "CRIU"),
        ({"landlock": 5}, "Landlock"),
        ({"apparmor": False}, "AppArmor"),
    ],
)
def test_a_lesser_host_is_refused(changes: dict[str, Any], check: str) -> None:
    assert failed(**changes) == [check]


def test_a_comparison_has_the_rows_of_both_directions() -> None:
    poorer = msgspec.structs.replace(HOST, cpu_features=("fpu",), kernel="6.18")
    made = migration_checks.compare(HostAnswer(VERSION, HOST), HostAnswer(VERSION + 1, poorer))
    assert [row.check for row in made.to_there if not row.passed] == ["protocol", "processor"]
    assert [row.check for row in made.to_here if not row.passed] == ["protocol", "kernel"]
    assert all(row.hint for row in (*made.to_there, *made.to_here) if not row.passed)


def test_many_missing_features_are_counted() -> None:
    many = msgspec.structs.replace(HOST, cpu_features=tuple(f"f{n}" for n in range(9)))
    row = next(row for row in migration_checks.check_hosts(many, HOST) if row.check == "processor")
    assert row.detail == "the target lacks f0, f1, f2, f3, f4, f5 and 3 more"


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "6.12.0-debian"},
        {"kernel": "7.0"},
        {"criu": "4.10"},
        {"cpu_features": ("avx", "avx512f", "fpu")},
        {"landlock": 7},
    ],
)
def test_a_better_host_passes(changes: dict[str, Any]) -> None:
    assert failed(**changes) == []


@pytest.mark.parametrize(
    ("mounts", "mode", "passed"),
    [
        ([], VolumeMode.COPY, True),
        ([MountRecord("volume", "/data", name="data")], VolumeMode.COPY, True),
        ([MountRecord("bind", "/src", source="/srv")], VolumeMode.COPY, False),
        ([MountRecord("bind", "/src", source="/srv")], VolumeMode.SHARED, True),
        ([MountRecord("engine-socket", "/run/docker.sock")], VolumeMode.SHARED, False),
        ([MountRecord("image", "/tools", image="sha256:1")], VolumeMode.COPY, False),
        ([MountRecord("tmpfs", "/tmp")], VolumeMode.COPY, True),
    ],
)
def test_mounts(mounts: list[MountRecord], mode: VolumeMode, passed: bool) -> None:
    row = migration_checks.check_mounts(mounts, mode)
    assert row.passed is passed
    assert bool(row.hint) is not passed


@pytest.mark.parametrize(
    ("mode", "problems", "passed", "keep"),
    [
        (AddressMode.AUTO, [], True, True),
        (AddressMode.AUTO, ["no such subnet"], True, False),
        (AddressMode.KEEP, [], True, True),
        (AddressMode.KEEP, ["no such subnet"], False, True),
        (AddressMode.NEW, [], True, False),
    ],
)
def test_the_addresses(mode: AddressMode, problems: list[str], passed: bool, keep: bool) -> None:
    choice = migration_checks.choose_addresses(mode, [LAN], problems)
    assert (choice.row.passed, choice.keep) == (passed, keep)
    if problems:
        assert problems[0] in choice.row.detail


def test_a_container_without_a_network_has_no_address_to_lose() -> None:
    assert migration_checks.choose_addresses(AddressMode.KEEP, [], []).row.passed


def offer(body: ContainerCreate) -> Offer:
    return Offer(VERSION, "id", "web", body, "sha256:1", "app", HOST, networks=(LAN,))


def test_a_new_address_drops_every_address_of_the_request() -> None:
    settings = EndpointSettings(
        ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.5"),
        mac_address="02:42:0a:00:00:05",
        aliases=("w",),
    )
    body = ContainerCreate(
        mac_address="02:42:0a:00:00:05",
        networking_config=NetworkingConfig(endpoints_config={"lan": settings}),
        host_config=HostConfig(network_mode="lan"),
    )
    kept = migration_checks.request_at_target(offer(body), keep_address=True, image="app")
    assert kept.networking_config.endpoints_config["lan"] == settings
    new = migration_checks.request_at_target(offer(body), keep_address=False, image="sha256:1")
    assert new.image == "sha256:1"
    assert new.mac_address == ""
    there = new.networking_config.endpoints_config["lan"]
    assert (there.ipam_config, there.mac_address, there.aliases) == (None, "", ("w",))


def test_a_network_that_was_connected_later_is_part_of_the_request() -> None:
    body = ContainerCreate(host_config=HostConfig(network_mode="bridge"))
    there = migration_checks.request_at_target(offer(body), keep_address=True, image="app")
    assert set(there.networking_config.endpoints_config) == {"lan"}


def container(name: str, network: str = "") -> ContainerRecord:
    body = ContainerCreate(image="i", host_config=HostConfig(network_mode=network))
    return ContainerRecord(
        id=name, name=name, created=0, image="i", body=body, resolved_request=resolve(body)
    )


def test_all_containers_of_a_namespace_are_in_the_group() -> None:
    web, relay = container("web"), container("relay", "container:web")
    migration_checks.check_namespaces(relay, {"web": web}, (web, relay), {"web", "relay"})
    migration_checks.check_namespaces(web, {}, (web, relay), {"web", "relay"})


@pytest.mark.parametrize(
    ("moved", "text"),
    [
        ("relay", "it is in the network namespace of container web, which does not move"),
        ("web", "container relay is in its network namespace, and does not move"),
    ],
)
def test_a_missing_container_of_a_namespace_is_named(moved: str, text: str) -> None:
    found = {"web": container("web"), "relay": container("relay", "container:web")}
    with pytest.raises(InvalidRequest, match=text) as caught:
        migration_checks.check_namespaces(found[moved], found, found.values(), {moved})
    assert caught.value.hint == (
        "move both: jaula container migrate web relay --to tcp://HOST:2376"
    )


def test_too_little_memory_is_refused() -> None:
    assert migration_checks.check_memory(1 << 30, 2 << 30).passed
    row = migration_checks.check_memory(1 << 30, 1 << 30)
    assert not row.passed
    assert row.hint


def test_another_version_of_the_protocol_is_refused() -> None:
    newer = msgspec.structs.replace(offer(ContainerCreate()), version=VERSION + 1)
    assert not migration_checks.check_protocol(newer.version, VERSION).passed
