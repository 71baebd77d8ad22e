"""A caller's share counts what it has and what is being created. Objects have an owner."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula import feature
from jaula.caller_quota import OwnedSizes
from jaula.engine.authz.authorization_policy import (
    AccessLevel,
    Caller,
    ContainerAccess,
    Policy,
    PolicyRule,
)
from jaula.engine.authz.caller_session import Session
from jaula.engine.authz.request_ceilings import DEFAULT_SHARES, Ceilings, Share
from jaula.engine.hooks import Hooks
from jaula.errors import NotAuthorized
from jaula.images.store.image_quota import Usage
from jaula.spec.api_documents import VolumeCreate
from jaula.storage.volume_directories import Volume


class Log:
    """An audit log that keeps the entries."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def check(self, caller: str) -> None:
        return

    def append(self, entry: Any, caller: str, *, repeated: bool = False) -> None:
        self.entries.append(entry)


def sessions(most: int, owners: list[str], *uids: int) -> list[Session]:
    """Return sessions of users who may have ``most`` networks; ``owners`` have one each."""
    services = SimpleNamespace(network_store=[SimpleNamespace(owner=owner) for owner in owners])
    engine: Any = SimpleNamespace(services=services)
    rule = PolicyRule(
        name="[default]",
        access=AccessLevel.RUN,
        shares={Share.CONTAINERS: 0, Share.NETWORKS: most, Share.VOLUMES: 0},
    )
    log: Any = Log()
    counter: Counter[tuple[Share, str]] = Counter()
    policy = Policy(users=dict.fromkeys(uids, rule))
    return [Session(engine, Caller(uid=uid), policy, log, None, counter) for uid in uids]


def test_what_is_being_created_counts_on_every_connection_until_it_ends() -> None:
    one, same, other = sessions(2, ["5", "7"], 5, 5, 6)
    with one.begin("network create", "a") as action:
        action.reserve(Share.NETWORKS)
        with pytest.raises(NotAuthorized, match="more than 2 networks"):  # noqa: SIM117
            with same.begin("network create", "b") as second:
                second.reserve(Share.NETWORKS)
        with other.begin("network create", "c") as third:
            third.reserve(Share.NETWORKS, 2)
    with same.begin("network create", "b") as again:
        again.reserve(Share.NETWORKS)


def test_a_failed_action_frees_its_reservation() -> None:
    (one,) = sessions(1, [], 5)

    def fail() -> None:
        with one.begin("network create", "a") as action:
            action.reserve(Share.NETWORKS)
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()


class Images:
    """An image store of which every caller has the same."""

    def __init__(self, images: int, size: int) -> None:
        self.amount = Usage(images, size)
        self.names = {"app:1"}

    def usage(self, owner: str) -> Usage:
        return self.amount

    def name_count(self, owner: str) -> int:
        return len(self.names)

    def more_names(self, owner: str, names: tuple[str, ...]) -> set[str]:
        return {*names} - self.names


def image_sessions(images: int, size: int, *uids: int) -> list[Session]:
    """Return sessions of users who have these images, and may have 3 and 20 MiB of them."""
    config = SimpleNamespace(paths=SimpleNamespace(root="/"))
    engine: Any = SimpleNamespace(
        services=SimpleNamespace(
            images=Images(images, size), config=config, host=SimpleNamespace(pids_limit=0)
        )
    )
    shares = {
        **DEFAULT_SHARES,
        Share.IMAGES: 3,
        Share.IMAGE_SIZE: 20 << 20,
        Share.IMAGE_NAMES: 3,
    }
    rule = PolicyRule(name="[default]", access=AccessLevel.RUN, shares=shares)
    log: Any = Log()
    counter: Counter[tuple[Share, str]] = Counter()
    policy = Policy(users=dict.fromkeys(uids, rule))
    return [Session(engine, Caller(uid=uid), policy, log, None, counter) for uid in uids]


