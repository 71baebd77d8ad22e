"""The plan of a takeover is decided from values."""

from __future__ import annotations

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.migrate_from.execute import batches
from jaula.features.migrate_from.inventory import (
    Inventory,
    Left,
    SourceContainer,
    SourceImage,
    SourceMount,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)
from jaula.features.migrate_from.migrate_plan import (
    ORIGIN,
    Action,
    Item,
    OnConflict,
    Options,
    Plan,
    Target,
    TargetImage,
    TargetNetwork,
    in_order,
    make_plan,
)
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig
from jaula.spec.api_networks import IPAM, EndpointSettings, IPAMPool, NetworkCreate

BASE, TOP = "sha256:" + "a" * 64, "sha256:" + "b" * 64
APP = SourceImage(
    "sha256:" + "1" * 64, "sha256:" + "1" * 64, ("app:1",), (), (BASE, TOP), 30, (10, 20)
)
TOOL = SourceImage("sha256:" + "2" * 64, "sha256:" + "2" * 64, ("tool:1",), (), (BASE,), 10, (10,))
DATA = SourceVolume("data", "local", size=100, entries=4)
NET = SourceNetwork(
    "n" * 64,
    NetworkCreate(name="net", driver="bridge", ipam=IPAM(config=(IPAMPool(subnet="10.5.0.0/24"),))),
    "br-nnnnnnnnnnnn",
)


def container(name: str = "web", **changes: object) -> SourceContainer:
    host = changes.pop("host", HostConfig(network_mode="net"))
    labels = changes.pop("labels", {})
    assert isinstance(host, HostConfig)
    assert isinstance(labels, dict)
    return msgspec.structs.replace(
        SourceContainer(
            id=(name.encode().hex() + "0" * 64)[:64],
            name=name,
            image=APP.source_id,
            request=ContainerCreate(image="app:1", host_config=host, labels=labels),
            endpoints={"net": EndpointSettings()} if host.network_mode == "net" else {},
            created="1700000000.5",
            status="exited",
            volumes=(SourceMount("data", "/data"),),
            changed=7,
        ),
        **changes,
    )


def inventory(**changes: object) -> Inventory:
    base = Inventory(
        "docker", "ID", "26", "/var/lib/docker", (APP, TOOL), (DATA,), (NET,), (), (container(),)
    )
    return msgspec.structs.replace(base, **changes)


def plan(
    source: Inventory | None = None, target: Target | None = None, **options: object
) -> dict[str, Item]:
    made = whole(source, target, **options)
    return {f"{item.kind} {item.name}": item for item in made.items}


def whole(source: Inventory | None = None, target: Target | None = None, **options: object) -> Plan:
    wishes = msgspec.structs.replace(Options(suffix="-docker"), **options)
    return make_plan(source or inventory(), target or Target(), wishes)


def test_everything_is_taken_over_in_the_order_of_its_use() -> None:
    made = whole()
    assert [item.kind for item in made.items] == [
        "image",
        "image",
        "network",
        "volume",
        "container",
    ]
    assert {item.action for item in made.items} == {Action.TAKE}


def test_a_shared_layer_is_counted_once_and_stored_twice() -> None:
    made = whole()
    assert [item.size for item in made.items] == [30, 0, 0, 100, 7]
    assert made.space == 2 * 30 + 100 + 7
    assert not msgspec.structs.replace(made, free=166).has_space
    assert msgspec.structs.replace(made, free=167).has_space


def test_what_was_taken_over_before_is_present() -> None:
    source = inventory()
    target = Target(
        images={"app:1": TargetImage(APP.id), "tool:1": TargetImage(TOOL.id)},
        volumes={"data": {ORIGIN: source.origin("volume", "data")}},
        networks={"net": TargetNetwork({ORIGIN: source.origin("network", NET.id)})},
        containers={"web": {ORIGIN: source.origin("container", source.containers[0].id)}},
    )
    assert {item.action for item in plan(source, target).values()} == {Action.PRESENT}


def test_what_was_renamed_before_is_present_under_its_new_name() -> None:
    source = inventory()
    target = Target(
        volumes={"data": {}, "data-x": {ORIGIN: source.origin("volume", "data")}},
        networks={
            "net": TargetNetwork(driver="macvlan"),
            "net-x": TargetNetwork({ORIGIN: source.origin("network", NET.id)}),
        },
    )
    items = plan(source, target)
    assert (items["volume data"].action, items["volume data"].becomes) == (Action.PRESENT, "data-x")
    assert (items["network net"].action, items["network net"].becomes) == (Action.PRESENT, "net-x")


def test_an_incomplete_container_is_not_present() -> None:
    source = inventory()
    name = "migrate-from-776562000000"
    target = Target(
        containers={name: {ORIGIN: source.origin("container", source.containers[0].id)}}
    )
    assert plan(source, target)["container web"].action is Action.TAKE


def test_an_image_without_a_name_is_present_by_its_id() -> None:
    source = inventory(images=(msgspec.structs.replace(APP, tags=()),))
    target = Target(image_ids=frozenset({APP.id}))
    assert plan(source, target)["image 111111111111"].action is Action.PRESENT


CONFLICTS = Target(
    images={"app:1": TargetImage("sha256:" + "9" * 64)},
    volumes={"data": {}},
    networks={"net": TargetNetwork(driver="bridge", subnets=("10.9.0.0/24",))},
    containers={"web": {}},
)


def test_names_of_other_objects_are_refused() -> None:
    items = plan(target=CONFLICTS)
    for key in ("image app:1", "volume data", "network net"):
        assert items[key].action is Action.REFUSE, key
        assert "--on-conflict" in items[key].reason
    assert "its image 111111111111 is not taken over" in items["container web"].reason


