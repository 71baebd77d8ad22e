"""A caller's share counts what it has and what is being created. Objects have an owner."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.authz.limits import Share
from jaula.engine.authz.policy import AccessLevel, Caller, ContainerAccess, Policy, PolicyRule
from jaula.engine.authz.session import Session
from jaula.errors import NotAuthorized
from jaula.storage.volumes import Volume


class Log:
    """An audit log that keeps the entries."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def check(self, caller: str) -> None:
        return

    def append(self, entry: Any, caller: str) -> None:
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


def test_root_has_no_share() -> None:
    (session,) = sessions(0, [], 5)
    session.rule = PolicyRule(name="root", access=AccessLevel.ALL)
    with session.begin("network create", "a") as action:
        action.reserve(Share.NETWORKS, 1000)


@pytest.mark.parametrize(
    ("owner", "controls"), [("5", True), ("", True), ("0", False), ("6", False), ("15", False)]
)
def test_networks_and_volumes_belong_to_their_owner(owner: str, controls: bool) -> None:
    (session,) = sessions(1, [], 5)
    volume = Volume("v", "/v/_data", "", owner=owner)
    assert session.controls(volume) == controls
    session.rule = PolicyRule(
        name="[default]", access=AccessLevel.RUN, container_access=ContainerAccess.CONTROL
    )
    assert session.controls(volume)
