"""Who may move containers, and which certificates may bring them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.authz.policy import AccessLevel, Caller, Policy, PolicyRule
from jaula.engine.authz.session import Session
from jaula.errors import NotAuthorized

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