def test_names_of_other_objects_are_changed_on_request() -> None:
    items = plan(target=CONFLICTS, on_conflict=OnConflict.RENAME)
    assert {item.becomes for item in items.values()} == {
        "app:1-docker", "tool:1", "data-docker", "net-docker", "web-docker",
    }  # fmt: skip


def test_existing_objects_are_used_on_request() -> None:
    items = plan(target=CONFLICTS, on_conflict=OnConflict.USE)
    assert items["volume data"].action is Action.USE
    assert items["container web"].action is Action.USE


def test_a_second_conflict_of_a_renamed_object_is_refused() -> None:
    target = Target(volumes={"data": {}, "data-docker": {}})
    item = plan(target=target, on_conflict=OnConflict.RENAME)["volume data"]
    assert "--suffix" in item.reason


def test_a_volume_with_the_same_files_is_present() -> None:
    target = Target(volumes={"data": {}}, same_volumes=frozenset({"data"}))
    assert plan(target=target)["volume data"].action is Action.PRESENT


def test_files_of_running_containers_need_a_flag() -> None:
    source = inventory(containers=(container(status="running"),))
    items = plan(source)
    assert "web runs" in items["volume data"].reason
    assert "--allow-running" in items["container web"].reason
    items = plan(source, allow_running=True)
    assert items["volume data"].notes == ("web runs: its files may be inconsistent",)
    assert items["container web"].action is Action.TAKE


def test_a_container_is_refused_with_what_it_needs() -> None:
    source = inventory(volumes=(msgspec.structs.replace(DATA, driver="rexray"),))
    items = plan(source)
    assert items["volume data"].reason == "jaula has no volume driver rexray"
    assert "its volume data is not taken over (jaula has no volume driver" in (
        items["container web"].reason
    )


def test_kinds_that_are_not_selected_must_exist() -> None:
    items = plan(kinds=("container",))
    assert list(items) == ["container web"]
    assert "its image 111111111111 is not taken over (it is not selected)" in (
        items["container web"].reason
    )


def test_a_filter_selects_what_its_containers_need() -> None:
    shop = container("shop", labels={"com.docker.compose.project": "shop"}, volumes=())
    source = inventory(containers=(container(), shop), left=(Left("plugin", "x", "y"),))
    items = plan(source, filters=(("project", "shop"),))
    assert set(items) == {"image app:1", "network net", "container shop"}
    assert set(plan(source, filters=(("name", "to*"),))) == {"image tool:1"}
    assert set(plan(source, filters=(("label", "com.docker.compose.project=no"),))) == set()


def test_a_filter_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="invalid filter 'colour'"):
        plan(filters=(("colour", "red"),))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target(interfaces={"br-nnnnnnnnnnnn": ("10.5.0.0/24",)}), "ip link del br-nnnnnnnnnnnn"),
        (Target(interfaces={"eth0": ("10.5.0.0/16",)}), "overlaps the addresses of eth0"),
        (
            Target(networks={"o": TargetNetwork(driver="bridge", subnets=("10.5.0.128/25",))}),
            "overlaps network o",
        ),
    ],
)
def test_addresses_in_use_are_refused_or_changed(target: Target, text: str) -> None:
    item = plan(target=target)["network net"]
    assert item.action is Action.REFUSE
    assert text in item.reason
    item = plan(target=target, new_subnets=True)["network net"]
    assert item.action is Action.TAKE
    assert "fixed addresses are dropped" in item.notes[0]


def test_a_log_driver_of_a_plugin_is_refused() -> None:
    host = HostConfig(network_mode="net", log_config=LogConfig(type="splunk"))
    items = plan(
        inventory(containers=(container(host=host),)), Target(log_drivers=("json-file", "local"))
    )
    assert items["container web"].reason == "jaula has no log driver splunk"


def test_a_secret_without_content_is_refused() -> None:
    items = plan(inventory(secrets=(SourceSecret("i", "s"), SourceSecret("j", "t", {}, True))))
    assert items["secret s"].action is Action.REFUSE
    assert items["secret t"].action is Action.TAKE


def test_differences_of_a_container_are_noted() -> None:
    host = HostConfig(
        network_mode="host", privileged=True, binds=("/var/run/docker.sock:/s", "/proc:/p")
    )
    notes = " ".join(plan(inventory(containers=(container(host=host),)))["container web"].notes)
    for text in ("--userns=host", "type=engine-socket", "/proc are not mapped", "below 1024"):
        assert text in notes


def test_containers_follow_those_that_they_need() -> None:
    first = container("a", host=HostConfig(network_mode="container:c"))
    second = container("b", host=HostConfig(volumes_from=("a:ro",)))
    third = container("c")
    ordered, cycle = in_order((first, second, third))
    assert [each.name for each in ordered] == ["c", "a", "b"]
    assert not cycle


def test_containers_that_need_each_other_are_refused() -> None:
    pair = (
        container("a", host=HostConfig(links=("b:x",))),
        container("b", host=HostConfig(links=("a:x",))),
    )
    items = plan(inventory(containers=pair))
    assert {items[f"container {name}"].reason for name in "ab"} == {
        "it needs a container that needs it"
    }


def test_images_that_share_layers_are_sent_together() -> None:
    other = SourceImage("sha256:" + "3" * 64, "sha256:" + "3" * 64, ("o",), (), (TOP[:-1] + "c",))
    pairs = [
        (Item("image", i.id, i.title, Action.TAKE, size=i.size), i) for i in (APP, other, TOOL)
    ]
    assert [[i.title for _, i in group] for group in batches(pairs)] == [["app:1", "tool:1"], ["o"]]
    assert [len(group) for group in batches(pairs, limit=35)] == [1, 1, 1]