@pytest.mark.parametrize(
    ("images", "size", "text"),
    [
        (4, 0, "may not have more than 3 images: rule [default] does not allow it"),
        (1, (20 << 20) + 1, "may not have more than 20MiB of images: rule [default]"),
    ],
)
def test_an_image_above_a_share_is_refused(images: int, size: int, text: str) -> None:
    (session,) = image_sessions(0, 0, 54001)
    quota = session.image_quota()
    assert quota.owner == "54001"
    quota.check(lambda: Usage(3, 20 << 20))
    with pytest.raises(NotAuthorized) as refused:
        quota.check(lambda: Usage(images, size))
    assert text in refused.value.message
    assert refused.value.hint is not None
    assert f"raise max-{'images' if images > 3 else 'image-size'}" in refused.value.hint
    more = {Share.IMAGES: 4, Share.IMAGE_SIZE: 1 << 30}
    rule = PolicyRule(name="[default]", access=AccessLevel.RUN, shares=more)
    session.follow(Policy(users={54001: rule}))
    quota.check(lambda: Usage(images, size))  # a reload applies to what is under way


def test_an_administrator_may_have_any_images() -> None:
    (session,) = image_sessions(1000, 1 << 40, 5)
    shares = {Share.IMAGES: 0, Share.IMAGE_SIZE: 0, Share.IMAGE_NAMES: 0}
    session.rule = PolicyRule(name="root", access=AccessLevel.ALL, shares=shares)
    with session.begin("image load", "") as action:
        quota = action.reserve_image("app:1", "app:2")
        quota.check(lambda: Usage(1000, 1 << 40))
        quota.check_names(1000)


@pytest.mark.parametrize(
    ("images", "size", "refused"),
    [
        (2, (20 << 20) - 1, ""),
        (3, 0, "3 images"),
        (0, 20 << 20, "20MiB of images"),
    ],
)
def test_a_caller_who_has_its_share_is_refused_before_an_image_arrives(
    images: int, size: int, refused: str
) -> None:
    one, same, other = image_sessions(images, size, 5, 5, 6)
    with one.begin("image load", "") as action:
        if refused:
            with pytest.raises(NotAuthorized, match=refused):
                action.reserve_image()
            return
        action.reserve_image()
        with pytest.raises(NotAuthorized), same.begin("image load", "") as second:
            second.reserve_image()
        with other.begin("image load", "") as third:
            third.reserve_image()
    with same.begin("image load", "") as again:
        again.reserve_image()


def test_a_name_above_the_share_is_refused() -> None:
    (session,) = image_sessions(0, 0, 54001)
    quota = session.image_quota()
    quota.check_names(3)
    with pytest.raises(NotAuthorized, match="may not have more than 3 names of images") as refused:
        quota.check_names(4)
    assert refused.value.hint is not None
    assert "raise max-image-names" in refused.value.hint


def test_names_that_requests_bring_at_the_same_time_are_counted() -> None:
    one, same, other = image_sessions(0, 0, 5, 5, 6)
    with one.begin("image build", "") as action:
        action.reserve_image("app:1", "app:2", "app:3")  # it has the first one
        with (
            pytest.raises(NotAuthorized, match="3 names of images"),
            same.begin("image build", "") as second,
        ):
            second.reserve_image("app:4")
        with same.begin("image build", "") as third:
            third.reserve_image("app:1")
        with other.begin("image build", "") as fourth:
            fourth.reserve_image("app:4")
    with same.begin("image build", "") as again:
        again.reserve_image("app:4")


def test_root_has_no_share() -> None:
    (session,) = sessions(0, [], 5)
    session.rule = PolicyRule(name="root", access=AccessLevel.ALL)
    with session.begin("network create", "a") as action:
        action.reserve(Share.NETWORKS, 1000)


@pytest.mark.parametrize(
    ("owner", "controls"), [("5", True), ("", False), ("0", False), ("6", False), ("15", False)]
)
def test_networks_and_volumes_belong_to_their_owner(owner: str, controls: bool) -> None:
    (session,) = sessions(1, [], 5)
    volume = Volume("v", "/v/_data", "", owner=owner)
    assert session.controls(volume) == controls
    session.rule = PolicyRule(
        name="[default]", access=AccessLevel.RUN, container_access=ContainerAccess.CONTROL
    )
    assert session.controls(volume)


