"""Links to the web view, and the users that it speaks for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.authz.authorization_policy import caller_of
from jaula.errors import Conflict, InvalidRequest, NotAuthorized, NotFound
from jaula.features.web import logins as web_logins
from jaula.features.web.logins import WebLogins, origin_of, user_of
from jaula.spec.api_params import ContainerPeer, Peer, Remote, WebUser

ALICE = WebUser(uid=1000, gid=100)
ROOT = Peer(42, 0, 0, (), None, "jaula-web")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def logins() -> tuple[WebLogins, Clock]:
    clock = Clock()
    made = WebLogins(clock)
    made.url = "http://127.0.0.1:8320"
    return made, clock


def test_a_link_is_valid_once() -> None:
    made, _ = logins()
    code = made.create(ALICE)
    assert made.redeem(code) == ALICE
    with pytest.raises(NotAuthorized, match="not valid"):
        made.redeem(code)


def test_a_link_is_valid_for_a_minute() -> None:
    made, clock = logins()
    code = made.create(ALICE)
    clock.now += web_logins.LINK_SECONDS
    with pytest.raises(NotAuthorized):
        made.redeem(code)


def test_a_link_needs_a_web_view() -> None:
    with pytest.raises(NotFound, match="no web view"):
        WebLogins().create(ALICE)


def test_a_user_has_a_limited_number_of_links() -> None:
    made, clock = logins()
    for _ in range(web_logins.MAX_LINKS_OF_CALLER):
        made.create(ALICE)
    with pytest.raises(Conflict):
        made.create(ALICE)
    made.create(WebUser(uid=1001))
    clock.now += web_logins.LINK_SECONDS
    made.create(ALICE)


def session(peer: Any, *, admin: bool) -> Any:
    def denial(action: str) -> NotAuthorized:
        return NotAuthorized(action)

    return SimpleNamespace(peer=peer, caller=caller_of(peer), is_admin=admin, denial=denial)


def test_root_speaks_for_a_user_of_the_host() -> None:
    text = json.dumps({"uid": 1000, "gid": 100, "groups": [7], "login_uid": 1000, "address": "::1"})
    origin = origin_of(session(ROOT, admin=True), text)
    assert origin == Peer(42, 1000, 100, (7,), 1000, "jaula-web", via="web", address="::1")
    assert caller_of(origin).key == "1000"


def test_root_speaks_for_a_certificate() -> None:
    text = json.dumps({"certificate": "ci", "fingerprint": "sha256:00"})
    origin = origin_of(session(ROOT, admin=True), text)
    assert origin == Remote("", "ci", "sha256:00", via="web")


def test_another_caller_speaks_for_itself_only_and_with_its_own_groups() -> None:
    own = session(Peer(7, 1000, 100, (5,)), admin=False)
    origin = origin_of(own, '{"uid": 1000, "gid": 0, "groups": [0]}')
    assert origin == Peer(7, 1000, 100, (5,), via="web")
    with pytest.raises(NotAuthorized, match="speak for uid 0"):
        origin_of(own, '{"uid": 0}')
    with pytest.raises(NotAuthorized):
        origin_of(own, '{"certificate": "ci", "fingerprint": "sha256:00"}')


def test_a_container_and_an_anonymous_client_speak_for_no_user() -> None:
    for peer in (ContainerPeer("c" * 64, "traefik"), Remote("192.0.2.1"), None):
        with pytest.raises(NotAuthorized):
            origin_of(session(peer, admin=False), '{"uid": 0}')
        with pytest.raises(NotAuthorized):
            user_of(peer)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"uid": "0"}', '{"uid": -1}', '{"uid": 4294967295}', '{"gid": 0}', "{}"),
        *('{"uid": 1, "fingerprint": "x"}', '{"uid": 1, "groups": [-1]}', '{"uid": 1, "extra": 2}'),
        '{"uid": 1, "groups": [' + "1," * 70000 + "1]}",
    ],
)
def test_a_header_that_is_not_valid_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        origin_of(session(ROOT, admin=True), text)
