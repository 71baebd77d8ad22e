"""Who may move containers, and which certificates may bring them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jaula.engine.authz.authorization_policy import AccessLevel, Caller, Policy, PolicyRule
from jaula.engine.authz.caller_session import Session
from jaula.errors import InvalidRequest, NotAuthorized

FINGERPRINT = "sha256:" + "ab" * 32
PEER = Caller(certificate="engine-a", fingerprint=FINGERPRINT)


def rule(access: AccessLevel = AccessLevel.RUN, *, migrate: bool = False) -> PolicyRule:
    return PolicyRule(name="[certificate.engine-a]", access=access, migrate=migrate)


def session(caller: Caller, policy: Policy) -> Session:
    config = SimpleNamespace(policy="/policy")
    host = SimpleNamespace(rootless=False)
    services = SimpleNamespace(config=config, host=host, container_store={})
    engine: Any = SimpleNamespace(services=services)
    trail: Any = None
    return Session(engine, caller, policy, trail, None, Counter())


@pytest.mark.parametrize("key", ["engine-a", FINGERPRINT])
def test_a_named_certificate_with_the_right_is_a_peer(key: str) -> None:
    policy = Policy(certificates={key: rule(migrate=True)})
    assert session(PEER, policy).require_migration_peer() == "engine-a"


@pytest.mark.parametrize(
    ("caller", "policy"),
    [
        (PEER, Policy(certificates={"engine-a": rule()})),
        (PEER, Policy(certificates={"*": rule(AccessLevel.ALL, migrate=True)})),
        (PEER, Policy(default=rule(AccessLevel.ALL, migrate=True))),
        (PEER, Policy(certificates={"engine-a": rule(AccessLevel.READ, migrate=True)})),
        (Caller(uid=0), Policy()),
        (Caller(uid=5), Policy(users={5: rule(AccessLevel.ALL, migrate=True)})),
        (Caller(), Policy(anonymous=rule(AccessLevel.ALL, migrate=True))),
        (Caller(container="c", entry="e"), Policy()),
    ],
)
def test_every_other_caller_is_refused(caller: Caller, policy: Policy) -> None:
    with pytest.raises(NotAuthorized):
        session(caller, policy).require_migration_peer()


def test_a_user_needs_the_right_to_move_a_container_away() -> None:
    with pytest.raises(NotAuthorized, match="move containers to another engine") as caught:
        session(Caller(uid=5), Policy(users={5: rule()})).require_migrate()
    assert "migrate = true" in str(caught.value)
    session(Caller(uid=5), Policy(users={5: rule(migrate=True)})).require_migrate()
    session(Caller(uid=0), Policy()).require_migrate()


@pytest.mark.parametrize(
    ("listed", "target", "allowed"),
    [
        ((), "b.example", False),
        (("b.example:2376",), "tcp://b.example", True),
        (("b.example:2376",), "tcp://B.Example:2376", True),
        (("b.example:2376",), "b.example:2377", False),
        (("b.example:2376",), "b.example.evil:2376", False),
        (("[2001:db8::1]:2376",), "tcp://[2001:DB8::1]", True),
        (("*",), "anything:1", True),
    ],
)
def test_a_user_moves_containers_to_listed_targets(
    listed: tuple[str, ...], target: str, allowed: bool
) -> None:
    own = msgspec.structs.replace(rule(migrate=True), migrate_to=frozenset(listed))
    caller = session(Caller(uid=5), Policy(users={5: own}))
    if allowed:
        caller.require_migration_target(target)
    else:
        with pytest.raises(NotAuthorized, match="move containers to") as caught:
            caller.require_migration_target(target)
        assert "migrate-to = [" in str(caught.value)
    session(Caller(uid=0), Policy()).require_migration_target(target)


def test_a_target_without_the_right_or_without_an_address_is_refused() -> None:
    own = msgspec.structs.replace(rule(), migrate_to=frozenset({"*"}))
    with pytest.raises(NotAuthorized, match="to another engine"):
        session(Caller(uid=5), Policy(users={5: own})).require_migration_target("b")
    with pytest.raises(InvalidRequest, match="not an address"):
        session(Caller(uid=0), Policy()).require_migration_target("unix:///x")