def record_sessions(root: Path, *uids: int, **owned: int) -> list[Session]:
    """Return sessions of users who may have 1,000 bytes of records; ``owned`` are bytes of 5."""
    stores = {}
    for name in ("container_store", "network_store", "secrets", "execs"):
        stores[name] = SimpleNamespace(sizes=OwnedSizes())
        stores[name].sizes.set("a", "5", owned.get(name, 0))
    execs, secrets = stores.pop("execs"), stores.pop("secrets")
    volumes = SimpleNamespace(document_bytes={"5": owned.get("volumes", 0), "6": 0}.__getitem__)
    services = SimpleNamespace(
        **stores,
        hooks=Hooks(feature.features()),
        service=lambda make: secrets,
        volumes=volumes,
        config=SimpleNamespace(paths=SimpleNamespace(root=root), policy="/policy"),
        host=SimpleNamespace(pids_limit=4096, rootless=False),
    )
    engine: Any = SimpleNamespace(services=services, execs=execs)
    ceilings = Ceilings(record_size=1000, image_documents=100)
    rule = PolicyRule(name="[default]", access=AccessLevel.RUN, ceilings=ceilings)
    log: Any = Log()
    counter: Counter[tuple[Share, str]] = Counter()
    policy = Policy(users=dict.fromkeys(uids, rule))
    return [Session(engine, Caller(uid=uid), policy, log, None, counter) for uid in uids]


@pytest.mark.parametrize(
    "kind", ["container_store", "network_store", "secrets", "execs", "volumes"]
)
def test_the_records_of_every_kind_count_together(tmp_path: Path, kind: str) -> None:
    (session,) = record_sessions(tmp_path, 5, **{kind: 900})
    with session.begin("container create", "a") as action:
        action.reserve(Share.RECORD_SIZE, 100)
        with pytest.raises(NotAuthorized, match="may not have more than 1000B of records") as error:
            action.reserve(Share.RECORD_SIZE)
    assert "max-record-size" in str(error.value.hint)


def test_two_creates_at_the_same_time_do_not_exceed_the_bytes_together(tmp_path: Path) -> None:
    one, same, other = record_sessions(tmp_path, 5, 5, 6)
    labels = VolumeCreate(labels={"a": "x" * 500})
    with one.begin("volume create", "a") as action:
        action.reserve_document(labels)
        with pytest.raises(NotAuthorized), same.begin("volume create", "b") as second:
            second.reserve_document(labels)
        with other.begin("volume create", "c") as third:
            third.reserve_document(labels)
    with same.begin("volume create", "b") as again:
        again.reserve_document(labels)


def test_a_change_of_a_container_of_another_owner_counts_for_that_owner(tmp_path: Path) -> None:
    own, other = record_sessions(tmp_path, 5, 6, container_store=700)
    container: Any = SimpleNamespace(record=SimpleNamespace(owner="5"))
    with other.begin("container update", "a") as action:
        action.reserve(Share.RECORD_SIZE, 1000)  # its own
        with pytest.raises(NotAuthorized, match="may not let uid 5 have more than 1000B"):
            action.reserve_change(container, VolumeCreate(labels={"a": "x" * 80}))
    with own.begin("container update", "a") as action:
        action.reserve_change(container, VolumeCreate())


def test_an_administrator_may_have_any_records(tmp_path: Path) -> None:
    (session,) = record_sessions(tmp_path, 5, secrets=5000)
    session.rule = PolicyRule(name="root", access=AccessLevel.ALL)
    with session.begin("volume create", "a") as action:
        action.reserve_document(VolumeCreate(labels={"a": "x" * 5000}))


def test_the_documents_of_images_have_a_share(tmp_path: Path) -> None:
    (session,) = record_sessions(tmp_path, 5)
    quota = session.image_quota()
    quota.check(lambda: Usage(1, 10, 100))
    with pytest.raises(NotAuthorized, match="more than 100B of configurations and manifests"):
        quota.check(lambda: Usage(1, 10, 101))
