"""Sessions of browsers and the limits of logins."""

from __future__ import annotations

import pytest

from jaula.errors import Conflict, NotAuthorized
from jaula.features.web import sessions
from jaula.features.web.sessions import LoginLimiter, Sessions
from jaula.spec.api_params import WebUser

ALICE, BOB = WebUser(uid=1000), WebUser(uid=1001)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_only_the_identifier_finds_a_session(clock: Clock) -> None:
    store = Sessions(clock)
    identifier, session = store.create(ALICE, "link")
    assert store.find(identifier) is session
    assert store.find("") is None
    assert store.find(identifier + "x") is None


def test_a_session_ends_when_it_is_idle(clock: Clock) -> None:
    store = Sessions(clock, idle=60)
    identifier, _ = store.create(ALICE, "link")
    clock.now += 59
    assert store.find(identifier) is not None
    clock.now += 59
    assert store.find(identifier) is not None
    clock.now += 60
    assert store.find(identifier) is None


def test_an_open_stream_keeps_a_session_but_not_beyond_its_lifetime(clock: Clock) -> None:
    store = Sessions(clock, idle=60, lifetime=3600)
    identifier, session = store.create(ALICE, "link")
    session.streams = 1
    clock.now += 3000
    store.expire()
    assert len(store) == 1
    clock.now += 600
    assert store.find(identifier) is None


def test_the_end_of_a_session_closes_its_streams(clock: Clock) -> None:
    store = Sessions(clock)
    identifier, session = store.create(ALICE, "link")
    closed: list[str] = []
    session.closers.add(lambda: closed.append("stream"))
    store.end(identifier)
    assert closed == ["stream"]
    assert store.find(identifier) is None
    store.end(identifier)
    assert closed == ["stream"]


def test_a_user_has_a_limited_number_of_sessions(clock: Clock) -> None:
    store = Sessions(clock)
    first, _ = store.create(ALICE, "link")
    for _ in range(sessions.MAX_SESSIONS_OF_USER):
        clock.now += 1
        store.create(ALICE, "link")
    assert store.find(first) is None
    assert len(store) == sessions.MAX_SESSIONS_OF_USER


def test_users_together_have_a_limited_number_of_sessions(clock: Clock) -> None:
    store = Sessions(clock)
    for number in range(sessions.MAX_SESSIONS):
        store.create(WebUser(uid=number), "link")
    with pytest.raises(Conflict, match="too many sessions"):
        store.create(WebUser(uid=5000), "link")


def test_failed_logins_of_an_address_are_limited_for_a_minute(clock: Clock) -> None:
    limiter = LoginLimiter(clock)
    for _ in range(sessions.LOGINS):
        limiter.check("192.0.2.1")
        limiter.fail("192.0.2.1")
    with pytest.raises(NotAuthorized, match="too many logins have failed"):
        limiter.check("192.0.2.1")
    limiter.check("192.0.2.2")
    clock.now += sessions.LOGIN_WINDOW
    limiter.check("192.0.2.1")


def test_failed_logins_of_many_addresses_are_limited_together(clock: Clock) -> None:
    limiter = LoginLimiter(clock)
    for number in range(sessions.ALL_LOGINS):
        limiter.fail(f"192.0.2.{number}")
    with pytest.raises(NotAuthorized):
        limiter.check("198.51.100.1")
